"""Boards of the composition track: both data sets along both orders, and whether the orders differ beyond noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fipbench.reports import figures, text, words
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.items import right
from fipbench.reports.text import Table, per_cent, plus_minus, to_thousandths
from fipbench.reports.words import Terms
from fipbench.spec import Record

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

APART: str = ""
ORDERS = {"cl-co": "CL, then Co", "co-cl": "Co, then CL"}
DISTANCES = ("weights", "outputs", "disagreement")


def suffix(key: int) -> str:
    """All rows are ranked together."""
    return ""


def derived(record: Record) -> dict[str, float]:
    """How much better it is to learn first, in accuracy at the sparsity due."""
    ends = [record.metrics.get(f"average_accuracy/{order}") for order in ORDERS]
    first, second = ends
    return {} if first is None or second is None else {"accuracy_gap": first - second}


def compared(protocol: Mapping[str, Any]) -> list[str]:
    """Each order by itself."""
    return [f"average_accuracy/{order}" for order in ORDERS]


def test_examples(record: Record) -> int:
    """Of both data sets together."""
    sizes = {name.rpartition("/")[2]: items.count for name, items in record.items.items()}
    return sum(sizes.values())


def items(record: Record, headline: str) -> list[np.ndarray] | None:
    """Of each data set, each item's share of orders and sparsities at which it is right."""
    strata = []
    for number in (1, 2):
        names = [f"{order}@{s:g}/{number}" for order in ORDERS for s in levels(record.protocol)]
        found = [right(record, name) for name in names]
        known = [row for row in found if row is not None]
        if not known or len(known) < len(found) or len({len(row) for row in known}) > 1:
            return None
        pieces = [1.0 * row for row in known]
        strata.append(sum(pieces[1:], start=pieces[0]) / len(pieces))
    return strata


def levels(protocol: Mapping[str, Any]) -> list[float]:
    """The sparsities."""
    return [float(sparsity) for sparsity in protocol.get("sparsities", ())]


def repeated(protocol: Mapping[str, Any]) -> float | None:
    """The sparsity at which both orders were repeated."""
    found = protocol.get("repeat")
    return None if found is None else float(found)


# ----------------------------------------------------------------------------------------------- tables


def tables(board: Board) -> list[Table]:
    """Score and cost; both data sets along both orders; the commutator."""
    found = [text.score_table(board), order_table(board), path_table(board), commutator_table(board)]
    return [table for table in found if table is not None]


def order_table(board: Board) -> Table | None:
    """Accuracy on each data set after both operations, as the method left the network, and its zeros."""
    shown = [
        (f"accuracy/{order}/{number}@{s:g}", f"{name}: data {number}, {per_cent(s)}")
        for order, name in ORDERS.items()
        for s in levels(board.protocol)
        for number in (1, 2)
    ]
    kept = [(f"sparsity/co-cl@{s:g}", f"zeros at the end, {per_cent(s)}") for s in levels(board.protocol)]
    if not shown:
        return None
    return text.by_section(
        board,
        "Accuracy in % after both operations, and the share of zeros that is left after Co, then CL",
        [name for _, name in (*shown, *kept)],
        lambda row: [
            *(plus_minus(row.metrics.get(metric), metric) for metric, _ in shown),
            *(to_thousandths(row.metrics.get(metric)) for metric, _ in kept),
        ],
        scored=lambda row: bool(row.metrics),
    )


def path_table(board: Board) -> Table | None:
    """Accuracy on the way: of the base network, after CL alone and after Co alone."""
    shown = [(f"accuracy/{name}/{number}", f"{name}: data {number}") for name in ("base", "cl") for number in (1, 2)]
    shown += [(f"accuracy/co/1@{s:g}", f"co: data 1, {per_cent(s)}") for s in levels(board.protocol)]
    return text.by_section(
        board,
        "Accuracy in % on the way",
        [name for _, name in shown],
        lambda row: [plus_minus(row.metrics.get(metric), metric) for metric, _ in shown],
        scored=lambda row: bool(row.metrics),
    )


def commutator_table(board: Board) -> Table | None:
    """Distances between the orders, the noise floor, and what is left of the squares."""
    place = repeated(board.protocol)
    if place is None:
        return None
    others = [s for s in levels(board.protocol) if s != place]
    shown = [(f"{what}/{kind}@{place:g}", f"{kind}: {what}") for kind in DISTANCES for what in _OF_EACH]
    shown += [(f"commutator/{kind}@{s:g}", f"{kind}, {per_cent(s)}") for s in others for kind in DISTANCES]

    def cells(row: Row) -> list[str]:
        return [plus_minus(row.metrics.get(metric), metric) for metric, _ in shown]

    return text.by_section(
        board,
        f"Distance between the orders at {per_cent(place)}: commutator, noise floor, excess of the squares",
        [name for _, name in shown],
        cells,
        scored=lambda row: bool(row.metrics),
    )


_OF_EACH = ("commutator", "noise", "excess")


# ------------------------------------------------------------------------------------------------ words


def protocol(board: Board) -> Terms:
    """What stands above the tables."""
    fields = board.protocol
    shown = ", ".join(map(per_cent, levels(fields)))
    return words.above(
        board,
        network="the same network, trained on the first data set, for all methods",
        data=words.examples(
            [
                *((size, f"training ({place})") for size, place in zip(board.train_examples, _PLACES, strict=False)),
                (board.test_examples, "test"),
            ]
        ),
        budget=_budget(board),
        own=[
            (
                "Operations",
                f"CL learns the second data set, Co makes {shown} of the prunable weights zero" if shown else "",
            ),
            ("Memory", f"{fields['memory']} examples of the first data set" if fields.get("memory") else ""),
        ],
        headline="mean over both orders, all sparsities and both data sets of the accuracy over all outputs, of a "
        "network with the zeros that are due: one that lost some is cut back by magnitude first",
    )


