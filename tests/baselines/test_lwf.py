"""Learning without forgetting against its formula in numpy: softened outputs of old and new network, task by task."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from restated import apart, walk
from streams import CLASSES, Bench, Watched, cross_entropy_slope, gradient, images, load, logits, softmax, total

from fipbench.tracks import avalanche
from fipbench.tracks.continual import Trial
from fipbench.training import Batch, Examples

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("lwf"), cache_dir)


@pytest.fixture(scope="module")
def masked(tmp_path_factory, cache_dir) -> Bench:
    """Each task trained with the softmax over its own outputs."""
    stream = '{ classes = [[0, 1], [2, 3], [4, 5]], score = ["task"], softmax = "task" }'
    return Bench(tmp_path_factory.mktemp("masked"), cache_dir, stream=stream, headline='"average_accuracy/task"')


def distilled(now: np.ndarray, before: np.ndarray, group: list[int], temperature: float) -> np.ndarray:
    """Gradient in the new logits of the mean of -sum p_before log p_now over the group, softened."""
    slope = np.zeros_like(now)
    p_now, p_before = (softmax(z[:, group] / temperature) for z in (now, before))
    slope[:, group] = (p_now - p_before) / temperature / len(now)
    return slope


def masked_slope(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of the mean cross-entropy over the outputs of each example's own task."""
    group = next(list(classes) for classes in CLASSES if y[0] in classes)
    slope = np.zeros_like(z)
    slope[:, group] = cross_entropy_slope(z[:, group], np.array([group.index(label) for label in y]))
    return slope


@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 2.0), (5.0, 1.0), (8.0, 4.0)])
@pytest.mark.parametrize("apart_", [False, True], ids=["one softmax", "a softmax a task"])
def test_every_task_is_what_the_formula_gives_in_numpy(bench, masked, apart_, alpha, temperature):
    world = masked if apart_ else bench
    params = {"alpha": alpha, "temperature": temperature, "learning_rate": RATE}
    seen = Watched(avalanche.learner(load("lwf", **params)))
    world.run(seen)
    for task in (1, 2):
        old = [list(classes) for classes in CLASSES[:task]]
        groups = old if apart_ else [[label for group in old for label in group]]
        start = seen.starts[task]

        def change(weights, slope, batch, groups=groups, start=start, weight=alpha):
            x, y = images(batch.inputs), batch.labels.numpy()
            now, before = logits(weights, x), logits(start, x)
            if apart_:
                slope = gradient(weights, x, masked_slope(now, y))
            keep = [gradient(weights, x, weight * distilled(now, before, g, temperature)) for g in groups]
            return total(slope, *keep)

        path = walk(start, seen.batches[task], change, RATE)
        plain = walk(start, seen.batches[task], lambda *given, change=change: change(*given, weight=0.0), RATE)
        assert apart(plain[-1], path[-1], start) > 0.005
        assert apart(seen.ends[task], path[-1], start) < 0.02 * apart(plain[-1], path[-1], start)


def test_old_outputs_are_recorded_once_a_task(bench):
    outcome = bench.run(load("lwf", learning_rate=RATE))
    plain = bench.run(load("naive", learning_rate=RATE))
    later = sum(len(bench.part("train", classes)[1]) for classes in CLASSES[1:])
    assert outcome.meter.forward == plain.meter.forward + later
    assert outcome.meter.backward == plain.meter.backward
    assert outcome.examples_stored == 0


def test_old_outputs_are_of_the_network_in_use_not_in_training():
    """A network that drops out: what is recorded has no chance in it."""
    plugin = load("lwf")
    assert plugin.lwf.prev_model is None

    class Strategy:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.9)).train()

    train = Examples(torch.rand(6, 3), torch.tensor([2, 3, 2, 3, 2, 3]))
    strategy = Strategy()
    strategy.trial = SimpleNamespace(
        outputs=lambda model, examples: Trial.outputs(None, model, examples), criterion=SimpleNamespace(outputs_of=None)
    )
    strategy.given = SimpleNamespace(classes=(0, 1), train=train)
    plugin.after_training_exp(strategy)
    plugin.before_training_exp(strategy)
    order = torch.tensor([4, 1, 1])
    strategy.batch = Batch(train.inputs[order], train.labels[order], order)
    found = plugin.lwf.prev_model(strategy.batch.inputs)
    torch.testing.assert_close(found, strategy.model[0](train.inputs)[order])
