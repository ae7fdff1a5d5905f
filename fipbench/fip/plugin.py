"""FIP-CF as a plugin of avalanche-lib's supervised strategies; importing this module imports Avalanche.

    strategy = Naive(model=..., optimizer=..., train_mb_size=32, plugins=[FIPPlugin(memory_per_experience=50)])

See `fipbench.fip.continual` for what is minimised and where it comes from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fipbench.compat import import_torchvision

import_torchvision()

from avalanche.models.utils import avalanche_forward  # noqa: E402
from avalanche.training.plugins import SupervisedPlugin  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from fipbench.fip.continual import invariance  # noqa: E402


class FIPPlugin(SupervisedPlugin):
    """Adds `strength` times the distance of the outputs on remembered inputs to the loss of every iteration.

    The reference outputs, of the network before the experience, are computed once an experience. No label is
    remembered. Each iteration draws as many remembered inputs as its batch has, or all if they are fewer.

    Args:
        memory_per_experience: inputs remembered of each experience, the classes in turn, drawn at random.
        strength, distance, reduction, epsilon: as of `fipbench.fip.invariance`.
        seed: of the draws.

    Raises:
        ValueError: a memory below one, a negative strength, or what `invariance` raises.
    """

    def __init__(
        self,
        memory_per_experience: int,
        *,
        strength: float = 1.0,
        distance: str = "bhattacharyya",
        reduction: str = "mean",
        epsilon: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if memory_per_experience < 1 or strength < 0:
            raise ValueError(
                "memory_per_experience must be positive and strength not negative, got "
                f"{memory_per_experience} and {strength}"
            )
        self.memory_per_experience = memory_per_experience
        self.strength = strength
        self.moved = invariance(distance, reduction=reduction, epsilon=epsilon)
        self.generator = torch.Generator().manual_seed(seed)
        self.inputs: Tensor | None = None
        self.tasks: Tensor | None = None
        self.reference: Tensor | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Note the outputs that are to be kept."""
        if self.inputs is None or self.tasks is None:
            return
        model = strategy.model
        modes = {module: module.training for module in model.modules()}
        model.eval()
        with torch.no_grad():
            chunks = zip(self.inputs.split(1000), self.tasks.split(1000), strict=True)
            self.reference = torch.cat([avalanche_forward(model, x, t) for x, t in chunks])
        for module, mode in modes.items():
            module.training = mode

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distance on a draw from memory to the loss."""
        if self.inputs is None or self.tasks is None or self.reference is None:
            return
        count = min(len(strategy.mb_x), len(self.inputs))
        index = torch.randperm(len(self.inputs), generator=self.generator)[:count].to(self.inputs.device)
        logits = avalanche_forward(strategy.model, self.inputs[index], self.tasks[index])
        strategy.loss = strategy.loss + self.strength * self.moved(logits, self.reference[index])

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Remember inputs of the experience that has been learned."""
        dataset = strategy.experience.dataset
        loader = DataLoader(dataset, batch_size=256, collate_fn=getattr(dataset, "collate_fn", None))
        parts = [(batch[0], batch[1], batch[-1]) for batch in loader]
        inputs, labels, tasks = (torch.cat(column) for column in zip(*parts, strict=True))
        index = self.choose(labels)
        inputs, tasks = inputs[index].to(strategy.device), tasks[index].to(strategy.device)
        self.inputs = inputs if self.inputs is None else torch.cat([self.inputs, inputs])
        self.tasks = tasks if self.tasks is None else torch.cat([self.tasks, tasks])

    def choose(self, labels: Tensor) -> Tensor:
        """Positions of the examples to remember: at random, the classes in turn."""
        order = torch.randperm(len(labels), generator=self.generator)
        turn = torch.zeros(len(labels), dtype=torch.int64)
        for label in labels.unique():
            own = labels[order] == label
            turn[own] = torch.arange(int(own.sum()))
        return order[torch.argsort(turn, stable=True)][: self.memory_per_experience]
