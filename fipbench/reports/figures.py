"""Accuracy against sparsity as SVG: deterministic bytes, text kept as text, no global state."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fipbench.reports import text
from fipbench.reports.board import REFERENCE, Board, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours without the yellow, which does not show on white; fip has the first to itself.
_FIP_COLOUR = "#D55E00"
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
_MARKERS = "osD^vPX*<>hp"
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_INK = "#1F2328"
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fipbench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}


def svg(board: Board) -> str:
    """Accuracy of every ranked row over −log10(1 − sparsity), with 95 % intervals; empty if there is none.

    A white background and dark ink, for a file of its own; see `inline` for a page.
    """
    rows = [row for row in board.ranked if any(metric in row.metrics for metric in board.levels)]
    if not rows:
        return ""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(5.4, 4.3), facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.1, 0.12, 0.58, 0.84))
        axes.set_facecolor("none")
        _axis(axes, board, rows)
        styles = _styles(rows)
        for row in rows:
            _line(axes, board, row, styles[row.name])
        for row in board.references:
            _dashed(axes, board, row)
        _labels(axes, board, rows, styles)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing, bbox_inches="tight", pad_inches=0.08)
    return _described(out.getvalue(), board, rows)


def inline(drawing: str, prefix: str) -> str:
    """An SVG of this module for use inside a page: the page's text colour, no background, ids of its own."""
    drawing = drawing[drawing.index("<svg") :]
    drawing = drawing.replace(_INK.lower(), "currentColor").replace("fill: #ffffff", "fill: none")
    drawing = re.sub(r'\bid="', f'id="{prefix}-', drawing)
    drawing = re.sub(r'\baria-labelledby="title desc"', f'aria-labelledby="{prefix}-title {prefix}-desc"', drawing)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", drawing)


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
    levels = list(board.levels.values())
    axes.set_xticks([position(s) for s in levels], _apart(levels))
    axes.set_xlabel("sparsity, %   (both axes: −log10(1 − value))")
    axes.set_ylabel("test accuracy, %")
    axes.margins(x=0.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.6)


