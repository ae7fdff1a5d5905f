"""The ways of the methods through weight space, from one start: their sketched points on two principal components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, pairwise, takewhile
from statistics import mode
from typing import TYPE_CHECKING, Any

import msgspec

from fipbench.reports import figures, text
from fipbench.reports.board import REFERENCE, Board, Row
from fipbench.reports.figures import Drawing, Style
from fipbench.reports.text import Table
from fipbench.reports.tracks import continual
from fipbench.reports.tracks.continual_figures import few, line_styles

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEED = 0  # whose records hold the sketch
_REST: Style = {"color": "#8C8C8C", "linewidth": 0.9, "zorder": 2, "linestyle": "-", "marker": ""}
_NUMBERED = 5
_BEYOND = 3  # times as far as the named ways come: no longer drawn
_NAMED = 6  # thin ways; of more the table tells which is which
_LARGEST = 1e6  # times the norm of the weights: no run's, but a record may come from anyone


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one row.

    Attributes:
        points: on the two components as seen from the start.
        ends: which of them are ends of tasks, by the task's number.
        distance: of the last from the start, by all dimensions of the sketch; `exact`: by all weights, if recorded.
    """

    row: Row
    points: tuple[tuple[float, float], ...]
    ends: dict[int, int]
    distance: float
    exact: float | None


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """The ways on the plane of the first two components over those that the figure names, and their shares of the
    variance of those."""

    ways: tuple[Way, ...]
    shares: tuple[float, float]
    dimensions: int

    @property
    def spread(self) -> float:
        """The standard deviation of a sketched distance, as a fraction of the distance."""
        return 1 / math.sqrt(2 * self.dimensions)

    @property
    def off(self) -> float | None:
        """By which fraction of the exact one a sketched length from start to end is off at most."""
        known = [(way.distance, way.exact) for way in self.ways if way.exact]
        return max((abs(found / exact - 1) for found, exact in known), default=None)


def plane(board: Board) -> Plane | None:
    """The ways of the ranked rows; None where no record holds one, or nothing moved."""
    import numpy as np

    found = [(row, *sketched) for row in board.ranked if (sketched := _sketched(row)) is not None]
    if not found:
        return None
    dimensions = mode(points.shape[1] for _, _, points in found)
    found = [entry for entry in found if entry[2].shape[1] == dimensions]
    named = {row.name for row in few(board)}
    # One way that goes far off would leave the others no room, and the plane little of them.
    main = np.concatenate([p for row, _, p in found if row.name in named] or [p for _, _, p in found])
    axes, shares = principal(main)
    if not shares.any():
        return None
    # From the start, and so that the farthest point of each axis lies on its positive side.
    flat = main @ axes
    axes *= np.sign(flat[np.abs(flat).argmax(axis=0), [0, 1]])
    ways = [
        Way(
            row=row,
            points=tuple((float(x), float(y)) for x, y in points @ axes),
            ends={int(task): n for n, task in enumerate(tasks)},
            distance=float(np.linalg.norm(points[-1])),
            exact=row.values.get("weights_walked", {}).get(SEED),
        )
        for row, tasks, points in found
    ]
    return Plane(ways=tuple(ways), shares=(float(shares[0]), float(shares[1])), dimensions=dimensions)


