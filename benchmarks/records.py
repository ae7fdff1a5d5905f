"""As many records as are asked for: the committed ones, again and again under other seeds. No benchmark of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from fipbench import store
from fipbench.spec import Record, id_of, sealed

COMMITTED = Path(__file__).resolve().parents[1] / "leaderboards"


def many(count: int) -> Iterator[Record]:
    """So many records: each committed one, then all under the next seeds."""
    found, _ = store.read(COMMITTED)
    seeds = 1 + max(record.job.seed for record in found)
    for n in range(count):
        record = found[n % len(found)]
        job = msgspec.structs.replace(record.job, seed=record.job.seed + seeds * (n // len(found)))
        yield sealed(msgspec.structs.replace(record, job=job, id=id_of(job)))
