"""Leaderboards as data: records in, one `Board` per task, data variant and device out. No text, no layout."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fipbench.spec import Params, Record, Value, canonical, digest
from fipbench.statistics import Difference, Interval, holm, interval, paired_difference

REFERENCE = "fip"
MEAN_COSTS = ("wall_s", "forward_examples", "backward_examples", "parameters_stored", "examples_stored")
SETTINGS = ("task", "tuned", "default", "user")


class Comparison(Difference, frozen=True, kw_only=True):
    """A row minus the reference row, paired by seed. `adjusted`: `p` by Holm; on the headline metric only."""

    adjusted: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A method under one choice of hyper-parameters.

    Attributes:
        name: the label, with the parameters that tell it from its namesakes.
        rank: by headline mean, from 1; equal means share a rank. None for references and without a result.
        seeds: seeds with a result; `failed`: how many jobs have none, and `errors`: their reasons.
        values: metric -> seed -> value; `metrics`: the interval over those.
        ends: curve -> the interval over its last values: what the sparsest network is like.
        cost: means over seeds; `peak_memory_bytes` is the largest.
        comparisons: metric -> this row minus the reference row.
    """

    name: str
    label: str
    method: str
    params: Params
    role: str
    settings: tuple[str, ...]
    method_version: str
    rank: int | None = None
    seeds: tuple[int, ...] = ()
    failed: int = 0
    errors: tuple[str, ...] = ()
    values: dict[str, dict[int, float]] = {}
    metrics: dict[str, Interval] = {}
    ends: dict[str, Interval] = {}
    cost: dict[str, float] = {}
    comparisons: dict[str, Comparison] = {}
    notes: tuple[str, ...] = ()


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What the records say about one task on one variant of its data and one kind of device.

    Attributes:
        name: the task's, with variant and device where the task has several boards; unique.
        protocol: the task as its newest record holds it.
        data: digest of each split.
        train_examples, test_examples: how many a method was given and scored on, if the records say so.
        machines: what the records were made on.
        headline: the metric of the ranking; `levels`: the metrics `accuracy@s` by sparsity s.
        reference: name of the row that the others are compared with, if there is one.
        rows: ranked, then those without a result; `references`: rows of role "reference", apart.
    """

    name: str
    task: str
    title: str
    suites: tuple[str, ...]
    version: int
    digest: str
    variant: str
    device: str
    data: dict[str, str]
    protocol: dict[str, Any]
    train_examples: int | None
    test_examples: int | None
    machines: tuple[str, ...]
    headline: str
    levels: dict[str, float]
    reference: str | None
    comparisons: int
    rows: tuple[Row, ...]
    references: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The rows with a place in the ranking."""
        return tuple(row for row in self.rows if row.rank is not None)


