"""The accuracy matrix and what is derived from it, against numpy on the networks that a method returned."""

from __future__ import annotations

import base64
import copy

import msgspec
import numpy as np
import pytest
import torch
from streams import CLASSES, Bench, Watched, accuracy, correct, images, load, weights_of

from fipbench import models
from fipbench.errors import ProtocolError
from fipbench.spec import Model
from fipbench.tracks.common import seed_for


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir)


@pytest.fixture(scope="module")
def naive(bench):
    """Fine-tuning: what the track found out, and the weights after each task."""
    watched = Watched(load("naive", learning_rate=0.02))
    return bench.run(watched), watched


def untrained(bench, job):
    return weights_of(models.build(bench.task.model, seed_for(job, "weights")))


def matrix(outcome, score, rows):
    return np.array([outcome.curves[f"matrix/{score}/{i}"]["value"] for i in range(rows)])


@pytest.mark.parametrize("score", ["class", "task"])
def test_the_matrix_is_the_networks_accuracies_by_hand(score, bench, naive):
    """Row 0 is the untrained network, row i the one after task i; columns are the tasks, learned or not."""
    outcome, watched = naive
    tests = [bench.part("test", classes) for classes in CLASSES]
    wanted = [
        [accuracy(w, x, y, own if score == "task" else None) for own, (x, y) in zip(CLASSES, tests, strict=True)]
        for w in (untrained(bench, bench.job()), *watched.ends)
    ]
    assert matrix(outcome, score, 4) == pytest.approx(np.array(wanted), abs=1e-9)
    assert outcome.curves[f"matrix/{score}/2"]["task"] == [1, 2, 3]
    assert f"matrix/{score}/4" not in outcome.curves


def test_the_two_scores_differ_as_they_must(naive):
    """Arg-max over an example's own two outputs cannot be worse, and what fine-tuning forgets it forgets there less."""
    outcome, _ = naive
    by_class, by_task = (matrix(outcome, score, 4) for score in ("class", "task"))
    assert (by_task >= by_class).all() and (by_task[0] > by_class[0] + 0.1).any()
    # The numbers of a network worth measuring: the task learned last is known, the first forgotten.
    assert by_class[3, 2] > 0.8 > 0.1 > by_class[3, 0] and by_task[3].mean() > by_class[3].mean() + 0.2


@pytest.mark.parametrize("score", ["class", "task"])
def test_the_metrics_are_those_of_the_matrix(score, naive):
    outcome, _ = naive
    r = matrix(outcome, score, 4)
    before, r = r[0], r[1:]
    wanted = {
        "average_accuracy": r[2].mean(),
        "forgetting": (np.maximum(r[0, :2], r[1, :2]) - r[2, :2]).mean(),
        "backward_transfer": ((r[2, 0] - r[0, 0]) + (r[2, 1] - r[1, 1])) / 2,
        "forward_transfer": ((r[0, 1] - before[1]) + (r[1, 2] - before[2])) / 2,
        "untrained": before.mean(),
    }
    for name, value in wanted.items():
        assert outcome.metrics[f"{name}/{score}"] == pytest.approx(value, abs=1e-12), name
    assert [outcome.metrics[f"final/{score}/{i}"] for i in (1, 2, 3)] == r[2].tolist()


@pytest.mark.parametrize("score", ["class", "task"])
def test_items_are_the_last_networks_answers_one_by_one(score, bench, naive):
    outcome, watched = naive
    for number, own in enumerate(CLASSES):
        x, y = bench.part("test", own)
        items = outcome.items[f"{score}/{number + 1}"]
        bits = np.unpackbits(np.frombuffer(base64.b64decode(items.bits), np.uint8))[: items.count]
        wanted = correct(watched.ends[-1], x, y, own if score == "task" else None)
        assert items.count == len(y) and np.array_equal(bits.astype(bool), wanted)
    assert len(outcome.items) == 6


def per_task(shift, touched=lambda network: network):
    """A learner that leaves the network as it is, and answers for task i, if told, with the classes shifted by i."""

    def learn(model, experience, trial):
        return model

    def network_for(model, number):
        plain = copy.deepcopy(model)
        with torch.no_grad():
            plain[4].bias += shift * torch.arange(10) * (-1) ** number
        return touched(plain)

    learn.network_for = network_for
    return learn


def test_a_network_for_each_task_is_asked_where_the_task_is_told_and_nowhere_else(bench, naive):
    outcome, first = bench.run(per_task(100.0)), naive[1].starts[0]
    tests = [bench.part("test", classes) for classes in CLASSES]
    by_class = [accuracy(first, x, y) for x, y in tests]
    # The bias alone decides: of two classes the second for tasks 1 and 3, the first for task 2.
    by_task = [np.mean(y == y.max()) if i != 1 else np.mean(y == y.min()) for i, (_, y) in enumerate(tests)]
    for row in (1, 2, 3):
        assert outcome.curves[f"matrix/class/{row}"]["value"] == pytest.approx(by_class, abs=1e-9)
        assert outcome.curves[f"matrix/task/{row}"]["value"] == pytest.approx(by_task, abs=1e-9)
    assert outcome.curves["matrix/task/0"]["value"] == naive[0].curves["matrix/task/0"]["value"]
    assert np.unpackbits(np.frombuffer(base64.b64decode(outcome.items["task/2"].bits), np.uint8)).sum() == sum(
        tests[1][1] == tests[1][1].min()
    )
    # Nine biases (the first is shifted by nothing) have two values each; the rest, zeros left out, one.
    plain = sum(np.count_nonzero(value) for value in first.values())
    assert outcome.parameters_stored == plain + 9 + int(np.sum(first["4.bias"][1:] == 0))
    assert naive[0].parameters_stored == sum(value.size for value in first.values())


