"""Synaptic intelligence against its equations: the line integral along the recorded path, the penalty by a walk."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np
import pytest
import torch
from restated import apart, flat, own_gradient, walk
from streams import Bench, Watched, images, load, logits, softmax, weights_of

from fipbench.tracks import avalanche
from fipbench.training import Batch, Examples

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("si"), cache_dir, base="{ epochs = 6, batch_size = 16, learning_rate = 0.02 }")


class Steps:
    """What a plugin's strategy did: weights and batch of every step, by task; the importances after each."""

    def __init__(self, plugin: Any) -> None:
        self.paths: list[list[np.ndarray]] = []
        self.batches: list[list[Batch]] = []
        self.importances: list[dict[str, np.ndarray]] = []
        self.shares: list[np.ndarray] = []
        hooks = ("before_training_exp", "before_forward", "after_training_exp")
        kept = {name: getattr(plugin, name) for name in hooks}

        def before_training_exp(strategy, **kwargs):
            kept["before_training_exp"](strategy, **kwargs)
            self.paths.append([])
            self.batches.append([])

        def before_forward(strategy, **kwargs):
            kept["before_forward"](strategy, **kwargs)
            self.paths[-1].append(weights_of(strategy.model))
            self.batches[-1].append(strategy.batch)

        def after_training_exp(strategy, **kwargs):
            self.paths[-1].append(weights_of(strategy.model))
            kept["after_training_exp"](strategy, **kwargs)
            self.importances.append({name: v.double().numpy() for name, v in plugin.importance.items()})
            self.shares.append(np.concatenate([v.double().numpy().ravel() for v in plugin.share.values()]))

        for hook in (before_training_exp, before_forward, after_training_exp):
            setattr(plugin, hook.__name__, hook)

    def integral(self, task: int) -> np.ndarray:
        """Minus the sum along the path of the task's own gradient, computed anew, times the step."""
        path, batches = self.paths[task], self.batches[task]
        return -sum(
            flat(own_gradient(before, batch)) * (flat(after) - flat(before))
            for before, after, batch in zip(path[:-1], path[1:], batches, strict=True)
        )


@pytest.mark.parametrize("more", ["", ", clip = 0.3", ', optimizer = "adam", weight_decay = 0.01'])
def test_importances_are_the_line_integrals_over_the_squared_change(tmp_path, cache_dir, more):
    """Of the task's own loss: the penalty, clipping, momentum and weight decay move the weights, they are no loss."""
    base = f"{{ epochs = 2, batch_size = 16, learning_rate = 0.01{more} }}"
    bench = Bench(tmp_path, cache_dir, base=base)
    damping = 0.01
    plugin = load("si", strength=2.0, damping=damping, learning_rate=RATE)
    steps = Steps(plugin)
    bench.run(avalanche.learner(plugin))
    wanted = 0.0
    for task in range(3):
        path = steps.paths[task]
        moved = flat(path[-1]) - flat(path[0])
        wanted = np.maximum(0, wanted + steps.integral(task) / (moved**2 + damping))
        found = flat(steps.importances[task])
        assert (found > 0).mean() > 0.2 and found.min() >= 0
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5 * wanted.max())


def test_the_first_task_is_watched_from_its_beginning_and_costs_nothing_more(bench):
    plugin = load("si", learning_rate=RATE)
    steps, outcome = Steps(plugin), bench.run(plugin)
    epoch = len(bench.part("train", (0, 1))[1]) // 16
    assert len(steps.batches[0]) == bench.task.base.epochs * epoch
    plain = bench.run(load("naive", learning_rate=RATE))
    assert (outcome.meter.forward, outcome.meter.backward) == (plain.meter.forward, plain.meter.backward)
    start = steps.paths[0][0]
    assert not np.array_equal(flat(start), flat(steps.paths[0][-1]))
    assert np.array_equal(flat(steps.paths[0][-1]), flat(steps.paths[1][0]))


def test_with_small_steps_the_shares_add_up_to_the_fall_of_the_loss(tmp_path, cache_dir):
    """Over all examples at once, the integral of a gradient is the difference of its potential."""
    base = "{ epochs = 2, batch_size = 16, learning_rate = 0.02, momentum = 0.0, snapshots = [0] }"
    bench = Bench(tmp_path, cache_dir, base=base, budget="{ epochs = 20, batch_size = 16, factor = 50 }")
    x, y = bench.part("train", (2, 3))
    plugin = load("si", strength=0.0, learning_rate=0.002)
    steps, learn = Steps(plugin), avalanche.learner(plugin)

    def all_at_once(model, experience, trial):
        train = experience.train
        whole = train.batch(torch.arange(len(train.labels)))
        experience.__dict__["batches"] = repeat(whole)
        return learn(model, experience, trial)

    bench.run(all_at_once)
    losses = []
    for weights in (steps.paths[1][0], steps.paths[1][-1]):
        likelihood = softmax(logits(weights, x))[np.arange(len(y)), y]
        losses.append(float(-np.log(likelihood).mean()))
    assert losses[0] - losses[1] > 0.1
    assert steps.shares[1].sum() == pytest.approx(losses[0] - losses[1], rel=0.03)


def test_later_tasks_are_what_the_equation_gives_in_numpy(bench):
    """Every step goes down cross-entropy + strength * importance * (w - w*)^2, w* the end of the task before."""
    strength = 3.0
    plugin = load("si", strength=strength, damping=0.1, learning_rate=RATE)
    steps, seen = Steps(plugin), Watched(avalanche.learner(plugin))
    bench.run(seen)
    for task in (1, 2):
        anchor, importance = seen.starts[task], steps.importances[task - 1]

        def change(weights, slope, batch, anchor=anchor, importance=importance):
            return {k: slope[k] + 2 * strength * importance[k] * (weights[k] - anchor[k]) for k in slope}

        path = walk(anchor, seen.batches[task], change, RATE)
        plain = walk(anchor, seen.batches[task], lambda weights, slope, batch: slope, RATE)
        assert apart(seen.ends[task], path[-1], anchor) < 0.02 * apart(plain[-1], path[-1], anchor)
        assert apart(plain[-1], path[-1], anchor) > 0.01


def test_nothing_of_a_task_is_kept(bench):
    plugin = load("si", learning_rate=RATE)
    bench.run(plugin)
    shapes = {tuple(value.shape) for value in plugin.importance.values()}
    held = [v for v in vars(plugin).values() if isinstance(v, dict)]
    tensors = [t for d in held for v in d.values() for t in (v if isinstance(v, tuple) else (v,))]
    assert tensors and all(tuple(t.shape) in shapes for t in tensors)
    assert not any(isinstance(v, Examples | Batch) for v in vars(plugin).values())


def test_images_are_what_the_network_sees(bench):
    """The restated gradient above is that of the network's own inputs."""
    part = bench.part("train", (0, 1))[0]
    assert images(torch.tensor(part * 255).round().byte()) == pytest.approx(part)
