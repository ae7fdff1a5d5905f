"""Boards of the composition track: both orders, the zeros that are left, the commutator beside its noise."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from synthetic import _job, _record, continual_protocol

from fipbench.reports import boards, render, sentence
from fipbench.reports.tracks import composition as shows
from fipbench.spec import Cost


def composed(method, seed, score, role="method"):
    """A record; `score` is the mean of both orders, of which the first is 10 points better."""
    described = continual_protocol(
        name="reviews-composition", track="composition", headline="average_accuracy", sparsities=[0.6, 0.9],
        repeat=0.9, memory=10, budget={"epochs": 2, "batch_size": 32},
    )  # fmt: skip
    job = _job("reviews-composition", "composition", method, seed, {"data": {"train": "a" * 64}, "role": role})
    metrics = {"average_accuracy": score, "accuracy/base/1": 0.97, "accuracy/base/2": 0.0, "accuracy/cl/1": 0.8}
    for order, by in (("cl-co", 0.05), ("co-cl", -0.05)):
        metrics[f"average_accuracy/{order}"] = score + by
        for level, lost in (("0.6", 0.0), ("0.9", 0.1)):
            metrics |= {f"accuracy/{order}/1@{level}": score + by - lost, f"accuracy/{order}/2@{level}": 0.5 - lost}
            metrics[f"sparsity/{order}@{level}"] = float(level) - (0.02 if order == "co-cl" else 0.0)
    for kind, size in (("weights", 0.4), ("outputs", 0.3), ("disagreement", 0.2)):
        metrics |= {f"commutator/{kind}@0.9": size, f"noise/{kind}@0.9": size - 0.1, f"commutator/{kind}@0.6": 0.05}
        metrics[f"excess/{kind}@0.9"] = 0.01 + 0.01 * seed
    cost = Cost(wall_s=1.0, forward_examples=10, backward_examples=10, peak_memory_bytes=2**20, parameters_stored=5)
    return _record(job, described, None, metrics=metrics, cost=cost, provenance={"train_examples": [3600, 2800]})


@pytest.fixture(scope="module")
def board():
    records = [composed("fip", seed, 0.6 + 0.01 * seed) for seed in range(3)]
    records += [composed("replay-gradual", seed, 0.7 + 0.01 * seed) for seed in range(3)]
    [found] = boards(records)
    return found


def table(board, number):
    found = shows.tables(board)[number]
    return {row[1]: dict(zip(found.columns, row, strict=True)) for row in found.rows}


def test_both_orders_stand_apart_and_the_zeros_that_were_lost_are_seen(board):
    fip = table(board, 1)["fip"]
    # Seeds 0.60, 0.61, 0.62: half-width 4.3027 · 0.01 / √3 = 2.48 points.
    assert fip["CL, then Co: data 1, 60 %"] == "66.00 ± 2.48"
    assert fip["Co, then CL: data 1, 90 %"] == "46.00 ± 2.48"
    assert fip["CL, then Co: data 2, 90 %"] == "40.00 ± 0.00"
    assert fip["zeros at the end, 90 %"].startswith("0.880")


def test_the_commutator_stands_beside_its_noise_where_there_is_any(board):
    fip = table(board, 3)["fip"]
    assert (fip["weights: commutator"], fip["weights: noise"]) == ("0.4 ± 0", "0.3 ± 0")
    assert fip["outputs: excess"] == "0.02 ± 0.02484"
    assert fip["disagreement, 60 %"] == "0.05 ± 0"


def test_sentence(board):
    text = sentence(board)
    assert text.startswith(
        "reviews-composition: replay-gradual leads (71.00 ± 2.48 %); fip is 10.00 ± 0.00 points below"
    )
    assert "fip's orders end apart by weights 0.400 against 0.300 within one order, outputs 0.300 against 0.200" in text


def test_what_is_derived_is_how_much_better_it_is_to_learn_first(board):
    assert board.row("fip").metrics["accuracy_gap"].mean == pytest.approx(0.10)


def test_both_lines_begin_where_nothing_is_sparse_yet(board):
    row = board.row("fip")
    for order in ("cl-co", "co-cl"):
        assert [round(point[0]) for point in shows._points(board, row, order, 1)] == [0, 60, 90]
        assert shows._points(board, row, order, 1)[0][1] == pytest.approx(80.0)
        assert [round(point[0]) for point in shows._points(board, row, order, 2)] == [60, 90]


def test_the_figure_says_its_points_in_words(board):
    [drawing] = shows.drawings(board)
    words = ET.fromstring(drawing.svg).find("{*}desc").text
    assert "replay-gradual, Co, then CL: 56.0 % and 40.0 % at 90 % sparsity" in words


def test_the_page_says_what_was_done(board):
    page = render.markdown([board])
    assert "- Operations: CL learns the second data set, Co makes 60 %, 90 % of the prunable weights zero" in page
    assert "3,600 training (first)" in page and "2,800 training (second)" in page
    assert "- Memory: 10 examples of the first data set" in page
