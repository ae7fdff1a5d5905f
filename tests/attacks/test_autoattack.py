"""AutoAttack as its paper has it: four attacks of the paper's length, each on what those before it left."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch import nn

from fipbench import attacks
from fipbench.spec import Attack


class Steps(nn.Module):
    """logits = W s(x) + b over flattened inputs; s is x itself, or with `stairs` x in steps without a slope."""

    def __init__(self, seed: int, stairs: int = 0) -> None:
        super().__init__()
        draw = np.random.default_rng(seed)
        weight = np.zeros((5, 16))
        weight[:2] = draw.normal(size=(2, 16))
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor([0.0, 0.0, -100.0, -100.0, -100.0]), requires_grad=False)
        self.stairs = stairs

    def forward(self, x):
        seen = torch.floor(x * self.stairs) / self.stairs if self.stairs else x
        return seen.flatten(1) @ self.weight.T + self.bias


def images(n: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (n, 1, 4, 4)).astype(np.float32))


def worst(network: Steps, x: torch.Tensor, y: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The corner of the ball and the box that is best for the other class: s rises with x, so it is one."""
    way = (network.weight[1] - network.weight[0]) * (1 - 2 * y[:, None])
    corner = torch.where(way > 0, (x.flatten(1) + epsilon).clamp(max=1), (x.flatten(1) - epsilon).clamp(min=0))
    return corner.reshape(x.shape)


def in_ball(x: torch.Tensor, adversarial: torch.Tensor, epsilon: float) -> bool:
    near = float((adversarial - x).abs().max()) <= epsilon + 1e-6
    return near and float(adversarial.min()) >= 0 and float(adversarial.max()) <= 1


@pytest.mark.parametrize("epsilon", [0.03, 0.1])
def test_a_linear_network_falls_exactly_where_it_can(epsilon):
    network, x = Steps(seed=0), images()
    y = network(x).argmax(1)
    stands = network(worst(network, x, y, epsilon)).argmax(1) == y
    assert 3 < int(stands.sum()) < len(x) - 3
    adversarial = attacks.autoattack(network, x, y, epsilon, seed=1, steps=15, guesses=20)
    assert torch.equal(attacks.correct(network, adversarial, y), stands) and in_ball(x, adversarial, epsilon)


def test_where_there_is_no_gradient_the_random_search_finds_what_the_others_do_not():
    network, x, epsilon = Steps(seed=1, stairs=4), images(), 0.25
    y = network(x).argmax(1)
    could = network(worst(network, x, y, epsilon)).argmax(1) != y
    fallen = {
        guesses: ~attacks.correct(
            network, attacks.autoattack(network, x, y, epsilon, seed=1, steps=5, guesses=guesses), y
        )
        for guesses in (1, 60)
    }
    assert int(fallen[60].sum()) >= int(fallen[1].sum()) + 5
    assert not (fallen[60] & ~could).any()


def test_each_attack_of_the_papers_length_gets_what_those_before_it_left(monkeypatch):
    """Stand-ins for the library's attacks, of which each fools the first half of what it is given."""
    calls = []

    def stand_in(name):
        def make(model, **settings):
            def run(inputs, labels):
                calls.append((name, len(labels), settings))
                adversarial = inputs.clone()
                adversarial[: len(labels) // 2] = 1 - adversarial[: len(labels) // 2].round()
                return adversarial

            assert name != "FAB" or model(images(2)).dtype == torch.float32
            return run

        return make

    names = ("APGD", "APGDT", "FAB", "Square")
    monkeypatch.setattr(attacks, "_torchattacks", lambda: types.SimpleNamespace(**{n: stand_in(n) for n in names}))

    class Upright(nn.Module):
        """Right (class 0 of twelve) on images that are white throughout, and on nothing else."""

        def forward(self, x):
            lit = (x.flatten(1) > 0.5).all(1).double()
            return torch.stack([lit, *[0.5 * torch.ones_like(lit)] * 11], 1)

    white = torch.ones(16, 1, 4, 4)
    result = attacks.autoattack(Upright(), white, torch.zeros(16, dtype=torch.long), 0.1, seed=2**40 + 5)
    assert [(name, n) for name, n, _ in calls] == [("APGD", 16), ("APGDT", 8), ("FAB", 4), ("Square", 2)]
    assert attacks.correct(Upright(), result, torch.zeros(16, dtype=torch.long)).sum() == 1
    said = {name: settings for name, _, settings in calls}
    assert all(s["eps"] == 0.1 and s["seed"] == 5 + 2**40 % 2**32 for s in said.values())
    assert [said[name]["steps"] for name in names[:3]] == [100, 100, 100] and said["Square"]["n_queries"] == 5000
    assert said["APGD"]["loss"] == "ce" and said["FAB"]["multi_targeted"]
    assert said["APGDT"]["n_classes"] == said["FAB"]["n_classes"] == 10, "nine targets, of eleven wrong classes"


def test_rows_fall_with_the_radius_and_what_has_fallen_is_spared(monkeypatch):
    asked = []

    def one_falls(model, inputs, labels, epsilon, *, seed):
        asked.append((len(labels), epsilon, seed))
        return torch.cat([1 - inputs[:1], inputs[1:]])

    monkeypatch.setattr(attacks, "autoattack", one_falls)
    network = Steps(seed=0)
    x = images(200)
    y = network(x).argmax(1)
    x, y = x[network(1 - x).argmax(1) != y][:6], y[network(1 - x).argmax(1) != y][:6]
    attack = Attack(epsilons=(0.1, 0.2, 0.3), steps=1, restarts=1, apgd_steps=1)
    rows = attacks.under_autoattack(network, x, y, attack, seed=3)
    assert rows.sum(1).tolist() == [6, 5, 4, 3]
    assert [(n, epsilon) for n, epsilon, _ in asked] == [(6, 0.1), (5, 0.2), (4, 0.3)]
    assert len({seed for *_, seed in asked}) == 3
    assert not (rows[1:] & ~rows[:-1]).any()


def test_it_needs_four_classes():
    def model(x):
        return x.flatten(1)[:, :3]

    with pytest.raises(ValueError, match="four classes or more, the model has 3"):
        attacks.autoattack(model, images(2), torch.zeros(2, dtype=torch.long), 0.1, seed=0)
