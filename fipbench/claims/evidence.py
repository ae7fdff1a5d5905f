"""What records have to say to a claim: which count, how far their protocol is the paper's, and their numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from fipbench import store
from fipbench.claims.ledger import Claim, Several, Study
from fipbench.spec import Record, canonical

PAPER_SUITE = "paper"
_USER = "user"  # settings that were given in the call; a task's own go before them


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Records that may be compared with each other: one version of one task, on one content of its data and one device.

    `rows`: label -> its records by seed, of the newest version of the method; `failed`: label -> reasons of the seeds
    that have none.
    """

    task: str
    variant: str
    device: str
    protocol: dict[str, Any]
    time: str
    rows: dict[str, dict[int, Record]]
    failed: dict[str, tuple[str, ...]]


class Departure(msgspec.Struct, frozen=True):
    """A field in which a task is not as the paper has it."""

    field: str
    ours: Any
    published: Any

    def __str__(self) -> str:
        return f"{self.field} {_brief(self.ours)}, published {_brief(self.published)}"


def places(records: Iterable[Record], memory: int | None = None) -> list[Place]:
    """All places of these records, those of a task's older versions left out; by task, variant and device.

    Only results on the test split count, one an identity: good before failed, then the newest.

    Args:
        memory: of a method that stores examples, only the rows that store this many a task, where the task has such.
    """
    groups: dict[tuple[str, str, bytes, str], list[Record]] = defaultdict(list)
    for record in _newest_tasks(store.unique(records)):
        job = record.job
        asked = memory if memory in record.protocol.get("memories", ()) else None
        if asked is None or job.params.get("memory", asked) == asked:
            groups[job.task, job.data_variant, canonical(job.data), job.device].append(record)
    return [_place(groups[key]) for key in sorted(groups)]


def _newest_tasks(records: Sequence[Record]) -> list[Record]:
    """The records of each task in the version that was run last."""
    latest: dict[str, tuple[str, int, str]] = {}
    for record in records:
        job = record.job
        version = (store.made_at(record), job.task_version, job.task_digest)
        latest[job.task] = max(latest.get(job.task, version), version)
    return [r for r in records if (r.job.task_version, r.job.task_digest) == latest[r.job.task][1:]]


