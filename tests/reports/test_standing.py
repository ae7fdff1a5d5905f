"""Ranks with ties, the Pareto front, the detectable difference and the first two rows item by item, on the boards."""

from __future__ import annotations

import base64

import msgspec
import numpy as np
import pytest
from statsmodels.stats.power import TTestPower
from synthetic import continual, continual_small, record, robustness

from fipbench.reports import boards, sentence
from fipbench.reports.views import view
from fipbench.spec import Cost, Items, sealed
from fipbench.statistics import item_difference, mcnemar


def the_board(records):
    (board,) = boards(records)
    return board


def runs(method, values, **more):
    return [record(method, seed, value, **more) for seed, value in enumerate(values)]


def first_column(board, table=0):
    return [(row[0], row[1]) for row in view(board.track).tables(board)[table].rows]


def said_of(board, term):
    return dict(view(board.track).reading(board)).get(term)


THREE = [
    *runs("fip", [0.90, 0.93, 0.90]),
    *runs("lth", [0.92, 0.90, 0.93]),
    *runs("random", [0.50, 0.51, 0.52]),
    *runs("dense", [0.97, 0.98, 0.97], role="reference"),
    record("broken", 0, error=("OSError", "no")),
]


# ------------------------------------------------------------------------------------------------- ranks


def test_rows_that_cannot_be_told_apart_share_a_rank():
    board = the_board(THREE)
    assert [name for name, _ in first_column(board)] == ["1–2", "1–2", "3", "failed", "ref."]
    assert [(row.rank, row.rank_last) for row in board.rows] == [(1, 2), (1, 2), (3, 3), (None, None)]
    assert "adjusted by Holm over the 3 pairs of rows" in said_of(board, "Ranks")


def test_the_sentence_says_what_the_leader_is_not_told_apart_from():
    assert "lth leads (91.67 ± 3.79 %, not told apart from 1 other)" in sentence(the_board(THREE))
    more = the_board([*THREE, *runs("gradual", [0.91, 0.92, 0.91])])
    assert "not told apart from 2 others" in sentence(more)


def test_one_seed_has_no_ranks():
    board = the_board(runs("fip", [0.9]) + runs("lth", [0.8]))
    assert [row.rank_last for row in board.rows] == [2, 2]
    assert said_of(board, "Ranks").endswith("too few common seeds to tell any apart")
    assert "told apart" not in sentence(board)


def test_ranks_of_sections_are_corrected_together():
    text = said_of(the_board(continual_small()), "Ranks")
    assert "rows of its section" in text and "over the 3 pairs" in text


# ------------------------------------------------------------------------------------------ Pareto front


def test_the_front_is_marked_in_the_first_table_only():
    spent = {"fip": 200, "lth": 201, "cheap": 50, "dear": 300}
    scores = {"fip": 0.9, "lth": 0.8, "cheap": 0.5, "dear": 0.85}
    records = [
        record(method, seed, scores[method], cost=Cost(forward_examples=cost - 10, backward_examples=10))
        for method, cost in spent.items()
        for seed in range(2)
    ]
    board = the_board(records)
    assert [row.name for row in board.rows if row.front] == ["fip", "cheap"]
    assert [name for _, name in first_column(board)] == ["fip ◆", "dear", "lth", "cheap ◆"]
    assert not any("◆" in name for _, name in first_column(board, 1))
    assert "Pareto front" in said_of(board, "◆")


# -------------------------------------------------------------------------------- detectable difference


def test_the_detectable_difference_has_80_per_cent_power():
    fip, lth, random = [0.90, 0.92, 0.91, 0.9], [0.93, 0.94, 0.95, 0.92], [0.5, 0.6, 0.4, 0.5]
    board = the_board(runs("fip", fip) + runs("lth", lth) + runs("random", random))
    for name, values in (("lth", lth), ("random", random)):
        pair = board.row(name).comparisons["area"]
        sd = np.std(np.subtract(values, fip), ddof=1)
        assert TTestPower().power(pair.detectable / sd, 4, 0.05) == pytest.approx(0.8)
        factor = pair.detectable / pair.half
    text = said_of(board, "Detectable")
    assert f"{factor:.2f} times the ±" in text
    assert text.endswith(f"for lth, the closest, {100 * board.row('lth').comparisons['area'].detectable:.2f} points")


def test_without_spread_or_seeds_nothing_is_said_of_it():
    assert said_of(the_board(runs("fip", [0.75, 0.5]) + runs("lth", [0.5, 0.25])), "Detectable") is None
    assert said_of(the_board(runs("fip", [0.9]) + runs("lth", [0.8])), "Detectable") is None


