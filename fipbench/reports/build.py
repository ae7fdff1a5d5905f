"""Records in, boards out: which records count, which rows they make, how rows are compared and ranked."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from fipbench import collecting, store
from fipbench.reports.board import Board, Row, plain
from fipbench.reports.calibration import calibrations, failed
from fipbench.reports.compare import compared_sections, key_of
from fipbench.reports.text import is_tested
from fipbench.reports.views import View, view
from fipbench.spec import Params, Record, Value, canonical, digest
from fipbench.spec.audits import STRENGTHS, Audit
from fipbench.statistics import Interval, interval, mean

MEAN_COSTS = ("wall_s", "forward_examples", "backward_examples", "parameters_stored", "examples_stored")
Kind = TypeVar("Kind")
AXES = ("point", "step", "task", "epsilon", "layer", "sparsity", "distance", "cell")


def boards(
    records: Iterable[Record],
    failed_calibrations: Mapping[str, str] | None = None,
    audits: Mapping[str, Audit] | None = None,
) -> list[Board]:
    """One board per (task, data variant, device) of the newest version of each task; the order is by name.

    Only results on the test split count. Records of an older version of the task, or of an older version of
    a method, are left out and counted in the board's notes; unlike protocols are never mixed.

    Args:
        failed_calibrations: method -> how it failed against a published setting; its rows are marked. Without it, as
            the records of calibration tasks among these say.
        audits: attack audits by the identity of their record; see `fipbench.audit_store.matching`.

    Raises:
        UserError: a record of a track that this version does not know.
    """
    with collecting.aside():
        return _boards(store.unique(records), failed_calibrations, audits or {})


def _boards(
    records: Sequence[Record], failed_calibrations: Mapping[str, str] | None, audits: Mapping[str, Audit]
) -> list[Board]:
    """`boards` of unique records."""
    by_task = _grouped(records, lambda r: r.job.task)
    newest = {task: _current(everything) for task, everything in by_task.items()}
    calibrated = calibrations(record for group in newest.values() for record in group)
    found = []
    for task, everything in sorted(by_task.items()):
        places = _grouped(newest[task], _place)
        superseded = len(everything) - len(newest[task])
        for _, group in sorted(places.items()):
            marks = failed(calibrated, group[0].job.track) if failed_calibrations is None else failed_calibrations
            found.append(_board(group, _board_name(group[0], places), superseded, marks, audits))
    return found


def _board_name(record: Record, places: Iterable[tuple[str, str, Any]]) -> str:
    """The task's name, and as much of variant, device and data digest as tells its boards apart."""
    places = list(places)
    variant, device, data = _place(record)
    if len(places) == 1:
        return record.job.task
    alike = [place for place in places if place[:2] == (variant, device)]
    contents = "" if len(alike) == 1 else f", data {digest(dict(data))[:8]}"
    return f"{record.job.task} ({variant}, {device}{contents})"


def _board(
    records: Sequence[Record], name: str, superseded: int, failed: Mapping[str, str], audits: Mapping[str, Audit]
) -> Board:
    """The board of records that share task version, data and device."""
    latest = max(records, key=lambda r: (store.made_at(r), r.id))
    job, protocol = latest.job, latest.protocol
    shows = view(job.track)
    headline = plain(protocol.get("headline", ""))
    behind = _rows(records, shows, failed, audits)
    rows = [row for row, _ in behind]
    methods = [(row, good) for row, good in behind if row.role != "reference"]
    sections, rank_tests = compared_sections(methods, shows, [headline, *shows.compared(protocol)])
    every = [row for section in sections for row in section.rows]
    sizes = latest.provenance.get("train_examples")
    return Board(
        name=name,
        task=job.task,
        track=job.track,
        title=plain(protocol.get("title", "")),
        suites=tuple(plain(suite) for suite in protocol.get("suites", ())),
        version=job.task_version,
        digest=job.task_digest,
        variant=job.data_variant,
        device=job.device,
        data=job.data,
        protocol=protocol,
        train_examples=tuple(n for n in (sizes if isinstance(sizes, list) else [sizes]) if isinstance(n, int)),
        test_examples=max((shows.test_examples(r) for r in records if r.items), default=None),
        machines=tuple(sorted({machine for r in records if (machine := _machine(r))})),
        headline=headline,
        comparisons=sum(is_tested(row, headline) for row in every),
        rank_tests=rank_tests,
        sections=tuple(sections),
        references=tuple(sorted((r for r in rows if r.role == "reference"), key=lambda r: r.name)),
        notes=_board_notes(every, superseded),
    )


