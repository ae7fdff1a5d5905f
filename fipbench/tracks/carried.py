"""An optimiser's state that goes on from task to task, as in code that makes one optimiser for a whole stream.

Adam's second moments are small where a task has been learned well. Kept, they make the first steps on the next task
far longer than a new optimiser's, and what was learned is lost sooner.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Carried:
    """The state of the optimiser that trained last, and what puts it into the next.

    Attributes:
        rule: that optimiser's name.
    """

    def __init__(self, rule: str, state: Mapping[str, Tensor]) -> None:
        self.rule = rule
        self._before = dict(state)
        self._last: torch.optim.Optimizer | None = None

    def into(self, optimizer: torch.optim.Optimizer, rule: str) -> None:
        """Let `optimizer`, a new one, go on from that state, and be the last from now on.

        One of another rule, or over other parameters, has nothing to go on from and begins anew.
        """
        state = self.state()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if rule == self.rule and _fits(state, parameters):
            for name, value in state.items():
                number, _, key = name.partition("/")
                parameter = parameters[int(number)]
                # A step count stays where torch has it, on the CPU.
                optimizer.state[parameter][key] = value.to(parameter.device if value.dim() else "cpu", copy=True)
        self.rule, self._last = rule, optimizer

    def state(self) -> dict[str, Tensor]:
        """The tensors of the last optimiser's state, by `number of the parameter/name`."""
        return self._before if self._last is None else state_of(self._last)


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimiser's state, by `number of the parameter/name`."""
    found = optimizer.state_dict()["state"]
    return {f"{i}/{key}": value for i, of in found.items() for key, value in of.items() if torch.is_tensor(value)}


def _fits(state: Mapping[str, Tensor], parameters: list[torch.nn.Parameter]) -> bool:
    """Whether every tensor is of one of the parameters: a number for all of it, or one a weight."""
    numbers = {name: int(name.partition("/")[0]) for name in state}
    return all(
        numbers[name] < len(parameters) and (not value.dim() or value.shape == parameters[numbers[name]].shape)
        for name, value in state.items()
    )
