"""Boards of the connectivity track: ranked by the lowest accuracy along the whole path, the barrier and lengths beside
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fipbench.reports import text, words
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.items import right
from fipbench.reports.text import Table, plus_minus
from fipbench.reports.words import Terms
from fipbench.spec import Record

if TYPE_CHECKING:
    import numpy as np

APART: str = ""


def suffix(key: int) -> str:
    """All rows are ranked together."""
    return ""


def derived(record: Record) -> dict[str, float]:
    """Accuracy at each place that was measured: `accuracy@0.25` at a quarter of the path."""
    curve = record.curves.get("accuracy", {})
    pairs = zip(curve.get("distance", ()), curve.get("value", ()), strict=False)
    return {at(place): value for place, value in pairs}


def at(place: float) -> str:
    """The metric at a place from 0 to 1."""
    return f"accuracy@{place:.3g}"


def compared(protocol: Mapping[str, Any]) -> list[str]:
    """The mean over the path."""
    return ["mean_accuracy"]


def test_examples(record: Record) -> int:
    """All places are scored on the same examples."""
    return max(items.count for items in record.items.values())


def items(record: Record, headline: str) -> list[np.ndarray] | None:
    """What is right where the path is worst."""
    found = right(record, headline)
    return None if found is None else [found]


# ----------------------------------------------------------------------------------------------- tables


def tables(board: Board) -> list[Table]:
    """Scores; how far the path comes; its shape and the metric on it; cost."""
    cost = text.by_section(board, "Cost", text.COSTS, text.cost_cells, scored=lambda row: bool(row.cost))
    found = (score_table(board), path_table(board), shape_table(board), metric_table(board), cost)
    return [table for table in found if table is not None]


def score_table(board: Board) -> Table | None:
    """The lowest accuracy, and what else says how good the path is."""
    name = board.sections[0].reference if board.sections else None
    spent = [text.COSTS.index("backward"), text.COSTS.index("wall s")]

    def cells(row: Row) -> list[str]:
        pair = text.comparison_cells(row, board.headline) if name else []
        scores = [plus_minus(row.metrics.get(metric), metric) for metric in (board.headline, "mean_accuracy")]
        barrier = text.to_thousandths(row.metrics.get("barrier"))
        cost = [text.cost_cells(row)[n] for n in spent]
        return [str(len(row.seeds)), scores[0], *pair, scores[1], barrier, *cost, text.settings(row)]

    against = [f"− {name}", "p (Holm)"] if name else []
    columns = ["seeds", "lowest, %", *against, "mean, %", "barrier", "backward", "wall s", "settings"]
    return text.by_section(
        board,
        "Accuracy along the path from the first network to the second, ranked by the lowest",
        columns,
        cells,
        spare=("backward", "settings", "wall s"),
        front=True,
    )


def path_table(board: Board) -> Table | None:
    """Between which networks the path runs, and how far it came by itself."""
    left = ("distance_left", "outputs_left")

    def cells(row: Row) -> list[str]:
        reached = row.values.get("reached", {}).values()
        walked = plus_minus(row.metrics.get("lowest_accuracy_walked"), "lowest_accuracy_walked")
        ends = [plus_minus(row.metrics.get(f"end_accuracy/{end}"), "end_accuracy/1") for end in (1, 2)]
        count = f"{sum(map(bool, reached))} of {len(row.seeds)}"
        return [*ends, count, walked, *(text.to_thousandths(row.metrics.get(metric)) for metric in left)]

    return text.by_section(
        board,
        "The path",
        [
            "first network, %", "second, %", "reached", "lowest by itself, %", "distance left", "outputs left",
        ],
        cells,
        scored=lambda row: bool(row.seeds),
    )  # fmt: skip


# Metrics by column.
SHAPE = {
    "length / line": "length_ratio",
    "turning, °": "turning_angle",
    "similarity": "directional_similarity",
}
UNDER_G = {
    "length": "length_metric",
    "energy": "energy_metric",
    "sensitive: first": "sensitive_directions/1",
    "middle": "sensitive_directions/middle",
    "second": "sensitive_directions/2",
    "MP distance": "marchenko_pastur/middle",
}


def shape_table(board: Board) -> Table | None:
    """How long the path is in weight space, and how it bends."""
    return _numbers(board, "The path's shape in weight space", SHAPE)


def metric_table(board: Board) -> Table | None:
    """How long the path is under g, and how sensitive the outputs are on it."""
    return _numbers(board, "The path under the metric g of the outputs", UNDER_G)


def _numbers(board: Board, title: str, columns: Mapping[str, str]) -> Table | None:
    def cells(row: Row) -> list[str]:
        return [
            (text.to_three_digits if "sensitive" in metric else text.to_thousandths)(row.metrics.get(metric))
            for metric in columns.values()
        ]

    return text.by_section(board, title, list(columns), cells, scored=lambda row: bool(row.seeds))


# ------------------------------------------------------------------------------------------------ words


def protocol(board: Board) -> Terms:
    """What stands above the tables."""
    points = board.protocol.get("points")
    return words.above(
        board,
        network="the same two trained networks for all methods, from initial weights and batches of their own",
        data=words.examples([(sum(board.train_examples), "training"), (board.test_examples, "test")]),
        budget=words.passes(board),
        own=[
            (
                "Path",
                "the networks that a method gives, joined by straight lines, and from the last of them straight to "
                f"the second network; measured at {points} places evenly spread along it, both ends included",
            )
        ],
        headline="lowest fraction of test examples classified correctly at any of those places",
    )


def reading(board: Board) -> Terms:
    """What stands below the tables."""
    return words.below(
        board,
        comparison=words.compared(board),
        stored="parameters of the networks that make the path",
        own=[
            (
                "Barrier",
                "the highest rise of the test cross-entropy above the straight line between its values at both ends",
            ),
            (
                "Reached",
                "in how many seeds the method's own path ends at the second network, or at one that gives every test "
                "example the same probabilities (units in another order); 'lowest by itself' is over that part alone",
            ),
            (
                "Left",
                "distance left: from the end of the method's own path to the second network, over the distance between "
                "the two; outputs left: mean Bhattacharyya distance there to the second network's softmax outputs",
            ),
            (
                "Shape",
                "length / line: Euclidean length over the distance between the two networks, below 1 where the path "
                "ends at the second network with its units in another order; turning: mean angle between consecutive "
                "steps from place to place, 0 for a straight line; similarity: mean cosine between the weights at any "
                "two places, seen from zero",
            ),
            (
                "Under g",
                "the metric of the outputs (2 sqrt of the softmax, mean over fixed training examples). length: the "
                "integral of the speed; energy: of its square, never below length squared, and equal to it where the "
                "outputs change evenly along the path. Sensitive: directions that change the outputs, eigenvalues of g "
                "of 0.001 or more, of at most as many as 16 examples have outputs (fewer examples where there are many "
                "outputs), at both networks and half-way; MP distance: of the eigenvalues half-way from the "
                "Marchenko-Pastur law of independent entries, Kolmogorov-Smirnov, 0 to 1",
            ),
        ],
    )


def sentence(board: Board) -> str:
    """Who leads by the lowest accuracy, and what the straight line and the ends have."""
    if not board.ranked:
        return f"{board.name}: {words.verdict(board)}."
    known = [row for row in board.references if board.headline in row.metrics]
    beside = "".join(
        f"; {words.said(row)} (reference) has {words.score(row, board.headline)}, the two networks "
        f"{words.score(row, 'end_accuracy/1')} and {words.score(row, 'end_accuracy/2')}"
        for row in known
    )
    return f"{board.name}, lowest accuracy along the path: {words.verdict(board)}{beside}."


# ---------------------------------------------------------------------------------------------- figures


def drawings(board: Board) -> list[Drawing]:
    """Accuracy along every path, and the planes in which they run."""
    from fipbench.reports.tracks import connectivity_figures

    return connectivity_figures.drawings(board)
