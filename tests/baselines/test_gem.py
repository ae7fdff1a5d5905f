"""Gradient episodic memory: its projection against a solved quadratic programme, its constraints, its memory."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from fipbench.baselines.gem import dual
from restated import apart, flat, own_gradient, shaped, walk
from scipy.optimize import minimize
from streams import Bench, Watched, load, weights_of

from fipbench.tracks import avalanche

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("gem"), cache_dir)


def projected(rows: np.ndarray, gradient: np.ndarray, margin: float = 0.0) -> np.ndarray:
    return gradient + dual(rows @ rows.T, rows @ gradient, margin) @ rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
def test_the_nearest_gradient_that_agrees_with_every_memory(seed, scale):
    """min |z - g|^2 subject to G z >= 0, solved by scipy in the gradient itself, not in its dual."""
    random = np.random.default_rng(seed)
    rows, gradient = scale * random.normal(size=(3, 8)), random.normal(size=8)
    gradient -= 0.7 * rows.sum(0) / scale
    unit = rows / scale
    truth = minimize(
        lambda z: ((z - gradient) ** 2).sum() / 2,
        np.zeros(8),
        jac=lambda z: z - gradient,
        constraints={"type": "ineq", "fun": lambda z: unit @ z, "jac": lambda z: unit},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = projected(rows, gradient)
    assert (unit @ gradient < 0).any()
    np.testing.assert_allclose(found, truth.x, atol=1e-5)
    assert (unit @ found >= -1e-9).all()


def test_memories_that_say_the_same_are_no_trouble():
    random = np.random.default_rng(0)
    row = random.normal(size=5)
    rows, gradient = np.stack([row, row, 2 * row]), -row + random.normal(size=5) * 0.1
    length = row @ row
    np.testing.assert_allclose(projected(rows, gradient), gradient - (row @ gradient) / length * row, atol=1e-9)
    np.testing.assert_allclose(projected(np.stack([row, 0 * row]), -row), 0, atol=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
def test_the_margin_bounds_the_dual_variables_from_below(margin):
    random = np.random.default_rng(2)
    rows, gradient = random.normal(size=(3, 9)), random.normal(size=9)
    gram, products = rows @ rows.T, rows @ gradient
    truth = minimize(
        lambda v: v @ gram @ v / 2 + products @ v,
        np.full(3, margin + 1),
        jac=lambda v: gram @ v + products,
        bounds=[(margin, None)] * 3,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    found = dual(gram, products, margin)
    np.testing.assert_allclose(found, truth.x, atol=1e-5)
    assert found.min() >= margin


def by_hand(rows: np.ndarray, gradient: np.ndarray, margin: float) -> np.ndarray:
    """The projection by trying every set of dual variables that may lie at their bound."""
    if (rows @ gradient >= 0).all():
        return gradient
    gram, products, best = rows @ rows.T, rows @ gradient, None
    for at_bound in product((True, False), repeat=len(rows)):
        free = ~np.array(at_bound)
        v = np.full(len(rows), margin)
        if free.any():
            pull = products[free] + gram[np.ix_(free, ~free)] @ v[~free]
            v[free] = np.linalg.solve(gram[np.ix_(free, free)], -pull)
        value = v @ gram @ v / 2 + products @ v
        if (v >= margin - 1e-12).all() and (best is None or value < best[0]):
            best = value, v
    assert best is not None
    return gradient + best[1] @ rows


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_three_tasks_are_what_the_equations_give_in_numpy(bench, margin):
    seen = Watched(avalanche.learner(load("gem", margin=margin, learning_rate=RATE, memory=4)))
    bench.run(seen, memory=4)
    for task in (1, 2):
        memories = [seen.trial.kept[t] for t in range(task)]
        turned = []

        def change(weights, slope, batch, memories=memories, turned=turned):
            rows = np.stack([flat(own_gradient(weights, kept)) for kept in memories])
            vector = by_hand(rows, flat(slope), margin)
            turned.append(not np.array_equal(vector, flat(slope)))
            return shaped(vector, slope)

        start = seen.starts[task]
        path = walk(start, seen.batches[task], change, RATE)
        plain = walk(start, seen.batches[task], lambda weights, slope, batch: slope, RATE)
        assert any(turned)
        assert apart(plain[-1], path[-1], start) > 0.05
        assert apart(seen.ends[task], path[-1], start) < 0.02 * apart(plain[-1], path[-1], start)


def test_no_step_goes_against_a_memory(bench):
    """At every update, by gradients that the method did not compute."""
    plugin = load("gem", margin=0.0, learning_rate=RATE, memory=10)
    worst, raw = [], []

    def before_backward(strategy, **kwargs):
        named = dict(strategy.model.named_parameters())
        slopes = torch.autograd.grad(strategy.loss, list(named.values()), retain_graph=True)
        raw.append(flat({name: slope.double().numpy() for name, slope in zip(named, slopes, strict=True)}))

    def before_update(strategy, **kwargs):
        slope = flat({name: weight.grad.double().numpy() for name, weight in strategy.model.named_parameters()})
        weights = weights_of(strategy.model)
        for kept in list(strategy.trial.kept.values())[: strategy.given.number]:
            row = flat(own_gradient(weights, kept))
            angles = [row @ v / np.linalg.norm(row) / np.linalg.norm(raw[-1]) for v in (slope, raw[-1])]
            worst.append(angles)

    plugin.before_backward, plugin.before_update = before_backward, before_update
    bench.run(plugin, memory=10)
    after, before = np.array(worst).T
    assert before.min() < -0.3
    assert after.min() > -1e-5


@pytest.mark.parametrize("memory", [4, 10])
def test_exactly_the_memory_is_kept_and_of_the_training_data(bench, memory):
    plugin = load("gem", memory=memory)
    seen = Watched(avalanche.learner(plugin))
    outcome = bench.run(seen, memory=memory)
    assert [len(plugin.memory_x[t]) for t in range(3)] == [memory] * 3
    assert outcome.examples_stored == 3 * memory
    for task, classes in enumerate(((0, 1), (2, 3), (4, 5))):
        x, y = bench.part("train", classes)
        rows = {(row.round(4).tobytes(), int(label)) for row, label in zip(x.astype("f4"), y, strict=True)}
        kept = plugin.memory_x[task].flatten(1).numpy()
        for row, label in zip(kept, plugin.memory_y[task].tolist(), strict=True):
            assert (row.round(4).tobytes(), label) in rows
