"""Whether our baselines reach what a publication of their own reports: one verdict a method and published number."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fipbench.spec import Published, Record
from fipbench.statistics import Interval, interval


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A published number and ours. `method` is the method's name, `label` the row's in its task."""

    task: str
    track: str
    label: str
    method: str
    published: Published
    ours: Interval

    @property
    def passed(self) -> bool:
        """Whether our mean is no further below the published value than the margin."""
        return self.ours.mean >= self.published.value - self.published.margin


def calibrations(records: Iterable[Record]) -> list[Calibration]:
    """Every method that a task's published numbers name and that has a result on it; in order of task and label."""
    values: dict[tuple[str, str, str, str], list[float]] = {}
    wanted: dict[tuple[str, str, str, str], Published] = {}
    for record in sorted(records, key=lambda r: r.id):
        job = record.job
        published = (record.protocol.get("published") or {}).get(job.label)
        if published is None or record.status != "ok" or job.split != "test":
            continue
        found = msgspec.convert(published, Published)
        key = (job.task, job.track, job.label, job.method)
        wanted[key] = found
        values.setdefault(key, []).append(record.metrics[found.metric])
    return [
        Calibration(task=t, track=k, label=n, method=m, published=wanted[t, k, n, m], ours=interval(values[t, k, n, m]))
        for t, k, n, m in sorted(wanted)
    ]


def failed(found: Iterable[Calibration]) -> dict[tuple[str, str], str]:
    """(track, method) -> what it failed, for methods that missed one of their published numbers."""
    texts: dict[tuple[str, str], str] = {}
    for entry in found:
        if not entry.passed:
            text = (
                f"{entry.label} on {entry.task}: {100 * entry.ours.mean:.1f} % where {entry.published.source} has "
                f"{100 * entry.published.value:.1f} %"
            )
            known = texts.get((entry.track, entry.method))
            texts[entry.track, entry.method] = text if known is None else f"{known}; {text}"
    return texts
