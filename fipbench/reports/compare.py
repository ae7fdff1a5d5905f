"""Rows compared: with the reference row, with each other for the ranks, and the first two item by item."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from fipbench.reports.board import REFERENCE, Comparison, Row, Section, TopTwo
from fipbench.reports.views import View
from fipbench.spec import Params, Record
from fipbench.statistics import (
    detectable,
    holm,
    item_difference,
    mcnemar,
    paired_difference,
    pareto_front,
    ranking,
)

if TYPE_CHECKING:
    import numpy as np

SETTINGS = ("task", "tuned", "default", "user")
# Costs that differ by less are equal: a batch more or less is no trade-off.
SAME_COST = 0.01
Behind = Sequence[tuple[Row, Sequence[Record]]]


def compared_sections(rows: Behind, shows: View, metrics: Sequence[str]) -> tuple[list[Section], int]:
    """Rows that may be compared, section by section, and how many tests the ranks rest on.

    Holm goes over the comparisons with the reference rows of all sections, and again over the pairs for the ranks.

    Args:
        rows: with the records of their seeds.
        metrics: the headline, then those that are compared with the reference row, too.
    """
    headline, records = metrics[0], {row.name: behind for row, behind in rows}
    groups = _with_differences([row for row, _ in rows], shows, metrics)
    ordered = {key: _ordered(group, headline) for key, (_, group) in groups.items()}
    scored = {key: [row for row in group if headline in row.metrics] for key, group in ordered.items()}
    ranks = ranking([[row.values[headline] for row in group] for group in scored.values()])
    sections = []
    for (key, group), found in zip(scored.items(), ranks.ranks, strict=True):
        front = pareto_front([(row.metrics[headline].mean, _examples(row)) for row in group], SAME_COST)
        ranked = [
            msgspec.structs.replace(row, rank=rank.first, rank_last=rank.last, front=on)
            for row, rank, on in zip(group, found, front, strict=True)
        ]
        reference = groups[key][0]
        sections.append(
            Section(
                key=key,
                reference=reference.name if reference else None,
                rows=(*ranked, *ordered[key][len(ranked) :]),
                top=_top_two(group, records, shows, headline),
            )
        )
    return sections, ranks.tests


def key_of(params: Params, shows: View) -> int:
    """What the section of rows with these parameters is."""
    value = params.get(shows.APART, 0)
    return value if isinstance(value, int) else 0


# --------------------------------------------------------------------------------------- with the reference


def _with_differences(
    rows: Sequence[Row], shows: View, metrics: Sequence[str]
) -> dict[int, tuple[Row | None, list[Row]]]:
    """Section by section the reference row, and the rows with their comparisons; Holm over those of all sections."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key_of(row.params, shows)].append(row)
    references = {key: _reference(group) for key, group in groups.items()}
    if references.get(0) is None:  # where fip stores something, the rows that store nothing are held against its least
        references[0] = next((references[key] for key in sorted(groups) if references[key]), None)
    found = [_differences(row, references[key], metrics) for key in sorted(groups) for row in groups[key]]
    adjusted = iter(zip(found, holm([d[metrics[0]].p if metrics[0] in d else None for d in found]), strict=True))
    compared: dict[int, tuple[Row | None, list[Row]]] = {}
    for key in sorted(groups):
        changed = []
        for row in groups[key]:
            differences, p = next(adjusted)
            if metrics[0] in differences:
                differences[metrics[0]] = msgspec.structs.replace(differences[metrics[0]], adjusted=p)
            changed.append(msgspec.structs.replace(row, comparisons=differences))
        compared[key] = references[key], changed
    return compared


def _reference(rows: Sequence[Row]) -> Row | None:
    """The row labelled `fip`; of several the one with the task's settings, then tuned, default, user."""
    return min(
        (row for row in rows if row.label == REFERENCE and row.seeds),
        key=lambda row: (min(map(_settings_order, row.settings)), -len(row.seeds), row.name),
        default=None,
    )


def _settings_order(settings: str) -> int:
    return SETTINGS.index(settings) if settings in SETTINGS else len(SETTINGS)


def _differences(row: Row, reference: Row | None, metrics: Sequence[str]) -> dict[str, Comparison]:
    if reference is None or row is reference:
        return {}
    shared = [m for m in metrics if m in row.values and m in reference.values]
    return {m: _comparison(row.values[m], reference.values[m]) for m in shared}


def _comparison(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    found = paired_difference(a, b)
    least = detectable(found.sd, found.n) if found.sd else None
    return Comparison(**msgspec.structs.asdict(found), detectable=least)


# ------------------------------------------------------------------------------------------- with each other


def _ordered(rows: Sequence[Row], headline: str) -> list[Row]:
    """Rows by headline mean, best first; then those without that metric; then all-failed."""

    def order(row: Row) -> tuple[bool, bool, float, str]:
        scored = headline in row.metrics
        return not row.seeds, not scored, -row.metrics[headline].mean if scored else 0.0, row.name

    return sorted(rows, key=order)


def _examples(row: Row) -> float:
    """The cost that tasks cap: examples forward and backward."""
    return row.cost["forward_examples"] + row.cost["backward_examples"]


def _top_two(rows: Sequence[Row], records: Mapping[str, Sequence[Record]], shows: View, headline: str) -> TopTwo | None:
    """The first two of these rows over the seeds for which both have items; None for fewer than two such seeds."""
    if len(rows) < 2:
        return None
    (a, of_a), (b, of_b) = ((row, _items(records[row.name], shows, headline)) for row in rows[:2])
    common = sorted(of_a.keys() & of_b.keys())
    shapes = {tuple(map(len, side[seed])) for side in (of_a, of_b) for seed in common}
    if len(common) < 2 or len(shapes) > 1:
        return None
    over_items = item_difference(of_a, of_b)
    assert over_items is not None
    first, second = ({seed: row.values[headline][seed] for seed in common} for row in (a, b))
    binary = all(values.dtype == bool for side in (of_a, of_b) for seed in common for values in side[seed])
    return TopTwo(
        first=a.name,
        second=b.name,
        over_seeds=paired_difference(first, second),
        over_items=over_items,
        mcnemar=tuple(mcnemar(of_a, of_b).values()) if binary else (),
    )


def _items(records: Sequence[Record], shows: View, headline: str) -> dict[int, list[np.ndarray]]:
    """seed -> items of the records whose items make up their score."""
    found = {}
    for record in records:
        strata = shows.items(record, headline)
        if strata and math.isclose(sum(float(x.mean()) for x in strata) / len(strata), record.metrics[headline]):
            found[record.job.seed] = strata
    return found
