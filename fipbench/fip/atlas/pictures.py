"""An atlas drawn: its paths in the plane of two principal components, its graph coloured by score, one query against
another. Each puts itself on matplotlib axes; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fipbench.fip.atlas.plane import Plane
from fipbench.fip.atlas.storage import BASE, Index

# Okabe and Ito's colours without the yellow, which does not show on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
_MARKERS = "os^Dv<>"
_INK = "#1F2328"
# Names of members are written beside them where there are no more than so many.
_NAMED = 12


def family(name: str) -> str:
    """What a member's name says of its path: `co-cl/0.3` is of `co-cl`."""
    return name.partition("/")[0]


def _families(names: Iterable[str]) -> list[str]:
    """In an order that no ranking changes, so that a family has one colour in all pictures; the base last."""
    return sorted({family(name) for name in names}, key=lambda group: (group == BASE, group))


def paths(axes: Any, found: Index, where: Plane) -> None:
    """The way from each member to the one that it was made from, in the plane of two principal components."""
    place = dict(zip(where.names, where.points, strict=True))
    for number, group in enumerate(group for group in _families(where.names) if group != BASE):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        own = [name for name in where.names if family(name) == group and name != BASE]
        for name in own:
            if (parent := found.members[name].parent) in place:
                ends = np.stack([place[parent], place[name]])
                axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=1.0, alpha=0.8, zorder=2)
        points = np.stack([place[name] for name in own])
        axes.plot(*points[:, :2].T, linestyle="none", marker=marker, markersize=5, color=colour, label=group, zorder=3)
    if BASE in place:
        axes.plot(*place[BASE][:2], marker="*", markersize=13, color=_INK, linestyle="none", label=BASE, zorder=4)
    for n, label in enumerate(("x", "y")):
        getattr(axes, f"set_{label}label")(f"component {n + 1} ({100 * where.explained[n]:.0f} % of the variance)")
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def network(axes: Any, drawn: Any, where: Plane, label: str) -> None:
    """The graph, its nodes at their places in the plane and coloured by `score`; the best has a ring and its name."""
    place = dict(zip(where.names, where.points, strict=True))
    for a, b in drawn.edges:
        ends = np.stack([place[a], place[b]])
        axes.plot(ends[:, 0], ends[:, 1], color="#888888", linewidth=0.6, alpha=0.6, zorder=1)
    names = list(drawn.nodes)
    points = np.stack([place[name] for name in names])
    scores = np.array([drawn.nodes[name]["score"] for name in names])
    dots = axes.scatter(points[:, 0], points[:, 1], c=scores, s=42, cmap="viridis", edgecolors=_INK, linewidths=0.4)
    best = int(scores.argmax())
    axes.plot(*points[best, :2], marker="o", markersize=14, color=_INK, fillstyle="none", linestyle="none", zorder=5)
    axes.annotate(names[best], points[best, :2], xytext=(9, 7), textcoords="offset points", fontsize=9, zorder=6)
    axes.figure.colorbar(dots, ax=axes, label=label)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def scatter(axes: Any, first: Mapping[str, float], second: Mapping[str, float], labels: Sequence[str]) -> None:
    """Two queries, a point for each member that answered both."""
    names = [name for name in first if name in second]
    for number, group in enumerate(_families(names)):
        own = [name for name in names if family(name) == group]
        style: dict[str, Any] = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
        if group == BASE:
            style = {"color": _INK, "marker": "*", "markersize": 13}
        x, y = [first[name] for name in own], [second[name] for name in own]
        axes.plot(x, y, linestyle="none", label=group, **{"markersize": 5.5, **style})
    if len(names) <= _NAMED:
        for name in names:
            axes.annotate(name, (first[name], second[name]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
