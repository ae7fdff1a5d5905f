"""A board says by what it ranks: every word that is accuracy's on others is the task's own score's on these."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest
from synthetic import record, suite

from fipbench import reports
from fipbench.reports import render
from fipbench.reports.text import is_fraction, number
from fipbench.reports.tracks import sparsity, sparsity_figures
from fipbench.reports.words import source_name
from fipbench.spec import Items, sealed
from fipbench.statistics import Interval

LEVELS = (0.5, 0.8)
VALUES = {"fip": (0.40, 0.30), "lth": (0.35, 0.10), "random": (-0.05, 0.0)}


def runs(score, headline="area", **more):
    """Three methods on two levels, three seeds; accuracy stands in the opposite order."""
    changes = {"sparsities": list(LEVELS), "headline": headline, **({"score": score} if score else {})}
    found = []
    for method, values in VALUES.items():
        for seed in range(3):
            scores = [value + 0.01 * seed for value in values]
            right = [0.9 - value for value in scores]
            own = {f"accuracy@{s:g}": value for s, value in zip(LEVELS, right, strict=True)}
            own |= {f"{score}@{s:g}": value for s, value in zip(LEVELS, scores, strict=True)} if score else {}
            made = record(method, seed, 0.5, levels={}, protocol_changes=changes, **more)
            items = {f"{s:g}": Items(count=8, bits="8A==") for s in LEVELS}
            metrics = {**own, "area": sum(scores) / 2}
            found.append(sealed(msgspec.structs.replace(made, metrics=metrics, items=items)))
    return found


@pytest.fixture
def board():
    (found,) = reports.boards(runs("matthews_correlation"))
    return found


def test_the_words_are_the_scores(board):
    text = render.markdown([board])
    assert "mean Matthews correlation over the axis" in text
    assert "Matthews correlation in % at each sparsity" in text and "Accuracy in % at each sparsity" in text
    (drawing,) = sparsity.drawings(board)
    assert drawing.alt.startswith("Matthews correlation against sparsity")
    assert drawing.caption.startswith("Mean test Matthews correlation")
    root = ET.fromstring(drawing.svg)
    labels = ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")]
    assert "test Matthews correlation, %" in labels
    assert "Mean test Matthews correlation" in root.find("{*}desc").text


def test_a_board_without_a_score_says_accuracy():
    (board,) = reports.boards(suite(2))
    text = render.markdown([board])
    assert "mean accuracy over the axis" in text and text.count("in % at each sparsity") == 1
    assert sparsity.drawings(board)[0].alt.startswith("Accuracy against sparsity")


def test_what_is_compared_and_drawn_is_the_score(board):
    assert sparsity.levels(board.protocol) == {"matthews_correlation@0.5": 0.5, "matthews_correlation@0.8": 0.8}
    assert [row.name for row in board.ranked] == ["fip", "lth", "random"]
    pair = next(row for row in board.rows if row.name == "lth").comparisons["matthews_correlation@0.8"]
    assert pair.mean == pytest.approx(-0.2)
    points = sparsity_figures._points(board, board.rows[-1], sparsity_figures.position)
    # A correlation below 0 stands below 0, and so does the end of its interval.
    assert points[0][1] == pytest.approx(sparsity_figures.position(-0.04)) and points[0][2] < points[0][1] < 0


def test_both_tables_hold_their_own_numbers(board):
    tables = {table.caption: table for table in sparsity.tables(board)}
    own = tables["Matthews correlation in % at each sparsity"].rows[0]
    right = tables["Accuracy in % at each sparsity"].rows[0]
    assert own[1] == right[1] == "fip"
    assert own[2].startswith("41.00") and right[2].startswith("49.00")


@pytest.mark.parametrize(
    ("score", "headline", "said"),
    [
        ("f1", "f1@0.8", "F1 of the second of two classes, 2 TP / (2 TP + FP + FN), at 80 % sparsity"),
        ("matthews_correlation", "matthews_correlation@0.5", "Matthews correlation of predicted and true classes"),
        ("f1", "accuracy@0.8", "fraction of test examples classified correctly at 80 % sparsity"),
        ("", "accuracy@0.8", "fraction of test examples classified correctly at 80 % sparsity"),
        ("f1", "area", "mean F1 over the axis"),
        ("pearson_spearman", "area", "mean Pearson-Spearman correlation over the axis"),
        ("pearson_spearman", "spearman@0.8", "Spearman correlation of predicted and true values, times 100, at 80 %"),
        ("inverse_perplexity", "area", "mean inverse perplexity over the axis"),
        ("inverse_perplexity", "inverse_perplexity@0.5", "1 / perplexity of the masked words, the geometric mean of"),
    ],
)
def test_the_headline_is_defined(score, headline, said):
    (board,) = reports.boards(runs(score, headline))
    assert said in render.markdown([board])


@pytest.mark.parametrize(
    ("score", "headline", "found"),
    [
        ("", "area", True),
        ("", "accuracy@0.5", True),
        ("f1", "area", False),
        ("f1", "f1@0.5", False),
        ("f1", "accuracy@0.5", True),
        ("pearson_spearman", "area", False),
        ("inverse_perplexity", "area", False),
        ("inverse_perplexity", "accuracy@0.5", True),
    ],
)
def test_items_belong_to_accuracy(score, headline, found):
    """No other score is a mean over test items, so none is tested item by item."""
    [first, *_] = runs(score, headline)
    assert (sparsity.items(first, headline) is not None) == found


def test_an_unknown_score_in_a_record_breaks_nothing():
    (board,) = reports.boards(runs("", "area"))
    assert sparsity.score_of({**board.protocol, "score": "<script>"}) == "accuracy"


def test_the_set_and_the_split_are_named():
    data = {"repo": "nyu-mll/glue", "config": "cola", "test": "validation", "variants": {}}
    assert source_name(data) == "nyu-mll/glue cola (tested on validation)"
    assert source_name({"repo": "ylecun/mnist", "config": "mnist"}) == "ylecun/mnist"


def test_scores_are_read_in_per_cent():
    for metric in ("f1@0.5", "matthews_correlation@0.9", "dense_f1", "dense_matthews_correlation", "accuracy@0.5"):
        assert is_fraction(metric) and number(0.5, metric) == "50.00"
    for metric in ("dense_pearson", "spearman@0.5", "pearson_spearman@0.5", "inverse_perplexity@0.9"):
        assert is_fraction(metric) and number(0.5, metric) == "50.00"
    assert not is_fraction("f1_of_something") and not is_fraction("weights")


def test_perplexity_is_read_as_it_is():
    assert not is_fraction("perplexity@0.5") and not is_fraction("dense_perplexity")
    assert number(12.3456, "perplexity@0.5") == "12.35"
    board = reports.boards(runs("inverse_perplexity"))[0]
    changed = [msgspec.structs.replace(row, metrics={**row.metrics, **PERPLEXITY}) for row in board.rows]
    board = msgspec.structs.replace(board, sections=(msgspec.structs.replace(board.sections[0], rows=tuple(changed)),))
    found = {table.caption: table for table in sparsity.tables(board)}
    assert found["Perplexity at each sparsity"].rows[0][2:] == ("20 ± 1.5", "1e+06")
    assert "Inverse perplexity in % at each sparsity" in found and "Accuracy in % at each sparsity" in found


PERPLEXITY = {
    "perplexity@0.5": Interval(mean=20.0, half=1.5, sd=0.6, n=3),
    "perplexity@0.8": Interval(mean=1e6, half=None, sd=None, n=1),
}
