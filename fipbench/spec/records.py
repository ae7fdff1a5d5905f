"""A job, which is one method on one task with one seed, and the record of its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fipbench.spec.base import Name, Params, Spec, canonical, digest

SCHEMA = "fipbench.record/1"


class Job(Spec, frozen=True, kw_only=True):
    """One method on one task with one seed. `id_of(job)` is its identity."""

    task: Name
    task_version: int
    task_digest: str
    track: Name
    method: Name
    method_version: str
    params: Params
    seed: Annotated[int, Meta(ge=0)]
    suite: str
    device: str
    split: str = "test"
    threads: int = 1
    data_variant: str
    data: dict[str, str]
    label: Name
    role: str = "method"
    settings: str = "default"


# Not part of identity: the same computation under another heading.
_LABELS = ("suite", "label", "role", "settings", "data_variant")


def id_of(job: Job) -> str:
    """The job's identity: task, method and seed to read, and a digest over all that decides its result."""
    fields = {k: v for k, v in msgspec.to_builtins(job).items() if k not in _LABELS}
    return f"{job.task}--{job.method}--s{job.seed}--{digest(fields)[:16]}"


class Cost(Spec, frozen=True, kw_only=True):
    """What a job spent. Examples and `wall_s` include the shared base network; memory is of the job's process."""

    wall_s: float = 0.0
    forward_examples: int = 0
    backward_examples: int = 0
    peak_memory_bytes: int = 0
    parameters_stored: int = 0
    examples_stored: int = 0


class Failure(Spec, frozen=True, kw_only=True):
    """Why a job failed: the exception's type, one line, and where (file:line in function, innermost last)."""

    type: str
    message: str
    where: tuple[str, ...] = ()


class Items(Spec, frozen=True, kw_only=True):
    """Correctness of each test item: base64 of bits packed most significant first, and how many there are."""

    count: int
    bits: str


class Record(Spec, frozen=True, kw_only=True):
    """The result of one job. `digest` finds corruption; it is no signature."""

    schema: str = SCHEMA
    id: str
    job: Job
    protocol: dict[str, Any]
    status: str
    error: Failure | None = None
    metrics: dict[str, float] = {}
    curves: Mapping[str, dict[str, list[float]]] = {}
    items: dict[str, Items] = {}
    notes: tuple[str, ...] = ()
    cost: Cost = Cost()
    provenance: dict[str, Any] = {}
    digest: str = ""


def sealed(record: Record) -> Record:
    """The record with its digest filled in."""
    return msgspec.structs.replace(record, digest=record_digest(record))


def record_digest(record: Record) -> str:
    """SHA-256 (hex) of the record's content without the digest itself."""
    return digest(msgspec.structs.replace(record, digest=""))


def equal(a: Record, b: Record) -> bool:
    """Whether two records say the same: time, memory, provenance and an error's place in the code may differ,
    nothing else may."""
    return _compared(a) == _compared(b)


def _compared(record: Record) -> bytes:
    cost = msgspec.structs.replace(record.cost, wall_s=0.0, peak_memory_bytes=0)
    error = record.error and (record.error.type, record.error.message)
    measured = [record.metrics, record.curves, record.items, record.notes, cost]
    return canonical([record.schema, record.id, record.job, record.protocol, record.status, error, *measured])


class Ticket(Spec, frozen=True, kw_only=True):
    """All that a worker needs to run one job, in a process that shares nothing with the one that planned it."""

    job: Job
    task: dict[str, Any]
    target: str
    results: str
    cache: str
    force: bool = False
    provenance: dict[str, Any] = {}
