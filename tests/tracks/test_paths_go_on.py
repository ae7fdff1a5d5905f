"""A stopped job of the connectivity track goes on after the last network of its path, or with measuring a whole one,
and its record is an undisturbed one's to the bit."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from connectivity_lab import Lab

from fipbench import registry
from fipbench.tracks import connectivity, partial


class Stopped(Exception):
    """The process ends here."""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("going-on"))


@pytest.fixture(autouse=True)
def _always_kept(monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)


class Walk:
    """Six networks on a way that is drawn as it goes, one batch each; what it draws next depends on where it stands."""

    networks = 6

    def __init__(self, stop=None, forgets=False):
        self.at, self.stop, self.forgets, self.made = None, stop, forgets, []

    def __call__(self, first, second, trial):
        if self.at is None:
            self.at = torch.cat([p.detach().flatten() for p in first.parameters()])
        for number in range(trial.finished, self.networks):
            if number == self.stop:
                raise Stopped
            self.made.append(number)
            batch = next(trial.batches)
            first(batch.inputs)  # counted
            draw = torch.randn(self.at.shape, generator=trial.generator) + random.random() + np.random.rand()
            self.at = self.at + 0.01 * draw * batch.labels.float().mean()
            network = copy.deepcopy(first)
            torch.nn.utils.vector_to_parameters(self.at, network.parameters())
            yield network

    def state_dict(self):
        return {} if self.forgets else {"at": self.at}

    def load_state_dict(self, state):
        self.at = state.get("at")


def seen(outcome):
    meter = outcome.meter
    cost = (meter.forward, meter.backward, outcome.parameters_stored)
    return outcome.metrics, outcome.curves, outcome.items, outcome.notes, cost


def run(course, path, **job):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    return seen(course.run(path, **job))


def kept(course):
    return list((course.cache / "partial").iterdir())


def test_networks_that_were_given_are_not_made_again(course):
    whole = run(course, Walk())
    assert not kept(course), "a finished job left its unfinished work behind"
    for number in (1, 4):
        with pytest.raises(Stopped):
            run(course, Walk(stop=number))
        again = Walk()
        assert run(course, again) == whole
        assert again.made == list(range(number, 6))


def test_a_method_must_say_all_it_holds(course):
    whole = run(course, Walk())
    with pytest.raises(Stopped):
        run(course, Walk(stop=3, forgets=True))
    assert run(course, Walk()) != whole


def test_a_method_without_state_starts_again(course):
    class Bare:
        def __init__(self, **how):
            self.walk = Walk(**how)

        def __call__(self, *given):
            return self.walk(*given)

    whole = run(course, Bare())
    with pytest.raises(Stopped):
        run(course, Bare(stop=3))
    assert not kept(course)
    again = Bare()
    assert run(course, again) == whole and again.walk.made == list(range(6))


@pytest.mark.parametrize("name", ["linear", "bezier"])
def test_a_job_that_is_stopped_while_its_path_is_measured_makes_none_again(name, course, monkeypatch):
    def stops(*_):
        raise Stopped

    def unwanted(*_):
        raise AssertionError("the path was whole")

    made = registry.load_factory(course.method(name).target)
    whole = run(course, made(), method=name)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(connectivity, "score", stops)
        run(course, made(), method=name)
    assert run(course, unwanted, method=name) == whole
    assert not kept(course)


def test_a_path_that_would_not_be_in_memory_twice_is_not_kept(course, monkeypatch):
    monkeypatch.setattr(connectivity, "KEPT_BYTES", 1)
    with pytest.raises(Stopped):
        run(course, Walk(stop=3))
    assert not kept(course)


def test_the_time_of_the_process_that_was_stopped_counts(course, monkeypatch):
    now, ticks = partial.time.monotonic, iter(range(0, 10_000, 100))
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(partial.time, "monotonic", lambda: now() + next(ticks))
        course.run(Walk(stop=3))
    assert course.run(Walk()).earlier_s >= 100
