"""Which records make which board, row, rank and comparison; numbers against scipy and by hand."""

from __future__ import annotations

import msgspec
import pytest
import scipy.stats
from synthetic import LEVELS, record, suite

from fipbench.errors import UserError
from fipbench.reports import boards
from fipbench.reports.tracks import sparsity
from fipbench.spec import Cost, Items, sealed


def the_board(records):
    (board,) = boards(records)
    return board


def reference_of(board):
    (section,) = board.sections
    return section.reference


def rows_of(board):
    return {row.name: row for row in board.rows}


def runs(method, values, **more):
    return [record(method, seed, value, **more) for seed, value in enumerate(values)]


def test_rows_stand_in_order_of_the_headline_mean():
    board = the_board(runs("fip", [0.90, 0.92]) + runs("lth", [0.95, 0.93]) + runs("random", [0.2, 0.3]))
    assert [row.name for row in board.rows] == ["lth", "fip", "random"]
    assert rows_of(board)["lth"].metrics["area"].mean == pytest.approx(0.94)


def test_equal_means_share_a_rank():
    board = the_board(runs("fip", [0.9, 0.8]) + runs("lth", [0.8, 0.9]) + runs("gradual", [0.1, 0.0]))
    assert [(row.rank, row.name) for row in board.rows][:2] == [(1, "fip"), (1, "lth")]


def test_the_headline_is_the_tasks():
    levels = {0.8: 0.5, 0.9: 0.9}
    changes = {"headline": "accuracy@0.9", "sparsities": [0.8, 0.9]}
    records = [record("fip", 0, 0.9, levels=levels, protocol_changes=changes)]
    records += [record("lth", 0, 0.95, levels={0.8: 0.95, 0.9: 0.1}, protocol_changes=changes)]
    board = the_board(records)
    assert [row.name for row in board.rows] == ["fip", "lth"]
    assert sparsity.levels(board.protocol) == {"accuracy@0.8": 0.8, "accuracy@0.9": 0.9}


def test_references_stand_apart_without_rank_or_comparison():
    board = the_board(runs("fip", [0.9, 0.91]) + runs("dense", [0.97, 0.98], role="reference"))
    assert [row.name for row in board.rows] == ["fip"]
    assert [(row.name, row.rank, row.comparisons) for row in board.references] == [("dense", None, {})]


def test_comparisons_are_paired_by_seed_and_adjusted_over_the_board():
    fip, lth, random = [0.90, 0.92, 0.91], [0.93, 0.94, 0.95], [0.91, 0.90, 0.93]
    board = the_board(runs("fip", fip) + runs("lth", lth) + runs("random", random))
    p = {name: scipy.stats.ttest_rel(v, fip).pvalue for name, v in (("lth", lth), ("random", random))}
    found = {name: rows_of(board)[name].comparisons["area"] for name in p}
    assert {name: pair.p for name, pair in found.items()} == pytest.approx(p)
    assert found["lth"].mean == pytest.approx(0.03)
    assert found["lth"].adjusted == pytest.approx(2 * p["lth"])
    assert found["random"].adjusted == pytest.approx(max(2 * p["lth"], p["random"]))
    assert board.comparisons == 2
    assert rows_of(board)["fip"].comparisons == {}


def test_levels_are_compared_without_adding_to_the_tests_of_the_board():
    board = the_board(runs("fip", [0.90, 0.92]) + runs("lth", [0.93, 0.94]))
    pair = rows_of(board)["lth"].comparisons["accuracy@0.8"]
    assert pair.p is not None and pair.adjusted is None


def test_comparison_uses_common_seeds_only():
    board = the_board([*runs("fip", [0.9, 0.9, 0.9]), record("lth", 2, 0.95), record("lth", 7, 0.1)])
    pair = rows_of(board)["lth"].comparisons["area"]
    assert (pair.n, pair.p) == (1, None) and pair.mean == pytest.approx(0.05)
    assert any("unlike seeds" in note for note in board.notes)


def test_without_fip_there_is_no_comparison():
    board = the_board(runs("lth", [0.9, 0.91]) + runs("fip-paper", [0.8, 0.82]))
    assert reference_of(board) is None
    assert all(row.comparisons == {} for row in board.rows)


def test_parameters_tell_rows_of_one_label_apart():
    board = the_board(
        [
            record("fip", 0, 0.9, params={"learning_rate": 0.01, "steps": 5}),
            record("fip", 0, 0.8, params={"learning_rate": 0.1, "steps": 5}, settings="user"),
            record("lth", 0, 0.7, params={"rounds": 3}),
        ]
    )
    assert [row.name for row in board.rows] == ["fip [learning_rate=0.01]", "fip [learning_rate=0.1]", "lth"]
    assert reference_of(board) == "fip [learning_rate=0.01]"