def plain(value: object) -> str:
    """Text of a record as one line of printable characters: nothing that a terminal, XML or a table obeys."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def boards(records: Iterable[Record]) -> list[Board]:
    """One board per (task, data variant, device) of the newest version of each task; the order is by name.

    Only results on the test split count. Records of an older version of the task, or of an older version of
    a method, are left out and counted in the board's notes; unlike protocols are never mixed.
    """
    by_task = _grouped(_unique(records), lambda r: r.job.task)
    found = []
    for _, everything in sorted(by_task.items()):
        current = _current(everything)
        places = _grouped(current, _place)
        for _, group in sorted(places.items()):
            found.append(_board(group, _board_name(group[0], places), len(everything) - len(current)))
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


def _board(records: Sequence[Record], name: str, superseded: int) -> Board:
    """The board of records that share task version, data and device."""
    latest = max(records, key=lambda r: (_time(r), r.id))
    job, protocol = latest.job, latest.protocol
    headline = plain(protocol.get("headline", ""))
    levels = {f"accuracy@{s:g}": float(s) for s in protocol.get("sparsities", ())}
    rows = _rows(records)
    reference = _reference([row for row in rows if row.role != "reference"])
    rows = _compared(rows, reference, [headline, *levels])
    ranked = _ranked([row for row in rows if row.role != "reference"], headline)
    return Board(
        name=name,
        task=job.task,
        title=plain(protocol.get("title", "")),
        suites=tuple(plain(suite) for suite in protocol.get("suites", ())),
        version=job.task_version,
        digest=job.task_digest,
        variant=job.data_variant,
        device=job.device,
        data=job.data,
        protocol=protocol,
        train_examples=latest.provenance.get("train_examples"),
        test_examples=max((items.count for r in records for items in r.items.values()), default=None),
        machines=tuple(sorted({machine for r in records if (machine := _machine(r))})),
        headline=headline,
        levels=levels,
        reference=reference.name if reference else None,
        comparisons=sum(_adjusted(row, headline) is not None for row in ranked),
        rows=tuple(ranked),
        references=tuple(sorted((r for r in rows if r.role == "reference"), key=lambda r: r.name)),
        notes=_board_notes(ranked, superseded),
    )


# ----------------------------------------------------------------------------------- which records count


def _unique(records: Iterable[Record]) -> list[Record]:
    """Test-split records in one fixed order, one an identity: good before failed, then the newest."""
    best: dict[str, Record] = {}
    for record in records:
        known = best.get(record.id)
        if record.job.split == "test" and (known is None or _preference(record) > _preference(known)):
            best[record.id] = record
    return [best[identity] for identity in sorted(best)]


def _preference(record: Record) -> tuple[bool, str, str]:
    return record.status == "ok", _time(record), record.digest


def _time(record: Record) -> str:
    return str(record.provenance.get("time", ""))


def _machine(record: Record) -> str:
    """Processor and version of torch, as far as the record names them."""
    hardware, versions = (record.provenance.get(key, {}) for key in ("hardware", "versions"))
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
    return groups[max(groups, key=lambda v: (max(map(_time, groups[v])), v))]


# ------------------------------------------------------------------------------------------------- rows


def _rows(records: Sequence[Record]) -> list[Row]:
    """A row for each (label, method, parameters)."""
    groups = _grouped(records, lambda r: (r.job.label, r.job.method, canonical(r.job.params)))
    by_label: dict[str, list[Params]] = defaultdict(list)
    for group in groups.values():
        by_label[group[0].job.label].append(_telling(group[0]))
    return [_row(group, _name(group[0], by_label[group[0].job.label])) for _, group in sorted(groups.items())]


def _telling(record: Record) -> Params:
    """What may tell rows of one label apart; a parameter cannot be called `method ` with the blank."""
    return {**record.job.params, "method ": record.job.method}


def _name(record: Record, namesakes: Sequence[Params]) -> str:
    own = _telling(record)
    keys = sorted({key for other in namesakes for key in other})
    differing = [k for k in keys if len({_shown(other.get(k)) for other in namesakes}) > 1]
    if not differing:
        return record.job.label
    return f"{record.job.label} [{', '.join(f'{k.strip()}={_shown(own.get(k))}' for k in differing)}]"


def _shown(value: Value | None) -> str:
    return "unset" if value is None else plain(value)


def _row(records: Sequence[Record], name: str) -> Row:
    """The row of records that differ in seed only."""
    job = max(records, key=lambda r: (_time(r), r.id)).job
    good = sorted((r for r in records if r.status == "ok"), key=lambda r: (r.job.seed, r.id))
    failures = [r for r in records if r.status != "ok"]
    values: dict[str, dict[int, float]] = {}
    for record in good:
        for metric, value in record.metrics.items():
            values.setdefault(metric, {})[record.job.seed] = value
    ends: dict[str, list[float]] = defaultdict(list)
    for record in good:
        for curve, axes in record.curves.items():
            ends[curve] += axes.get("value", [])[-1:]
    return Row(
        name=name,
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
        ends={curve: interval(ends[curve]) for curve in sorted(ends) if ends[curve]},
        cost=_cost(good),
        notes=_collapsed([r.notes for r in good]),
    )


def _error(record: Record) -> str:
    if record.error is None:
        return "no reason recorded"
    return plain(f"{record.error.type}: {record.error.message}").removesuffix(":")


def _cost(records: Sequence[Record]) -> dict[str, float]:
    if not records:
        return {}
    means = {name: interval(getattr(r.cost, name) for r in records).mean for name in MEAN_COSTS}
    return {**means, "peak_memory_bytes": max(r.cost.peak_memory_bytes for r in records)}


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


# -------------------------------------------------------------------------------- comparison and ranking


def _reference(rows: Sequence[Row]) -> Row | None:
    """The row labelled `fip`; of several the one with the task's settings, then tuned, default, user."""
    return min(
        (row for row in rows if row.label == REFERENCE and row.seeds),
        key=lambda row: (min(map(_settings_order, row.settings)), -len(row.seeds), row.name),
        default=None,
    )


def _settings_order(settings: str) -> int:
    return SETTINGS.index(settings) if settings in SETTINGS else len(SETTINGS)


def _compared(rows: Sequence[Row], reference: Row | None, metrics: Sequence[str]) -> list[Row]:
    """Rows with their paired differences to the reference; Holm over the tests of the first metric."""
    if reference is None:
        return list(rows)
    found = [_differences(row, reference, metrics) for row in rows]
    adjusted = holm([d[metrics[0]].p if metrics[0] in d else None for d in found])
    compared = []
    for row, differences, p in zip(rows, found, adjusted, strict=True):
        if metrics[0] in differences:
            differences[metrics[0]] = msgspec.structs.replace(differences[metrics[0]], adjusted=p)
        compared.append(msgspec.structs.replace(row, comparisons=differences))
    return compared


def _differences(row: Row, reference: Row, metrics: Sequence[str]) -> dict[str, Comparison]:
    if row is reference or row.role == "reference":
        return {}
    shared = [m for m in metrics if m in row.values and m in reference.values]
    pairs = {m: paired_difference(row.values[m], reference.values[m]) for m in shared}
    return {m: Comparison(mean=d.mean, half=d.half, n=d.n, p=d.p) for m, d in pairs.items()}


def _adjusted(row: Row, metric: str) -> float | None:
    return row.comparisons[metric].adjusted if metric in row.comparisons else None


def _ranked(rows: Sequence[Row], headline: str) -> list[Row]:
    """Rows by headline mean, best first, ranks filled in; then those without that metric; then all-failed."""

    def order(row: Row) -> tuple[bool, bool, float, str]:
        scored = headline in row.metrics
        return not row.seeds, not scored, -row.metrics[headline].mean if scored else 0.0, row.name

    found: list[Row] = []
    for place, row in enumerate(sorted(rows, key=order), 1):
        rank = place if headline in row.metrics else None
        if rank and found and row.metrics[headline].mean == found[-1].metrics[headline].mean:
            rank = found[-1].rank
        found.append(msgspec.structs.replace(row, rank=rank))
    return found


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


def variant_note(protocol: Mapping[str, Any], variant: str) -> str:
    """What the protocol says about a variant of its data."""
    known = protocol.get("data", {}).get("variants", {}).get(variant, {})
    return str(known.get("note", ""))
