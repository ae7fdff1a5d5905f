"""What jobs take of a GPU, for executors that let several share one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fipbench.executors.choice import Choice
from fipbench.spec import TASK_TYPES, Task, Ticket


def sized(choice: Choice, tickets: Sequence[Ticket]) -> Choice:
    """The choice with the GPU memory of each task whose jobs run on one; without those of which it is not known."""
    found: dict[str, int] = {}
    for ticket in {t.job.task: t for t in tickets if t.job.device != "cpu"}.values():
        task: Task = msgspec.convert(ticket.task, TASK_TYPES[ticket.job.track])
        if known := gpu_bytes(task, Path(ticket.cache)):
            found[ticket.job.task] = known
    return msgspec.structs.replace(choice, gpu_bytes=found)


def gpu_bytes(task: Task, cache: Path) -> int:
    """Estimated bytes that a job of the task takes on a GPU; 0 where the size of its data is not known."""
    from fipbench.estimate.counts import count
    from fipbench.estimate.total import LIBRARIES_BYTES, working_bytes
    from fipbench.estimate.work import decoded_bytes, sizes_of, work

    sizes = sizes_of(task, cache)
    if sizes is None:
        return 0
    stored = sum(decoded_bytes(task, *pair) for pair in zip(task.sources, sizes, strict=True))
    return LIBRARIES_BYTES + working_bytes(task, count(task.model), work(task, sizes), stored)