def _place(records: Sequence[Record]) -> Place:
    by_label: dict[str, dict[tuple[str, bytes], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        job = record.job
        by_label[job.label][job.method_version, canonical([job.method, job.params])].append(record)
    rows, failed = {}, {}
    for label, versions in sorted(by_label.items()):
        row = max(versions.values(), key=_standing)
        rows[label] = {r.job.seed: r for r in sorted(row, key=lambda r: r.job.seed) if r.status == "ok"}
        failed[label] = tuple(
            sorted(f"{r.error.type}: {r.error.message}" if r.error else r.status for r in row if r.status != "ok")
        )
    newest = max(records, key=lambda r: (store.made_at(r), r.id))
    return Place(
        task=newest.job.task,
        variant=newest.job.data_variant,
        device=newest.job.device,
        protocol=newest.protocol,
        time=store.made_at(newest),
        rows=rows,
        failed=failed,
    )


def _standing(row: Sequence[Record]) -> tuple[bool, str, str]:
    return all(r.job.settings != _USER for r in row), max(map(store.made_at, row)), max(r.id for r in row)


# ---------------------------------------------------------------------------------------------- protocols


def mismatches(study: Study, protocol: Mapping[str, Any]) -> list[Departure]:
    """Fields in which a task is of another experiment than the study's; its records settle nothing then."""
    found = list(_departures(study.protocol, _described(protocol), ""))
    memories = protocol.get("memories")
    if study.memory is not UNSET and memories is not None and study.memory not in memories:
        found.append(Departure("memories", list(memories), study.memory))
    return found


def reductions(study: Study, place: Place, labels: Sequence[str]) -> list[Departure]:
    """What makes a verdict less than the paper's: fields of scale, the data's variant, the suite, a user's settings."""
    found = list(_departures(study.scale, _described(place.protocol), ""))
    if not set(place.variant.split("+")) <= set(study.variants):  # one for each data set
        found.append(Departure("data variant", place.variant, " or ".join(study.variants)))
    if any(r.job.settings == _USER for label in labels for r in place.rows[label].values()):
        found.append(Departure("settings", "given in the call", "the task's"))
    suites = list(place.protocol.get("suites", ()))
    if PAPER_SUITE not in suites:
        found.append(Departure("suite", " and ".join(suites) or "none", PAPER_SUITE))
    return found


def _described(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol, and of a stream how many tasks it has and how many classes each: the order is not always given."""
    stream = protocol.get("stream")
    if not stream:
        return dict(protocol)
    classes = stream.get("classes") or ()
    counted = {"tasks": len(classes) or stream.get("permutations", 0), "classes_per_task": [len(c) for c in classes]}
    return {**protocol, "stream": {**stream, **counted}}


def _departures(published: Any, ours: Any, field: str) -> Iterable[Departure]:
    if isinstance(published, dict):
        for key, value in published.items():
            own = ours.get(key) if isinstance(ours, Mapping) else None
            yield from _departures(value, own, f"{field}.{key}" if field else key)
    elif isinstance(published, list) and any(isinstance(value, dict) for value in published):
        own = list(ours) if isinstance(ours, (list, tuple)) else [ours]
        if len(own) != len(published):
            yield Departure(f"number of {field}", len(own), len(published))
        for n, value in enumerate(published):
            yield from _departures(value, own[n] if n < len(own) else None, f"{field}.{n + 1}")
    elif published is False:
        if ours:
            yield Departure(field, ours, "none")
    elif (list(ours) if isinstance(ours, tuple) else ours) != published:
        yield Departure(field, ours, published)


def _brief(value: Any) -> str:
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ------------------------------------------------------------------------------------------------ numbers


def numbers(claim: Claim, row: Mapping[int, Record], ours: str | Several) -> dict[int, float] | str:
    """Seed -> the value of a metric (or the least, most or mean of several), in the claim's unit.

    Fractions are made per cent where the unit is %. A metric that some record of the row lacks is given back by name.
    """
    found: dict[int, float] = {}
    names = (ours,) if isinstance(ours, str) else ours.metrics
    for seed, record in row.items():
        values = []
        for name in names:
            value = reading(record, name)
            if value is None:
                return name
            values.append(value * (100 if claim.unit == "%" else 1))
        found[seed] = _joined(values, ours)
    return found


def _joined(values: Sequence[float], ours: str | Several) -> float:
    if isinstance(ours, str):
        return values[0]
    return min(values) if ours.least else max(values) if ours.most else sum(values) / len(values)


_AT = re.compile(r"(?P<curve>[^@]+)@(?P<place>[\d.]+)")
_NTH_LAYER = re.compile(r"layer/#(\d+)")


def reading(record: Record, metric: str) -> float | None:
    """A metric of a record: `cost/FIELD`, a metric by name, or `CURVE@PLACE`, a curve's value where its axis is so.

    `layer/#2@0.9` is the second layer, in the network's order. None where the record has no such thing.
    """
    if metric in record.metrics:
        return record.metrics[metric]
    if metric.startswith("cost/"):
        return float(getattr(record.cost, metric.removeprefix("cost/")))
    if (parts := _AT.fullmatch(metric)) is None:
        return None
    name = parts["curve"]
    if nth := _NTH_LAYER.fullmatch(name):
        layers = [curve for curve in record.curves if curve.startswith("layer/")]
        name = layers[int(nth[1]) - 1] if 0 < int(nth[1]) <= len(layers) else name
    curve = record.curves.get(name, {})
    axis = next((values for key, values in curve.items() if key != "value"), [])
    for place, value in zip(axis, curve.get("value", []), strict=False):
        if f"{place:g}" == parts["place"]:
            return value
    return None