# ----------------------------------------------------------------------------------- which records count


def current(records: Iterable[Record]) -> list[Record]:
    """The records that boards count: `store.unique`, of each task's newest version, and in that of each method's."""
    by_task = _grouped(store.unique(records), lambda r: r.job.task)
    return [record for everything in by_task.values() for record in _current(everything)]


def _machine(record: Record) -> str:
    """Processor and version of torch, as far as the record names them."""
    said = (record.provenance.get(key) for key in ("hardware", "versions"))
    hardware, versions = (found if isinstance(found, dict) else {} for found in said)
    parts = [record.provenance.get("gpu"), hardware.get("cpu")]
    parts += [f"torch {versions['torch']}"] if "torch" in versions else []
    return ", ".join(plain(part) for part in parts if part)


def _place(record: Record) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return record.job.data_variant, record.job.device, tuple(sorted(record.job.data.items()))


def _grouped(records: Iterable[Record], key: Any) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return dict(groups)


def _current(records: Sequence[Record]) -> list[Record]:
    """A task's records of its newest version, and in that of each method's newest version."""
    newest = _newest(records, lambda r: (r.job.task_version, r.job.task_digest))
    by_method = _grouped(newest, lambda r: r.job.method)
    return [r for group in by_method.values() for r in _newest(group, lambda r: r.job.method_version)]


def _newest(records: Sequence[Record], version: Any) -> list[Record]:
    """The records of the version (fields of the job) that was run last."""
    groups = _grouped(records, version)
    return groups[max(groups, key=lambda v: (max(map(store.made_at, groups[v])), v))]


# ------------------------------------------------------------------------------------------------- rows


def _rows(
    records: Sequence[Record], shows: View, failed: Mapping[str, str], audits: Mapping[str, Audit]
) -> list[tuple[Row, list[Record]]]:
    """A row for each (label, method, parameters), with the records of its seeds."""
    groups = _grouped(records, lambda r: (r.job.label, r.job.method, canonical(r.job.params)))
    by_label: dict[str, list[Params]] = defaultdict(list)
    for group in groups.values():
        by_label[group[0].job.label].append(_telling(group[0], shows))
    found = []
    for _, group in sorted(groups.items()):
        short = _name(group[0], by_label[group[0].job.label], shows)
        found.append((_row(group, short, shows, failed, audits), _good(group)))
    return found


def _telling(record: Record, shows: View) -> Params:
    """What may tell rows of one label apart; a parameter cannot be called `method ` with the blank."""
    own = {key: value for key, value in record.job.params.items() if key != shows.APART}
    return {**own, "method ": record.job.method}


def _name(record: Record, namesakes: Sequence[Params], shows: View) -> str:
    own = _telling(record, shows)
    keys = sorted({key for other in namesakes for key in other})
    differing = [k for k in keys if len({_shown(other.get(k)) for other in namesakes}) > 1]
    if not differing:
        return record.job.label
    return f"{record.job.label} [{', '.join(f'{plain(k)}={_shown(own.get(k))}' for k in differing)}]"


def _shown(value: Value | None) -> str:
    return "unset" if value is None else plain(value)


def _row(
    records: Sequence[Record], short: str, shows: View, failed: Mapping[str, str], audits: Mapping[str, Audit]
) -> Row:
    """The row of records that differ in seed only."""
    job = max(records, key=lambda r: (store.made_at(r), r.id)).job
    good = _good(records)
    failures = [r for r in records if r.status != "ok"]
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for record in good:
        seed, more = record.job.seed, audits[record.id].metrics if record.id in audits else {}
        for metric, value in (shows.derived(record) | record.metrics | more).items():
            values[metric][seed] = value
    return Row(
        name=short + shows.suffix(key_of(job.params, shows)),
        short=short,
        label=job.label,
        method=job.method,
        params=job.params,
        role=job.role,
        settings=tuple(sorted({plain(r.job.settings) for r in records})),
        method_version=job.method_version,
        seeds=tuple(r.job.seed for r in good),
        failed=len(failures),
        errors=tuple(sorted({_error(r) for r in failures})),
        values={metric: values[metric] for metric in sorted(values)},
        metrics={metric: interval(values[metric].values()) for metric in sorted(values)},
        ends=_OnDemand(good, _end),
        curves=_OnDemand(good, _mean_curve),
        cost=_cost(good),
        notes=(*_collapsed([r.notes for r in good]), *_audited([audits[r.id] for r in good if r.id in audits])),
        calibration=plain(failed.get(job.method, "")),
        records=tuple(r.id for r in sorted(records, key=lambda r: (r.job.seed, r.id))),
    )


