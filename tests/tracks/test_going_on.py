"""A job that is stopped goes on after the last task it learned, or the last member or sparsity it made, and its
record is an undisturbed one's to the bit."""

from __future__ import annotations

import random
from importlib.metadata import version

import msgspec
import numpy as np
import pytest
import torch
from robustness_lab import Lab
from streams import Bench, load

from fipbench import registry
from fipbench.tracks import continual, partial, robustness

METHODS = ("replay", "der", "der++", "fip", "fip-paper", "fip-authors-code", "ewc", "l2", "si", "packnet")


class Stopped(Exception):
    """The process ends here."""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    return Bench(tmp_path, tmp_path / "cache")


@pytest.fixture
def begun(monkeypatch):
    """Numbers of the tasks that were begun; the job is stopped before those in `begun.stop`."""
    made = continual._experience

    class Begun(list):
        stop: tuple[int, ...] = ()

    found = Begun()

    def experience(task, job, number, part):
        if number in found.stop:
            raise Stopped
        found.append(number)
        return made(task, job, number, part)

    monkeypatch.setattr(continual, "_experience", experience)
    return found


def seen(outcome):
    """All of an outcome that a record's equality is about."""
    meter = outcome.meter
    return (
        outcome.metrics,
        outcome.curves,
        outcome.items,
        (meter.forward, meter.backward, outcome.parameters_stored, outcome.examples_stored),
    )


def run(bench, name, make=load):
    memory = {"memory": 4} if "memory" in bench.method(name).defaults else {}
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return bench.run(make(name, **memory), method=name, **memory)


@pytest.mark.parametrize("name", METHODS)
def test_the_record_is_that_of_an_undisturbed_job(name, bench, begun):
    whole = seen(run(bench, name))
    assert not list((bench.cache / "partial").iterdir()), "a finished job left its unfinished work behind"
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, name)
    begun.stop = ()
    begun.clear()
    again = seen(run(bench, name))
    assert 2 in begun and begun.count(1) <= 1  # (once, to remember its examples)
    assert again == whole


def test_learned_tasks_are_not_learned_again(bench, begun):
    learned = []

    def make(name, **params):
        method = load(name, **params)
        learn = type(method).__call__

        class Counted(type(method)):
            def __call__(self, model, experience, trial):
                learned.append(experience.number)
                return learn(self, model, experience, trial)

        return Counted(method.term, method.fitting, method.noted)

    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "fip", make)
    begun.stop = ()
    run(bench, "fip", make)
    assert learned == [0, 1, 2]


class Drawing:
    """Draws from everybody's generators, and holds one number."""

    def __init__(self, forgets=False):
        self.total = torch.zeros(1)
        self.forgets = forgets

    def __call__(self, model, experience, trial):
        self.total += torch.rand(1) + np.random.rand() + random.random()
        with torch.no_grad():
            next(model.parameters()).add_(1e-3 * self.total)
        trial.fit(model, experience, learning_rate=0.01)

    def state_dict(self):
        return {} if self.forgets else {"total": self.total}

    def load_state_dict(self, state):
        self.total = state.get("total", self.total)


@pytest.mark.parametrize("forgets", [False, True])
def test_everybodys_generators_go_on_and_a_method_must_say_all_it_holds(forgets, bench, begun):
    whole = seen(run(bench, "naive", lambda name: Drawing(forgets)))
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "naive", lambda name: Drawing(forgets))
    begun.stop = ()
    assert (seen(run(bench, "naive", lambda name: Drawing(forgets))) == whole) is not forgets


@pytest.mark.parametrize("force", [False, True])
def test_a_job_that_is_to_be_computed_again_is_begun_again(force, bench, begun):
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "ewc")
    begun.stop = ()
    begun.clear()
    assert bench.record(bench.job("ewc"), force=force).status == "ok"
    assert begun == ([0, 1, 2] if force else [2])


def test_the_time_of_the_process_that_was_stopped_counts(bench, begun, monkeypatch):
    now = partial.time.monotonic
    with monkeypatch.context() as patch:
        begun.stop = (2,)
        ticks = iter(range(0, 10_000, 100))
        patch.setattr(partial.time, "monotonic", lambda: now() + next(ticks))
        with pytest.raises(Stopped):
            run(bench, "fip")
    begun.stop = ()
    assert run(bench, "fip").earlier_s >= 100


def test_a_method_without_state_starts_again(bench, begun):
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "naive")
    assert not (bench.cache / "partial").exists()
    begun.stop = ()
    begun.clear()
    run(bench, "naive")
    assert begun == [0, 1, 2]


def test_unfinished_work_that_is_damaged_is_not_used(bench, begun):
    whole = seen(run(bench, "fip"))
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "fip")
    [file] = (bench.cache / "partial").iterdir()
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    begun.stop = ()
    begun.clear()
    assert seen(run(bench, "fip")) == whole and begun == [0, 1, 2]


