"""Figures as SVG: deterministic bytes, text kept as text, no global state. What is drawn is each track's."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fipbench.reports.board import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without the yellow, which does not show on white; fip has the first to itself.
_FIP_COLOUR = "#D55E00"
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
_MARKERS = "osD^vPX*<>hp"
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
INK = "#1F2328"
Style = dict[str, Any]
# What the others are seen against: the floor or the ceiling.
BESIDE: Style = {
    "color": INK,
    "linestyle": (0, (1.5, 1.5)),
    "linewidth": 1.6,
    "marker": "x",
    "markersize": 5,
    "zorder": 3,
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fipbench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """A figure: what tells it from others of its board, the SVG, and what it shows (short, and as a caption)."""

    key: str
    svg: str
    alt: str
    caption: str


def svg(size: tuple[float, float], draw: Callable[[Figure], None], title: str, description: str) -> str:
    """What `draw` puts on a figure of this size (inches), with title and description for those who cannot see it.

    A white background and dark ink, for a file of its own; see `inline` for a page.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, facecolor="white")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # As bbox_inches="tight", which lays everything out twice.
        figure.savefig(out, format="svg", metadata=nothing, bbox_inches=figure.get_tightbbox().padded(0.08))
    return _described(out.getvalue(), title, description)


def inline(drawing: str, prefix: str) -> str:
    """An SVG of this module for use inside a page: the page's text colour, no background, ids of its own."""
    drawing = drawing[drawing.index("<svg") :]
    drawing = drawing.replace(INK.lower(), "currentColor").replace("fill: #ffffff", "fill: none")
    drawing = re.sub(r'\bid="', f'id="{prefix}-', drawing)
    drawing = re.sub(r'\baria-labelledby="title desc"', f'aria-labelledby="{prefix}-title {prefix}-desc"', drawing)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", drawing)


def width(drawing: str) -> str:
    """The width that an SVG of this module has by itself, as CSS."""
    found = re.search(r'<svg[^>]* width="([\d.]+pt)"', drawing)
    return found[1] if found else "auto"


def plain_axes(axes: Axes) -> None:
    """No background, no box, faint lines across."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.6)


def styles(rows: Iterable[Any], of: Callable[[Any], str] = lambda row: row.name) -> dict[str, Style]:
    """Colour, marker and dash by what `of` gives for a row (anything with a `label`): fip stands out, the others by
    name, so that rank changes no colour."""
    rows = list(rows)
    found: dict[str, Style] = {}
    for n, name in enumerate(sorted({of(row) for row in rows if row.label != REFERENCE})):
        turn, colour = divmod(n, len(_COLOURS))
        found[name] = {"color": _COLOURS[colour], "linestyle": _DASHES[turn % len(_DASHES)], "linewidth": 1.3}
        found[name] |= {"marker": _MARKERS[(n + 1) % len(_MARKERS)], "markersize": 5, "zorder": 3}
    for n, name in enumerate(sorted({of(row) for row in rows if row.label == REFERENCE})):
        found[name] = {"color": _FIP_COLOUR, "linestyle": _DASHES[n % len(_DASHES)], "linewidth": 2.4}
        found[name] |= {"marker": "o", "markersize": 6, "zorder": 4}
    return found


def bars(axes: Axes, x: Sequence[float], points: Sequence[tuple[float, float, float]], style: Style) -> None:
    """A line through (mean, lower, upper) with the intervals, where there are any."""
    mean = [p[0] for p in points]
    spans = [[p[0] - p[1] for p in points], [p[2] - p[0] for p in points]]
    drawn = spans if any(map(any, spans)) else None
    axes.errorbar(x, mean, yerr=drawn, capsize=2.5, elinewidth=1.0, capthick=1.0, **style)


def level_line(axes: Axes, height: float, words: str) -> None:
    """A horizontal dashed line with words above its right end."""
    axes.axhline(height, color=INK, linestyle=(0, (6, 3)), linewidth=1.0, zorder=2)
    axes.annotate(
        words,
        (1, height), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
        fontsize=9, va="bottom", ha="right", parse_math=False,
    )  # fmt: skip


def end_labels(axes: Axes, ends: Sequence[tuple[float, float, str, Style]], least: float = 0.062) -> None:
    """Names at the right, in the order of the line ends (x, y, name, style) and as near to them as leaves each
    legible; `least` is the height of a name as a fraction of the axes'."""
    low, high = axes.get_ylim()
    placed = sorted((((y - low) / (high - low), x, y, name) for x, y, name, _ in ends), reverse=True)
    known = {name: style for _, _, name, style in ends}
    heights = spread([end[0] for end in placed], min(least, 1.1 / max(1, len(placed))))
    for height, (_, x, y, name) in zip(heights, placed, strict=True):
        style = known[name]
        leader = {"arrowstyle": "-", "color": style["color"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
        axes.annotate("", (x, y), xycoords="data", xytext=(1.05, height), textcoords="axes fraction", arrowprops=leader)
        axes.plot(
            [1.07], [height], transform=axes.transAxes, clip_on=False, markersize=6,
            marker=style["marker"], color=style["color"],
        )  # fmt: skip
        axes.text(
            1.1, height, short(name), transform=axes.transAxes, va="center", fontsize=9.5, parse_math=False,
            fontweight=weight(style),
        )  # fmt: skip


def legend(figure: Figure, place: tuple[float, float], lines: Sequence[tuple[str, Style]]) -> None:
    """Names with their lines, from the top: `place` is the upper left corner as fractions of the figure."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style) for _, style in lines]
    drawn = figure.legend(
        handles, [short(name) for name, _ in lines], loc="upper left", bbox_to_anchor=place, frameon=False,
        fontsize=9.5, handlelength=2.6, borderaxespad=0.0, labelspacing=0.6,
    )  # fmt: skip
    for words, (_, style) in zip(drawn.get_texts(), lines, strict=True):
        words.set_parse_math(False)
        words.set_fontweight(weight(style))


def weight(style: Style) -> str:
    """Of a name: fip's is bold."""
    return "bold" if style["color"] == _FIP_COLOUR else "normal"


def spread(heights: Sequence[float], gap: float) -> list[float]:
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


def short(name: str) -> str:
    """A name of at most 30 characters."""
    return name if len(name) <= 30 else f"{name[:29]}…"


def _described(drawing: str, title: str, description: str) -> str:
    start = drawing.index("<svg")
    end = drawing.index(">", start)
    opening = f'{drawing[start:end]} role="img" aria-labelledby="title desc">'
    return (
        f'{drawing[:start]}{opening}\n <title id="title">{html.escape(title)}</title>\n'
        f' <desc id="desc">{html.escape(description)}</desc>{drawing[end + 1 :]}'
    )
