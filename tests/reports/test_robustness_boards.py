"""Boards of the robustness track: the worst case ranks, transfer is a column."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest
from synthetic import robustness, robustness_protocol, robustness_suite

from fipbench import reports
from fipbench.reports import boards, render, sentence
from fipbench.reports.tracks import robustness as shows
from fipbench.spec import sealed


def the_board(records, **more):
    (board,) = boards(records, **more)
    return board


def small():
    """By the worst case fge, fip, swag; by transfer the other way round."""
    worst = {"fip": [0.30, 0.31, 0.32], "fge": [0.40, 0.43, 0.43], "swag": [0.2, 0.2, 0.2]}
    transfer = {"fip": 0.8, "fge": 0.7, "swag": 0.9}
    found = [
        robustness(method, seed, value, transfer=transfer[method], clean=0.96 + 0.01 * (method == "fip"))
        for method, values in worst.items()
        for seed, value in enumerate(values)
    ]
    return [*found, robustness("single", 0, 0.1, role="reference")]


def test_the_worst_case_ranks_and_not_the_transfer():
    board = the_board(small())
    assert [(row.rank, row.name) for row in board.rows] == [(1, "fge"), (2, "fip"), (3, "swag")]
    assert (board.headline, board.comparisons) == ("robust@0.1", 2)


def test_first_table_has_the_headline_first_and_transfer_as_a_column():
    table = shows.tables(the_board(small()))[0]
    assert table.columns == (
        "#", "method", "seeds", "worst, ε 0.1", "− fip", "p (Holm)", "clean", "worst, ε 0.05", "worst, ε 0.15",
        "transfer, ε 0.1", "backward", "wall s", "settings",
    )  # fmt: skip
    assert table.caption.startswith("Accuracy in % under the worst of the white-box attacks")
    fip = dict(zip(table.columns, table.rows[1], strict=True))
    # At 0.05 the records have the mean of clean and worst, at 0.15 half of the worst.
    shown = [fip[name] for name in ("worst, ε 0.1", "clean", "transfer, ε 0.1", "worst, ε 0.05", "worst, ε 0.15")]
    assert shown == ["31.00 ± 2.48", "97.00 ± 0.00", "80.00 ± 0.00", "64.00 ± 1.24", "15.50 ± 1.24"]
    assert table.rows[0][4] == "+11.00 ± 2.48"
    assert table.rows[3][:4] == ("ref.", "single", "1", "10.00")


def test_each_attack_at_each_radius():
    table = shows.tables(the_board(small()))[1]
    assert table.columns[2:] == tuple(
        f"{attack}, ε {e}" for attack in ("PGD", "APGD", "transfer") for e in ("0.05", "0.1", "0.15")
    )
    swag = dict(zip(table.columns, table.rows[2], strict=True))
    assert (swag["PGD, ε 0.1"], swag["APGD, ε 0.1"]) == ("21.00 ± 0.00", "20.50 ± 0.00")


def test_autoattack_is_a_column_where_it_was_made_and_its_items_are_said():
    described = robustness_protocol()
    attack = {**described["attack"], "autoattack": 50}
    found = [
        msgspec.structs.replace(record, metrics={**record.metrics, "autoattack@0.1": 0.25})
        for record in (robustness("swag", seed, 0.3, protocol_changes={"attack": attack}) for seed in range(3))
    ]
    table = shows.tables(the_board(found))[1]
    assert dict(zip(table.columns, table.rows[0], strict=True))["AutoAttack, ε 0.1"] == "25.00 ± 0.00"
    assert "in no headline: AutoAttack on the first 50 of the drawing" in render.markdown(boards(found))
    assert "AutoAttack" not in render.markdown(boards(small()))


def test_members_diversity_and_coherence():
    table = shows.tables(the_board(small()))[2]
    assert table.columns[2:] == ("clean, %", "mean of members, %", "coherence", "diversity", "layer 1", "layer 2")
    assert table.rows[3][2:] == ("97.00", "96.00", "0.500", "0.300", "0.200", "0.400")


def test_bounds_of_the_lipschitz_constant_stand_beside_where_they_are_known():
    found = [
        msgspec.structs.replace(one, metrics={**one.metrics, "lipschitz_lower": low, "lipschitz_upper": 12_345.6})
        for one, low in zip([robustness("swag", seed, 0.3) for seed in range(2)], (3.0, 5.0), strict=True)
    ]
    board = the_board(found)
    row = dict(zip(shows.tables(board)[2].columns, shows.tables(board)[2].rows[0], strict=True))
    # Two seeds: half-width 12.7062 |a - b| / 2.
    assert row["Lipschitz ≥"] == "4.00 ± 12.71" and row["Lipschitz ≤"] == "12,346 ± 0"
    assert "Lipschitz" in dict(shows.reading(board)) and "Lipschitz" not in dict(shows.reading(the_board(small())))


def test_clean_and_other_radii_are_compared_without_adding_tests():
    (row,) = [row for row in the_board(small()).rows if row.name == "fge"]
    assert row.comparisons.keys() == {"robust@0.05", "robust@0.1", "robust@0.15", "clean"}
    assert row.comparisons["clean"].mean == pytest.approx(-0.01)
    assert [m for m, pair in row.comparisons.items() if pair.adjusted is not None] == ["robust@0.1"]


def test_sentence():
    """Differences 0.10, 0.12, 0.11: mean 11, half 4.3027 · 1 / √3 = 2.48 points, t = 19.05, p = 0.00274, twice."""
    text = sentence(the_board(small()))
    assert text == (
        "digits-robustness, worst case at ε 0.1: fge leads (42.00 ± 4.30 %); fip is 11.00 ± 2.48 points below it "
        "(3 paired seeds, p = 0.0055, Holm); single (reference) has 10.00 %; clean: fge 96.00 ± 0.00 %, "
        "fip 97.00 ± 0.00 %."
    )


def test_a_leading_fip_is_named_once():
    records = [robustness("fip", s, 0.5) for s in range(2)] + [robustness("fge", s, 0.4) for s in range(2)]
    assert sentence(the_board(records)) == (
        "digits-robustness, worst case at ε 0.1: fip leads (50.00 ± 0.00 %); it is 10.00 ± 0.00 points above fge, "
        "the best other method (2 paired seeds, p < 0.001, Holm); clean: fip 97.00 ± 0.00 %."
    )


def test_sentence_of_nothing():
    board = the_board([robustness("fip", 0, error=("OSError", "no"))])
    assert sentence(board) == "digits-robustness: no method has a result."
    assert shows.drawings(board) == []


def test_header_says_what_a_reader_needs():
    text = render.markdown(boards(small()))
    for needed in (
        "5 networks, the mean of their softmax outputs", "radius ε 0.05, 0.1, 0.15 on inputs in \\[0, 1\\]",
        "on 200 test examples of a fixed drawing", "PGD of 40 steps of 0.25 ε with 2 random starts",
        "APGD of 20 steps", "under every white-box attack with ε 0.1", "network N1 for all methods",
        "cnn (channels 16-32, dense 64-10)", "597 test examples", "Holm over the 2 comparisons",
    ):  # fmt: skip
        assert needed in text, needed


def test_figure_starts_at_clean_and_shows_transfer_apart():
    board = the_board(small())
    (drawing,) = shows.drawings(board)
    root = ET.fromstring(drawing.svg)
    words = {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")}
    assert {"fip", "fge", "swag", "single (reference)"} <= words
    assert {"worst of the white-box attacks", "transferred attack"} <= words
    assert "fip from 97.0 % at ε 0 to 15.5 % at ε 0.15" in root.find("{*}desc").text
    assert "transfer" not in root.find("{*}title").text
    fip = next(row for row in board.rows if row.name == "fip")
    assert [(e, pytest.approx(mean)) for e, mean, *_ in shows._points(board, fip, "transfer")] == [
        (0.0, 97.0), (0.05, 80.0), (0.1, 80.0), (0.15, 80.0),
    ]  # fmt: skip


def test_a_failed_calibration_is_marked():
    board = the_board(small(), failed_calibrations={"swag": "not reproduced"})
    for table in shows.tables(board):
        assert [row[1].removesuffix(" ◆") for row in table.rows] == ["fge", "fip", "swag †", "single"]
    (drawing,) = shows.drawings(board)
    assert ">swag †<" in drawing.svg


def test_protocol_may_lack_what_the_header_tells():
    plain = robustness("fip", 0)
    (board,) = boards([sealed(msgspec.structs.replace(plain, protocol={"headline": "robust@0.1"}))])
    assert "fip" in render.markdown([board])


def test_terminal_is_120_columns_wide():
    text = reports.terminal(boards(robustness_suite(3)))
    assert max(map(len, text.splitlines())) <= 120 and "worst, ε 0.1" in text