def _good(records: Sequence[Record]) -> list[Record]:
    return sorted((r for r in records if r.status == "ok"), key=lambda r: (r.job.seed, r.id))


class _OnDemand(Mapping[str, Kind]):
    """What there is of each curve, computed when it is first asked for: of the many, tables show few."""

    def __init__(self, records: Sequence[Record], compute: Callable[[Sequence[Record], str], Kind]) -> None:
        self._records = records
        self._names = dict.fromkeys(sorted({name for record in records for name in record.curves}))
        self._compute = compute
        self._found: dict[str, Kind] = {}

    def __getitem__(self, name: str) -> Kind:
        if name not in self._found:
            if name not in self._names:
                raise KeyError(name)
            self._found[name] = self._compute(self._records, name)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _end(records: Sequence[Record], name: str) -> Interval | None:
    """The interval over the last values of a curve."""
    found = [end for r in records if name in r.curves for end in r.curves[name].get("value", [])[-1:]]
    return interval(found) if found else None


def _mean_curve(records: Sequence[Record], name: str) -> dict[str, tuple[float, ...]]:
    """The means of a curve's series over the records that have it, at the places of its axis that they share."""
    curves = [record.curves[name] for record in records if name in record.curves]
    axis = next((axis for axis in AXES if all(axis in curve for curve in curves)), None)
    if not curves or axis is None:
        return {}
    first = curves[0][axis]
    alike = sorted(set(first)) == first and all(curve[axis] == first for curve in curves)  # as nearly all are
    shared = first if alike else sorted(set.intersection(*(set(curve[axis]) for curve in curves)))
    found = {axis: tuple(shared)}
    for series in sorted(set(curves[0]).intersection(*curves) - {axis}):
        columns = [curve[series] for curve in curves]
        if alike and all(len(column) == len(first) for column in columns):
            found[series] = tuple(map(mean, zip(*columns, strict=True)))
            continue
        points = [dict(zip(curve[axis], curve[series], strict=False)) for curve in curves]
        if all(place in point for place in shared for point in points):
            found[series] = tuple(mean([p[place] for p in points]) for place in shared)
    return found


def _error(record: Record) -> str:
    if record.error is None:
        return "no reason recorded"
    return plain(f"{record.error.type}: {record.error.message}").removesuffix(":")


def _cost(records: Sequence[Record]) -> dict[str, float]:
    if not records:
        return {}
    means = {name: interval(getattr(r.cost, name) for r in records).mean for name in MEAN_COSTS}
    return {**means, "peak_memory_bytes": max(r.cost.peak_memory_bytes for r in records)}


def _audited(audits: Sequence[Audit]) -> tuple[str, ...]:
    """What audits of a row's records found, of several seeds as one each."""
    strengths = sorted({audit.strength for audit in audits}, key=STRENGTHS.index)
    said = _collapsed([audit.findings for audit in audits])
    return tuple(f"attack audit ({' and '.join(strengths)}): {finding}" for finding in said)


_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")


def _collapsed(notes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Notes of several seeds as one each: numbers that differ become min–max, and how many seeds say it."""
    groups: dict[str, list[list[str]]] = defaultdict(list)
    for of_seed in notes:
        for note in map(plain, of_seed):
            groups[_NUMBER.sub("\0", note)].append(_NUMBER.findall(note))
    found = []
    for template, numbers in sorted(groups.items()):
        spans = iter([_span(column) for column in zip(*numbers, strict=True)])
        text = "".join(next(spans) if c == "\0" else c for c in template)
        seeds = "" if len(numbers) == len(notes) else f" ({len(numbers)} of {len(notes)} seeds)"
        found.append(text + seeds)
    return tuple(found)


def _span(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if float(low) == float(high) else f"{low}–{high}"


def _board_notes(rows: Sequence[Row], superseded: int) -> tuple[str, ...]:
    notes = []
    if superseded:
        notes.append(f"{superseded} record{'s' * (superseded > 1)} of superseded versions not shown")
    if len({row.seeds for row in rows if row.seeds}) > 1:
        notes.append("methods have unlike seeds: compare means with care; paired differences use common seeds")
    if any(row.failed and row.seeds for row in rows):
        notes.append("a method with failed seeds is scored on the seeds that finished")
    if len({settings for row in rows for settings in row.settings}) > 1:
        notes.append("settings differ between methods (see the column)")
    return tuple(notes)
