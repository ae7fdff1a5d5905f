"""Joint training against a loop written out: from the initial weights, on all tasks so far."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from streams import CLASSES, Bench, Watched, load, weights_of

from fipbench import models, registry
from fipbench.tracks.common import generator_for, seed_for


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir)


@pytest.fixture(scope="module")
def joint(bench):
    watched = Watched(load("joint", learning_rate=0.04))
    return bench.run(watched, method="joint"), watched


def by_hand(bench, epochs):
    """The networks after the second and the third task."""
    job = bench.job("joint")
    order, found = generator_for(job, "choices"), []
    for number in (1, 2):
        parts = [bench.part("train", own) for own in CLASSES[: number + 1]]
        x, y = (torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True))
        x = x.reshape(-1, 1, 8, 8).float()
        network = models.build(bench.task.model, seed_for(job, "weights"))
        rule = torch.optim.SGD(network.parameters(), lr=0.04, momentum=0.9)
        for _ in range(epochs):
            shuffled = torch.randperm(len(y), generator=order)
            for start in range(0, len(y) - 15, 16):
                index = shuffled[start : start + 16]
                rule.zero_grad()
                torch.nn.functional.cross_entropy(network(x[index]), y[index]).backward()
                rule.step()
        found.append(weights_of(network))
    return found


def test_it_is_a_loop_over_all_tasks_from_the_initial_weights(bench, joint):
    for got, wanted in zip(joint[1].ends[1:], by_hand(bench, 2), strict=True):
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_it_can_train_longer_than_the_recipe(bench):
    watched = Watched(load("joint", learning_rate=0.04, epochs=3))
    bench.run(watched, method="joint")
    for got, wanted in zip(watched.ends[1:], by_hand(bench, 3), strict=True):
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_the_first_network_is_everybodys_and_stays_as_it_is(bench, joint):
    watched = joint[1]
    assert all(np.array_equal(watched.ends[0][name], watched.starts[0][name]) for name in watched.starts[0])
    # The given network is not the one that is trained.
    assert all(np.array_equal(watched.starts[2][name], watched.starts[0][name]) for name in watched.starts[0])


def test_it_is_an_upper_bound_and_a_reference(bench, joint):
    outcome, _ = joint
    assert registry.load_factory(registry.find_methods("continual")["joint"]).fipbench.role == "reference"
    others = [bench.run(load("naive", learning_rate=0.04)), bench.run(load("replay", memory=10), memory=10)]
    assert outcome.metrics["average_accuracy/class"] > 0.9 > max(o.metrics["average_accuracy/class"] for o in others)
    assert outcome.metrics["forgetting/class"] < 0.05


def test_it_pays_for_what_it_does(bench, joint):
    sizes = np.cumsum([len(bench.part("train", own)[1]) for own in CLASSES])
    steps = 2 * (sizes[0] // 16 + sizes[1] // 16 + sizes[2] // 16)
    assert joint[0].meter.forward == joint[0].meter.backward == 16 * steps
