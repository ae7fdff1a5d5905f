"""Replay, DER and FIP against loops in numpy: gradients of the stated formulas, weights step after step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from streams import (
    CLASSES,
    Bench,
    Watched,
    cross_entropy_slope,
    gradient,
    images,
    length,
    load,
    logits,
    softmax,
    total,
)
from torch import nn

from fipbench.tracks import continual_scores
from fipbench.tracks.continual import Trial


@pytest.fixture(scope="module")
def own_outputs(tmp_path_factory, cache_dir):
    """The stream with a loss over a task's own outputs."""
    classes = [list(task) for task in CLASSES]
    stream = f'{{ classes = {classes}, score = ["class", "task"], softmax = "task" }}'
    return Bench(
        tmp_path_factory.mktemp("own"), cache_dir, stream=stream, budget="{ epochs = 1, batch_size = 16, factor = 9 }"
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir, budget="{ epochs = 1, batch_size = 16, factor = 9 }")


# ----------------------------------------------- what a memory adds to the loss: its gradient in the logits


def squared_error(z, noted, y):
    """DER, equation 5: mean over examples and outputs of (z - noted)^2."""
    return 2 * (z - noted) / z.size


def squared_distance(z, noted, y):
    """Mean over examples of || z - noted ||^2."""
    return 2 * (z - noted) / len(z)


def labels(z, noted, y):
    return cross_entropy_slope(z, y)


def relative_entropy(z, noted, y):
    """Mean of KL(noted || now)."""
    return (softmax(z) - softmax(noted)) / len(z)


def bhattacharyya(z, noted, y):
    """Mean of -log BC, BC = sum_k sqrt(p_k q_k): d/dz_k = (q_k - sqrt(p_k q_k) / BC) / 2."""
    p, q = softmax(noted), softmax(z)
    root = np.sqrt(p * q)
    return 0.5 * (q - root / root.sum(1, keepdims=True)) / len(z)


def bhattacharyya_sum(z, noted, y, epsilon=1e-10):
    """Sum of -log sum_k sqrt(p_k q_k + epsilon), as the public code has it."""
    p, q = softmax(noted), softmax(z)
    inner = 0.5 * p * q / np.sqrt(p * q + epsilon)
    slope = inner - q * inner.sum(1, keepdims=True)
    return -slope / np.sqrt(p * q + epsilon).sum(1, keepdims=True)


def jensen_shannon(z, noted, y):
    """Mean of (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2."""
    p, q = softmax(noted), softmax(z)
    ratio = np.log(q / (0.5 * (p + q)))
    return 0.5 * q * (ratio - (q * ratio).sum(1, keepdims=True)) / len(z)


SGD = {"learning_rate": 0.03}
# method, its parameters, what the memory adds, of which network the noted outputs are, and how a step is made
METHODS = [
    ("replay", {**SGD, "strength": 1.7}, [(1.7, labels)], None),
    ("der", {**SGD, "alpha": 0.8}, [(0.8, squared_error)], "stored"),
    ("der++", {**SGD, "alpha": 0.8, "beta": 1.3}, [(0.8, squared_error), (1.3, labels)], "stored"),
    ("fip", {**SGD, "strength": 4.0}, [(4.0, bhattacharyya)], "start"),
    ("fip", {**SGD, "strength": 4.0, "distance": "kl"}, [(4.0, relative_entropy)], "start"),
    ("fip", {**SGD, "strength": 4.0, "distance": "jensen_shannon"}, [(4.0, jensen_shannon)], "start"),
    ("fip", {**SGD, "strength": 0.3, "distance": "squared_euclidean"}, [(0.3, squared_distance)], "start"),
    ("fip-bhattacharyya", {**SGD, "strength": 4.0}, [(4.0, bhattacharyya)], "start"),
    ("fip-kl", {**SGD, "strength": 4.0}, [(4.0, relative_entropy)], "start"),
    ("fip-logits", {**SGD, "strength": 0.3}, [(0.3, squared_distance)], "start"),
    ("fip-paper", {}, [(1.0, bhattacharyya)], "start"),
    ("fip-authors-code", {}, [(1.0, bhattacharyya_sum)], "start"),
]
IDS = ["-".join([m, *([p["distance"]] if "distance" in p else [])]) for m, p, _, _ in METHODS]