def test_two_methods_under_one_label_stay_two_rows():
    board = the_board([record("fip", 0, 0.9, label="mine"), record("lth", 0, 0.8, label="mine")])
    assert [row.name for row in board.rows] == ["mine [method=fip]", "mine [method=lth]"]


@pytest.mark.parametrize("better", ["user", "task"])
def test_the_reference_row_is_the_tasks_setting_whichever_scores_best(better):
    score = {"task": 0.5, "user": 0.5} | {better: 0.9}
    records = [record("fip", 0, score[s], params={"a": n}, settings=s) for n, s in enumerate(("user", "task"))]
    assert reference_of(the_board(records)) == "fip [a=1]"


def test_failed_seeds_are_counted_with_their_reason():
    board = the_board([record("lth", 0, 0.9), record("lth", 1, error=("ValueError", "loss\nis nan"))])
    (row,) = board.rows
    assert (row.seeds, row.failed, row.errors) == ((0,), 1, ("ValueError: loss is nan",))
    assert row.metrics["area"].n == 1 and row.rank == 1
    assert any("failed seeds" in note for note in board.notes)


def test_a_method_that_always_failed_is_listed_last_without_numbers():
    records = [record("broken", s, error=("MemoryError", "")) for s in range(3)] + runs("zero", [0.0])
    board = the_board(records)
    assert [row.name for row in board.rows] == ["zero", "broken"]
    assert (board.rows[1].rank, board.rows[1].failed, board.rows[1].metrics) == (None, 3, {})
    assert board.rows[1].errors == ("MemoryError",)


def test_a_method_without_the_headline_metric_is_unranked():
    records = [*runs("zero", [0.0]), record("other", 0, area=None), record("broken", 0, error=("OSError", ""))]
    assert [(row.name, row.rank) for row in the_board(records).rows] == [("zero", 1), ("other", None), ("broken", None)]


def test_all_failed_is_still_a_board():
    board = the_board([record("broken", 0, error=("MemoryError", "no"))])
    assert board.ranked == () and len(board.rows) == 1


def test_an_older_version_of_the_task_is_not_shown():
    old = runs("fip", [0.99] * 3, task_digest="old", time="2023-01-01T00:00:00.000+00:00")
    old += runs("lth", [0.98] * 3, task_digest="old", time="2023-01-01T00:00:00.000+00:00")
    board = the_board(old + runs("fip", [0.5]))
    assert [row.name for row in board.rows] == ["fip"] and board.rows[0].metrics["area"].mean == 0.5
    assert "6 records of superseded versions not shown" in board.notes


def test_an_older_version_of_a_method_is_not_shown():
    old = runs("lth", [0.99] * 2, method_version="1+old", time="2023-01-01T00:00:00.000+00:00")
    board = the_board(old + runs("lth", [0.5]) + runs("fip", [0.6]))
    assert [(row.name, row.seeds) for row in board.rows] == [("fip", (0,)), ("lth", (0,))]
    assert "2 records of superseded versions not shown" in board.notes


def test_nothing_superseded_is_not_noted():
    assert the_board(suite(2)).notes == ()


def test_data_variants_and_devices_have_boards_of_their_own():
    official = {"train": "c" * 64, "test": "d" * 64}
    records = runs("fip", [0.9]) + runs("fip", [0.8], data_variant="mirror", data=official)
    records += runs("fip", [0.7], device="cuda")
    found = boards(records)
    assert [(b.name, b.rows[0].metrics["area"].mean) for b in found] == [
        ("digits-sparsity (mirror, cpu)", 0.8),
        ("digits-sparsity (sklearn, cpu)", 0.9),
        ("digits-sparsity (sklearn, cuda)", 0.7),
    ]


def test_unlike_data_under_one_label_are_not_mixed():
    found = boards(runs("fip", [0.9]) + runs("fip", [0.8], data={"train": "c" * 64, "test": "d" * 64}))
    assert len(found) == 2 and len({board.name for board in found}) == 2


def test_validation_records_are_not_shown():
    board = the_board(runs("fip", [0.9]) + runs("fip", [1.0], split="validation"))
    assert board.rows[0].metrics["area"].mean == 0.9
    assert boards(runs("fip", [1.0], split="validation")) == []


