"""Boards of the sparsity track: the task's score at each sparsity, and what the sparsest network is like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fipbench.reports import figures, text, words
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.items import right
from fipbench.reports.text import Table, per_cent
from fipbench.reports.words import Terms
from fipbench.spec import SCORES, Record

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

APART: str = ""
# What a score is called. A task that names none is scored by accuracy.
NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "inverse_perplexity": "inverse perplexity",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "pearson_spearman": "Pearson-Spearman correlation",
    "perplexity": "perplexity",
    "spearman": "Spearman correlation",
}
_MEANINGS = {
    "accuracy": "fraction of test examples classified correctly",
    "f1": "F1 of the second of two classes, 2 TP / (2 TP + FP + FN),",
    "inverse_perplexity": "1 / perplexity of the masked words, the geometric mean of their probabilities,",
    "matthews_correlation": "Matthews correlation of predicted and true classes, times 100,",
    "pearson": "Pearson correlation of predicted and true values, times 100,",
    "pearson_spearman": "mean of the Pearson and Spearman correlations of predicted and true values, times 100,",
    "spearman": "Spearman correlation of predicted and true values, times 100,",
}
_CORRELATIONS = ("matthews_correlation", "pearson_spearman")


def suffix(key: int) -> str:
    """All rows are ranked together."""
    return ""


def derived(record: Record) -> dict[str, float]:
    """Nothing."""
    return {}


def compared(protocol: Mapping[str, Any]) -> list[str]:
    """The score at each sparsity."""
    return list(levels(protocol))


def test_examples(record: Record) -> int:
    """All sparsities are scored on the same examples."""
    return max(items.count for items in record.items.values())


def items(record: Record, headline: str) -> list[np.ndarray] | None:
    """Of an area each item's own: its share of levels at which it is right, by the trapezoid rule of the area.

    None where the headline is no accuracy: no other score is a mean over items.
    """
    if score_of(record.protocol) != "accuracy" and not headline.startswith("accuracy@"):
        return None
    if headline != "area":
        found = right(record, headline.removeprefix("accuracy@"))
        return None if found is None else [found]
    x = [-math.log10(1 - level) for level in levels(record.protocol).values()]
    rows = [right(record, name.removeprefix("accuracy@")) for name in levels(record.protocol)]
    known = [row for row in rows if row is not None]
    if len(rows) < 2 or len(known) < len(rows) or len({len(row) for row in known}) > 1:
        return None
    pieces = [(x[n + 1] - x[n]) * (known[n] + 1.0 * known[n + 1]) / 2 for n in range(len(x) - 1)]
    return [sum(pieces[1:], start=pieces[0]) / (x[-1] - x[0])]


def score_of(protocol: Mapping[str, Any]) -> str:
    """What networks are scored by."""
    found = str(protocol.get("score") or "accuracy")
    return found if found in SCORES else "accuracy"


def levels(protocol: Mapping[str, Any], score: str = "") -> dict[str, float]:
    """The metrics `accuracy@s` by sparsity s, or those of the task's own score or another."""
    return {f"{score or score_of(protocol)}@{s:g}": float(s) for s in protocol.get("sparsities", ())}


# ----------------------------------------------------------------------------------------------- tables


def tables(board: Board) -> list[Table]:
    """Score and cost, scores at each sparsity, the sparsest network."""
    score = score_of(board.protocol)
    scores = (score, *SCORES[score])
    found = [text.score_table(board), *(level_table(board, score) for score in scores), end_table(board)]
    return [table for table in found if table is not None]


def level_table(board: Board, score: str = "accuracy") -> Table | None:
    """A score of every ranked row at every sparsity, if the task has sparsities."""
    found = levels(board.protocol, score)
    if not found:
        return None
    return text.by_section(
        board,
        f"{_capital(NAMES[score])}{' in %' if text.is_fraction(score) else ''} at each sparsity",
        [per_cent(sparsity) for sparsity in found.values()],
        lambda row: [text.plus_minus(row.metrics.get(metric), metric) for metric in found],
        scored=lambda row: row.rank is not None,
    )


def end_table(board: Board) -> Table | None:
    """What the network at the highest sparsity is like: how far it walked, and where its zeros are."""
    curves = {curve for row in board.ranked for curve in row.ends if curve.startswith("layer/")}
    found, layers = levels(board.protocol), sorted(curves, key=text.by_number)
    if not found or not layers:
        return None
    walked = ("weights", "path", "outputs")

    def cells(row: Row) -> list[str]:
        distances = [text.to_thousandths(row.ends.get(curve)) for curve in walked]
        return [*distances, *(text.plus_minus(row.ends.get(layer), "accuracy") for layer in layers)]

    return text.by_section(
        board,
        f"At {per_cent(max(found.values()))}: distances to the dense network, and zeros by layer",
        [*walked, *(f"zeros in {layer.removeprefix('layer/')}, %" for layer in layers)],
        cells,
        scored=lambda row: row.rank is not None,
    )


# ------------------------------------------------------------------------------------------------ words


def protocol(board: Board) -> Terms:
    """What stands above the tables."""
    shown = ", ".join(map(per_cent, levels(board.protocol).values()))
    return words.above(
        board,
        network="the same trained network for all methods",
        data=words.examples([(sum(board.train_examples), "training"), (board.test_examples, "test")]),
        budget=words.passes(board),
        own=[("Sparsities", f"{shown} of the prunable weights are zero" if shown else "")],
        headline=_definition(board.headline, NAMES[score_of(board.protocol)]),
    )


