"""Which operations a composition task asks for, each a step from one network to another. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fipbench.spec import CompositionTask

BASE = "base"
ORDERS = ("cl-co", "co-cl")
AGAIN = "again/"


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        name: of the network that it gives; `start`: of the one that it is given.
        kind: `cl` learns the second data set, `co` makes sparse.
        sparsity: what is due after a `co`; what the network had when a `cl` began.
        source: the number, from 0, of the data set in hand: that to be learned, or the one learned last.
    """

    name: str
    start: str
    kind: str
    sparsity: float
    source: int

    @property
    def final(self) -> bool:
        """Whether both operations have been done."""
        return self.start != BASE

    @property
    def remembers(self) -> bool:
        """Whether there is a data set that is past."""
        return self.kind == "cl" or self.final


def steps_of(task: CompositionTask) -> tuple[Step, ...]:
    """All of them, each after the one that it starts from: both orders at each sparsity, and both once more at one."""
    found = [Step("cl", BASE, "cl", 0.0, 1)]
    for sparsity in task.sparsities:
        found += _both("cl", sparsity, "")
    again = f"{AGAIN}cl"
    return (*found, Step(again, BASE, "cl", 0.0, 1), *_both(again, task.repeat, AGAIN))


def _both(learned: str, sparsity: float, prefix: str) -> list[Step]:
    sparse = f"{prefix}co@{sparsity:g}"
    return [
        Step(at("cl-co", sparsity, prefix), learned, "co", sparsity, 1),
        Step(sparse, BASE, "co", sparsity, 0),
        Step(at("co-cl", sparsity, prefix), sparse, "cl", sparsity, 1),
    ]


def at(order: str, sparsity: float, prefix: str = "") -> str:
    """The name of a network that both operations led to."""
    return f"{prefix}{order}@{sparsity:g}"


def passes_of(task: CompositionTask, step: Step, train: Sequence[int]) -> int:
    """What an operation may spend, in passes: `epochs` over the data set in hand, forward and backward.

    Args:
        train: training examples of each data set.
    """
    return int(2 * task.budget.epochs * train[step.source] * (task.budget.factor or 1))


def cap_of(task: CompositionTask, train: Sequence[int]) -> int:
    """What a whole job may spend, in passes, base network included."""
    return 2 * task.base.epochs * train[0] + sum(passes_of(task, step, train) for step in steps_of(task))