def test_of_two_records_of_a_job_the_good_one_counts_then_the_newest():
    late = "2025-01-01T00:00:00.000+00:00"
    records = [record("fip", 0, 0.5), record("fip", 0, 0.7, time=late), record("fip", 1, 0.9)]
    records.append(record("fip", 1, error=("OSError", "disk full"), time=late))
    (row,) = the_board(records).rows
    assert row.values["area"] == {0: 0.7, 1: 0.9} and row.failed == 0


def test_cost_is_a_mean_over_seeds_and_memory_the_largest():
    costs = [Cost(wall_s=1.0, forward_examples=10, peak_memory_bytes=5), Cost(wall_s=3.0, forward_examples=20)]
    (row,) = the_board([record("fip", n, 0.9, cost=cost) for n, cost in enumerate(costs)]).rows
    assert (row.cost["wall_s"], row.cost["forward_examples"], row.cost["peak_memory_bytes"]) == (2.0, 15.0, 5)


def test_notes_of_seeds_are_told_once():
    shares = [record("fip", n, 0.9, notes=(f"stopped at {30 + n}% of the budget",)) for n in range(3)]
    assert the_board(shares).rows[0].notes == ("stopped at 30–32% of the budget",)
    some = [record("fip", 0, 0.9, notes=("stopped at 5% of the budget",)), record("fip", 1, 0.9)]
    assert the_board(some).rows[0].notes == ("stopped at 5% of the budget (1 of 2 seeds)",)


def test_unlike_settings_are_noted():
    board = the_board(runs("fip", [0.9], settings="tuned") + runs("lth", [0.9]))
    assert any("settings differ" in note for note in board.notes)


def test_sizes_and_machines_come_from_the_records():
    plain = record("fip", 0, 0.9)
    provenance = plain.provenance | {"train_examples": 1437, "hardware": {"cpu": "Zen"}, "versions": {"torch": "2.6"}}
    items = {"0.8": Items(count=360, bits="")}
    board = the_board([sealed(msgspec.structs.replace(plain, provenance=provenance, items=items))])
    assert (board.train_examples, board.test_examples, board.machines) == ((1437,), 360, ("Zen, torch 2.6",))


@pytest.mark.parametrize("odd", ["a laptop", 3, None, ["torch"], {"cpu": None}])
def test_where_a_record_was_made_is_shown_only_if_it_says_so(odd):
    """Provenance is whatever a record's author wrote there: no board falls over it."""
    plain = record("fip", 0, 0.9)
    provenance = plain.provenance | dict.fromkeys(("hardware", "versions"), odd)
    sizes = odd if isinstance(odd, str | list) else None
    board = the_board([sealed(msgspec.structs.replace(plain, provenance=provenance | {"train_examples": sizes}))])
    assert (board.machines, board.train_examples) == ((), ())


@pytest.mark.parametrize("turn", [1, 7, 50])
def test_order_of_records_does_not_matter(turn):
    records = suite(5)
    assert boards(records[turn:] + records[:turn]) == boards(records) == boards(records[::-1])


def test_levels_are_those_of_the_task():
    assert list(sparsity.levels(the_board(suite(1)).protocol).values()) == list(LEVELS)


def test_a_track_that_is_not_known_is_a_mistake():
    with pytest.raises(UserError, match="unknown track 'sparsty' in a record: did you mean sparsity"):
        boards([record("fip", 0, 0.9, track="sparsty")])


def test_curves_are_means_over_the_places_that_all_seeds_have():
    steps = ([0.0, 1.0, 2.0], [0.0, 2.0, 4.0])
    values = ([0.9, 0.5, 0.1], [0.7, 0.3, 0.2])
    records = [
        sealed(msgspec.structs.replace(record("fip", n), curves={"c": {"value": v, "step": s}}))
        for n, (s, v) in enumerate(zip(steps, values, strict=True))
    ]
    (row,) = the_board([*records, record("fip", 2)]).rows
    assert row.curves == {"c": {"step": (0.0, 2.0), "value": (pytest.approx(0.8), pytest.approx(0.2))}}
    assert row.ends["c"].mean == pytest.approx(0.15)


def test_a_curve_without_a_place_that_all_seeds_have_is_none():
    axes = ({"value": [0.9], "step": [0.0]}, {"value": [0.7], "task": [1.0]})
    records = [
        sealed(msgspec.structs.replace(record("fip", n), curves={"odd": axis, "d": {"value": [0.5], "step": [1.0]}}))
        for n, axis in enumerate(axes)
    ]
    curves = the_board(records).rows[0].curves
    assert list(curves) == ["d", "odd"] and len(curves) == 2
    assert curves["odd"] == {} and "nobody" not in curves and curves.get("nobody") is None