def momentum(rate):
    """SGD with momentum 0.9."""
    velocity = {}

    def step(weights, slope):
        for name in weights:
            velocity[name] = 0.9 * velocity.get(name, 0) + slope[name]
            weights[name] = weights[name] - rate * velocity[name]

    return step


def adam(rate, decay):
    """Adam with an L2 penalty (Kingma & Ba, 2015, Algorithm 1)."""
    m, v, count = {}, {}, itertools.count(1)

    def step(weights, slope):
        t = next(count)
        for name in weights:
            g = slope[name] + decay * weights[name]
            m[name] = 0.9 * m.get(name, 0) + 0.1 * g
            v[name] = 0.999 * v.get(name, 0) + 0.001 * g * g
            weights[name] = weights[name] - rate * (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)

    return step


def step_of(method, params):
    if method == "fip-paper":
        return adam(0.01, 2e-4)
    return momentum(0.001 if method == "fip-authors-code" else params["learning_rate"])


@pytest.mark.parametrize(("method", "params", "terms", "noted"), METHODS, ids=IDS)
def test_the_weights_are_those_of_the_formula(method, params, terms, noted, bench):
    """The memory fits into a batch, so that every draw is all of it."""
    watched = Watched(load(method, **params, memory=4))
    bench.run(watched, method=method, memory=4)
    assert [len(batches) for batches in watched.batches] == [0, 15, 15]
    memory = [(images(kept.inputs), kept.labels.numpy()) for kept in watched.trial.kept.values()]
    for number in (1, 2):
        x = np.concatenate([x for x, _ in memory[:number]])
        y = np.concatenate([y for _, y in memory[:number]])
        weights = dict(watched.starts[number])
        wanted = logits(weights, x)
        if noted == "stored":
            wanted = np.concatenate([logits(watched.ends[i], memory[i][0]) for i in range(number)])
        step = step_of(method, params)
        for batch in watched.batches[number]:
            new, own = images(batch.inputs), batch.labels.numpy()
            gradients = [gradient(weights, new, cross_entropy_slope(logits(weights, new), own))]
            z = logits(weights, x)
            gradients += [gradient(weights, x, factor * slope(z, wanted, y)) for factor, slope in terms]
            step(weights, total(*gradients))
        # Adam divides by what may be next to nothing, so that rounding shows more.
        close = {"rel": 2e-3, "abs": 2e-5} if method == "fip-paper" else {"rel": 1e-4, "abs": 2e-6}
        for name, value in weights.items():
            assert watched.ends[number][name] == pytest.approx(value, **close), (number, name)
        # The comparison would notice if the memory's term were not there at all.
        assert length(weights, watched.starts[number]) > 0.05


@pytest.mark.parametrize(("method", "params"), [("replay", {}), ("der", {}), ("der++", {}), ("fip", {})])
def test_without_a_weight_on_the_memory_it_is_fine_tuning(method, params, bench):
    zero = {"der": {"alpha": 0.0}, "der++": {"alpha": 0.0, "beta": 0.0}}.get(method, {"strength": 0.0})
    plain, watched = Watched(load("naive", **SGD)), Watched(load(method, **SGD, **zero, memory=4))
    bench.run(plain)
    bench.run(watched, method=method, memory=4)
    for name, value in plain.ends[2].items():
        assert watched.ends[2][name] == pytest.approx(value, rel=1e-4, abs=1e-6)


# --------------------------------------------------------------------------------------------------- draws


def spy_on_draws(monkeypatch):
    drawn = []
    honest = Trial.draw

    def draw(self, examples):
        batch = honest(self, examples)
        drawn.append((len(examples.labels), batch.positions.tolist()))
        return batch

    monkeypatch.setattr(Trial, "draw", draw)
    return drawn


@pytest.mark.parametrize(("method", "draws"), [("replay", 1), ("der", 1), ("der++", 2), ("fip", 1), ("fip-paper", 1)])
def test_each_step_draws_a_batch_a_term_from_all_earlier_tasks(method, draws, bench, monkeypatch):
    drawn = spy_on_draws(monkeypatch)
    bench.run(load(method, memory=20), method=method, memory=20)
    assert [size for size, _ in drawn] == [20] * 15 * draws + [40] * 15 * draws
    assert all(len(set(positions)) == 16 for _, positions in drawn)
    assert len({tuple(positions) for _, positions in drawn}) == len(drawn), "der++'s two draws are two"
    later = np.concatenate([positions for size, positions in drawn if size == 40])
    assert 0.4 < (later < 20).mean() < 0.6


