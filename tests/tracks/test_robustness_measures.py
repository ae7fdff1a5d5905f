"""What the robustness track measures, against numpy and against the attacks called by hand."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib

import msgspec
import numpy as np
import pytest
import torch
from robustness_lab import Lab

from fipbench import attacks
from fipbench.tracks import robustness

RADII = ("0.02", "0.05", "0.1")


@pytest.fixture(scope="module")
def vote(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("vote"))


def by_hand(model, trial):
    """Three networks of random weights near the base network's."""
    draw = torch.Generator().manual_seed(5)
    found = []
    for _ in range(3):
        network = copy.deepcopy(model)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.15 * p.std() * torch.randn(p.shape, generator=draw))
        found.append(network)
    return found


@pytest.fixture(scope="module")
def measured(vote):
    kept = {}

    def method(model, trial):
        kept["base"] = copy.deepcopy(model)
        kept["members"] = by_hand(model, trial)
        return kept["members"]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    outcome = vote.run(method)
    torch.set_num_threads(before)
    return outcome, kept


def softmax_by_numpy(network, inputs):
    h = inputs.flatten(1).double().numpy()
    h = (h - 0.305) / 0.376
    linear = [m for m in network if isinstance(m, torch.nn.Linear)]
    for number, layer in enumerate(linear):
        h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        h = np.maximum(h, 0) if number < len(linear) - 1 else h
    p = np.exp(h - h.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def bits(items):
    return np.unpackbits(np.frombuffer(base64.b64decode(items.bits), np.uint8))[: items.count].astype(bool)


def test_clean_accuracy_is_that_of_the_mean_softmax_over_the_whole_test_split(vote, measured):
    outcome, kept = measured
    inputs, labels = vote.test_items()
    each = [softmax_by_numpy(member, inputs) for member in kept["members"]]
    right = np.mean(each, axis=0).argmax(1) == labels.numpy()
    assert outcome.metrics["clean"] == pytest.approx(right.mean(), abs=1e-12)
    assert (bits(outcome.items["clean"]) == right).all() and outcome.items["clean"].count == 597
    single = [float((p.argmax(1) == labels.numpy()).mean()) for p in each]
    assert outcome.metrics["clean_member_mean"] == pytest.approx(np.mean(single), abs=1e-12)
    assert len(set(single)) > 1


def test_every_attack_has_its_column_and_its_curve(measured):
    outcome, _ = measured
    wanted = {f"{name}@{radius}" for name in ("robust", "pgd", "apgd", "transfer") for radius in RADII}
    others = {"clean", "clean_member_mean", "items_attacked", "diversity", "coherence"}
    others |= {"lipschitz_lower", "lipschitz_upper"}
    assert set(outcome.metrics) == wanted | others
    assert outcome.metrics["items_attacked"] == 60
    for name in ("robust", "pgd", "apgd", "transfer"):
        curve = outcome.curves[name]
        assert curve["epsilon"] == [0.0, 0.02, 0.05, 0.1]
        assert curve["value"][1:] == [outcome.metrics[f"{name}@{radius}"] for radius in RADII]
    assert len({tuple(outcome.curves[name]["value"][:1]) for name in ("robust", "pgd", "apgd", "transfer")}) == 1


def test_the_worst_case_is_no_better_than_any_attack_and_falls_with_the_radius(measured):
    outcome, _ = measured
    for radius in RADII:
        values = [outcome.metrics[f"{name}@{radius}"] for name in ("pgd", "apgd")]
        assert outcome.metrics[f"robust@{radius}"] <= min(values)
    for name in ("robust", "pgd", "apgd"):
        assert outcome.curves[name]["value"] == sorted(outcome.curves[name]["value"], reverse=True)
    values = outcome.curves["robust"]["value"]
    assert values[0] > values[1] > values[-1]
    rows = [bits(outcome.items[f"robust@{radius}"]) for radius in RADII]
    assert [row.mean() for row in rows] == pytest.approx(values[1:]) and all(len(row) == 60 for row in rows)
    assert not (rows[1] & ~rows[0]).any() and not (rows[2] & ~rows[1]).any()


def test_the_attacked_items_are_the_tasks_own_whatever_the_seed(vote, measured):
    """The clean verdicts of the attacked items, taken from the whole split at the drawn places."""
    outcome = measured[0]
    index = robustness._attacked(vote.task, 597)
    assert len(index) == len(set(index.tolist())) == 60 and index.tolist() == sorted(index.tolist())
    assert index.tolist() != list(range(60))
    assert outcome.curves["robust"]["value"][0] == pytest.approx(bits(outcome.items["clean"])[index].mean())
    fewer = msgspec.structs.replace(vote.task, attack=msgspec.structs.replace(vote.task.attack, items=20))
    assert set(robustness._attacked(fewer, 597).tolist()) < set(index.tolist())
    for items in (0, 5000):
        every = msgspec.structs.replace(vote.task, attack=msgspec.structs.replace(vote.task.attack, items=items))
        assert robustness._attacked(every, 597).tolist() == list(range(597))


def test_the_verdicts_are_those_of_the_attacks_called_by_hand(vote, measured):
    outcome, kept = measured
    inputs, labels = vote.test_items()
    index = robustness._attacked(vote.task, 597)
    network = attacks.MeanSoftmax([copy.deepcopy(m).eval().requires_grad_(False) for m in kept["members"]])
    seed = robustness.seed_for(vote.job(), "attacks")
    with outcome.meter.paused():  # what a method was given is counted for ever
        found = attacks.white_box(network, inputs[index], labels[index], vote.task.attack, seed)
    for number, radius in enumerate(RADII, start=1):
        assert (bits(outcome.items[f"robust@{radius}"]) == found["robust"][number].numpy()).all()


def test_the_surrogate_is_a_network_of_its_own_that_costs_nobody(vote, measured, monkeypatch):
    outcome, kept = measured
    assert outcome.provenance["surrogate"] != outcome.provenance["base"]
    seen = []
    honest = attacks.transfer
    monkeypatch.setattr(attacks, "transfer", lambda s, *rest, **k: (seen.append(s), honest(s, *rest, **k))[1])
    again, other = vote.run(by_hand), vote.run(by_hand, method="snapshot")
    n = 2 * (1200 // 32) * 32
    assert (again.meter.forward, again.meter.backward) == (n, n), "the base network's alone"
    assert again.provenance["surrogate"] == other.provenance["surrogate"] == outcome.provenance["surrogate"]
    inputs, labels = vote.test_items()
    accuracy = (softmax_by_numpy(seen[0], inputs).argmax(1) == labels.numpy()).mean()
    assert accuracy > 0.6, "the surrogate is not trained"
    assert not torch.equal(next(seen[0].parameters()), next(kept["base"].parameters()))


def test_waiting_for_the_surrogate_is_no_part_of_what_a_job_takes(vote, monkeypatch):
    """A record's time is its own, less what it waited for, plus what the base network took whoever trained it."""
    honest = robustness.base_network

    def timed(*args, purpose="", **rest):
        wait_s, wall_s = (30.0, 500.0) if purpose else (2.0, 7.0)
        return dataclasses.replace(honest(*args, purpose=purpose, **rest), wait_s=wait_s, wall_s=wall_s)

    monkeypatch.setattr(robustness, "base_network", timed)
    outcome = vote.run(by_hand)
    assert (outcome.base_wait_s, outcome.base_wall_s) == (32.0, 7.0)


def test_diversity_and_coherence_by_numpy(vote, measured):
    outcome, kept = measured
    inputs, _ = vote.test_items()
    inputs = inputs[robustness._attacked(vote.task, 597)]
    norms = []
    for member in kept["members"]:
        h = (inputs.flatten(1).double().numpy() - 0.305) / 0.376
        linear = [m for m in member if isinstance(m, torch.nn.Linear)]
        row = []
        for number, layer in enumerate(linear):
            h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
            h = np.maximum(h, 0) if number < len(linear) - 1 else h
            row.append(np.linalg.norm(h, axis=1))
        norms.append(row)
    wanted = [float(np.std([row[layer] for row in norms], axis=0).mean()) for layer in range(3)]
    assert outcome.curves["diversity"]["layer"] == [1, 2, 3]
    assert outcome.curves["diversity"]["value"] == pytest.approx(wanted, rel=1e-4)
    assert outcome.metrics["diversity"] == pytest.approx(np.mean(wanted), rel=1e-4)
    assert -1 <= outcome.metrics["coherence"] <= 1


def test_lipschitz_bounds_by_numpy(vote, measured):
    """The Jacobian of a perceptron is a product of matrices with rows struck out; its bound that of their norms."""
    outcome, kept = measured
    inputs, _ = vote.test_items()
    x = (inputs[robustness._attacked(vote.task, 597)].flatten(1).double().numpy() - 0.305) / 0.376
    lower, upper = [], []
    for member in kept["members"]:
        layers = [
            (m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
            for m in member
            if isinstance(m, torch.nn.Linear)
        ]
        found = []
        for item in x:
            jacobian, h = np.eye(64) / 0.376, item
            for number, (weight, bias) in enumerate(layers):
                h, jacobian = weight @ h + bias, weight @ jacobian
                if number < len(layers) - 1:
                    h, jacobian = np.maximum(h, 0), jacobian * (h > 0)[:, None]
            found.append(np.linalg.norm(jacobian, 2))
        lower.append(max(found))
        upper.append(np.prod([np.linalg.norm(weight, 2) for weight, _ in layers]) / 0.376)
    assert outcome.metrics["lipschitz_lower"] == pytest.approx(np.mean(lower), rel=1e-4)
    assert outcome.metrics["lipschitz_upper"] == pytest.approx(np.mean(upper), rel=1e-4)
    assert outcome.metrics["lipschitz_lower"] < outcome.metrics["lipschitz_upper"]


def test_a_layer_without_a_known_bound_is_noted_and_costs_no_other_measure(vote, monkeypatch):
    monkeypatch.setattr(robustness.lipschitz, "_SLOPES", {})
    outcome = vote.run(by_hand)
    assert "lipschitz_upper" not in outcome.metrics and outcome.metrics["lipschitz_lower"] > 0
    assert any(note.startswith("no upper bound of the Lipschitz constant: layer ") for note in outcome.notes)


def test_coherence_is_with_the_surrogate(vote, monkeypatch):
    """The largest cosine of a member's input gradient and the surrogate's, by autograd in double precision."""
    kept = []
    honest = attacks.transfer
    monkeypatch.setattr(attacks, "transfer", lambda s, v, *rest: (kept.extend([s, *v.members]), honest(s, v, *rest))[1])
    outcome = vote.run(by_hand)
    inputs, labels = vote.test_items()
    index = robustness._attacked(vote.task, 597)
    x, y = inputs[index].double().requires_grad_(), labels[index]
    units = []
    for network in kept:
        loss = torch.nn.functional.cross_entropy(copy.deepcopy(network).double()(x), y, reduction="sum")
        gradient = torch.autograd.grad(loss, x)[0].flatten(1)
        units.append(gradient / gradient.norm(dim=1, keepdim=True))
    wanted = torch.stack([(unit * units[0]).sum(1) for unit in units[1:]]).amax(0).mean()
    assert outcome.metrics["coherence"] == pytest.approx(float(wanted), abs=1e-4)


def test_coherence_with_the_base_networks_twin_is_one(vote, monkeypatch):
    """If the surrogate is a member, their gradients are parallel at every input."""
    honest = robustness.base_network

    def same(*args, purpose="", **rest):
        return honest(*args, **rest)

    monkeypatch.setattr(robustness, "base_network", same)
    outcome = vote.run(lambda model, trial: [model, *by_hand(model, trial)[:2]])
    assert outcome.metrics["coherence"] == pytest.approx(1, abs=1e-6)


def test_a_single_network_has_no_diversity_and_stops_early(vote):
    outcome = vote.run(lambda model, trial: [model], method="single")
    assert outcome.curves["diversity"]["value"] == [0, 0, 0]
    assert outcome.notes == ["stopped at 33% of the budget"]
    assert outcome.parameters_stored == sum(p.numel() for p in by_hand_parameters())


def by_hand_parameters():
    sizes = [(64, 20), (20, 10), (10, 10)]
    return [torch.zeros(s) for a, b in sizes for s in ((b, a), (b,))]


def test_a_search_job_never_sees_the_test_split(vote, monkeypatch):
    """Attacks and measures of a tuning job are on examples held out of the training split."""
    seen = []
    honest = attacks.white_box
    monkeypatch.setattr(
        attacks, "white_box", lambda m, x, y, *rest: (seen.append(x.clone()), honest(m, x, y, *rest))[1]
    )
    given = []

    def method(model, trial):
        given.append(trial.train)
        return by_hand(model, trial)

    outcome = vote.run(method, split="validation")
    inputs, _ = vote.test_items()
    test = {row.numpy().tobytes() for row in inputs.flatten(1)}
    train = {(row.float() / 255).numpy().tobytes() for row in given[0].inputs.flatten(1)}
    held = {row.numpy().tobytes() for row in seen[0].flatten(1)}
    assert not held & test and not held & train and len(given[0].labels) == 900
    assert outcome.items["clean"].count == 300


def test_one_seed_one_outcome(vote):
    a, b, c = vote.run(by_hand), vote.run(by_hand), vote.run(by_hand, seed=1)
    assert a.metrics == b.metrics and a.items == b.items and a.curves == b.curves
    assert a.metrics != c.metrics


def test_autoattack_stands_beside_on_the_first_of_the_drawing_and_in_no_headline(vote, measured, monkeypatch):
    outcome, kept = measured
    assert "autoattack" not in outcome.curves and not any("autoattack" in name for name in outcome.metrics)
    seen = []

    def fake(model, inputs, labels, attack, seed):
        seen.append((inputs, labels, seed))
        return torch.zeros(1 + len(attack.epsilons), len(labels), dtype=torch.bool)

    monkeypatch.setattr(attacks, "under_autoattack", fake)
    task = msgspec.structs.replace(vote.task, attack=msgspec.structs.replace(vote.task.attack, autoattack=25))
    beside = vote.run(lambda model, trial: kept["members"], task=task)
    [(inputs, labels, _)] = seen
    everything, all_labels = vote.test_items()
    name = f"{task.name}/attacked".encode()
    seed = int.from_bytes(hashlib.sha256(name).digest()[:7], "big")
    drawn = torch.randperm(597, generator=torch.Generator().manual_seed(seed))[:25].sort().values
    assert torch.allclose(inputs, everything[drawn]) and torch.equal(labels, all_labels[drawn])
    assert beside.curves["autoattack"]["value"] == [0.0] * 4 and beside.metrics["items_autoattacked"] == 25
    assert all(beside.metrics[f"autoattack@{radius}"] == 0 for radius in RADII)
    changed = {name for name in beside.metrics if outcome.metrics.get(name) != beside.metrics[name]}
    assert changed == {"items_autoattacked", *(f"autoattack@{radius}" for radius in RADII)}
