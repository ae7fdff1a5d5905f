"""Figures of the site, each with the table that says the same: those of the tracks, and what boards hold besides."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from fipbench.reports import figures, text
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.text import Table
from fipbench.reports.tracks import composition, connectivity, continual, robustness, sparsity
from fipbench.reports.tracks.continual_path import path_table
from fipbench.reports.views import view
from fipbench.site import names
from fipbench.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, its heading, and the table that says the same."""

    title: str
    drawing: Drawing
    table: Table | None


def of(board: Board) -> list[Shown]:
    """Every figure that the board has values for, the track's own first."""
    own: dict[str, dict[str, tuple[str, Callable[[Board], Table | None]]]] = {
        "composition": {"": ("Accuracy along both orders", composition.order_table)},
        "connectivity": {
            "": ("Accuracy along the path", along_table),
            "plane": ("The plane through the two networks", connectivity.path_table),
        },
        "continual": {
            "": ("Accuracy over the tasks learned", averages_table),
            "course": ("The course of learning", course_table),
            "path": ("The way through weight space", path_table),
        },
        "robustness": {"": ("Accuracy under attack", robustness.attack_table)},
        "sparsity": {"": ("Score against sparsity", _levels)},
    }
    found = []
    for drawing in view(board.track).drawings(board):
        title, table = own[board.track][drawing.key]
        found.append(Shown(title=title, drawing=drawing, table=table(board)))
    more = (cost(board), *(_MORE[board.track](board) if board.track in _MORE else ()))
    return found + [shown for shown in more if shown is not None]


def _levels(board: Board) -> Table | None:
    return sparsity.level_table(board, sparsity.score_of(board.protocol))


# ------------------------------------------------------------------------------------------- score and cost


def cost(board: Board) -> Shown | None:
    """The headline against examples forward and backward, with the Pareto front of each section."""
    rows = [row for row in board.ranked if row.cost]
    if not rows or min(map(_spent, rows)) <= 0:
        return None
    styles = _styles(board, rows)
    labels = list(dict.fromkeys(row.label for row in rows))
    size = (7.0, max(3.2, 0.24 * len(labels) + 0.6))
    sections = [section for section in board.sections if section.ranked]

    def draw(figure: Figure) -> None:
        from matplotlib import ticker

        axes = figure.add_axes((0.1, 0.16, 0.56, 0.8))
        figures.plain_axes(axes)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: text.count(value)))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        for n, section in enumerate(sections):
            front = sorted((row for row in section.ranked if row.front and row.cost), key=_spent)
            axes.step(
                [_spent(row) for row in front], [_high(row, board) for row in front], where="post", zorder=1,
                color="#888888", linewidth=1.2, linestyle=("-", (0, (5, 2)), (0, (1.5, 1.5)))[n % 3],
            )  # fmt: skip
            for row in section.ranked:
                style = {**styles[row.label], "linestyle": "none"}
                filled = {} if row.front else {"markerfacecolor": "none"}
                axes.plot([_spent(row)], [_high(row, board)], **{**style, **filled})
        axes.set_xlabel("training examples, forward plus backward")
        axes.set_ylabel(f"{names.metric(board.headline)}{', %' * text.is_fraction(board.headline)}")
        # Where all cost nearly the same, they stand close together and not apart on an axis of equal numbers.
        least, most = min(map(_spent, rows)), max(map(_spent, rows))
        if most < 2 * least:
            axes.set_xlim(math.sqrt(least * most) / 1.6, math.sqrt(least * most) * 1.6)
        lines = [(label, {**styles[label], "linestyle": "none"}) for label in labels]
        figures.legend(figure, (0.69, 0.96), lines)

    title = f"Score against cost on {board.name}"
    front = [f"{row.name} ({text.plus_minus(row.metrics[board.headline], board.headline)}, "
             f"{text.count(_spent(row))} examples)" for row in rows if row.front]  # fmt: skip
    several = " of each section (its lines differ)" if len(sections) > 1 else ""
    return Shown(
        title="Score against cost",
        drawing=Drawing(
            key="cost",
            svg=figures.svg(size, draw, title, f"Means over seeds. On the Pareto front: {'; '.join(front)}."),
            alt=title,
            caption="Mean score against training examples forward plus backward, on a logarithmic axis. Filled: on the "
            f"Pareto front{several}, which the grey line joins.",
        ),
        table=_cost_table(board),
    )


def _styles(board: Board, rows: Sequence[Row]) -> dict[str, figures.Style]:
    """By label, as in the other figures of the board."""
    if board.track == "continual":
        from fipbench.reports.tracks.continual_figures import styles

        return styles(board)
    return figures.styles(rows, of=lambda row: row.label)