_PLACES = ("first", "second")


def _budget(board: Board) -> str:
    budget = board.protocol.get("budget", {})
    if not budget:
        return ""
    epochs = budget.get("epochs", 0) * budget.get("factor", 1)
    return (
        f"each operation {text.counted(epochs, 'epoch')}, that is {2 * epochs:g} passes, forward and backward together, "
        f"over the data set that it learns or that was learned last; batches of {budget.get('batch_size')}"
    )


def reading(board: Board) -> Terms:
    """What stands below the tables."""
    place = repeated(board.protocol)
    return words.below(
        board,
        comparison=words.compared(board),
        stored="parameters other than zero in the last network",
        own=[
            ("Order", "cl-co is CL first, then Co; co-cl the other way round: as one reads, not as functions compose"),
            (
                "Distances",
                "weights: Euclidean, relative to the norm of the base network; outputs: root mean squared Hellinger "
                "distance of the softmax outputs; disagreement: share of test items with unlike predicted classes; "
                "both data sets count half",
            ),
            (
                "Noise",
                f"both orders were gone through twice at {per_cent(place)}, all data orders independent. commutator: "
                "root mean square over the pairs of unlike orders; noise: the same over the pairs of one order; "
                "excess: the difference of the squares (of the disagreements themselves), zero in the mean where the "
                "operations commute"
                if place
                else "",
            ),
        ],
    )


def sentence(board: Board) -> str:
    """Who leads, where fip stands, and whether fip's operations commute."""
    found = f"{board.name}: {words.verdict(board)}"
    place = repeated(board.protocol)
    own = [row for row in board.ranked if board.sections and row.name == board.sections[0].reference]
    if not own or place is None:
        return f"{found}."
    parts = []
    for kind in DISTANCES[:2]:
        between, noise = (own[0].metrics.get(f"{what}/{kind}@{place:g}") for what in ("commutator", "noise"))
        if between and noise:
            parts.append(f"{kind} {between.mean:.3f} against {noise.mean:.3f} within one order")
    return f"{found}; {own[0].name}'s orders end apart by {', '.join(parts)}." if parts else f"{found}."


# ---------------------------------------------------------------------------------------------- figures


def drawings(board: Board) -> list[Drawing]:
    """Accuracy on both data sets against sparsity, along both orders; none without a result."""
    rows = [row for row in (*board.ranked, *board.references) if _points(board, row, "cl-co", 1)]
    if not rows:
        return []
    styles = figures.styles(board.ranked) | {row.name: figures.BESIDE for row in board.references}

    def draw(figure: Figure) -> None:
        first = None
        for n, number in enumerate((1, 2)):
            axes = figure.add_axes((0.08 + 0.34 * n, 0.14, 0.31, 0.74), sharex=first, sharey=first)
            first = first or axes
            figures.plain_axes(axes)
            axes.set_title(f"data set {number}", loc="left", fontsize=10)
            for row in rows:
                for order in ORDERS:
                    points = _points(board, row, order, number)
                    style = styles[row.name] | ({"linestyle": (0, (4, 2))} if order == "co-cl" else {"linestyle": "-"})
                    figures.bars(axes, [p[0] for p in points], [p[1:] for p in points], style)
            axes.set_xlabel("sparsity, %")
            axes.set_ylim(-3, 103)
            axes.tick_params(labelleft=n == 0)
            if n == 0:
                axes.set_ylabel("test accuracy, %")
        names = [text.marked(row) + " (reference)" * (row.role == "reference") for row in rows]
        lines = [(name, styles[row.name] | {"linestyle": "-"}) for name, row in zip(names, rows, strict=True)]
        plain = {"color": figures.INK, "linewidth": 1.3}
        kinds = [(ORDERS["cl-co"], {**plain, "linestyle": "-"}), (ORDERS["co-cl"], {**plain, "linestyle": (0, (4, 2))})]
        figures.legend(figure, (0.77, 0.88), [*lines, *kinds])

    return [
        Drawing(
            key="",
            svg=figures.svg((7.8, 3.7), draw, f"Accuracy along both orders on {board.name}", _in_words(board, rows)),
            alt=f"Accuracy on both data sets of every method along both orders on {board.name}",
            caption="Mean accuracy on both data sets after both operations, as the method left the network (it may "
            "have lost zeros); at 0 after CL alone. Solid: CL, then Co; dashed: Co, then CL. Bars: 95 % t interval "
            "over seeds.",
        )
    ]


def _points(board: Board, row: Row, order: str, number: int) -> list[tuple[float, float, float, float]]:
    """(sparsity, mean, lower and upper end of the interval) in per cent, from CL alone, with no zeros, on."""
    found = [(0.0, row.metrics.get(f"accuracy/cl/{number}"))]
    found += [(s, row.metrics.get(f"accuracy/{order}/{number}@{s:g}")) for s in levels(board.protocol)]
    return [
        (100 * s, 100 * v.mean, 100 * max(0.0, v.mean - (v.half or 0.0)), 100 * min(1.0, v.mean + (v.half or 0.0)))
        for s, v in found
        if v is not None
    ]


def _in_words(board: Board, rows: list[Row]) -> str:
    parts = []
    for row in rows:
        for order, name in ORDERS.items():
            ends = [_points(board, row, order, number)[-1] for number in (1, 2)]
            (sparsity, one, *_), (_, two, *_) = ends
            parts.append(f"{row.name}, {name}: {one:.1f} % and {two:.1f} % at {sparsity:g} % sparsity")
    return f"Mean accuracy on the first and the second data set: {'; '.join(parts)}."
