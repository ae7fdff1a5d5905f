"""What methods share that make one sparsity after another, each with an equal share of the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Level:
    """One sparsity that is due.

    Attributes:
        sparsity, before: it and the one before, 0 at first.
        dense: the dense network.
        network: that of the sparsity before, at first the dense one; not to be changed.
        steps: this level's share.
        trial: what the method was given.
        wanted: the dense network's outputs for all training examples, if they were asked for.
    """

    sparsity: float
    before: float
    dense: nn.Module
    network: nn.Module
    steps: int
    trial: Any
    wanted: Tensor | None


class LevelByLevel:
    """`prune(model, sparsities, trial)` by a function that makes the network of one level; it can go on after any."""

    def __init__(self, make: Callable[[Level], nn.Module], *, outputs: bool = False) -> None:
        self.make, self.outputs = make, outputs
        self.steps = 0
        self.wanted: Tensor | None = None

    def __call__(
        self, model: nn.Module, sparsities: tuple[float, ...], trial: Any
    ) -> Iterator[tuple[float, nn.Module]]:
        if not trial.finished:
            self.wanted = trial.outputs(model) if self.outputs else None
            self.steps = trial.steps // len(sparsities)
        network = trial.last or model
        for number in range(trial.finished, len(sparsities)):
            before = sparsities[number - 1] if number else 0.0
            due = Level(sparsities[number], before, model, network, self.steps, trial, self.wanted)
            network = self.make(due)
            yield due.sparsity, network

    def state_dict(self) -> dict[str, Tensor]:
        """What a job that was stopped needs, to go on after the last level."""
        kept = {"steps": torch.tensor(self.steps)}
        return kept if self.wanted is None else {**kept, "wanted": self.wanted}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.steps, self.wanted = int(state["steps"]), state.get("wanted")