def _cost_table(board: Board) -> Table | None:
    def cells(row: Row) -> list[str]:
        spent = text.count(_spent(row)) if row.cost else text.ABSENT
        return [text.plus_minus(row.metrics.get(board.headline), board.headline), spent, "yes" if row.front else "no"]

    columns = [text.metric_name(board.headline), "examples, forward + backward", "on the Pareto front"]
    return text.by_section(
        board, "Score against cost", columns, cells, _heading(board), scored=lambda row: row.rank is not None
    )


def _spent(row: Row) -> float:
    return row.cost["forward_examples"] + row.cost["backward_examples"]


def _high(row: Row, board: Board) -> float:
    return (100 if text.is_fraction(board.headline) else 1) * row.metrics[board.headline].mean


def _heading(board: Board) -> Callable[..., str]:
    return continual.title if board.track == "continual" else lambda section: ""


# ------------------------------------------------------------------------------------------------ heat maps


def heat(
    title: str, caption: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[float | None]],
    decimals: int, key: str, top: float | None = None,
) -> Drawing:  # fmt: skip
    """A field of numbers, each written in its cell, darker where larger; None where there is none.

    Args:
        top: the value of the darkest cell; default the largest.
    """
    known = [value for row in cells for value in row if value is not None]
    high = top or max([*known, 1e-12])
    size = (1.7 + 0.62 * len(columns), 0.9 + 0.27 * len(rows))
    slanted = max(map(len, columns)) > 7

    def draw(figure: Figure) -> None:
        from matplotlib import colormaps
        from matplotlib.collections import PolyCollection

        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_facecolor("none")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelbottom=False, labeltop=True, labelsize=9)
        axes.set_xticks(range(len(columns)), [figures.short(c) for c in columns], parse_math=False)
        for label in axes.get_xticklabels() if slanted else ():
            label.set(rotation=35, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), [figures.short(r) for r in rows], parse_math=False)
        filled = [(x, y, value) for y, row in enumerate(cells) for x, value in enumerate(row) if value is not None]
        shares = [min(1.0, max(0.0, value / high)) for _, _, value in filled]
        corners = [
            [(x - 0.48, y - 0.46), (x + 0.48, y - 0.46), (x + 0.48, y + 0.46), (x - 0.48, y + 0.46)]
            for x, y, _ in filled
        ]
        axes.add_collection(PolyCollection(corners, facecolors=colormaps["Blues"](shares), linewidths=0))
        for (x, y, value), share in zip(filled, shares, strict=True):
            # Not quite white: plain white is the background, which a page leaves out.
            ink = "#fefefe" if share > 0.55 else "#101418"
            axes.text(x, y, f"{value:.{decimals}f}", ha="center", va="center", fontsize=8.5, color=ink)

    said = "; ".join(f"{name}: {_listed(row, decimals)}" for name, row in zip(rows, cells, strict=True))
    words_of = f"Columns: {', '.join(columns)}. Rows: {said}."
    return Drawing(key=key, svg=figures.svg(size, draw, title, words_of), alt=title, caption=caption)


def _listed(row: Sequence[float | None], decimals: int) -> str:
    return ", ".join(text.ABSENT if value is None else f"{value:.{decimals}f}" for value in row)


def _mean(found: Interval | None, factor: float = 1.0) -> float | None:
    return None if found is None else factor * found.mean


def _names(curves: Sequence[str], start: str) -> list[str]:
    """Curves of layers without what all their names begin and end with."""
    bare = [re.sub(rf"^{re.escape(start)}", "", name).removesuffix(".weight") for name in curves]
    parts = [name.split(".") for name in bare]
    shared = 0
    while len(parts) > 1 and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    short = [".".join(p[shared:]) for p in parts]
    return [f"layer {name}" if name.isdigit() else name for name in short]


def _by_layer(
    board: Board, start: str, of_row: Callable[[Row], Mapping[str, Interval | None]]
) -> tuple[list[Row], list[str]]:
    """Ranked rows that have such values, and the names of these in order."""
    rows = [row for row in board.ranked if any(name.startswith(start) for name in of_row(row))]
    return rows, sorted({n for row in rows for n in of_row(row) if n.startswith(start)}, key=text.by_number)


# ------------------------------------------------------------------------------------------------ by track


def _of_sparsity(board: Board) -> list[Shown | None]:
    """Where the zeros are in the sparsest network."""
    rows, layers = _by_layer(board, "layer/", lambda row: row.ends)
    if not rows or len(layers) < 2:
        return []
    level = text.per_cent(max(sparsity.levels(board.protocol).values(), default=0.0))
    cells = [[_mean(row.ends.get(layer), 100.0) for layer in layers] for row in rows]
    drawing = heat(
        f"Zeros by layer in per cent at {level} sparsity on {board.name}",
        f"Per cent of the weights that are zero in each layer at {level} sparsity; means over seeds. 100 is a layer "
        "that lets nothing through.",
        [row.name for row in rows], _names(layers, "layer/"), cells, 1, "layers", top=100.0,
    )  # fmt: skip
    return [Shown(title="Sparsity by layer", drawing=drawing, table=sparsity.end_table(board))]


