"""The connectivity track: what it hands out and takes back, and its measures against what is known by hand."""

from __future__ import annotations

import copy
import math

import msgspec
import numpy as np
import pytest
import torch
from connectivity_lab import Lab
from fipbench.baselines._walk import affordable
from torch import nn

from fipbench import metrics, models, plan, registry
from fipbench.errors import BudgetExceeded, ProtocolError, UserError
from fipbench.fip.geo import cost
from fipbench.spec import Record, record_digest
from fipbench.tracks import connectivity_scores


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("course"))


def state(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def between(first, second, t):
    found = copy.deepcopy(first)
    with torch.no_grad():
        for p, a, b in zip(found.parameters(), first.parameters(), second.parameters(), strict=True):
            p.copy_(torch.lerp(a, b, t))
    return found


def line(first, second, trial):
    return [first, second]


# ------------------------------------------------------------------------------------------------- by hand


def test_points_are_evenly_spread_along_the_whole_path():
    """A right angle with legs of 3 and 1: at quarters of 4."""
    corner = [torch.tensor(p) for p in ([0.0, 0.0], [3.0, 0.0], [3.0, 1.0])]
    places, points = connectivity_scores.spread(corner, 5)
    assert places == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(torch.stack(points), [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]], atol=1e-6)
    _, points = connectivity_scores.spread(corner, 9)
    np.testing.assert_allclose(torch.stack(points[5:8]), [[2.5, 0], [3, 0], [3, 0.5]], atol=1e-6)
    with pytest.raises(ValueError, match="has a length"):
        connectivity_scores.spread(corner[:1], 5)


def test_a_barrier_is_the_highest_rise_above_the_line_between_the_ends():
    """A loss in one dimension: w^4 - 2 w^2 + w / 4 from -1 to 1; it falls by 1/2 short of being symmetric."""

    def loss(w):
        return w**4 - 2 * w**2 + w / 4

    places = [n / 1000 for n in range(1001)]
    found = connectivity_scores.barrier(places, [loss(2 * t - 1) for t in places])
    # Above the chord -1 + w / 4: (w^2 - 1)^2, which is 1 at w = 0.
    assert found == pytest.approx(1.0)
    assert connectivity_scores.barrier([0, 0.5, 1], [3.0, 1.0, 0.0]) == 0
    assert connectivity_scores.barrier([0, 0.25, 1], [2.0, 2.0, 0.0]) == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------- what is handed out


