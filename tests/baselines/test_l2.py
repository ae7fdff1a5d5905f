"""L2 against a walk of numpy's, one pull for each earlier task, and against EWC with every weight's information 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fipbench.baselines import ewc, l2
from restated import apart, flat, walk
from streams import CLASSES, Bench, Watched, load

from fipbench.tracks import avalanche

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("l2"), cache_dir, base="{ epochs = 6, batch_size = 16, learning_rate = 0.02 }")


def ends(bench, learn):
    seen = Watched(learn)
    bench.run(seen)
    return seen


def test_it_is_pulled_to_where_it_was_after_every_earlier_task(bench):
    strength = 0.5
    seen = ends(bench, load("l2", strength=strength, learning_rate=RATE))
    past, weights = [], seen.starts[0]
    assert len(CLASSES) > 2  # so that two anchors pull
    for number in range(len(CLASSES)):
        if number:

            def change(weights, slope, batch):
                return {k: slope[k] + sum(strength * (weights[k] - anchor[k]) for anchor in past) for k in slope}

            path = walk(weights, seen.batches[number], change, RATE)
            plain = walk(weights, seen.batches[number], lambda weights, slope, batch: slope, RATE)
            assert apart(seen.ends[number], path[-1], weights) < 0.001 * apart(plain[-1], path[-1], weights)
            weights = path[-1]
        past.append(weights)


def test_it_is_ewc_with_every_weight_alike(bench, monkeypatch):
    def ones(model, examples, criterion):
        return {name: torch.ones_like(value) for name, value in model.named_parameters()}

    monkeypatch.setattr(ewc, "fisher", ones)
    own = ends(bench, l2.l2(strength=0.5, learning_rate=RATE))
    control = ends(bench, avalanche.learner(ewc.ewc(strength=0.5, learning_rate=RATE)))
    np.testing.assert_allclose(flat(own.ends[-1]), flat(control.ends[-1]), rtol=1e-3, atol=1e-5)


def test_without_strength_it_is_fine_tuning_to_the_bit(bench):
    found = [
        ends(bench, load(name, learning_rate=RATE, **more)).ends[-1]
        for name, more in (("l2", {"strength": 0.0}), ("naive", {}))
    ]
    assert np.array_equal(*map(flat, found))


def test_the_stronger_the_nearer(bench):
    def moved(strength):
        seen = ends(bench, load("l2", strength=strength, learning_rate=RATE))
        return np.linalg.norm(flat(seen.ends[-1]) - flat(seen.ends[0]))

    far = [moved(strength) for strength in (0.0, 0.1, 1.0, 10.0)]
    assert far == sorted(far, reverse=True) and far[-1] < 0.2 * far[0]


def test_it_goes_on_from_what_it_saved():
    network = torch.nn.Linear(2, 1)
    first, other = l2.l2(), l2.l2()
    assert first.state_dict() == {}
    other.load_state_dict(first.state_dict())
    assert other == first
    first.center, first.tasks = torch.nn.utils.parameters_to_vector(network.parameters()).detach(), 3
    other.load_state_dict(first.state_dict())
    assert other.tasks == 3 and torch.equal(other.center, first.center)
