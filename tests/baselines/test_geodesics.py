"""The geodesics under the harness: where each walk begins, where it leads, on whose data g is taken, what it costs."""

from __future__ import annotations

import sys
from itertools import chain, islice

import numpy as np
import pytest
import torch
from restated import apart, flat, walk
from streams import CLASSES, Bench, Watched, accuracy, images, load, weights_of

from fipbench import pruning

RATE = 0.02


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("geodesics"), cache_dir, budget="{ epochs = 4, batch_size = 16, factor = 9 }")


def spied(monkeypatch, method, name, calls):
    """Every call of the library's walk by a method's module: networks as they were, ten batches of inputs, options."""
    module = sys.modules[method.__module__]
    original = getattr(module, name)

    def walked(*given, **options):
        given = list(given)
        at = next(i for i, one in enumerate(given) if not isinstance(one, torch.nn.Module))
        batches = iter(given[at])
        seen = list(islice(batches, 10))
        given[at] = chain(seen, batches)
        networks = [weights_of(network) for network in given[:at]]
        calls.append({"networks": networks, "inputs": seen, "rest": given[at + 1 :], **options})
        return original(*given, **options)

    monkeypatch.setattr(module, name, walked)


# ------------------------------------------------------------------------------------------- between tasks


def learned(bench, monkeypatch, **params):
    """What the track found out, the learner that was watched, and the walks."""
    calls = []
    learn = load("geodesic", learning_rate=RATE, **params)
    spied(monkeypatch, learn, "cf_geodesic", calls)
    seen = Watched(learn)
    return bench.run(seen, method="geodesic"), seen, calls


@pytest.mark.parametrize("start", ["initial", "old"])
def test_a_network_of_the_new_task_alone_walks_towards_the_old_one(bench, monkeypatch, start):
    outcome, seen, calls = learned(bench, monkeypatch, start=start, slack=0.1)
    initial = {name: value.double().numpy() for name, value in seen.trial.first.initial.items()}
    assert len(calls) == 2
    for task, call in enumerate(calls, start=1):
        new, old = call["networks"]
        assert all(np.array_equal(old[name], value) for name, value in seen.starts[task].items())
        path = walk(initial if start == "initial" else old, seen.batches[task], lambda w, slope, batch: slope, RATE)
        assert apart(new, path[-1], old) < 1e-2
        known, used = bench.part("train", CLASSES[task])[0], np.concatenate([images(i) for i in call["inputs"]])
        assert pixels(used) <= pixels(known) and len(used) == 160
        (count,) = call["rest"]
        assert call["eta"] * count == pytest.approx(np.linalg.norm(flat(new) - flat(old)), rel=1e-4)
        # It went some of the way, and the new task is kept to within the slack, up to the examples that were asked.
        end = seen.ends[task]
        assert np.linalg.norm(flat(end) - flat(old)) < 0.98 * np.linalg.norm(flat(new) - flat(old))
        x, y = bench.part("train", CLASSES[task])
        assert accuracy(end, x, y) >= (1 - 0.1) * accuracy(new, x, y) - 0.05
    assert outcome.examples_stored == 0


def pixels(rows):
    return {row.tobytes() for row in (255 * rows).round().astype(np.uint8)}


def test_more_slack_ends_nearer_to_the_old_network(bench, monkeypatch):
    left = []
    for slack in (0.003, 0.3):
        with monkeypatch.context() as patch:
            _, seen, calls = learned(bench, patch, slack=slack)
        new, old = calls[0]["networks"]
        left.append(np.linalg.norm(flat(seen.ends[1]) - flat(old)) / np.linalg.norm(flat(new) - flat(old)))
    assert left[1] < left[0] - 0.05


def test_a_walk_between_tasks_takes_what_it_may(bench, monkeypatch):
    plain = bench.run(load("naive", learning_rate=RATE)).meter.passes
    for factor in (3.0, 6.0):
        with monkeypatch.context() as patch:
            outcome, seen, _ = learned(bench, patch, walk=factor, slack=1.0, steps=10**6)
        allowed = sum(factor * 2 * 16 * len(batches) for batches in seen.batches[1:])
        assert 0.5 * allowed < outcome.meter.passes - plain <= allowed


@pytest.mark.parametrize(("start", "slack"), [("initial", 0.1), ("initial", 0.4), ("old", 0.02)])
def test_the_straight_line_is_followed_while_the_new_task_bears_it(bench, start, slack):
    """The last of twenty places before the first at which more is lost, by numpy, on all training examples."""
    seen = Watched(load("linear-path", learning_rate=RATE, slack=slack, start=start))
    outcome = bench.run(seen, method="linear-path")
    initial = {name: value.double().numpy() for name, value in seen.trial.first.initial.items()}
    went = []
    for task in (1, 2):
        old = seen.starts[task]
        begun = initial if start == "initial" else old
        new = walk(begun, seen.batches[task], lambda w, slope, batch: slope, RATE)[-1]
        x, y = bench.part("train", CLASSES[task])
        line = [{name: new[name] + t / 20 * (old[name] - new[name]) for name in new} for t in range(21)]
        right = [accuracy(weights, x, y) for weights in line]
        last = next((t for t, value in enumerate(right) if value < (1 - slack) * right[0]), 21) - 1
        assert apart(seen.ends[task], line[last], old) < 1e-2
        went.append(last)
    assert 0 < max(went) < 20
    assert outcome.examples_stored == 0


@pytest.mark.parametrize("method", ["linear-path", "packnet", "geodesic"])
def test_residual_networks_are_learned_and_answered(tmp_path, cache_dir, method):
    model = '{ name = "resnet", inputs = [1, 8, 8], channels = [4], depth = 1, outputs = 10, mean = 0.3, std = 0.4 }'
    bench = Bench(tmp_path, cache_dir, model=model, budget="{ epochs = 1, batch_size = 16, factor = 9 }")
    assert bench.run(load(method, learning_rate=RATE), method=method).metrics["average_accuracy/task"] > 0.4


# --------------------------------------------------------------------------------- to the sparse hyperplane


def test_levels_are_walked_to_one_after_the_other(new_trial, dense, method, monkeypatch):
    calls = []
    prune = method("geodesic", stride=0.05, steps=20)
    spied(monkeypatch, prune.make, "sparse_geodesic", calls)
    trial = new_trial(steps=2000)
    found = dict(prune(dense, [0.5, 0.8], trial))
    assert [call["rest"] for call in calls] == [[(0.5,)], [(0.8,)]]
    before = weights_of(dense)
    for call, (level, network) in zip(calls, found.items(), strict=True):
        (start,) = call["networks"]
        assert all(np.array_equal(start[name], before[name]) for name in before)
        flat_weights = np.sort(np.concatenate([np.abs(start[n]).ravel() for n in pruning.prunable(dense)]))
        distance = np.sqrt((flat_weights[: pruning.zeros_at(level, len(flat_weights))] ** 2).sum())
        assert call["eta"] == pytest.approx(0.05 * distance, rel=1e-5)
        assert 1 <= call["steps"] <= 20
        zeros, total = pruning.zeros(network)
        assert zeros == pruning.zeros_at(level, total)
        before = weights_of(network)
    assert 0 < trial.meter.passes <= trial.meter.limit
