"""Whether training a task's network can fit a memory at all; said before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from fipbench.errors import UserError
from fipbench.spec import Model, Task, Ticket

FLOAT_BYTES = 4
# Tensors of the parameters' size that an optimiser keeps.
_STATES = {"sgd": 1, "adam": 2, "adamw": 2}


def state_bytes(task: Task, parameters: int) -> int:
    """Parameters, gradients and the state of the recipe's optimiser, in bytes: the least that training takes."""
    states = _STATES[task.base.optimizer] if task.base.optimizer != "sgd" or task.base.momentum else 0
    return parameters * FLOAT_BYTES * (2 + states)


def problem(task: Task, parameters: int, memory_bytes: int, where: str) -> str:
    """Why the task cannot be trained in that memory, in one line; empty where that alone does not say."""
    needed = state_bytes(task, parameters)
    if needed <= memory_bytes:
        return ""
    return (
        f"task '{task.name}': parameters, gradients and optimiser state take {needed / 1e9:,.1f} GB, {where} has "
        f"{memory_bytes / 1e9:,.1f} GB; choose a larger device or another task"
    )


def check(tickets: Iterable[Ticket]) -> None:
    """Refuse jobs that cannot fit this machine. Tasks that are small at a glance cost nothing to check.

    Raises:
        UserError: parameters, gradients and optimiser state alone exceed the device's memory.
    """
    from fipbench.spec import TASK_TYPES

    seen = {(ticket.job.task, ticket.job.device): ticket for ticket in tickets}
    memory = _machine()
    for ticket in seen.values():
        task: Task = msgspec.convert(ticket.task, TASK_TYPES[ticket.job.track])
        # No device that torch can train on has as little as a gigabyte.
        if state_bytes(task, at_most(task.model)) <= min(memory, 10**9):
            continue
        from fipbench.estimate.counts import count_parameters

        where, there = "this machine", memory
        if ticket.job.device == "cuda":
            import torch

            where, there = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
        if said := problem(task, count_parameters(task.model), there, where):
            raise UserError(said)


def at_most(spec: Model) -> int:
    """No fewer parameters than the network has, from its fields alone; for a pretrained one infinitely many, nearly."""
    if spec.name == "bert":
        width, length = spec.width or 1, spec.inputs[0]
        embedded = (3 + (spec.vocabulary or 0) + length + 1) * width
        return embedded + (spec.depth or 1) * (8 * width**2 + 16 * width) + (width + 1) * spec.outputs + 2 * width
    if spec.weights or spec.name not in ("mlp", "cnn", "vgg", "resnet") or not spec.inputs:
        return 2**60
    channels = [spec.inputs[0], *(spec.channels or ())]
    # Two convolutions of each of the blocks, one for the shortcut, and batch norm.
    blocks = 3 * (spec.depth or 1)
    total = sum(blocks * (9 * max(a, b) * b + 3 * b) for a, b in pairwise([*channels, channels[-1]]))
    area = math.prod(spec.inputs[1:]) if len(spec.inputs) > 1 else 1
    flat = channels[-1] * area if spec.channels else math.prod(spec.inputs)
    return total + sum((a + 1) * b for a, b in pairwise([flat, *spec.hidden, spec.outputs]))


def _machine() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
