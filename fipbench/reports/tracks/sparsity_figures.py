"""Figure of the sparsity track: the score of every method over the sparsity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fipbench.reports import figures
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.text import per_cent
from fipbench.reports.tracks.sparsity import CORRELATIONS, NAMES, capital, levels, score_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# (sparsity, mean, lower and upper end of the interval) as places on their axes.
Point = tuple[float, float, float, float]
# From this mean on scores crowd below 100 %, and their errors tell more than they do.
_HIGH = 0.9
_TICKS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


def drawings(board: Board) -> list[Drawing]:
    """The score of every ranked row over −log10(1 − sparsity), with 95 % intervals; none without a result."""
    found = levels(board.protocol)
    rows = [row for row in board.ranked if any(metric in row.metrics for metric in found)]
    if not rows:
        return []
    styles, name, height = figures.styles(rows), NAMES[score_of(board.protocol)], _height(board, rows)
    lines = {row.name: _points(board, row, height) for row in rows}

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.1, 0.12, 0.58, 0.84))
        figures.plain_axes(axes)
        _axes(axes, board, list(lines.values()), height)
        for row in rows:
            points = lines[row.name]
            figures.bars(axes, [p[0] for p in points], [p[1:] for p in points], styles[row.name])
        for row in board.references:
            if board.headline in row.metrics:
                mean = row.metrics[board.headline].mean
                label = f"{figures.short(row.name)} (reference) {100 * mean:.1f}"
                figures.level_line(axes, height(mean), label)
        ends = [(*lines[row.name][-1][:2], row.name, styles[row.name]) for row in rows]
        figures.end_labels(axes, ends)

    title = f"{capital(name)} against sparsity on {board.name}"
    return [
        Drawing(
            key="",
            svg=figures.svg((5.4, 4.3), draw, title, description(board, rows)),
            alt=f"{capital(name)} against sparsity of every method on {board.name}",
            caption=f"Mean test {name} of every method, bars: 95 % t interval over seeds, long ones cut off.",
        )
    ]


def position(fraction: float) -> float:
    """Where a sparsity or a high accuracy stands on its axis: 90, 99 and 99.9 % are equally far apart.

    What is left, weights or errors, shrinks by the same factor over the same length. From 99.99 % on all is one
    place, for a perfect score has none.
    """
    return -math.log10(1 - min(fraction, 0.9999))


def _height(board: Board, rows: Sequence[Row]) -> Callable[[float], float]:
    """Where a score stands: by its errors, if one is high; else as it is."""
    means = [row.metrics[metric].mean for row in rows for metric in levels(board.protocol) if metric in row.metrics]
    return position if max([*means, *_references(board)]) >= _HIGH else float


def _references(board: Board) -> list[float]:
    return [row.metrics[board.headline].mean for row in board.references if board.headline in row.metrics]


def _axes(axes: Axes, board: Board, lines: Sequence[Sequence[Point]], height: Callable[[float], float]) -> None:
    low, high = _limits(lines, [height(mean) for mean in _references(board)])
    axes.set_ylim(low, high)
    if height is position:
        shown = [t for t in _TICKS if low <= position(t) <= high]
        if len(shown) < 3:
            third = (high - low) / 3
            shown = [round(1 - 10**-y, 3) for y in (low + third / 4, low + 1.5 * third, high - third / 4)]
        axes.set_yticks([position(t) for t in shown], [f"{100 * t:.4g}" for t in shown])
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}")
    found = list(levels(board.protocol).values())
    axes.set_xticks([position(s) for s in found], _apart(found))
    axes.set_xlabel(f"sparsity, %   ({'both axes' if height is position else 'axis'}: −log10(1 − value))")
    axes.set_ylabel(f"test {NAMES[score_of(board.protocol)]}, %")
    axes.margins(x=0.03)


def _limits(lines: Sequence[Sequence[Point]], references: Sequence[float]) -> tuple[float, float]:
    """Of the means and their intervals; where these would take twice the height of the means, of half of it above and
    below: few seeds leave intervals beside which nothing else could be seen."""
    means = [*(mean for line in lines for _, mean, _, _ in line), *references]
    low = min([*means, *(low for line in lines for *_, low, _ in line)])
    high = max([*means, *(high for line in lines for *_, high in line)])
    span = max(means) - min(means)
    if span and high - low > 2 * span:
        low, high = max(low, min(means) - span / 2), min(high, max(means) + span / 2)
    margin = 0.04 * (high - low) + 0.01
    return low - margin, high + 1.5 * margin


def _apart(sparsities: Sequence[float]) -> list[str]:
    """Tick labels of the levels from the last down, left out where they would run into the next."""
    least = 0.13 * (position(sparsities[-1]) - position(sparsities[0]))
    labels, free = [], math.inf
    for level in reversed(sparsities):
        fits = position(level) <= free
        labels.append(per_cent(level).removesuffix(" %") if fits else "")
        free = position(level) - least if fits else free
    return labels[::-1]


def _points(board: Board, row: Row, height: Callable[[float], float]) -> list[Point]:
    found = [(s, row.metrics[m]) for m, s in levels(board.protocol).items() if m in row.metrics]
    ends = [(s, v.mean, v.mean - (v.half or 0.0), v.mean + (v.half or 0.0)) for s, v in found]
    least = -1.0 if score_of(board.protocol) in CORRELATIONS else 0.0
    return [(position(s), height(mean), height(max(least, low)), height(high)) for s, mean, low, high in ends]


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