# ----------------------------------------------------------------------------------------- item by item


def packed(right):
    return Items(count=len(right), bits=base64.b64encode(np.packbits(right).tobytes()).decode())


def with_items(plain, items, **metrics):
    return sealed(msgspec.structs.replace(plain, items=items, metrics=plain.metrics | metrics))


def drawn(name, *shape):
    chance = {"fip": 0.9, "lth": 0.8, "fge": 0.8, "replay": 0.8}[name]
    return np.random.default_rng([len(name), ord(name[0])]).random(shape) < chance


def test_robustness_compares_the_worst_case():
    right = {name: drawn(name, 4, 61) for name in ("fip", "fge")}
    records = [
        with_items(robustness(name, s, float(row.mean())), {"robust@0.1": packed(row), "clean": packed(row)})
        for name, rows in right.items()
        for s, row in enumerate(rows)
    ]
    board = the_board(records)
    sides = [{s: [row] for s, row in enumerate(right[name])} for name in ("fip", "fge")]
    top = board.sections[0].top
    assert (top.first, top.second, top.over_items) == ("fip", "fge", item_difference(*sides))
    assert top.over_seeds.mean == pytest.approx(right["fip"].mean() - right["fge"].mean())
    assert top.mcnemar == tuple(mcnemar(*sides).values())
    sure = sum(p < 0.05 for p in top.mcnemar)
    text = said_of(board, "Test items")
    assert f"± {100 * top.over_items.half:.2f} points with the choice of the 61 test items" in text
    assert text.endswith(f"p < 0.05 in {sure} of 4 by McNemar's exact test seed by seed")


def test_an_area_is_compared_by_the_share_of_the_axis_at_which_an_item_is_right():
    """Levels 0.9, 0.99, 0.999 stand at 1, 2, 3: weights ¼, ½, ¼."""
    changes = {"sparsities": [0.9, 0.99, 0.999]}
    weights = np.array([0.25, 0.5, 0.25])
    records, sides = [], {}
    for name in ("fip", "lth"):
        right = drawn(name, 3, 3, 50)  # seed, level, item
        sides[name] = {s: [weights @ right[s]] for s in range(3)}
        for s in range(3):
            items = dict(zip(("0.9", "0.99", "0.999"), map(packed, right[s]), strict=True))
            area = float(sides[name][s][0].mean())
            levels = dict(zip((0.9, 0.99, 0.999), right[s].mean(1).tolist(), strict=True))
            records.append(with_items(record(name, s, area, levels=levels, protocol_changes=changes), items))
    top = the_board(records).sections[0].top
    expected = item_difference(sides["fip"], sides["lth"])
    assert (top.over_items.mean, top.over_items.half) == pytest.approx((expected.mean, expected.half))
    assert top.mcnemar == ()


def test_tasks_of_a_stream_count_alike_in_each_section():
    counts, records, sides = (20, 50, 35), [], {}
    for name in ("fip", "replay"):
        right = [[drawn(name, 3, n)[s] for n in counts] for s in range(3)]
        sides[name] = dict(enumerate(right))
        for s in range(3):
            row = [float(x.mean()) for x in right[s]]
            made = continual(name, s, memory=4, matrix=[row] * 3)
            records.append(with_items(made, {f"class/{j}": packed(x) for j, x in enumerate(right[s], 1)}))
    board = the_board([*records, *(continual("naive", s, 0.2) for s in range(3))])
    bare, stored = board.sections
    assert bare.top is None
    expected = item_difference(sides["fip"], sides["replay"])
    assert (stored.top.over_items.mean, stored.top.over_items.half) == pytest.approx((expected.mean, expected.half))
    assert stored.top.over_items.items == 105
    assert "fip (4 a task) − replay (4 a task): " in said_of(board, "Test items")


@pytest.mark.parametrize("broken", ["bits", "mean", "seed", "none"])
def test_items_that_do_not_make_up_the_score_are_left_out(broken):
    right = {name: drawn(name, 2, 40) for name in ("fip", "fge")}
    records = []
    for name, rows in right.items():
        for s, row in enumerate(rows):
            items = {"robust@0.1": packed(row)}
            if (name, s) == ("fge", 0):
                items |= {"robust@0.1": Items(count=40, bits="AA==")} if broken == "bits" else {}
                items |= {"robust@0.1": packed(~row)} if broken == "mean" else {}
                items = {} if broken == "seed" else items
            records.append(with_items(robustness(name, s, float(row.mean())), items))
    top = the_board(records).sections[0].top
    assert (top is None) == (broken != "none")