def reading(board: Board) -> Terms:
    """What stands below the tables."""
    distances = (
        "weights: || w - w_dense || / || w_dense ||; path: the same summed from level to level; outputs: mean "
        "Bhattacharyya distance of the softmax outputs to the dense network's on the test examples"
    )
    return words.below(
        board,
        comparison=words.compared(board),
        stored="parameters other than zero that are kept",
        own=[("Distances", distances if levels(board.protocol) else "")],
    )


def _definition(metric: str, name: str) -> str:
    if metric == "area":
        return f"area: mean {name} over the axis −log10(1 − sparsity) between the levels, by the trapezoid rule"
    score, _, level = metric.partition("@")
    if level and score in _MEANINGS:
        return f"{_MEANINGS[score]} at {per_cent(float(level))} sparsity"
    return metric


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def sentence(board: Board) -> str:
    """Who leads, and where fip stands against the best other method."""
    return f"{board.name}: {words.verdict(board)}."


# ---------------------------------------------------------------------------------------------- figures


def drawings(board: Board) -> list[Drawing]:
    """The score of every ranked row over −log10(1 − sparsity), with 95 % intervals; none without a result."""
    found = levels(board.protocol)
    rows = [row for row in board.ranked if any(metric in row.metrics for metric in found)]
    if not rows:
        return []
    styles, name = figures.styles(rows), NAMES[score_of(board.protocol)]

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.1, 0.12, 0.58, 0.84))
        figures.plain_axes(axes)
        _axis(axes, board, rows)
        for row in rows:
            points = _points(board, row)
            figures.bars(axes, [p[0] for p in points], [p[1:] for p in points], styles[row.name])
        for row in board.references:
            if board.headline in row.metrics:
                mean = row.metrics[board.headline].mean
                label = f"{figures.short(row.name)} (reference) {100 * mean:.1f}"
                figures.level_line(axes, position(mean), label)
        ends = [(*_points(board, row)[-1][:2], row.name, styles[row.name]) for row in rows]
        figures.end_labels(axes, ends)

    title = f"{_capital(name)} against sparsity on {board.name}"
    return [
        Drawing(
            key="",
            svg=figures.svg((5.4, 4.3), draw, title, description(board, rows)),
            alt=f"{_capital(name)} against sparsity of every method on {board.name}",
            caption=f"Mean test {name} of every method, bars: 95 % t interval over seeds.",
        )
    ]


def position(fraction: float) -> float:
    """Where a sparsity or an accuracy stands on its axis: 90, 99 and 99.9 % are equally far apart.

    Both axes: what is left, weights or errors, shrinks by the same factor over the same length. From 99.99 %
    on all is one place, for a perfect score has none.
    """
    return -math.log10(1 - min(fraction, 0.9999))


_TICKS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


def _axis(axes: Axes, board: Board, rows: Sequence[Row]) -> None:
    heights = [y for row in rows for point in _points(board, row) for y in point[1:]]
    heights += [position(r.metrics[board.headline].mean) for r in board.references if board.headline in r.metrics]
    margin = 0.04 * (max(heights) - min(heights)) + 0.01
    low, high = min(heights) - margin, max(heights) + 1.5 * margin
    shown = [t for t in _TICKS if low <= position(t) <= high]
    if len(shown) < 3:
        middle = (low + high) / 2
        shown = [round(1 - 10**-y, 3) for y in (low + margin, middle, high - margin)]
    axes.set_ylim(low, high)
    axes.set_yticks([position(t) for t in shown], [f"{100 * t:.4g}" for t in shown])
    found = list(levels(board.protocol).values())
    axes.set_xticks([position(s) for s in found], _apart(found))
    axes.set_xlabel("sparsity, %   (both axes: −log10(1 − value))")
    axes.set_ylabel(f"test {NAMES[score_of(board.protocol)]}, %")
    axes.margins(x=0.03)


def _apart(sparsities: Sequence[float]) -> list[str]:
    """Tick labels of the levels from the last down, left out where they would run into the next."""
    least = 0.13 * (position(sparsities[-1]) - position(sparsities[0]))
    labels, free = [], math.inf
    for level in reversed(sparsities):
        fits = position(level) <= free
        labels.append(per_cent(level).removesuffix(" %") if fits else "")
        free = position(level) - least if fits else free
    return labels[::-1]


def _points(board: Board, row: Row) -> list[tuple[float, float, float, float]]:
    """(sparsity, mean, lower and upper end of the interval) as positions, at the levels that a row has."""
    found = [(s, row.metrics[m]) for m, s in levels(board.protocol).items() if m in row.metrics]
    ends = [(s, v.mean, v.mean - (v.half or 0.0), v.mean + (v.half or 0.0)) for s, v in found]
    least = -1.0 if score_of(board.protocol) in _CORRELATIONS else 0.0
    return [(position(s), position(mean), position(max(least, low)), position(high)) for s, mean, low, high in ends]


def description(board: Board, rows: Sequence[Row]) -> str:
    """What the figure shows, for those who cannot see it: every line's first and last point."""
    parts = []
    for row in rows:
        present = [(s, row.metrics[m]) for m, s in levels(board.protocol).items() if m in row.metrics]
        ends = [present[0], present[-1]] if len(present) > 1 else present
        points = " and ".join(f"{100 * v.mean:.1f} % at {per_cent(s)} sparsity" for s, v in ends)
        parts.append(f"{row.name}: {points}")
    name = NAMES[score_of(board.protocol)]
    return f"Mean test {name} with 95 % intervals over seeds. {'; '.join(parts)}."
