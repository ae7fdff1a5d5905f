"""One job on a node of a cluster: what the far side of the executors `ray` and `slurm` does.

A node runs its job as `local` does, in a process of its own under the job's lock, with the time limit counted there,
and writes the record into the results folder, which all share. So a record does not depend on who ran it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fipbench.errors import UserError
from fipbench.executors import local
from fipbench.provenance import provenance
from fipbench.spec import Record, Ticket

# Where data and weights come from; what may hold a password stays where it is.
_PASSED = ("FIPBENCH_", "HF_")
_SECRET = ("TOKEN", "SECRET", "PASSWORD")
# How often a job whose node or worker was lost is given to another.
RETRIES = 2


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A job on its way to a node.

    Attributes:
        environment: variables that the job's process gets.
        marks: see `marked`.
    """

    ticket: Ticket
    timeout: float | None = None
    environment: dict[str, str] = {}
    marks: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a packet: a record, or why this node cannot run any job; and what the user should know."""

    record: Record | None = None
    refused: str = ""
    note: str = ""


def work(packet: bytes) -> bytes:
    """Run a packet's job on this machine; the answer. Both are JSON."""
    found = msgspec.json.decode(packet, type=Packet)
    os.environ.update(found.environment)
    try:
        note = _looked_at(found.marks)
        # What this machine is; whoever planned the run may be another.
        ticket = msgspec.structs.replace(found.ticket, provenance=provenance())
        [record] = local.execute([ticket], 1, lambda event: None, found.timeout)
        return msgspec.json.encode(Answer(record=record, note=note))
    except UserError as error:
        return msgspec.json.encode(Answer(refused=f"node {socket.gethostname()}: {error}"))


def gpu_bytes() -> int:
    """Memory of the smallest GPU that this process may use, in bytes; 0 where `nvidia-smi` does not say."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible}")
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(int(line) for line in said.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def environment() -> dict[str, str]:
    """The variables of this process that a job on another machine needs."""
    named = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    return {name: value for name, value in named.items() if not any(word in name for word in _SECRET)}


@contextmanager
def marked(tickets: Sequence[Ticket]) -> Iterator[tuple[str, ...]]:
    """A file in the results folder and one in the cache of these tickets, locked while the block runs.

    A node that shares the folders finds the files; one that shares the locks, too, cannot lock them.
    """
    from filelock import FileLock

    name = f"run-{uuid.uuid4().hex}.lock"
    folders = {Path(folder) for ticket in tickets for folder in (ticket.results, ticket.cache)}
    marks = sorted(str(folder / ".locks" / name) for folder in folders)
    with contextlib.ExitStack() as stack:
        for mark in marks:
            Path(mark).parent.mkdir(exist_ok=True)
            stack.callback(Path(mark).unlink, missing_ok=True)
            stack.enter_context(FileLock(mark))
        yield tuple(marks)


def _looked_at(marks: Sequence[str]) -> str:
    """What the user should know of the folders of these marks.

    Raises:
        UserError: a folder is not shared.
    """
    from filelock import FileLock, Timeout

    loose = []
    for mark in marks:
        folder = Path(mark).parents[1]
        if not Path(mark).exists():
            raise UserError(
                f"{folder} is not the folder of that name on the machine that started the run; "
                "--results and FIPBENCH_CACHE must name folders that all nodes share"
            )
        try:
            with FileLock(mark).acquire(timeout=0):
                loose.append(str(folder))
        except Timeout:
            continue
    if not loose:
        return ""
    return (
        f"{', '.join(loose)}: locks do not reach from machine to machine there, so that shared work may be done more "
        "than once; see docs/clusters.md"
    )