@pytest.mark.parametrize("method", ["replay", "der", "fip"])
def test_noted_outputs_stay_with_their_examples(method, bench, monkeypatch):
    """With a memory larger than a batch: before the second task's first step, outputs are what they were."""
    watched = Watched(load(method, memory=20))
    seen = []

    def spied(trial, out, kept, noted):
        seen.append((out.detach().numpy().copy(), kept, None if noted is None else noted.numpy().copy()))
        return honest(trial, out, kept, noted)

    honest, watched.learn.term = watched.learn.term, spied
    bench.run(watched, method=method, memory=20)
    out, kept, noted = seen[0]
    assert out == pytest.approx(logits(watched.starts[1], images(kept.inputs)), abs=1e-4)
    assert noted is None if method == "replay" else noted == pytest.approx(out, abs=1e-5)
    for number, (_, kept, noted) in enumerate(seen):
        x, task = images(kept.inputs), 1 if number < 15 else 2
        assert set(kept.labels.tolist()) <= set(sum(CLASSES[:task], ()))
        if method == "fip":
            assert noted == pytest.approx(logits(watched.starts[task], x), abs=1e-4)
        elif method == "der":
            first = (kept.positions.numpy() < 20)[:, None]
            stored = np.where(first, logits(watched.ends[0], x), logits(watched.ends[1], x))
            assert noted == pytest.approx(stored, abs=1e-4)


# ------------------------------------------------------------------------------------ what is run, and how often


def calls(bench, method, memory, monkeypatch):
    """Every call of a network while a method is at work, by task: (examples, differentiated?, in training mode?)."""
    found = []

    def listen(model, experience, trial):
        own = []
        found.append(own)

        def called(module, args, output):
            if type(module) is nn.Sequential:  # a whole network
                own.append((len(output), output.requires_grad, module.training))

        hook = nn.modules.module.register_module_forward_hook(called)
        try:
            return work(model, experience, trial)
        finally:
            hook.remove()

    monkeypatch.setattr(continual_scores, "_is_probed", lambda step: False)
    work = load(method, memory=memory)
    bench.run(listen, method=method, memory=memory)
    return found


def counts(found):
    return [[n for n, _, _ in own] for own in found]


@pytest.mark.parametrize("method", ["fip", "fip-paper", "fip-kl", "fip-logits", "fip-task-outputs"])
def test_fip_computes_its_reference_outputs_once_a_task_and_runs_no_second_network(method, bench, monkeypatch):
    found = calls(bench, method, 4, monkeypatch)
    assert counts(found) == [[], [4] + [16 + 4] * 15, [8] + [16 + 8] * 15]


def test_the_authors_code_runs_one_in_every_step(bench, monkeypatch):
    found = calls(bench, "fip-authors-code", 4, monkeypatch)
    assert counts(found) == [[], [20, 4] * 15, [24, 8] * 15]
    assert [call[1:] for call in found[1] if call[0] == 4] == [(False, False)] * 15
    assert [call[1:] for call in found[1] if call[0] == 20] == [(True, True)] * 15


def test_replay_and_der_run_no_second_network(bench, monkeypatch):
    assert counts(calls(bench, "replay", 4, monkeypatch)) == [[], [20] * 15, [24] * 15]
    assert counts(calls(bench, "der", 4, monkeypatch)) == [[4], [20] * 15 + [4], [24] * 15 + [4]]
    assert counts(calls(bench, "der++", 4, monkeypatch)) == [[4], [24] * 15 + [4], [32] * 15 + [4]]


@pytest.mark.parametrize(
    ("method", "forward", "backward"),
    [
        ("replay", 15 * (20 + 24), 15 * (20 + 24)),
        ("fip", 4 + 8 + 15 * (20 + 24), 15 * (20 + 24)),
        ("fip-authors-code", 15 * (20 + 24) + 15 * (4 + 8), 15 * (20 + 24)),
        ("der", 3 * 4 + 15 * (20 + 24), 15 * (20 + 24)),
        ("der++", 3 * 4 + 15 * (24 + 32), 15 * (24 + 32)),
    ],
)
def test_the_cost_is_counted(method, forward, backward, bench):
    base = 2 * 14 * 16
    outcome = bench.run(load(method, memory=4), method=method, memory=4)
    assert (outcome.meter.forward - base, outcome.meter.backward - base) == (forward, backward)


