"""Boards of the sparsity track: the task's score at each sparsity, and what the sparsest network is like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fipbench.reports import text, words
from fipbench.reports.board import Board, Row
from fipbench.reports.figures import Drawing
from fipbench.reports.items import right
from fipbench.reports.text import Table, per_cent
from fipbench.reports.words import Terms
from fipbench.spec import SCORES, Record

if TYPE_CHECKING:
    import numpy as np

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
CORRELATIONS = ("matthews_correlation", "pearson_spearman")


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
        f"{capital(NAMES[score])}{' in %' if text.is_fraction(score) else ''} at each sparsity",
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


def capital(name: str) -> str:
    """With a first letter that is one of a sentence's."""
    return name[0].upper() + name[1:]


def sentence(board: Board) -> str:
    """Who leads, and where fip stands against the best other method."""
    return f"{board.name}: {words.verdict(board)}."


# ---------------------------------------------------------------------------------------------- figures


def drawings(board: Board) -> list[Drawing]:
    """The score over the sparsity."""
    from fipbench.reports.tracks import sparsity_figures

    return sparsity_figures.drawings(board)