def principal(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of points (n, d), both n and d at least 2: the axes (d, 2), and the share of
    the variance along each (2,)."""
    import numpy as np

    _, lengths, rows = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    total = (lengths**2).sum()
    shares = lengths[:2] ** 2 / total if total else np.zeros(2)
    return rows[:2].T.copy(), shares


def _sketched(row: Row) -> tuple[Sequence[float], np.ndarray] | None:
    """The task of each point, and the points (n, dimensions), if the row has them whole and of a size to be drawn."""
    import numpy as np

    curve = row.curves.get("sketch", {})
    tasks = curve.get("task", ())
    columns = list(takewhile(bool, (curve.get(str(k), ()) for k in count(1))))
    if len(columns) < 2 or len(tasks) < 2 or {len(column) for column in columns} != {len(tasks)}:
        return None
    points = np.array(columns).T
    return (tasks, points) if np.abs(points).max() < _LARGEST else None


# ---------------------------------------------------------------------------------------------- drawing


def path(board: Board) -> Drawing | None:
    """Every way on one plane: naive, fip and the best others with their ends of tasks, the rest thin."""
    found = plane(board)
    if found is None:
        return None
    named = few(board)
    shown = [way for row in named for way in found.ways if way.row.name == row.name]
    rest = [way for way in found.ways if way not in shown]
    reach = _BEYOND * max((_reach(way) for way in shown or rest), default=0.0)
    inside = [way for way in rest if _reach(way) <= reach]
    lines = line_styles(board, [way.row for way in shown], marked=True)

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.1, 0.13, 0.58, 0.82))
        figures.plain_axes(axes)
        axes.grid(axis="x", color="#888888", alpha=0.25, linewidth=0.6)
        axes.set_aspect("equal", adjustable="datalim")
        for way in inside:
            axes.plot(*_columns(way.points), **_REST)
            if len(rest) <= _NAMED:
                _name(axes, way)
        for way in reversed(shown):
            axes.plot(*_columns(way.points), markevery=sorted(way.ends.values()), **lines[way.row.name])
        for way in shown:
            if way.row.method == continual.NAIVE or way.row.label == REFERENCE:
                _number(axes, way)
        axes.plot([0], [0], marker="s", color=figures.INK, markersize=8, linestyle="none", zorder=6)
        axes.annotate("start", (0, 0), xytext=(-7, -13), textcoords="offset points", ha="center", fontsize=9.5)
        axes.margins(0.09)
        first, second = (f"principal component, {100 * share:.0f} % of the variance" for share in found.shares)
        axes.set_xlabel(f"1st {first}")
        axes.set_ylabel(f"2nd {second}")
        entries = [(way.row.name + (" †" if way.row.calibration else ""), lines[way.row.name]) for way in shown]
        if inside:
            entries.append((f"{len(inside)} other row{'s' * (len(inside) > 1)}", _REST))
        figures.legend(figure, (0.71, 0.95), entries)

    what = "The way of the weights, on two principal components"
    return Drawing(
        key="path",
        svg=figures.svg((7.4, 4.6), draw, f"{what}, on {board.name}", _in_words(found, shown)),
        alt=f"{what}: all methods from one start, on {board.name}",
        caption=_caption(found) + _beyond([way for way in rest if way not in inside]),
    )


def _reach(way: Way) -> float:
    """How far from the start it comes on the plane."""
    return max(math.hypot(x, y) for x, y in way.points)


def _beyond(ways: Sequence[Way]) -> str:
    if not ways:
        return ""
    far = ", ".join(f"{way.row.name} ({_reach(way):.2g})" for way in ways)
    return f" Not drawn, since they go over {_BEYOND} times as far as those named: {far}."


def _columns(points: Sequence[tuple[float, float]]) -> tuple[Any, Any]:
    x, y = zip(*points, strict=True)
    return x, y


def _number(axes: Axes, way: Way) -> None:
    """Numbers of tasks beside their ends, as many as stay legible, where the way leaves room."""
    tasks = [task for task in way.ends if task > 1]
    most = min(len(tasks), _NUMBERED)
    some = {tasks[round(n * (len(tasks) - 1) / max(1, most - 1))] for n in range(most)}
    for task in sorted(some):
        x, y = _aside(way.points, way.ends[task])
        axes.annotate(
            str(task), way.points[way.ends[task]], xytext=(9 * x, 9 * y), textcoords="offset points",
            ha="center", va="center", fontsize=8.5, zorder=7,
        )  # fmt: skip


def _name(axes: Axes, way: Way) -> None:
    """The row's short name ahead of its end."""
    x, y = _aside(way.points, len(way.points) - 1)
    axes.annotate(
        figures.short(way.row.short), way.points[-1], xytext=(5 * x, 5 * y), textcoords="offset points",
        ha="left" if x > 0.5 else "right" if x < -0.5 else "center", fontsize=8, parse_math=False, zorder=7,
        va="center" if abs(x) > 0.5 else "bottom" if y > 0 else "top",
    )  # fmt: skip


def _aside(points: Sequence[tuple[float, float]], n: int) -> tuple[float, float]:
    """The direction (of length 1) on the outer side of the bend at point n; straight up where there is none."""
    x = y = 0.0
    for other in (*points[max(0, n - 1) : n], *points[n + 1 : n + 2]):
        if length := math.dist(other, points[n]):
            x, y = x - (other[0] - points[n][0]) / length, y - (other[1] - points[n][1]) / length
    size = math.hypot(x, y)
    return (x / size, y / size) if size > 0.1 else (0.0, 1.0)


def _caption(found: Plane) -> str:
    off = found.off
    measured = "" if off is None else f"; here lengths from start to end are off by at most {100 * off:.0f} %"
    return (
        "The way of the weights from the network that has learned the first task (square), on the first two principal "
        f"components of the points of the rows named in the legend; runs of seed {SEED}, references left out. Markers: "
        "ends of tasks. Both axes to one scale, in units of || w₁ ||. "
        f"A point is a random projection to {found.dimensions} numbers, the same "
        f"for all, by which a distance changes with a standard deviation of {100 * found.spread:.0f} %{measured}."
    )


def _in_words(found: Plane, shown: Sequence[Way]) -> str:
    parts = []
    for way in shown:
        x, y = way.points[-1]
        exact = "" if way.exact is None else f", by all weights {way.exact:.3g}"
        parts.append(f"{way.row.name} ends at ({x:.3g}, {y:.3g}), {way.distance:.3g} from the start{exact}")
    first, second = (100 * share for share in found.shares)
    return (
        f"The components hold {first:.0f} % and {second:.0f} % of the variance. In units of the norm of the weights, "
        f"from the start at (0, 0): {'; '.join(parts)}."
    )


def path_table(board: Board) -> Table | None:
    """Where each way ends, how long it is as drawn, how far its end is from the start by sketch and by all weights, and
    how long it was by all weights where they were looked at; in units of || w_1 ||."""
    found = plane(board)
    if found is None:
        return None
    ways = {way.row.name: way for way in found.ways}

    def cells(row: Row) -> list[str]:
        way = ways[row.name]
        drawn = sum(math.dist(a, b) for a, b in pairwise(way.points))
        exact = (way.exact, row.values.get("path", {}).get(SEED))
        shown = [*way.points[-1], drawn, way.distance, *exact]
        return [text.ABSENT if value is None else f"{value:.3f}".replace("-", "−") for value in shown]

    return text.by_section(
        board,
        f"Where the weights of seed {SEED} end, in units of || w₁ ||",
        ["1st component", "2nd component", "way, drawn", "distance, sketched", "distance, exact", "way, exact"],
        cells,
        continual.title,
        scored=lambda row: row.name in ways,
    )
