"""Figures of the connectivity track: accuracy along the path, and the plane through it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fipbench.reports import figures, text
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.tracks import connectivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 3


def drawings(board: Board) -> list[Drawing]:
    """Both figures, as far as rows have what they show."""
    return [drawing for drawing in (along(board), planes(board)) if drawing is not None]


def _rows(board: Board, curve: str) -> list[Row]:
    return [row for row in (*board.references, *board.ranked) if row.curves.get(curve)]


def _named(row: Row) -> str:
    return figures.short(text.marked(row)) + " (reference)" * (row.role == "reference")


def _panels(figure: Figure, rows: list[Row], height: float) -> list[Axes]:
    """A panel for each row, the same axes for all, `_ACROSS` beside each other."""
    down = math.ceil(len(rows) / _ACROSS)
    first, found = None, []
    for number, row in enumerate(rows):
        line, column = divmod(number, _ACROSS)
        box = (0.07 + 0.315 * column, 1 - (line + 0.88) / down, 0.27, 0.68 / down)
        axes = figure.add_axes(box, sharex=first, sharey=first)
        first = first or axes
        axes.set_title(_named(row), loc="left", fontsize=10, parse_math=False)
        found.append(axes)
    return found


# ------------------------------------------------------------------------------------------------- along


def along(board: Board) -> Drawing | None:
    """Accuracy along the path: a panel a method, a thin line a seed and a thick one for their mean."""
    rows = _rows(board, "accuracy")
    if not rows:
        return None
    styles = figures.styles(board.ranked) | {row.name: figures.BESIDE for row in board.references}
    down = math.ceil(len(rows) / _ACROSS)

    def draw(figure: Figure) -> None:
        for axes, row in zip(_panels(figure, rows, down), rows, strict=True):
            figures.plain_axes(axes)
            colour = styles[row.name]["color"]
            places = row.curves["accuracy"]["distance"]
            for seed in row.seeds:
                values = [row.values.get(connectivity.at(place), {}).get(seed) for place in places]
                known = [(p, 100 * v) for p, v in zip(places, values, strict=True) if v is not None]
                axes.plot(*zip(*known, strict=True), color=colour, alpha=0.35, linewidth=0.8)
            mean = [100 * value for value in row.curves["accuracy"]["value"]]
            axes.plot(places, mean, color=colour, linewidth=2.2)
            axes.set_xticks([0, 0.5, 1])
        for axes in figure.axes[-_ACROSS:]:
            axes.set_xlabel("share of the path's length")
        for axes in figure.axes[::_ACROSS]:
            axes.set_ylabel("test accuracy, %")

    what = "Accuracy along the path"
    return Drawing(
        key="",
        svg=figures.svg((7.6, 2.3 * down), draw, f"{what} on {board.name}", _in_words(rows)),
        alt=f"{what} between the two networks of every method on {board.name}",
        caption="Test accuracy at places evenly spread along each method's path from the first network (0) to the "
        "second (1). Thin: one line a seed; thick: their mean.",
    )


def _in_words(rows: list[Row]) -> str:
    parts = []
    for row in rows:
        curve = row.curves["accuracy"]
        mean, place = min(zip(curve["value"], curve["distance"], strict=True))
        parts.append(f"{row.name} falls to {100 * mean:.1f} % at {place:.2g} of its length")
    return f"Means over seeds: {'; '.join(parts)}."


# ------------------------------------------------------------------------------------------------ planes


def planes(board: Board) -> Drawing | None:
    """Accuracy on the plane through both ends and the middle of each method's path, for seed 0."""
    rows = _rows(board, "plane")
    if not rows:
        return None
    down = math.ceil(len(rows) / _ACROSS)
    lowest = min(min(row.curves["plane"]["value"]) for row in rows)

    def draw(figure: Figure) -> None:
        drawn = None
        for axes, row in zip(_panels(figure, rows, down), rows, strict=True):
            plane, walked = row.curves["plane"], row.curves["plane/path"]
            xs, ys = sorted(set(plane["x"])), sorted(set(plane["y"]))
            values = [
                [100 * value for value in plane["value"][n : n + len(xs)]] for n in range(0, len(plane["x"]), len(xs))
            ]
            drawn = axes.pcolormesh(
                xs,
                ys,
                values,
                shading="nearest",
                cmap="viridis",
                vmin=100 * lowest,
                vmax=100,
                linewidth=0,
                rasterized=False,
            )
            axes.plot(walked["x"], walked["y"], color="white", linewidth=2.6)
            axes.plot(walked["x"], walked["y"], color="#D55E00", linewidth=1.4)
            axes.plot(
                [walked["x"][0], walked["x"][-1]],
                [walked["y"][0], walked["y"][-1]],
                "o",
                color="white",
                markeredgecolor=figures.INK,
                markersize=5,
            )
        for axes in figure.axes[-_ACROSS:]:
            axes.set_xlabel("weights, towards the second")
        figure.axes[0].set_ylabel("weights, across")
        assert drawn is not None
        bar = figure.colorbar(drawn, cax=figure.add_axes((0.07 + 0.315 * min(_ACROSS, len(rows)), 0.12, 0.015, 0.68)))
        bar.set_label("test accuracy, %")

    names = ", ".join(row.name for row in rows)
    return Drawing(
        key="plane",
        svg=figures.svg((7.6, 2.5 * down), draw, f"The plane of each path on {board.name}", f"Planes of {names}."),
        alt=f"Test accuracy on the plane through the two networks and each method's path on {board.name}",
        caption="Test accuracy on the plane through both ends (dots) and the middle of the method's path, which is "
        "drawn projected on it; seed 0. A path that is one straight line has no plane. Axes: Euclidean distance.",
    )
