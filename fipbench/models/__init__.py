"""The architectures that tasks name."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from fipbench.errors import unknown
from fipbench.spec import Model


class Normalize(nn.Module):
    """(x - mean) / std, inside the model, so that data and attacks stay in [0, 1]."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same out."""
        return (x - self.mean) / self.std


def mlp(spec: Model) -> nn.Module:
    """A multilayer perceptron with ReLU: 784-300-100-10 is LeNet-300-100 (LeCun et al., 1998).

    Weights are Kaiming-normal (as in the published lottery-ticket runs), biases torch's default.
    """
    sizes = [math.prod(spec.inputs), *spec.hidden, spec.outputs]
    layers: list[nn.Module] = [nn.Flatten(), Normalize(spec.mean, spec.std)]
    for i, (a, b) in enumerate(pairwise(sizes)):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight)
        layers += [linear, nn.ReLU()] if i < len(sizes) - 2 else [linear]
    return nn.Sequential(*layers)


ARCHITECTURES: dict[str, Callable[[Model], nn.Module]] = {"mlp": mlp}


def build(spec: Model, seed: int) -> nn.Module:
    """A new network with initial weights decided by `seed` alone; leaves torch's own generator as it was.

    Raises:
        UserError: no architecture of that name.
    """
    if spec.name not in ARCHITECTURES:
        raise unknown("model", spec.name, ARCHITECTURES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[spec.name](spec)
