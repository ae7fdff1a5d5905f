"""Claims and records in, verdicts out: every row of a ledger gets one, and the command that would settle it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from fipbench import registry
from fipbench.claims import rules
from fipbench.claims.checks import built
from fipbench.claims.evidence import Departure, Place, mismatches, numbers, places, reductions
from fipbench.claims.ledger import REASONS, Claim, Ledger, Several, Study
from fipbench.claims.rules import SEEDS, Finding, Verdict
from fipbench.spec import Record

Scale = Literal["", "paper", "smaller"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say where the claim is read otherwise: by another of our methods or another metric."""

    label: str
    metric: str
    finding: Finding


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger and its verdict.

    Attributes:
        scale: `paper` where the records are of the paper's own protocol, `smaller` where only its scale is less; such a
            verdict is never the paper's. Empty where there is no finding.
        task, label: what was judged; `device` where it ran.
        finding: the numbers behind a verdict of the rules.
        departures: fields that are not the paper's: of the protocol behind a mismatch, else of its scale.
        readings: what other methods and metrics that the claim may mean would give.
        why: the reason, in words. `command`: what would settle the row, or what is lacking for it.
    """

    claim: Claim
    study: Study
    verdict: Verdict
    scale: Scale = ""
    task: str = ""
    label: str = ""
    device: str = ""
    finding: Finding | None = None
    departures: tuple[Departure, ...] = ()
    readings: tuple[Reading, ...] = ()
    why: str
    command: str

    @property
    def name(self) -> str:
        """The verdict with its scale: a smaller one is never shown without."""
        return f"{self.verdict} (smaller scale)" if self.scale == "smaller" else self.verdict


def judge(ledger: Ledger, records: Iterable[Record], claims: Iterable[Claim] | None = None) -> list[Judgement]:
    """The verdict on each row (default: of all), in the ledger's order.

    Of a study's tasks the first is the paper's own protocol. A row's verdict is that of the records nearest to it: a
    finding at the paper's scale goes before one at a smaller scale, that before a mismatch, then more seeds, then the
    newer.
    """
    records = list(records)
    found: dict[int | None, dict[str, list[Place]]] = {}
    judged = []
    for claim in ledger.claims.values() if claims is None else claims:
        study = ledger.studies[claim.study]
        memory = None if study.memory is UNSET else study.memory
        if memory not in found:
            found[memory] = {}
            for place in places(records, memory):
                found[memory].setdefault(place.task, []).append(place)
        own = [place for task in study.tasks for place in found[memory].get(task, [])]
        judged.append(_judged(ledger, claim, study, own))
    return judged


def _judged(ledger: Ledger, claim: Claim, study: Study, candidates: Sequence[Place]) -> Judgement:
    if claim.untestable:
        reason = REASONS[claim.untestable]
        return Judgement(claim=claim, study=study, verdict="not-testable", why=reason, command="")
    command = command_for(ledger, claim, study)
    at = [found for place in candidates if (found := _at(claim, study, place, command)) is not None]
    if not at:
        return Judgement(
            claim=claim, study=study, verdict="not-run", why=_lacking(claim, study, candidates), command=command
        )
    return max(at, key=lambda pair: pair[0])[1]


def _at(claim: Claim, study: Study, place: Place, command: str) -> tuple[tuple[int, int, str], Judgement] | None:
    """What one place says and how near it is; None where it has no record of the methods."""
    chosen = [study.labels[method][0] for method in claim.compared]
    if not all(place.rows.get(label) for label in chosen):
        return None
    head: dict[str, Any] = {
        "claim": claim,
        "study": study,
        "task": place.task,
        "label": chosen[0],
        "device": place.device,
    }
    unlike = mismatches(study, place.protocol)
    finding = None if unlike else _finding(claim, place, chosen, claim.ours)
    if isinstance(finding, str):
        unlike = [Departure("metrics", f"without {finding}", finding)]
    if unlike or not isinstance(finding, Finding):
        why = f"{place.task}: {'; '.join(map(str, unlike)) or 'no seed in common'}"
        verdict: Verdict = "protocol-mismatch" if unlike else "not-run"
        judged = Judgement(**head, verdict=verdict, departures=tuple(unlike), why=why, command=command)
        return (0, 0, place.time), judged
    less = reductions(study, place, chosen)
    judged = Judgement(
        **head,
        verdict=finding.verdict,
        scale="smaller" if less else "paper",
        finding=finding,
        departures=tuple(less),
        readings=tuple(_readings(claim, study, place)),
        why="; ".join([finding.why, *_failures(place, chosen), *map(str, less)]),
        command=command,
    )
    return (1 if less else 2, finding.ours.n, place.time), judged


def _finding(claim: Claim, place: Place, labels: Sequence[str], ours: str | Several) -> Finding | str | None:
    """What the rules say of these labels by these metrics; a metric's name where it is missing, None without seeds."""
    metrics = ours.each if isinstance(ours, Several) and ours.each else (ours,)
    pairs = []
    for metric in metrics:
        rows = []
        for n, label in enumerate(labels):
            other = claim.than_ours if n and claim.than_ours else metric
            row = numbers(claim, place.rows[label], other)
            if isinstance(row, str):
                return row
            rows.append(row)
        pairs.append(rows)
    if claim.kind == "value":
        return rules.value(claim, pairs[0][0])
    if not all(set.intersection(*(set(row) for row in rows)) for rows in pairs):
        return None
    if claim.kind == "trend":
        return rules.trend(claim, pairs[0])
    return rules.order(claim, [(rows[0], rows[1]) for rows in pairs])


