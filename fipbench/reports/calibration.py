"""Whether our baselines reach what a publication of their own reports: one verdict a method and published number."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fipbench.reports.board import Board
from fipbench.reports.text import ABSENT, Table, number, plus_minus
from fipbench.spec import Published, Record, canonical
from fipbench.statistics import Interval, interval

MISSED = "missed"


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A published number and ours. `method` is the method's name, `label` the row's in its task."""

    task: str
    track: str
    label: str
    method: str
    published: Published
    ours: Interval

    @property
    def verdict(self) -> str:
        """`missed`: our mean is further below the published value than the margin; `far above`: as far above it, which
        calls for a reason as well, but is no failure; else `reached`."""
        return _verdict(self.published, self.ours.mean)

    @property
    def passed(self) -> bool:
        """Whether it was not missed."""
        return self.verdict != MISSED


def calibrations(records: Iterable[Record]) -> list[Calibration]:
    """Every row that a task's published numbers name and that has a result; in order of task and label.

    Rows that differ in more than the seed (parameters, data, device) are calibrations of their own, and settings that
    were given in the call are none.

    Args:
        records: of one version of each task and method, as of `fipbench.reports.build.current`.
    """
    rows: dict[tuple[str, str, str, str, bytes], list[Record]] = {}
    for record in sorted(records, key=lambda r: r.id):
        job = record.job
        published = (record.protocol.get("published") or {}).get(job.label)
        if published is None or record.status != "ok" or job.split != "test" or job.settings == "user":
            continue
        apart = canonical([job.params, job.data, job.device])
        rows.setdefault((job.task, job.track, job.label, job.method, apart), []).append(record)
    found = []
    for (task, track, label, method, _), row in sorted(rows.items()):
        number = msgspec.convert(row[-1].protocol["published"][label], Published)
        ours = interval(record.metrics[number.metric] for record in row)
        found.append(Calibration(task=task, track=track, label=label, method=method, published=number, ours=ours))
    return found


def failed(found: Iterable[Calibration], track: str) -> dict[str, str]:
    """Method -> what it failed, for a track's methods that missed one of their published numbers."""
    texts: dict[str, list[str]] = {}
    for entry in found:
        if entry.track == track and not entry.passed:
            published = entry.published
            texts.setdefault(entry.method, []).append(
                f"{entry.task}: {100 * entry.ours.mean:.1f} % here, {100 * published.value:.1f} % in {published.source}"
            )
    return {method: "; ".join(lines) for method, lines in texts.items()}


def calibration_table(board: Board) -> Table | None:
    """Published number and ours for every row that has both; None for a task without published numbers."""
    rows = []
    for row in (*board.rows, *board.references):
        published = (board.protocol.get("published") or {}).get(row.label)
        if published is None:
            continue
        entry = msgspec.convert(published, Published)
        ours = row.metrics.get(entry.metric)
        spread = "" if entry.spread is None else f" ± {number(entry.spread, entry.metric)} ({entry.spread_is})"
        verdict = ABSENT if ours is None else _verdict(entry, ours.mean)
        cells = [f"{number(entry.value, entry.metric)}{spread}", plus_minus(ours, entry.metric)]
        margin = f"−{100 * entry.margin:g}"
        rows.append((row.short, *cells, margin, verdict, entry.source, entry.note))
    if not rows:
        return None
    return Table(
        caption="Calibration: a published number and ours, in %; ours may be lower by the margin, in points; "
        "far above: higher by more than it",
        columns=("method", "published", "here", "margin", "verdict", "source", "differences"),
        rows=tuple(rows),
        text=("method", "verdict", "source", "differences"),
        spare=("differences", "source"),
    )


def _verdict(published: Published, mean: float) -> str:
    if mean < published.value - published.margin:
        return MISSED
    return "far above" if mean > published.value + published.margin else "reached"
