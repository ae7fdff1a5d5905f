"""Many boards at a glance: who leads each, where fip stands, and which baselines reach their own published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fipbench.reports import text, words
from fipbench.reports.board import Board, Row, Section
from fipbench.reports.calibration import Calibration

Line = tuple[str, ...]


def standings(found: Iterable[Board]) -> list[Line]:
    """One line a section of each board: task, stored examples a task, first row, its score, fip's score, fip minus the
    best row that is not of its family, p by Holm, seeds of the first row."""
    lines = []
    for board in found:
        for section in board.sections:
            if section.ranked:
                lines.append(_standing(board, section))
    return lines


def _standing(board: Board, section: Section) -> Line:
    metric = board.headline
    first = section.ranked[0]
    own = next((row for row in section.ranked if row.name == section.reference), None)
    rivals = [row for row in section.ranked if not words.of_fip(row)]
    gap, p = _gap(rivals[0], metric) if own and rivals else (text.ABSENT, text.ABSENT)
    return (
        board.task,
        str(section.key) if len(board.sections) > 1 else text.ABSENT,
        ", ".join(row.short for row in words.leaders(section, metric)),
        text.plus_minus(first.metrics[metric], metric),
        text.plus_minus(own.metrics[metric], metric) if own else text.ABSENT,
        gap,
        p,
        str(len(first.seeds)),
    )


def _gap(rival: Row, metric: str) -> tuple[str, str]:
    pair = rival.comparisons.get(metric)
    if pair is None or pair.mean is None:
        return text.ABSENT, text.ABSENT
    return f"{text.difference(words.flipped(pair), metric)} ({rival.short})", text.p_value(pair.adjusted)


def calibrated(found: Sequence[Calibration]) -> list[Line]:
    """One line a published number: method, task, published, ours, margin, verdict, source."""
    return [
        (
            entry.label,
            entry.task,
            text.number(entry.published.value, entry.published.metric),
            text.plus_minus(entry.ours, entry.published.metric),
            f"−{100 * entry.published.margin:g}",
            "reached" if entry.passed else "missed",
            entry.published.source,
        )
        for entry in sorted(found, key=lambda entry: (entry.track, entry.label, entry.task))
    ]