def test_a_network_for_a_task_is_held_to_the_same_rules(bench):
    wider = lambda network: torch.nn.Sequential(network, torch.nn.Linear(10, 10))  # noqa: E731
    with pytest.raises(ProtocolError, match=r"^the network after task 1 has other parameters than the one"):
        bench.run(per_task(1.0, wider))
    with pytest.raises(ProtocolError, match=r"^the network after task 1 has weights that are not finite"):
        bench.run(per_task(float("nan")))


def test_permuted_pixels_are_scored_permuted(tmp_path, cache_dir):
    bench = Bench(
        tmp_path, cache_dir, stream='{ permutations = 3, score = ["domain"] }', headline='"average_accuracy/domain"'
    )
    plain, (x, y) = bench.part("train", tuple(range(10)))[0], bench.part("test", tuple(range(10)))
    watched, orders = Watched(load("naive", learning_rate=0.02)), []

    def learn(model, experience, trial):
        # Where each pixel came from, by what it is in all training images; pixels alike in all of them stay unknown.
        shuffled = images(experience.train.inputs)
        orders.append([next(i for i in range(64) if np.array_equal(plain[:, i], column)) for column in shuffled.T])
        return watched(model, experience, trial)

    outcome = bench.run(learn)
    # The few such pixels are black in the training images and almost always in the test images.
    wanted = [[accuracy(w, x[:, order], y) for order in orders] for w in (untrained(bench, bench.job()), *watched.ends)]
    assert matrix(outcome, "domain", 4) == pytest.approx(np.array(wanted), abs=0.01)
    assert set(outcome.items) == {"domain/1", "domain/2", "domain/3"}
    assert all(items.count == len(y) for items in outcome.items.values())
    r = matrix(outcome, "domain", 4)
    assert r[1, 0] > 0.8 > 0.5 > r[1, 1], "the permutation makes no difference"


def test_a_tuning_job_is_scored_on_held_out_training_examples(bench):
    outcome = bench.run(load("naive"), split="validation")
    counts = [outcome.items[f"class/{i}"].count for i in (1, 2, 3)]
    labels = bench.split("train").labels.numpy()
    learned = outcome.provenance["train_examples"]
    assert [a + b for a, b in zip(counts, learned, strict=True)] == [int(np.isin(labels, c).sum()) for c in CLASSES]
    assert 150 < sum(counts) < 210  # of 300 held out, the share of six digits of ten


@pytest.mark.parametrize("touched", [False, True])
def test_row_1_is_the_network_after_the_first_task_even_where_a_method_changed_it(touched, bench):
    """It has been learned already; a method that trains on is scored as what it made of it."""

    def learn(model, experience, trial):
        if touched and experience.number == 0:
            with torch.no_grad():
                model[4].bias[1] += 100.0  # all are ones

    watched = Watched(learn)
    outcome = bench.run(watched)
    x, y = bench.part("test", CLASSES[0])
    got = matrix(outcome, "class", 4)[1, 0]
    assert got == pytest.approx(accuracy(watched.ends[0], x, y), abs=1e-9)
    assert (got == pytest.approx(np.mean(y == 1))) == touched


def test_a_network_is_scored_as_it_is_when_it_is_returned(bench):
    """A returned network need not be the given one, and what becomes of it later changes no row."""
    made = []

    def learn(model, experience, trial):
        for old in made:
            with torch.no_grad():
                old[4].bias.fill_(7.0)
        network = copy.deepcopy(model)
        trial.fit(network, experience, learning_rate=0.02)
        made.append(network)
        ends.append(weights_of(network))
        return network

    ends = []
    outcome = bench.run(learn)
    x, y = bench.part("test", CLASSES[1])
    for row in (1, 2, 3):
        assert matrix(outcome, "class", 4)[row, 1] == pytest.approx(accuracy(ends[row - 1], x, y), abs=1e-9)


def test_outputs_shared_by_all_methods_are_not_mixed_up(bench, tmp_path, cache_dir):
    """Rows 0 and 1 are computed once for all methods: another stream, seed or network has others."""
    idle = lambda model, experience, trial: None  # noqa: E731
    first = bench.run(idle)
    turned = msgspec.structs.replace(
        bench.task, stream=msgspec.structs.replace(bench.task.stream, classes=((0, 1), (4, 5), (2, 3)))
    )
    other = bench.run(idle, task=turned)
    a, b = matrix(first, "class", 4), matrix(other, "class", 4)
    assert a[0].tolist() == [b[0, 0], b[0, 2], b[0, 1]]
    assert matrix(bench.run(idle, seed=1), "class", 4)[0].tolist() != a[0].tolist()
    wider = Model(name="mlp", inputs=(1, 8, 8), hidden=(30,), outputs=10, mean=0.305, std=0.376)
    again = bench.run(idle, task=msgspec.structs.replace(bench.task, model=wider))
    assert matrix(again, "class", 4)[0].tolist() != a[0].tolist()