def _of_robustness(board: Board) -> list[Shown | None]:
    """How far apart the members are, by layer."""
    rows, layers = _by_layer(board, "diversity/", lambda row: row.metrics)
    if not rows:
        return []
    cells = [[_mean(row.metrics.get(layer)) for layer in layers] for row in rows]
    drawing = heat(
        f"Diversity of the members by layer on {board.name}",
        "Standard deviation over the members of the norm of a layer's output; means over seeds. Layers count from the "
        "input.",
        [row.name for row in rows], [f"layer {name[10:]}" for name in layers], cells, 3, "diversity",
    )  # fmt: skip
    return [Shown(title="Diversity by layer", drawing=drawing, table=robustness.member_table(board))]


def _of_continual(board: Board) -> list[Shown | None]:
    """The accuracy matrices, and how far each layer went."""
    return [matrices(board), _weights(board)]


def matrices(board: Board) -> Shown | None:
    """The accuracy on each task after each task, of fip and of the best other row with the largest memory."""
    table = continual.matrix_table(board)
    if table is None:
        return None
    cells = [[None if cell == text.ABSENT else float(cell) for cell in row[1:]] for row in table.rows]
    groups = dict(table.groups)
    titles, at = [], ""
    for n, row in enumerate(table.rows):
        at = groups.get(n, at)
        titles.append(f"{figures.short(at)[:18]}, {row[0].removeprefix('after ')}")
    drawing = heat(
        f"Accuracy in per cent on each task after each task, on {board.name}", f"{table.caption}. A row reads: learned "
        "up to that task, so what stands right of the diagonal was not seen yet.",
        titles, table.columns[1:], cells, 1, "matrix", top=100.0,
    )  # fmt: skip
    return Shown(title="Accuracy matrices", drawing=drawing, table=table)


def _weights(board: Board) -> Shown | None:
    rows, layers = _by_layer(board, "weights/", lambda row: row.ends)
    if not rows:
        return None
    cells = [[_mean(row.ends.get(layer)) for layer in layers] for row in rows]
    drawing = heat(
        f"Relative change of the weights by layer on {board.name}",
        "|| w − w₁ || / || w₁ || at the end in each layer, w₁ the network that has learned the first task; means over "
        "seeds.",
        [row.name for row in rows], _names(layers, "weights/"), cells, 3, "weights",
    )  # fmt: skip
    return Shown(title="Change of the weights by layer", drawing=drawing, table=continual.walk_table(board))


_MORE: dict[str, Callable[[Board], list[Shown | None]]] = {
    "continual": _of_continual,
    "robustness": _of_robustness,
    "sparsity": _of_sparsity,
}


def along_table(board: Board) -> Table | None:
    """Accuracy at nine places of a path, or at all that were measured, if they are fewer."""
    places = sorted({float(name[9:]) for row in board.ranked for name in row.metrics if name.startswith("accuracy@")})
    some = [places[round(k * (len(places) - 1) / 8)] for k in range(9)] if len(places) > 9 else places
    return text.by_section(
        board,
        "Accuracy in % at shares of the path's length",
        [f"at {place:.3g}" for place in some],
        lambda row: [text.plus_minus(row.metrics.get(f"accuracy@{place:g}"), "accuracy") for place in some],
        scored=lambda row: any(f"accuracy@{place:g}" in row.metrics for place in some),
    )


def averages_table(board: Board) -> Table | None:
    """Mean accuracy over the tasks learned so far, after each task."""
    score = continual.scoring(board.headline)
    every = list(continual.tasks(board))
    return text.by_section(
        board,
        f"Average {score}-incremental accuracy in % over the tasks learned so far",
        [f"after task {i}" for i in every],
        lambda row: [text.plus_minus(row.metrics.get(f"average/{score}/{i}"), "accuracy") for i in every],
        continual.title,
        scored=lambda row: f"average/{score}/1" in row.metrics,
    )


def course_table(board: Board) -> Table | None:
    """The course of the rows that are drawn, at its first and last step."""
    from fipbench.reports.tracks.continual_figures import course_of, few

    score = continual.scoring(board.headline)
    rows: list[tuple[str, ...]] = []
    groups = []
    for task in continual.tasks(board):
        own = [(row, course_of(row, score, task)) for row in few(board)]
        if any(points for _, points in own):
            groups.append((len(rows), f"learning task {task}"))
        for row, points in own:
            if points:
                (_, before, new), (step, kept, learned) = points[0], points[-1]
                shown = [text.number(value, "accuracy") for value in (before, kept, new, learned)]
                rows.append((row.name, f"{step:.0f}", *shown))
    if not rows:
        return None
    return Table(
        caption="Accuracy in % at the first and the last step of each task, means over seeds",
        columns=("method", "steps", "old tasks, first step", "last step", "this task, first step", "its last step"),
        rows=tuple(rows),
        groups=tuple(groups),
    )