def _readings(claim: Claim, study: Study, place: Place) -> Iterable[Reading]:
    first, *rest = [study.labels[method] for method in claim.compared]
    others = [] if claim.kind == "trend" else [label for label in first[1:] if place.rows.get(label)]
    fixed = [labels[0] for labels in rest]
    for label, metric in [*((label, claim.ours) for label in others), *((first[0], metric) for metric in claim.also)]:
        finding = _finding(claim, place, [label, *fixed], metric)
        if isinstance(finding, Finding):
            named = metric if isinstance(metric, str) else " and ".join(metric.metrics)
            yield Reading(label=label, metric=named, finding=finding)


def _failures(place: Place, labels: Sequence[str]) -> list[str]:
    return [f"failed seeds of {label}: {len(place.failed[label])}" for label in labels if place.failed.get(label)]


def _lacking(claim: Claim, study: Study, candidates: Sequence[Place]) -> str:
    """Why there is nothing to judge."""
    labels = [study.labels[method][0] for method in claim.compared]
    for place in candidates:
        for label in labels:
            if place.failed.get(label) and not place.rows.get(label):
                return f"{place.task}: every job of {label} failed: {place.failed[label][0]}"
    if built(study.tasks[0]) is None:
        return f"no task yet: {study.tasks[0]} is planned"
    return f"no record of {' and '.join(labels)} on {study.tasks[0]}"


def command_for(ledger: Ledger, claim: Claim, study: Study) -> str:
    """The command that would settle a row, or what is not there yet; then that for a smaller task, if there is one."""
    labels = [study.labels[method][0] for method in claim.compared]
    task = built(study.tasks[0])
    if task is not None:
        lacking = [label for label in labels if label not in {*task.methods, *registry.method_names(task.track)}]
        if not lacking:
            return _run(task.name, labels)
        return f"no method yet: {', '.join(f'{name} ({ledger.planned.methods.get(name, name)})' for name in lacking)}"
    parts = [f"no task yet: {study.tasks[0]}"]
    if unbuilt := [label for label in labels if label in ledger.planned.methods]:
        return f"{parts[0]}; no method yet: {', '.join(unbuilt)}"
    for name in study.tasks[1:]:
        other = built(name)
        if other is None or mismatches(study, msgspec.to_builtins(other)):
            continue
        if set(labels) <= {*other.methods, *registry.method_names(other.track)}:
            parts.append(f"at a smaller scale: {_run(name, labels)}")
    return "; ".join(parts)


def _run(task: str, labels: Sequence[str]) -> str:
    return f"fipbench run {task} --methods {','.join(dict.fromkeys(labels))} --seeds {SEEDS}"
