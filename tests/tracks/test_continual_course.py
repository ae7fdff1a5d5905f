"""The course of learning and the way through weight space, against a loop written out and evaluated by numpy."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from streams import CLASSES, Bench, Watched, accuracy, layers, length, load, one_thread, weights_of
from torch.optim.optimizer import register_optimizer_step_post_hook

from fipbench import models
from fipbench.tracks.common import seed_for

PROBED = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)  # of the 30 steps of a task
PROBES = 40


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir)


def batches(bench, job, number):
    """The batches of a task as tensors, from seed, data and shuffle alone."""
    x, y = bench.part("train", CLASSES[number])
    order = torch.Generator().manual_seed(seed_for(job, f"batches of task {number}"))
    while True:
        shuffled = torch.randperm(len(y), generator=order)
        for start in range(0, len(y) - 15, 16):
            index = shuffled[start : start + 16]
            yield torch.from_numpy(x[index].reshape(-1, 1, 8, 8)).float(), torch.from_numpy(y[index])


@pytest.fixture(scope="module")
def by_hand(bench):
    """Fine-tuning written out: the weights before the second task and after every step, by task."""
    with one_thread():
        return fine_tuning(bench)


def fine_tuning(bench):
    job = bench.job()
    network = models.build(bench.task.model, seed_for(job, "weights"))
    given = []
    bench.run(lambda model, experience, trial: given.append(copy.deepcopy(model.state_dict())))
    network.load_state_dict(given[0])
    found = {}
    for number in (1, 2):
        rule = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        path = [weights_of(network)]
        steps = 2 * (len(bench.part("train", CLASSES[number])[1]) // 16)
        for _, (inputs, labels) in zip(range(steps), batches(bench, job, number), strict=False):
            rule.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()
            rule.step()
            path.append(weights_of(network))
        found[number] = path
    return found


@pytest.fixture(scope="module")
def naive(bench):
    watched = Watched(load("naive", learning_rate=0.05))
    return bench.run(watched), watched


def probed(bench, weights, score):
    """Accuracy on the first test examples of each task."""
    tests = [(own, *bench.part("test", own)) for own in CLASSES]
    return [accuracy(weights, x[:PROBES], y[:PROBES], own if score == "task" else None) for own, x, y in tests]


def test_naive_is_a_loop_of_sgd_to_the_bit(naive, by_hand):
    for number in (1, 2):
        wanted, got = by_hand[number][-1], naive[1].ends[number]
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("score", ["class", "task"])
def test_the_course_is_the_loop_evaluated_after_those_steps(score, bench, naive, by_hand):
    outcome, _ = naive
    for number in (1, 2):
        course = outcome.curves[f"course/{score}/{number + 1}"]
        assert tuple(course["step"]) == PROBED
        wanted = [probed(bench, by_hand[number][step], score) for step in PROBED]
        got = [[course[f"task{i}"][n] for i in (1, 2, 3)] for n in range(len(PROBED))]
        assert np.array(got) == pytest.approx(np.array(wanted), abs=1e-9)
    assert not [name for name in outcome.curves if name.endswith("/1") and name.startswith("course")]


def test_the_course_shows_what_the_track_is_about(naive):
    """Fine-tuning loses the first task within a few steps of the second."""
    course = naive[0].curves["course/class/2"]
    assert course["task1"][0] > 0.9 and min(course["task1"]) < 0.5
    assert course["task2"][0] < 0.1 and course["task2"][-1] >= 0.5


def test_steps_are_probed_ever_more_rarely():
    from fipbench.tracks.continual_scores import _is_probed

    wanted = sorted({2**k for k in range(10)} | {3 * 2**k for k in range(9)})
    assert [step for step in range(1, 600) if _is_probed(step)] == [step for step in wanted if step < 600]


def test_weight_change_and_path_are_the_distances_by_hand(naive, by_hand):
    outcome, watched = naive
    first = watched.ends[0]
    norm = length(first)
    assert outcome.curves["weights"]["task"] == [2, 3]
    changes = [length(w, first) / norm for w in watched.ends[1:]]
    assert outcome.curves["weights"]["value"] == pytest.approx(changes, rel=1e-6)
    for layer in layers(first):
        own = [{name: w[name] for name in (f"{layer}.weight", f"{layer}.bias")} for w in watched.ends]
        wanted = [length(w, own[0]) / length(own[0]) for w in own[1:]]
        assert outcome.curves[f"weights/{layer}"]["value"] == pytest.approx(wanted, rel=1e-6), layer
    walked, lengths = 0.0, []
    for number in (1, 2):
        points = [by_hand[number][step] for step in PROBED] + [by_hand[number][-1]]
        walked += sum(length(a, b) for a, b in pairwise(points))
        lengths.append(walked / norm)
    assert outcome.curves["path"]["value"] == pytest.approx(lengths, rel=1e-6)
    assert outcome.metrics["path"] == outcome.curves["path"]["value"][-1]
    assert outcome.metrics["weights_walked"] == outcome.curves["weights"]["value"][-1]
    assert lengths[-1] > changes[-1]


def test_groups_are_layers_and_blocks():
    from fipbench.tracks.continual_scores import _groups

    names = ["2.weight", "2.bias", "4.weight", "encoder.layer.0.a.weight", "encoder.layer.0.b.c.bias"]
    names += ["encoder.layer.1.a.weight", "embeddings.words.weight", "embeddings.norm.weight", "head.weight", "scale"]
    assert _groups(dict.fromkeys(names)) == {
        "2": ["2.weight", "2.bias"],
        "4": ["4.weight"],
        "encoder.layer.0": ["encoder.layer.0.a.weight", "encoder.layer.0.b.c.bias"],
        "encoder.layer.1": ["encoder.layer.1.a.weight"],
        "embeddings.words": ["embeddings.words.weight"],
        "embeddings.norm": ["embeddings.norm.weight"],
        "head": ["head.weight"],
        "scale": ["scale"],
    }


def elsewhere(model, experience, trial):
    """Trains a copy: what steps move is not the network that was given."""
    network = copy.deepcopy(model)
    trial.fit(network, experience, learning_rate=0.02)
    return network


def test_another_network_has_no_course_and_its_path_leads_from_result_to_result(bench):
    watched = Watched(elsewhere)
    outcome = bench.run(watched)
    assert not [name for name in outcome.curves if name.startswith("course")]
    first, second, third = watched.ends
    wanted = [length(second, first), length(second, first) + length(third, second)]
    assert outcome.curves["path"]["value"] == pytest.approx([w / length(first) for w in wanted], rel=1e-6)


def test_joint_has_none(bench):
    assert not [name for name in bench.run(load("joint"), method="joint").curves if name.startswith("course")]


def test_a_method_that_steps_with_its_own_optimiser_is_watched_all_the_same(bench):
    """Steps are seen whoever makes them; those of an optimiser for something else are none."""

    def learn(model, experience, trial):
        other = torch.nn.Linear(2, 2)
        aside = torch.optim.SGD(other.parameters(), lr=0.1)
        rule = torch.optim.Adam(model.parameters(), lr=0.01)
        for _, batch in zip(range(min(5, experience.steps)), experience.batches, strict=False):
            aside.zero_grad()
            other(torch.ones(1, 2)).sum().backward()
            aside.step()
            rule.zero_grad()
            trial.criterion.loss(model, batch).backward()
            rule.step()

    outcome = bench.run(learn)
    assert outcome.curves["course/class/2"]["step"] == [0, 1, 2, 3, 4]


def test_lora_is_watched_by_the_network_that_it_stands_for(bench):
    """Weights after each step from the adapters' own matrices: W + scale * B A, the output layer as it is."""
    torch.manual_seed(0)
    watched = Watched(load("lora", learning_rate=0.02, rank=2, scale=3.0))
    given, points = [], {}

    def learn(model, experience, trial):
        given[:] = [model, experience.number]
        return watched(model, experience, trial)

    learn.network = watched.network

    def stepped(rule, args, kwargs):
        model, number = given
        own = {name: value.detach().double().numpy().copy() for name, value in model.named_parameters()}
        points.setdefault(number, []).append(
            {
                "2.weight": own["2.base_layer.weight"]
                + 3.0 * own["2.lora_B.default.weight"] @ own["2.lora_A.default.weight"],
                "2.bias": own["2.base_layer.bias"],
                "4.weight": own["4.weight"],
                "4.bias": own["4.bias"],
            }
        )

    handle = register_optimizer_step_post_hook(stepped)
    try:
        outcome = bench.run(learn, method="lora")
    finally:
        handle.remove()
    for number in (1, 2):
        course = outcome.curves[f"course/class/{number + 1}"]
        assert tuple(course["step"]) == PROBED
        start = watched.ends[number - 1]
        wanted = [probed(bench, points[number][step - 1] if step else start, "class") for step in PROBED]
        got = [[course[f"task{i}"][n] for i in (1, 2, 3)] for n in range(len(PROBED))]
        assert np.array(got) == pytest.approx(np.array(wanted), abs=1e-9)


def test_watching_ends_with_the_task(bench):
    """No hook is left behind, also where a method fails."""
    from torch.optim import optimizer

    before = len(optimizer._global_optimizer_post_hooks)
    bench.run(load("naive"))

    def fail(model, experience, trial):
        if experience.number:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        bench.run(fail)
    assert len(optimizer._global_optimizer_post_hooks) == before
