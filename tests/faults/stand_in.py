"""A job's computation without torch: what a job is made of, and how long it takes, is said in its parameters.

All around it is real: tickets, server, processes, locks, store. A start takes a fraction of a second of work, so that
hundreds of deaths fit into a test.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench import example_job

from fipbench.spec import Cost, Record, Ticket, id_of, sealed

TASK = {"model": {"name": "mlp"}, "title": "Stand-ins"}


def tickets(results: Path, jobs: list[tuple[str, int]], **params: Any) -> list[Ticket]:
    """Tickets of stand-in jobs (method, seed) with their records in `results`."""
    found = []
    for method, seed in jobs:
        job = example_job(method=method, label=method, seed=seed, params=params)
        found.append(Ticket(job=job, task=TASK, target="stand_in.py:x", results=str(results), cache=str(results)))
    return found


def run(ticket: Ticket, emit: Callable[[dict[str, Any]], Any]) -> Record:
    """In place of `fipbench.worker.run`."""
    job, identity = ticket.job, id_of(ticket.job)
    if where := job.params.get("counted"):  # a line a job, written whole
        handle = os.open(str(where), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{identity}\n".encode())
        os.close(handle)
    if job.method != "good":
        MISHAPS[job.method](Path(str(job.params["folder"])))
    content = identity
    for step in range(5):
        emit({"event": "progress", "id": identity, "text": f"step {step}", "share": step / 5})
        content = hashlib.sha256(content.encode()).hexdigest()
        time.sleep(float(job.params.get("seconds", 0.0)) / 5)
    values = [int(content[k : k + 2], 16) / 256 for k in range(0, 64, 2)]
    return sealed(
        Record(
            id=identity,
            job=job,
            protocol=ticket.task,
            status="ok",
            metrics={"area": sum(values) / len(values)},
            curves={"accuracy": {"sparsity": [n / 1000 for n in range(1000)], "value": (values * 32)[:1000]}},
            cost=Cost(wall_s=time.monotonic(), forward_examples=len(content)),
        )
    )


def _note(folder: Path, name: str, *pids: int) -> None:
    (folder / f"{name}.pids").write_text(" ".join(map(str, (os.getpid(), *pids))))


def _sleeps(folder: Path) -> None:
    _note(folder, "sleeps")
    if not (folder / "hurry").exists():
        time.sleep(3600)


def _deaf(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if not child:
        if not os.fork():
            (folder / "grandchild.pid").write_text(str(os.getpid()))
        time.sleep(3600)
    _note(folder, "deaf", child)
    time.sleep(3600)


def _stopped(folder: Path) -> None:
    _note(folder, "stopped")
    os.kill(os.getpid(), signal.SIGSTOP)


def _busy(folder: Path) -> None:
    _note(folder, "busy")
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        time.sleep(0.001)


def _dies(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


MISHAPS: dict[str, Callable[[Path], None]] = {
    "sleeps": _sleeps,
    "deaf": _deaf,
    "stopped": _stopped,
    "busy": _busy,
    "dies": _dies,
}
