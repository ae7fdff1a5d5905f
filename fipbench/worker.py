"""One job, one process: load the method, hand it to its track, return the record."""

from __future__ import annotations

import math
import random
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fipbench import registry, store
from fipbench.errors import ProtocolError
from fipbench.spec import TASK_TYPES, Cost, Failure, Job, Record, Ticket, id_of, sealed
from fipbench.tracks import load_track

Emit = Callable[[dict[str, Any]], Any]


def run(ticket: Ticket, emit: Emit) -> Record:
    """The record of a ticket's job; whatever goes wrong in the method is a record, too.

    Args:
        emit: takes `{"event": "progress", "id", "text", "share"}` now and then.
    """
    from fipbench.determinism import deterministic
    from fipbench.tracks.partial import Partial

    job = ticket.job
    identity = id_of(job)
    settle(job)

    def tick(text: str, share: float) -> None:
        emit({"event": "progress", "id": identity, "text": text, "share": round(share, 3)})

    began = time.monotonic()
    try:
        task = msgspec.convert(ticket.task, TASK_TYPES[job.track])
        found = registry.load_method(job.track, job.method, ticket.target)
        if found.version != job.method_version:
            raise ProtocolError(f"the method's code changed since the run was planned ({ticket.target})")
        method = registry.load_factory(ticket.target)(**job.params)
        if ticket.force:
            Partial(job, Path(ticket.cache)).drop()
        with deterministic(job.device) as exceptions:
            outcome = load_track(job.track).run(task, job, method, Path(ticket.cache), tick)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failed(ticket, error, time.monotonic() - began)
    if bad := _not_finite(outcome):
        return _failed(ticket, ProtocolError(f"{bad} is not finite"), time.monotonic() - began)
    if exceptions:
        outcome.provenance["not_deterministic"] = sorted(exceptions)
    cost = Cost(
        wall_s=round(time.monotonic() - began - outcome.base_wait_s + outcome.base_wall_s + outcome.earlier_s, 3),
        forward_examples=outcome.meter.forward,
        backward_examples=outcome.meter.backward,
        peak_memory_bytes=_peak_memory(),
        parameters_stored=outcome.parameters_stored,
        examples_stored=outcome.examples_stored,
    )
    return sealed(
        Record(
            id=identity,
            job=job,
            protocol=ticket.task,
            status="ok",
            # Whole numbers would be read back as others than they were sealed as.
            metrics={name: float(value) for name, value in outcome.metrics.items()},
            curves={name: {k: [float(x) for x in v] for k, v in axes.items()} for name, axes in outcome.curves.items()},
            items=outcome.items,
            notes=tuple(outcome.notes),
            cost=cost,
            provenance=_provenance(ticket) | outcome.provenance,
        )
    )


def settle(job: Job) -> None:
    """Give this process the threads and the generators that a job starts with."""
    import numpy as np
    import torch

    from fipbench.tracks.common import seed_for

    torch.set_num_threads(job.threads)
    # A method should draw from the trial's generator; one that draws from everybody's is repeatable, too.
    seed = seed_for(job, "everybody's generators")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _not_finite(outcome: Any) -> str:
    """The first metric or curve with a number that JSON cannot hold."""
    named = [(f"metric '{name}'", [value]) for name, value in outcome.metrics.items()]
    named += [(f"curve '{name}'", values) for name, axes in outcome.curves.items() for values in axes.values()]
    return next((name for name, values in named if not all(map(math.isfinite, values))), "")


def run_and_store(ticket: Ticket, emit: Emit) -> int:
    """Run a job under its lock unless a good record is there by now, store the record; returns the exit code.

    0: the store holds the record. 3: it could not be written; the event `unwritable` says why.
    """
    folder = Path(ticket.results)
    try:
        with store.lock(folder, id_of(ticket.job)):
            known = None if ticket.force else store.get(folder, id_of(ticket.job))
            if known is None or known.status != "ok":
                emit({"event": "began", "id": id_of(ticket.job)})
                store.write(folder, run(ticket, emit))
    except OSError as error:
        emit({"event": "unwritable", "id": id_of(ticket.job), "text": error.strerror or str(error)})
        return 3
    return 0


def crashed(ticket: Ticket, how: Exception) -> Record:
    """The record of a job whose process died without one."""
    return _failed(ticket, how, 0.0)


def died(record: Record) -> bool:
    """Whether it is the record of a job whose process was ended, by its time limit or by a signal."""
    return record.error is not None and "the job's process" in record.error.message


def _failed(ticket: Ticket, error: BaseException, wall_s: float) -> Record:
    # Half a character, as of a file's name in another encoding, can be in a message but not in JSON.
    text = str(error).encode(errors="backslashreplace").decode().strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = tuple(f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames)
    traceback.clear_frames(error.__traceback__)  # what they held may be all the memory there is
    return sealed(
        Record(
            id=id_of(ticket.job),
            job=ticket.job,
            protocol=ticket.task,
            status="failed",
            error=Failure(type=type(error).__name__, message=text[0] if text else "", where=where),
            cost=Cost(wall_s=round(wall_s, 3), peak_memory_bytes=_peak_memory() if wall_s else 0),
            provenance=_provenance(ticket),
        )
    )


def _provenance(ticket: Ticket) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    found = {**ticket.provenance, "time": now, "threads": ticket.job.threads, "data": ticket.job.data}
    torch = sys.modules.get("torch")
    if ticket.job.device == "cuda" and torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
