"""Networks whose worst case is known in closed form, and a tiny task of the robustness track."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fipbench.attacks import MeanSoftmax
from fipbench.audit import searches
from fipbench.audit.rounds import Bout
from fipbench.audit.searches import Strength

SMALL = Strength(restarts=1, steps=6, apgd_steps=4, fab_steps=2, guesses=12, draws=2)

TINY = """
title   = "A tiny vote on the real digits"
track   = "robustness"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [20, 10], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05 }
budget  = { epochs = 4, batch_size = 32 }
validation = 300
headline   = "robust@0.05"
members    = 2
attack     = { epsilons = [0.02, 0.05], steps = 2, restarts = 1, apgd_steps = 2, items = 60 }
"""


class Two(nn.Module):
    """Five outputs of 4 x 4 images of which two matter: scale times W s(x), s the identity, or x in `stairs` steps."""

    def __init__(self, seed: int = 0, scale: float = 1.0, stairs: int = 0) -> None:
        super().__init__()
        weight = np.zeros((5, 16), np.float32)
        weight[:2] = np.random.default_rng(seed).normal(size=(2, 16))
        self.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor([0.0, 0.0, -100.0, -100.0, -100.0]), requires_grad=False)
        self.scale, self.stairs = scale, stairs

    def forward(self, x):
        seen = torch.floor(x * self.stairs) / self.stairs if self.stairs else x
        return self.scale * (seen.flatten(1) @ self.weight.T + self.bias)

    def corner(self, x, y, epsilon):
        """The point of the ball and the box that is best for the other class: s rises with x, so it is a corner."""
        way = (self.weight[1] - self.weight[0]) * (1 - 2 * y[:, None])
        flat = x.flatten(1)
        moved = torch.where(way > 0, (flat + epsilon).clamp(max=1), (flat - epsilon).clamp(min=0))
        return moved.reshape(x.shape)

    def stands(self, x, y, epsilon):
        """Which images no point of the ball fools: the truth, computed without an attack."""
        return self(self.corner(x, y, epsilon)).argmax(1) == y


def images(n: int = 60) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (n, 1, 4, 4)).astype(np.float32))


def bout(network: nn.Module, n: int = 60, **more) -> Bout:
    """A bout against a vote of one network, with its own answers for labels."""
    x = images(n)
    vote = MeanSoftmax([network]).eval().requires_grad_(False)
    return Bout(vote, x, network(x).argmax(1), [network], seed=7, **more)


def all_of(fight: Bout, other: nn.Module, size: Strength = SMALL) -> list[searches.Search]:
    """The attacks of an audit, transfer being from `other`."""
    return searches.of(fight.vote, other, size)