def test_a_method_gets_two_trained_networks_its_data_and_what_is_left(course):
    seen = {}

    def look(first, second, trial):
        seen.update(vars(trial), steps=trial.steps, spent=(trial.meter.forward, trial.meter.backward))
        seen["states"] = state(first), state(second)
        seen["right"] = [
            float(
                (one(trial.train.batch(torch.arange(400)).inputs).argmax(1) == trial.train.labels[:400]).float().mean()
            )
            for one in (first, second)
        ]
        return [second]

    outcome = course.run(look)
    n = len(seen["train"].labels)
    base = 2 * 2 * (n // 32) * 32
    assert seen["spent"] == (base, base)
    assert seen["steps"] == (2 * 5 * n - 2 * base) // 64
    assert min(seen["right"]) > 0.7 and not torch.equal(*seen["states"])
    assert (outcome.meter.forward, outcome.meter.backward) == (base + 800, base)


def test_all_methods_of_a_seed_get_the_same_and_other_seeds_others(course):
    def looked(method, seed):
        seen = []

        def look(first, second, trial):
            seen.extend([state(first), state(second), next(trial.batches).inputs.flatten()])
            return [second]

        course.run(look, method=method, seed=seed)
        return seen

    first, second, other = looked("linear", 0), looked("bezier", 0), looked("linear", 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_what_products_take_is_counted_and_capped(course):
    def look(first, second, trial):
        with trial.products() as spend:
            first(next(trial.batches).inputs)
            spend(5, 7)
        return [second]

    free = course.run(line).meter
    spent = course.run(look).meter
    assert (spent.forward - free.forward, spent.backward - free.backward) == (5, 7)

    def too_much(first, second, trial):
        with trial.products() as spend:
            spend(trial.meter.limit, 0)

    with pytest.raises(BudgetExceeded):
        course.run(too_much)


# --------------------------------------------------------------------------------------------- the measures


def test_the_line_is_measured_as_by_hand(course):
    kept = []

    def look(first, second, trial):
        for network in (first, second):
            kept.append(models.build(course.task.model, 0))  # one whose calls nobody counts
            kept[-1].load_state_dict(network.state_dict())
        return [second]

    outcome = course.run(look)
    inputs, labels = course.test_items()
    rows, losses = [], []
    for t in range(9):
        with torch.no_grad():
            logits = between(*kept, t / 8)(inputs)
        rows.append((logits.argmax(1) == labels).numpy())
        losses.append(float(nn.functional.cross_entropy(logits, labels)))
    accuracies = [row.mean() for row in rows]
    assert outcome.curves["accuracy"]["distance"] == [n / 8 for n in range(9)]
    np.testing.assert_allclose(outcome.curves["accuracy"]["value"], accuracies, atol=1e-9)
    np.testing.assert_allclose(outcome.curves["loss"]["value"], losses, rtol=1e-5)
    found = outcome.metrics
    assert found["lowest_accuracy"] == pytest.approx(min(accuracies))
    assert found["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    assert (found["end_accuracy/1"], found["end_accuracy/2"]) == pytest.approx((accuracies[0], accuracies[-1]))
    chord = [losses[0] + (losses[-1] - losses[0]) * t / 8 for t in range(9)]
    assert found["barrier"] == pytest.approx(max(a - b for a, b in zip(losses, chord, strict=True)), rel=1e-4)
    assert found["barrier"] > 0.1, "two trainings without a barrier would test nothing"
    assert found["length"] == pytest.approx(float((state(kept[0]) - state(kept[1])).norm()), rel=1e-5)
    assert (found["length_ratio"], found["reached"], found["distance_left"]) == pytest.approx((1, 1, 0))
    worst = rows[int(np.argmin(accuracies))]
    unpacked = metrics.packed_correct(
        torch.from_numpy(np.where(worst[:, None], [[0.0, 1.0]], [[1.0, 0.0]])), torch.ones(len(worst)).long()
    )
    assert outcome.items["lowest_accuracy"] == unpacked
    assert "plane" not in outcome.curves, "a line has no plane"


def test_a_barrier_cannot_be_hidden_between_points_nor_behind_the_end(course):
    full = course.run(line)
    for path in (
        lambda first, second, trial: [second],
        lambda first, second, trial: [first],
        lambda first, second, trial: [],
        lambda first, second, trial: (between(first, second, t) for t in (0.02, 0.98)),
        lambda first, second, trial: [between(first, second, 0.1)],
    ):
        found = course.run(path)
        np.testing.assert_allclose(found.curves["accuracy"]["value"], full.curves["accuracy"]["value"], atol=0.004)
    assert found.metrics["reached"] == 0 and found.metrics["distance_left"] == pytest.approx(0.9, abs=1e-5)
    assert found.metrics["lowest_accuracy_walked"] > full.metrics["lowest_accuracy_walked"] + 0.05
    assert any("ends short of the second network by 0.90" in note for note in found.notes)


def test_the_second_network_in_another_order_is_the_second_network(course):
    def shuffled(first, second, trial):
        found = copy.deepcopy(second)
        order = torch.arange(20).flip(0)
        with torch.no_grad():
            for layer, axis in ((2, 0), (4, 1)):
                found[layer].weight.copy_(found[layer].weight.index_select(axis, order))
            found[2].bias.copy_(found[2].bias[order])
        return [first, found]

    found = course.run(shuffled).metrics
    assert found["reached"] == 1 and found["distance_left"] > 0.1
    assert found["length"] == pytest.approx(found["length_ratio"] * course.run(line).metrics["length"])

    def near(first, second, trial):
        return [between(first, second, 0.999)]

    assert course.run(near).metrics["reached"] == 0


def test_the_plane_of_a_bent_path_is_looked_at_for_the_first_seed(course):
    def bent(first, second, trial):
        middle = between(first, second, 0.5)
        with torch.no_grad():
            for p in middle.parameters():
                p.add_(0.05)
        return [first, middle, second]

    outcome = course.run(bent)
    plane, walked = outcome.curves["plane"], outcome.curves["plane/path"]
    assert len(plane["value"]) == 16 and len(set(plane["x"])) == 4 and len(set(plane["y"])) == 4
    assert (walked["x"][0], walked["y"][0]) == pytest.approx((0, 0), abs=1e-4)
    span = course.run(line).metrics["length"]
    assert (walked["x"][-1], walked["y"][-1]) == pytest.approx((span, 0), rel=1e-3, abs=1e-3)
    assert max(walked["y"]) > 0.1 and max(plane["x"]) > span
    assert "plane" not in course.run(bent, seed=1).curves


# -------------------------------------------------------------------------------------- the contract broken


def test_what_is_no_path_is_said(course):
    def other(first, second, trial):
        return [nn.Linear(2, 2)]

    def broken(first, second, trial):
        middle = copy.deepcopy(first)
        middle[2].bias.data[0] = math.nan
        return [first, middle]

    def huge(first, second, trial):
        middle = copy.deepcopy(first)
        with torch.no_grad():
            for p in middle.parameters():
                p.fill_(1e30)
        return [middle, second]

    for path, words in (
        (lambda *given: None, "expected the networks of a path, got NoneType"),
        (lambda *given: [1], "got int among them"),
        (other, "network 0 of the path has other parameters"),
        (broken, r"network 1 of the path has weights that are not finite \(2.bias\)"),
        (huge, "% of the path are not finite"),
    ):
        with pytest.raises(ProtocolError, match=words):
            course.run(path)


def test_a_budget_that_does_not_pay_both_networks_is_a_mistake(course):
    for fields, words in (
        ("budget  = { epochs = 3, batch_size = 32 }", r"'budget.epochs': expected at least twice base.epochs \(4\)"),
        ("points = 2", "points"),
        ('headline = "barrier"', "headline"),
    ):
        name = fields.split()[0]
        lines = [row for row in course.file.read_text().splitlines() if not row.startswith(name)]
        broken = course.folder / "broken.toml"
        broken.write_text("\n".join([*lines, fields]))
        with pytest.raises(UserError, match=words):
            registry.read_task(str(broken))


def test_a_search_scores_on_validation_examples(course):
    held = course.run(line, split="validation").items["lowest_accuracy"].count
    assert (held, course.run(line).items["lowest_accuracy"].count) == (300, 597)


def test_fip_walks_by_geo_as_far_as_the_budget_pays(course, monkeypatch):
    """From the first network to the second, in steps of a share of their distance; better on the way than the line."""
    from fipbench.baselines import fip_connectivity

    calls, ends = [], []
    original = fip_connectivity.geo

    def walked(first, second, inputs, steps, **options):
        calls.append((state(first), state(second), steps, options))
        return original(first, second, inputs, steps, **options)

    def look(first, second, trial):
        ends.extend([state(first), state(second)])
        method = registry.load_factory(registry.find_methods("connectivity")["fip"])
        return method(stride=0.02, beta=0.001, examples=8)(first, second, trial)

    monkeypatch.setattr(fip_connectivity, "geo", walked)
    outcome = course.run(look)
    [(first, second, steps, options)] = calls
    assert torch.equal(first, ends[0]) and torch.equal(second, ends[1])
    assert options["eta"] == pytest.approx(0.02 * float((ends[1] - ends[0]).norm())) and options["beta"] == 0.001
    limit = outcome.meter.limit
    assert steps >= 10 and 0.9 * limit < outcome.meter.passes <= limit
    assert outcome.metrics["lowest_accuracy"] > course.run(line).metrics["lowest_accuracy"] + 0.02


# How many examples the training splits have.
TRAIN = {
    "digits-connectivity": 1200,
    "mnist-cnn-connectivity": 60_000,
    "resnet164-cifar10-connectivity": 50_000,
    "vgg16-cifar10-connectivity": 50_000,
    "vgg16-cifar100-connectivity": 50_000,
}


def test_every_task_of_the_track_is_known():
    assert set(TRAIN) == {head.name for head in registry.task_heads() if head.track == "connectivity"}


@pytest.mark.parametrize("name", TRAIN)
def test_the_budget_of_every_task_pays_a_walk_to_the_second_network(name):
    """Steps of one stride each, a fifth more than lie between the two, by the cost of g in passes."""
    task = registry.read_task(name)
    [row] = plan.task_rows(task, ["fip"])
    network = models.build(task.model, 0)
    size = sum(p.numel() for p in network.parameters())
    gram, step = cost(size, row.params["examples"], task.model.outputs, 4)
    passes = 2 * TRAIN[name] * (task.budget.epochs - 2 * task.base.epochs)
    steps = affordable(passes, gram, step, row.params["refresh"], start=row.params["examples"])
    assert steps * row.params["stride"] >= 1.2


def test_records_of_all_methods(course):
    """One job each, as a worker runs it; what comes out can be stored and read back."""
    found = {name: course.record(course.job(name)) for name in registry.method_names("connectivity")}
    assert {record.status for record in found.values()} == {"ok"}, [r.error for r in found.values()]
    lowest = {name: record.metrics["lowest_accuracy"] for name, record in found.items()}
    assert min(lowest["bezier"], lowest["rebasin"]) > lowest["linear"]
    assert {name: record.metrics["reached"] for name, record in found.items() if name != "fip"} == {
        "bezier": 1, "fusion": 1, "linear": 1, "rebasin": 1,
    }  # fmt: skip
    again = msgspec.json.decode(msgspec.json.encode(found["fip"]), type=Record)
    assert record_digest(again) == found["fip"].digest