def _apart(levels: Sequence[float]) -> list[str]:
    """Tick labels of the levels from the last down, left out where they would run into the next."""
    least = 0.13 * (position(levels[-1]) - position(levels[0]))
    labels, free = [], math.inf
    for level in reversed(levels):
        fits = position(level) <= free
        labels.append(text.per_cent(level).removesuffix(" %") if fits else "")
        free = position(level) - least if fits else free
    return labels[::-1]


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each row: fip stands out, the others by name, so that rank changes no colour."""
    styles: dict[str, dict[str, Any]] = {}
    others = sorted(row.name for row in rows if row.label != REFERENCE)
    for n, name in enumerate(others):
        turn, colour = divmod(n, len(_COLOURS))
        styles[name] = {"color": _COLOURS[colour], "linestyle": _DASHES[turn % len(_DASHES)], "linewidth": 1.3}
        styles[name] |= {"marker": _MARKERS[(n + 1) % len(_MARKERS)], "markersize": 5, "zorder": 3}
    for n, name in enumerate(sorted(row.name for row in rows if row.label == REFERENCE)):
        styles[name] = {"color": _FIP_COLOUR, "linestyle": _DASHES[n % len(_DASHES)], "linewidth": 2.4}
        styles[name] |= {"marker": "o", "markersize": 6, "zorder": 4}
    return styles


def _points(board: Board, row: Row) -> list[tuple[float, float, float, float]]:
    """(sparsity, mean, lower and upper end of the interval) as positions, at the levels that a row has."""
    found = [(s, row.metrics[m]) for m, s in board.levels.items() if m in row.metrics]
    ends = [(s, v.mean, v.mean - (v.half or 0.0), v.mean + (v.half or 0.0)) for s, v in found]
    return [(position(s), position(mean), position(max(0.0, low)), position(high)) for s, mean, low, high in ends]


def _line(axes: Axes, board: Board, row: Row, style: dict[str, Any]) -> None:
    points = _points(board, row)
    x, mean = [p[0] for p in points], [p[1] for p in points]
    bars = [[p[1] - p[2] for p in points], [p[3] - p[1] for p in points]]
    drawn = bars if any(map(any, bars)) else None
    axes.errorbar(x, mean, yerr=drawn, capsize=2.5, elinewidth=1.0, capthick=1.0, **style)


def _dashed(axes: Axes, board: Board, row: Row) -> None:
    """A reference as a horizontal line with its name."""
    if board.headline not in row.metrics:
        return
    mean = row.metrics[board.headline].mean
    axes.axhline(position(mean), color=_INK, linestyle=(0, (6, 3)), linewidth=1.0, zorder=2)
    axes.annotate(
        f"{_short(row.name)} (reference) {100 * mean:.1f}",
        (1, position(mean)), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
        fontsize=9, va="bottom", ha="right", parse_math=False,
    )  # fmt: skip


def _labels(axes: Axes, board: Board, rows: Sequence[Row], styles: dict[str, dict[str, Any]]) -> None:
    """Names at the right, in the order of the line ends and as near to them as leaves each legible."""
    low, high = axes.get_ylim()
    ends = []
    for row in rows:
        x, y, _, _ = _points(board, row)[-1]
        ends.append(((y - low) / (high - low), x, y, row.name))
    ends.sort(reverse=True)
    heights = _spread([end[0] for end in ends], min(0.062, 1.1 / max(1, len(ends))))
    for height, (_, x, y, name) in zip(heights, ends, strict=True):
        style = styles[name]
        leader = {"arrowstyle": "-", "color": style["color"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
        axes.annotate("", (x, y), xycoords="data", xytext=(1.05, height), textcoords="axes fraction", arrowprops=leader)
        axes.plot(
            [1.07], [height], transform=axes.transAxes, clip_on=False, markersize=6,
            marker=style["marker"], color=style["color"],
        )  # fmt: skip
        weight = "bold" if style["color"] == _FIP_COLOUR else "normal"
        axes.text(
            1.1, height, _short(name), transform=axes.transAxes, va="center", fontsize=9.5, parse_math=False,
            fontweight=weight,
        )  # fmt: skip


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Falling heights moved apart to at least `gap`, as little as may be: groups share their mean place."""
    groups: list[list[float]] = []  # wanted heights of labels that stand together, top first

    def top(group: Sequence[float]) -> float:
        return sum(group) / len(group) + gap * (len(group) - 1) / 2

    for height in heights:
        groups.append([height])
        while len(groups) > 1 and top(groups[-2]) - gap * len(groups[-2]) < top(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    return [top(group) - gap * n for group in groups for n in range(len(group))]


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"


def description(board: Board, rows: Sequence[Row]) -> str:
    """What the figure shows, for those who cannot see it: every line's first and last point."""
    parts = []
    for row in rows:
        present = [(s, row.metrics[m]) for m, s in board.levels.items() if m in row.metrics]
        ends = [present[0], present[-1]] if len(present) > 1 else present
        points = " and ".join(f"{100 * v.mean:.1f} % at {text.per_cent(s)} sparsity" for s, v in ends)
        parts.append(f"{row.name}: {points}")
    return f"Mean test accuracy with 95 % intervals over seeds. {'; '.join(parts)}."


def _described(drawing: str, board: Board, rows: Sequence[Row]) -> str:
    title = html.escape(f"Accuracy against sparsity on {board.name}")
    body = html.escape(description(board, rows))
    start = drawing.index("<svg")
    end = drawing.index(">", start)
    opening = f'{drawing[start:end]} role="img" aria-labelledby="title desc">'
    return (
        f'{drawing[:start]}{opening}\n <title id="title">{title}</title>\n <desc id="desc">{body}</desc>'
        f"{drawing[end + 1 :]}"
    )
