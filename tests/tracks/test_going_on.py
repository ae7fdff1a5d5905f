"""A job that is stopped goes on after the last task it learned, and its record is an undisturbed one's to the bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from streams import Bench, load

from fipbench.tracks import continual, partial

METHODS = ("replay", "der", "der++", "fip", "fip-paper", "fip-authors-code", "ewc", "si")


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


def test_a_short_job_keeps_nothing(bench, begun, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 600.0)
    begun.stop = (2,)
    with pytest.raises(Stopped):
        run(bench, "fip")
    assert not (bench.cache / "partial").exists()