# --------------------------------------------------------------------- where a task's loss is over its own outputs


def within_tasks(slope, z, noted, y):
    """`slope` of every example on the outputs of its task alone, zero on the others; a mean over the examples."""
    found = np.zeros_like(z)
    for i, label in enumerate(y):
        own = list(next(classes for classes in CLASSES if label in classes))
        found[i, own] = slope(z[i : i + 1, own], None if noted is None else noted[i : i + 1, own], [own.index(label)])
    return found / len(z)


@pytest.mark.parametrize(
    ("distance", "slope"), [(p.get("distance", "bhattacharyya"), t[0][1]) for _, p, t, _ in METHODS[3:7]]
)
def test_the_distance_is_over_the_outputs_that_the_loss_is_over(distance, slope, own_outputs):
    strength = 0.3 if distance == "squared_euclidean" else 4.0
    watched = Watched(load("fip-task-outputs", **SGD, strength=strength, distance=distance, memory=4))
    own_outputs.run(watched, method="fip-task-outputs", memory=4)
    kept = watched.trial.kept.values()
    for number in (1, 2):
        x = np.concatenate([images(part.inputs) for part in kept][:number])
        y = np.concatenate([part.labels.numpy() for part in kept][:number])
        weights = dict(watched.starts[number])
        wanted, step = logits(weights, x), momentum(0.03)
        for batch in watched.batches[number]:
            new, own = images(batch.inputs), batch.labels.numpy()
            learned = within_tasks(lambda z, _, y: cross_entropy_slope(z, np.array(y)), logits(weights, new), None, own)
            invariant = strength * within_tasks(slope, logits(weights, x), wanted, y)
            step(weights, total(gradient(weights, new, learned), gradient(weights, x, invariant)))
        for name, value in weights.items():
            assert watched.ends[number][name] == pytest.approx(value, rel=1e-4, abs=2e-6), (number, name)
        assert length(weights, watched.starts[number]) > 0.05


def test_where_the_loss_is_over_all_outputs_so_is_the_distance(bench):
    ends = []
    for method in ("fip", "fip-task-outputs"):
        watched = Watched(load(method, **SGD, strength=4.0, memory=4))
        bench.run(watched, method=method, memory=4)
        ends.append(watched.ends[2])
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


# ------------------------------------------------------------------------------------------- what FIP is about


@pytest.mark.parametrize("distance", ["bhattacharyya", "kl", "jensen_shannon", "squared_euclidean"])
def test_a_strong_invariance_keeps_the_outputs_on_the_memory(distance, bench):
    moved = []
    # The squared distance is of logits, whose curvature leaves SGD less room.
    for strength in (0.0, 0.01, 1.0) if distance == "squared_euclidean" else (0.0, 10.0, 1000.0):
        watched = Watched(load("fip", distance=distance, strength=strength, learning_rate=0.003, memory=10))
        bench.run(watched, method="fip", memory=10)
        x = images(watched.trial.kept[0].inputs)
        before, after = (softmax(logits(w, x)) for w in (watched.starts[1], watched.ends[1]))
        moved.append(np.abs(after - before).mean())
    assert moved[0] > 1.2 * moved[1] > 1.2 * moved[2] and moved[2] < 0.02 * moved[0]


def test_fip_keeps_what_fine_tuning_forgets(bench):
    plain = bench.run(load("naive", learning_rate=0.02))
    kept = bench.run(load("fip", learning_rate=0.02, strength=10.0, memory=10), method="fip", memory=10)
    assert kept.metrics["final/class/1"] > plain.metrics["final/class/1"] + 0.2


def test_the_model_is_trained_as_it_came(bench):
    """No copy is left in its place, no weight frozen, no mode changed."""
    for method in ("replay", "der++", "fip", "fip-authors-code"):
        states = []
        work = load(method, memory=4)

        def learn(model, experience, trial, work=work, states=states):
            assert work(model, experience, trial) is None
            states.append((model.training, all(p.requires_grad for p in model.parameters())))
            assert not torch.is_grad_enabled() or model(experience.train.batch(torch.arange(2)).inputs).requires_grad

        bench.run(learn, method=method, memory=4)
        assert states == [(True, True)] * 3