def test_work_of_other_settings_is_not_used(bench, begun):
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "fip")
    begun.stop = ()
    begun.clear()
    bench.run(load("fip", memory=4, strength=2.0), method="fip", memory=4, strength=2.0)
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("whose", ["fipbench", "torch"])
def test_work_of_another_version_is_not_used(whose, bench, begun, monkeypatch):
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "fip")
    begun.stop = ()
    begun.clear()
    monkeypatch.setattr(partial, "version", lambda package: "0.0.1" if package == whose else version(package))
    partial.Partial(bench.job("fip", memory=4), bench.cache).drop()  # that of the other version
    assert len(list((bench.cache / "partial").iterdir())) == 1
    assert partial.Partial(bench.job("fip", memory=4), bench.cache).load() is None


def test_a_short_job_keeps_nothing(bench, begun, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 600.0)
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "fip")
    assert not (bench.cache / "partial").exists()


# -------------------------------------------------------------------------------------------------- robustness


@pytest.fixture
def vote(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    return Lab(tmp_path)


class Members:
    """A method of the suite that notes which members it trains, from 0, and is stopped when it comes to `stop`."""

    def __init__(self, vote, name, stop=None):
        self.method = registry.load_factory(vote.method(name).target)()
        self.trained, self.stop = [], stop

    def __call__(self, model, trial):
        fit = type(trial).fit

        def noting(trial, network, **how):
            if len(self.trained) == self.stop:
                raise Stopped
            self.trained.append(trial.finished)
            return fit(trial, network, **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(trial), "fit", noting)
            yield from self.method(model, trial)

    def __getattr__(self, name):  # the state, if the method offers one
        return getattr(self.method, name)


def test_members_that_are_made_are_not_made_again(vote):
    whole = seen(vote.run(Members(vote, "deep-ensemble"), method="deep-ensemble"))
    assert not list((vote.cache / "partial").iterdir())
    with pytest.raises(Stopped):
        vote.run(Members(vote, "deep-ensemble", stop=1), method="deep-ensemble")
    again = Members(vote, "deep-ensemble")
    assert seen(vote.run(again, method="deep-ensemble")) == whole
    assert again.trained == [2], "the second of two was due, with two members finished"


def test_members_without_state_are_made_again(vote):
    whole = seen(vote.run(Members(vote, "snapshot"), method="snapshot"))
    with pytest.raises(Stopped):
        vote.run(Members(vote, "snapshot", stop=0), method="snapshot")
    assert not list((vote.cache / "partial").iterdir())
    assert seen(vote.run(Members(vote, "snapshot"), method="snapshot")) == whole


@pytest.mark.parametrize("name", ["snapshot", "deep-ensemble", "single"])
def test_a_job_stopped_among_its_attacks_makes_no_member_again(name, vote, monkeypatch):
    def stops(*_):
        raise Stopped

    whole = seen(vote.run(Members(vote, name), method=name))
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(robustness, "_score", stops)
        vote.run(Members(vote, name), method=name)

    def unwanted(model, trial):
        raise AssertionError("all members were there")

    assert seen(vote.run(unwanted, method=name)) == whole
    assert not list((vote.cache / "partial").iterdir())


# ---------------------------------------------------------------------------------------------------- sparsity

LEVEL_BY_LEVEL = (
    "magnitude-finetune",
    "random",
    "lth",
    "gradual",
    "gradual-distill",
    "fip",
    "fip-paper",
    "fip-authors-code",
)


def stopped(prune, before=None):
    """The method, stopped when the level of that number is due; and what it yields."""

    class Stopping:
        yielded: list[float]

        def __init__(self):
            self.yielded = []

        def __call__(self, model, sparsities, trial):
            for level, network in prune(model, sparsities, trial):
                if before is not None and trial.finished + len(self.yielded) == before:
                    raise Stopped
                self.yielded.append(level)
                yield level, network

        def __getattr__(self, name):  # the state, if the method offers one
            return getattr(prune, name)

    return Stopping()


@pytest.mark.parametrize("name", LEVEL_BY_LEVEL)
def test_sparsities_that_are_reached_are_not_walked_to_again(name, lab, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    task = msgspec.structs.replace(lab.task, sparsities=(0.5, 0.8, 0.9))

    def made():
        return registry.load_factory(lab.method(name).target)()

    def run(prune):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return seen(lab.run(prune, task, method=name))

    whole = run(made())
    assert not list((lab.cache / "partial").iterdir()), "a finished job left its unfinished work behind"
    for number in (1, 2):
        with pytest.raises(Stopped):
            run(stopped(made(), before=number))
        again = stopped(made())
        assert run(again) == whole
        assert again.yielded == [0.5, 0.8, 0.9][number:]


def test_pruning_without_state_starts_again(lab, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    prune = registry.load_factory(lab.method("magnitude").target)()
    with pytest.raises(Stopped):
        lab.run(stopped(prune, before=1), method="magnitude")
    again = stopped(prune)
    lab.run(again, method="magnitude")
    assert again.yielded == [0.5, 0.9]
