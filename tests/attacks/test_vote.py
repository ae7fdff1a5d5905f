"""The vote and the verdict: mean of softmax in double precision, worst cases, seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fipbench import attacks
from fipbench.spec import Attack

SETTINGS = Attack(epsilons=(0.1, 0.2, 0.3), steps=4, step_size=0.5, restarts=3, apgd_steps=4)


class Fixed(nn.Module):
    """Says logits[i] for every input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits[: len(x)] + 0 * x.flatten(1).sum(1, keepdim=True)


def test_the_vote_is_the_mean_of_softmax():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(3, 7, 5)).astype(np.float32) * 5
    vote = attacks.MeanSoftmax([Fixed(one) for one in logits])
    got = vote(torch.zeros(7, 1, 2, 2)).detach().numpy()
    exact = np.exp(logits.astype(float))
    mean = (exact / exact.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(np.exp(got), mean, rtol=1e-9)
    assert (got.argmax(1) == mean.argmax(1)).all()
    labels = torch.arange(7) % 5
    loss = nn.functional.cross_entropy(torch.from_numpy(got), labels, reduction="none").numpy()
    np.testing.assert_allclose(loss, -np.log(mean[np.arange(7), labels.numpy()]), rtol=1e-9)


def test_the_vote_is_not_the_vote_of_the_majority():
    """Two members lean to class 0, one is sure of class 1: the mean of softmax follows the sure one."""
    members = [Fixed([[0.2, 0.0, -9.0, -9.0]]), Fixed([[0.2, 0.0, -9.0, -9.0]]), Fixed([[0.0, 9.0, -9.0, -9.0]])]
    vote = attacks.MeanSoftmax(members)
    assert vote(torch.zeros(1, 1, 2, 2)).argmax(1).tolist() == [1]


@pytest.mark.parametrize("gap", [5.0, 25.0, 34.0])
def test_the_gradient_of_a_sure_network_keeps_its_label(gap):
    """In single precision 1 - p is zero at a gap of 20, and with it the part of the gradient along the label."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [0.3, -0.4]])
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 4)).requires_grad_(False)
    network[1].weight.copy_(weight)
    network[1].bias.copy_(torch.tensor([gap, 0.0, 0.0, 0.0]))
    x = torch.zeros(1, 1, 1, 2, requires_grad=True)
    nn.functional.cross_entropy(attacks.MeanSoftmax([network])(x), torch.tensor([0])).backward()
    z = np.array([gap, 0.0, 0.0, 0.0])
    p = np.exp(z) / np.exp(z).sum()
    exact = sum(p[k] * (weight[k] - weight[0]).numpy().astype(float) for k in (1, 2, 3))
    np.testing.assert_allclose(x.grad.flatten().numpy(), exact, rtol=0.05)


def test_an_output_that_is_no_number_is_never_correct():
    logits = [[1.0, 0.0, 0.0], [float("nan")] * 3, [float("inf"), 0.0, 0.0], [0.0, 1.0, 0.0]]
    found = attacks.correct(Fixed(logits), torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 0, 0]))
    assert found.tolist() == [True, False, False, False]


# ------------------------------------------------------------------------------------------ the verdict


class Marked(nn.Module):
    """Correct (class 0) unless an attack has set the first pixel to one."""

    def forward(self, x):
        fooled = (x[:, 0, 0, 0] == 1).float()
        return torch.stack([1 - fooled, fooled, -fooled, -fooled], 1)


@pytest.fixture
def scripted(monkeypatch):
    """Attacks that fool what a script says: {(kind, epsilon, restart): items}; items are known by their last pixel."""
    calls = []

    def install(script):
        def fool(kind):
            def attack(model, inputs, labels, epsilon, **settings):
                mine = [c for c in calls if c["kind"] == kind and c["epsilon"] == epsilon]
                names = [round(float(v) * 100) for v in inputs[:, 0, -1, -1]]
                calls.append({"kind": kind, "epsilon": epsilon, "items": names, **settings})
                result = inputs.clone()
                for row, name in enumerate(names):
                    if name in script.get((kind, epsilon, len(mine)), ()):
                        result[row, 0, 0, 0] = 1
                return result

            return attack

        monkeypatch.setattr(attacks, "pgd", fool("pgd"))
        monkeypatch.setattr(attacks, "apgd", fool("apgd"))
        return calls

    return install


def items(n=8):
    x = torch.zeros(n, 1, 2, 2)
    x[:, 0, -1, -1] = torch.arange(n) / 100
    x[0, 0, 0, 0] = 1  # item 0 is wrong before any attack
    return x, torch.zeros(n, dtype=torch.long)


def held(row):
    return row.nonzero().flatten().tolist()


def test_an_item_is_robust_only_if_nothing_fools_it(scripted):
    calls = scripted({("pgd", 0.1, 0): [1], ("pgd", 0.1, 2): [2], ("apgd", 0.1, 0): [3], ("pgd", 0.2, 1): [4],
                      ("apgd", 0.3, 0): [5], ("apgd", 0.2, 0): [1]})  # fmt: skip
    found = attacks.white_box(Marked(), *items(), SETTINGS, seed=0)
    assert [held(row) for row in found["pgd"]] == [[1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7], [3, 5, 6, 7], [3, 5, 6, 7]]
    assert [held(row) for row in found["apgd"]] == [
        [1, 2, 3, 4, 5, 6, 7], [1, 2, 4, 5, 6, 7], [2, 4, 5, 6, 7], [2, 4, 6, 7]]  # fmt: skip
    assert [held(row) for row in found["robust"]] == [[1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7], [5, 6, 7], [6, 7]]
    assert [(c["kind"], c["epsilon"]) for c in calls] == [
        (kind, e) for e in SETTINGS.epsilons for kind in ("pgd", "pgd", "pgd", "apgd")
    ]
    # Each attack is spared what it fooled itself, never what the other did, and what was wrong from the start.
    assert calls[3]["items"] == [1, 2, 3, 4, 5, 6, 7] and calls[1]["items"] == [2, 3, 4, 5, 6, 7]
    assert calls[4]["items"] == [3, 4, 5, 6, 7] and calls[7]["items"] == [1, 2, 4, 5, 6, 7]


def test_every_start_has_a_seed_of_its_own_and_its_settings(scripted):
    calls = scripted({})
    attacks.white_box(Marked(), *items(), SETTINGS, seed=0)
    assert len({c["seed"] for c in calls}) == len(calls) == 12
    first = [c["seed"] for c in calls]
    calls.clear()
    attacks.white_box(Marked(), *items(), SETTINGS, seed=0)
    assert [c["seed"] for c in calls] == first
    calls.clear()
    attacks.white_box(Marked(), *items(), SETTINGS, seed=1)
    assert not set(first) & {c["seed"] for c in calls}
    assert {(c["steps"], c.get("step_size")) for c in calls} == {(4, 0.5), (4, None)}


def test_when_all_are_fooled_nothing_more_is_attacked(scripted):
    calls = scripted({("pgd", 0.1, 0): range(8), ("apgd", 0.1, 0): range(8)})
    found = attacks.white_box(Marked(), *items(), SETTINGS, seed=0)
    assert len(calls) == 2 and not found["robust"][1:].any()


# ------------------------------------------------------------------------------------ on a network


@pytest.fixture
def vote():
    draw = torch.Generator().manual_seed(0)
    members = []
    for _ in range(2):
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)).requires_grad_(False)
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=draw))
        members.append(network)
    return attacks.MeanSoftmax(members).eval()


@pytest.fixture
def data(vote):
    x = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = vote(x).argmax(1)
    y[:10] = (y[:10] + 1) % 5
    return x, y


SMALL = Attack(epsilons=(0.02, 0.05, 0.1), steps=5, restarts=2, apgd_steps=8)


def test_robustness_falls_with_the_radius_and_is_the_conjunction(vote, data):
    found = attacks.white_box(vote, *data, SMALL, seed=0)
    assert set(found) == {"pgd", "apgd", "robust"}
    for rows in found.values():
        assert rows.shape == (4, 80) and rows.dtype == torch.bool
        assert rows[0].sum() == 70 and not (rows[1:] & ~rows[:-1]).any()
    assert torch.equal(found["robust"], found["pgd"] & found["apgd"])
    counts = found["robust"].sum(1).tolist()
    assert counts[0] > counts[1] > counts[2] > counts[3] > 0


def test_verdicts_depend_on_the_seed_given_and_on_no_other(vote, data):
    def run(seed, everybody):
        torch.manual_seed(everybody)
        before = torch.get_rng_state()
        found = attacks.white_box(vote, *data, SMALL, seed=seed)
        found["transfer"] = attacks.transfer(vote.members[0], vote, *data, SMALL, seed=seed)
        assert torch.equal(torch.get_rng_state(), before), "everybody's generator was drawn from"
        return found

    a, b = run(0, 1), run(0, 2)
    assert all(torch.equal(a[name], b[name]) for name in a)
    starts = [attacks.pgd(vote, *data, 0.05, steps=1, step_size=0.25, seed=s) for s in (0, 1)]
    assert not torch.equal(*starts)


def test_many_items_are_attacked_in_parts(vote, data, monkeypatch):
    """What fits the memory makes no difference to what is attacked; every item gets its verdict."""
    x, y = data
    seen = []
    honest = attacks.pgd
    monkeypatch.setattr(attacks, "pgd", lambda m, a, b, e, **s: (seen.append(len(b)), honest(m, a, b, e, **s))[1])
    monkeypatch.setattr(attacks, "CHUNK", 32)
    found = attacks.white_box(vote, x, y, SMALL, seed=0)
    assert max(seen) <= 32 and found["robust"].shape == (4, 80)
    gradients = attacks.input_gradients(vote, x, y)
    monkeypatch.setattr(attacks, "CHUNK", 500)
    torch.testing.assert_close(gradients, attacks.input_gradients(vote, x, y))


def test_transfer_inputs_are_made_for_the_surrogate(vote, data):
    """Attacked with itself as surrogate a network does as under one PGD; with a stranger's inputs it does better."""
    x, y = data
    stranger = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).requires_grad_(False)
    own = attacks.transfer(vote, vote, x, y, SMALL, seed=0)
    other = attacks.transfer(stranger, vote, x, y, SMALL, seed=0)
    assert own.shape == other.shape == (4, 80)
    assert torch.equal(own[0], other[0]) and own[0].sum() == 70
    assert own[3].sum() < other[3].sum()


def test_input_gradients_are_each_examples_own(vote, data):
    """Central differences of each example's own loss, in double precision."""
    x, y = data[0][:6], data[1][:6]
    network = vote.double()
    got = attacks.input_gradients(network, x.double(), y)
    for n in range(6):
        for i in (0, 7, 15):
            step = torch.zeros(16, dtype=torch.float64)
            step[i] = 1e-5
            step = step.view(1, 4, 4)
            ends = [
                nn.functional.cross_entropy(network((x[n].double() + s * step)[None]), y[n : n + 1]) for s in (1, -1)
            ]
            wanted = float(ends[0] - ends[1]) / 2e-5
            assert float(got[n].flatten()[i]) == pytest.approx(wanted, rel=1e-4, abs=1e-9)
