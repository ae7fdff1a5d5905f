"""Boards of the continual track: memories are never mixed; numbers by hand and against scipy."""

from __future__ import annotations

import itertools

import msgspec
import pytest
import scipy.stats
from synthetic import continual
from synthetic import continual_runs as runs
from synthetic import continual_small as small

from fipbench import reports
from fipbench.reports import boards, render, sentence
from fipbench.reports.tracks import continual as shows
from fipbench.spec import sealed

MATRIX = [[0.9, 0.1, 0.0], [0.6, 0.8, 0.2], [0.3, 0.5, 0.7]]


def the_board(records, **more):
    (board,) = boards(records, **more)
    return board


# ------------------------------------------------------------------------------ sections and comparisons


def test_each_memory_is_ranked_on_its_own():
    board = the_board(small())
    found = {s.key: [(row.rank, row.rank_last, row.short) for row in s.rows] for s in board.sections}
    assert found == {
        0: [(1, 1, "ewc"), (2, 2, "naive")],  # 0.05, 0.07, 0.05: p = 0.0136, three times that by Holm
        4: [(1, 2, "replay"), (1, 2, "fip")],  # 0.05, 0.02, 0.05: p = 0.057
        10: [(1, 2, "fip"), (1, 2, "replay")],
    }
    assert board.rank_tests == 3
    assert [row.name for row in board.references] == ["joint"]


def test_names_are_unique_over_the_board():
    names = [row.name for row in the_board(small()).rows]
    assert names == ["ewc", "naive", "replay (4 a task)", "fip (4 a task)", "fip (10 a task)", "replay (10 a task)"]


def test_rows_are_held_against_fip_with_the_same_memory():
    board = the_board(small())
    assert [section.reference for section in board.sections] == ["fip (4 a task)", "fip (4 a task)", "fip (10 a task)"]
    found = {row.name: row.comparisons["average_accuracy/class"].mean for row in board.rows if row.comparisons}
    assert found == pytest.approx(
        {"naive": -0.31, "ewc": -0.2533333, "replay (4 a task)": 0.04, "replay (10 a task)": -0.0166667}, abs=1e-6
    )


def test_holm_is_over_all_sections_together():
    fip4, fip10 = [0.50, 0.52, 0.51], [0.60, 0.61, 0.59]
    pairs = {
        "naive": ([0.20, 0.21, 0.19], fip4),
        "ewc": ([0.25, 0.28, 0.24], fip4),
        "replay (4 a task)": ([0.55, 0.54, 0.56], fip4),
        "replay (10 a task)": ([0.58, 0.57, 0.60], fip10),
    }
    p = {name: scipy.stats.ttest_rel(a, b).pvalue for name, (a, b) in pairs.items()}
    ordered = sorted(p, key=p.get)
    steps = itertools.accumulate((min(1, (4 - i) * p[name]) for i, name in enumerate(ordered)), max)
    expected = dict(zip(ordered, steps, strict=True))
    board = the_board(small())
    found = {r.name: r.comparisons["average_accuracy/class"].adjusted for r in board.rows if r.comparisons}
    assert found == pytest.approx(expected)
    assert board.comparisons == 4
    assert min(p.values()) < min(expected.values())  # the correction does something here


def test_a_memory_without_fip_is_compared_with_nothing():
    board = the_board([*runs("fip", [0.5, 0.6], 4), *runs("replay", [0.5, 0.7], 10), *runs("naive", [0.2, 0.3])])
    none, four, ten = board.sections
    assert (none.reference, four.reference, ten.reference) == ("fip (4 a task)", "fip (4 a task)", None)
    assert ten.rows[0].comparisons == {}


def test_the_least_memory_of_fip_is_what_methods_without_one_are_held_against():
    board = the_board([*runs("fip", [0.5, 0.6], 10), *runs("replay", [0.5, 0.7], 4), *runs("naive", [0.2, 0.3])])
    assert [section.reference for section in board.sections] == ["fip (10 a task)", None, "fip (10 a task)"]


def test_where_everything_stores_something_nothing_is_said_of_others():
    board = the_board([*runs("fip", [0.5, 0.6], 4), *runs("replay", [0.5, 0.7], 4)])
    assert "held against" not in dict(shows.protocol(board))["Memory"]
    assert "nothing is stored" not in dict(shows.reading(board))["Comparison"]


def test_a_memory_that_is_no_number_is_none():
    assert [section.key for section in the_board(runs("odd", [0.5], params={"memory": "all"})).sections] == [0]


def test_without_fip_nothing_is_compared():
    board = the_board([*runs("replay", [0.5, 0.6], 4), *runs("naive", [0.2, 0.3])])
    assert all(section.reference is None for section in board.sections) and board.comparisons == 0
    assert "− fip" not in shows.tables(board)[0].columns
    assert dict(shows.reading(board))["Comparison"].startswith("fip has no result here")


def test_other_parameters_still_tell_rows_apart():
    records = [*runs("fip", [0.5], 4, params={"step": 0.1}), *runs("fip", [0.6], 10, params={"step": 0.2})]
    assert [row.name for row in the_board(records).rows] == ["fip [step=0.1] (4 a task)", "fip [step=0.2] (10 a task)"]


def test_both_scorings_and_forgetting_are_compared_without_adding_tests():
    (row,) = [row for row in the_board(small()).rows if row.name == "ewc"]
    metrics = {"average_accuracy/class", "average_accuracy/task", "forgetting/class", "forgetting/task"}
    assert row.comparisons.keys() == metrics
    assert [m for m in metrics if row.comparisons[m].adjusted is not None] == ["average_accuracy/class"]


# -------------------------------------------------------------------------------------- derived metrics


def test_the_matrix_and_its_means_so_far_are_metrics():
    other = [[0.7, 0.1, 0.0], [0.6, 0.8, 0.2], [0.3, 0.5, 0.7]]
    (row,) = the_board([continual("fip", 0, matrix=MATRIX), continual("fip", 1, matrix=other)]).rows
    means = [row.metrics[f"average/class/{i}"].mean for i in (1, 2, 3)]
    assert means == pytest.approx([0.8, 0.7, 0.5])
    # With two seeds the half-width is 12.7062 |a - b| / 2.
    assert row.metrics["average/class/1"].half == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert row.metrics["accuracy/class/2/1"].mean == 0.6 and row.metrics["accuracy/class/1/2"].mean == 0.1
    assert row.values["accuracy/class/1/1"] == {0: 0.9, 1: 0.7}
    assert "accuracy/class/0/1" not in row.metrics and "average/class/4" not in row.metrics


def test_sizes_are_of_all_tasks():
    board = the_board(small())
    assert (board.train_examples, board.test_examples) == ((240, 239, 241), 101 + 102 + 103)
    assert "239 to 241 training examples a task; 306 test examples" in dict(shows.protocol(board))["Data"]


# ----------------------------------------------------------------------------------------------- tables


def tables(records, **more):
    return {table.caption.partition(",")[0]: table for table in shows.tables(the_board(records, **more))}


def test_scores_side_by_side_the_ranked_one_first():
    task = [[1.0, 0.5, 0.5], [0.9, 1.0, 0.5], [0.8, 0.9, 1.0]]
    records = [*runs("naive", [0.2]), continual("fip", 0, memory=4, matrix=MATRIX, task_matrix=task)]
    table = tables(records)["Average accuracy and forgetting at the end"]
    assert table.columns == (
        "#", "method", "seeds", "class-incr., %", "task-incr., %", "forgetting, class", "forgetting, task",
        "− fip", "p (Holm)", "backward", "wall s", "stored", "settings",
    )  # fmt: skip
    # Class: mean of 0.3, 0.5, 0.7; forgotten (0.6 + 0.3) / 2. Task: mean of 0.8, 0.9, 1.0; forgotten (0.2 + 0.1) / 2.
    assert table.rows[1][:7] == ("1", "fip ◆", "1", "50.00", "90.00", "45.00", "15.00")
    assert table.rows[0][7] == "−30.00" and table.rows[1][11] == "12"


def test_sections_are_groups_of_one_table():
    table = tables(small())["Average accuracy and forgetting at the end"]
    assert table.groups == (
        (0, "stores no data"), (2, "stores 4 examples a task"), (4, "stores 10 examples a task"), (6, "references"),
    )  # fmt: skip
    assert [row[1] for row in table.rows] == ["ewc ◆", "naive", "replay ◆", "fip", "fip ◆", "replay", "joint"]
    assert table.fip == (3, 4)


def test_a_section_without_rows_to_show_has_no_heading():
    failed = continual("replay", 0, memory=4, error=("OSError", "no"))
    found = tables([*runs("naive", [0.2]), failed, *runs("fip", [0.5], 10)])
    assert found["Average accuracy and forgetting at the end"].groups[1] == (1, "stores 4 examples a task")
    ends = found["Accuracy in % on each task at the end"]
    assert ends.groups == ((0, "stores no data"), (1, "stores 10 examples a task"))


def test_one_example_is_one_example():
    assert tables(runs("fip", [0.5], 1))["Average accuracy and forgetting at the end"].groups == (
        (0, "stores 1 example a task"),
    )


def test_accuracy_by_task_at_the_end():
    table = tables([continual("fip", 0, matrix=MATRIX)])["Accuracy in % on each task at the end"]
    assert table.columns[2:] == ("task 1", "task 2", "task 3", "backward transfer", "forward transfer", "untrained")
    # Forward: (0.1 - 0.1 + 0.2 - 0.1) / 2 with an untrained accuracy of 0.1.
    assert table.rows == (("1", "fip", "30.00", "50.00", "70.00", "−45.00", "5.00", "10.00"),)


def test_matrices_of_fip_and_of_the_best_other_with_the_largest_memory():
    better = [[0.9, 0.0, 0.0], [0.8, 0.9, 0.0], [0.7, 0.8, 0.9]]
    records = [continual("fip", 0, memory=10, matrix=MATRIX), continual("fip-kl", 0, 0.99, memory=10)]
    records += [continual("der", 0, memory=10, matrix=better), continual("gem", 0, 0.99, memory=4)]
    table = tables(records)["Accuracy in % on each task after each task"]
    assert table.groups == ((0, "fip (10 a task)"), (4, "der (10 a task)"))
    assert table.rows[:4] == (
        ("untrained", "10.00", "10.00", "10.00"),
        ("after task 1", "90.00", "10.00", "0.00"),
        ("after task 2", "60.00", "80.00", "20.00"),
        ("after task 3", "30.00", "50.00", "70.00"),
    )
    assert table.rows[7] == ("after task 3", "70.00", "80.00", "90.00")


def test_weights_by_layer_in_the_order_of_the_network():
    table = tables(small())["Relative change of the weights since the first task"]
    assert table.columns[2:] == ("weights", "path", "in 2", "in 10")
    assert table.rows[0][2:] == ("0.200 ± 0.000", "0.600 ± 0.000", "0.100 ± 0.000", "0.400 ± 0.000")


def test_cost_counts_parameters_and_examples():
    table = tables(small())["Cost"]
    row = dict(zip(table.columns, table.rows[4], strict=True))
    assert (row["method"], row["parameters stored"], row["examples stored"]) == ("fip", "5000", "30")


def test_failures_are_told_apart_from_zeros():
    records = [*runs("fip", [0.5], 4), continual("gem", 0, memory=4, error=("RuntimeError", "no solution"))]
    table = tables(records)["Average accuracy and forgetting at the end"]
    assert table.rows[1][:4] == ("failed", "gem", "0", "–")
    assert "gem (4 a task): 1 of 1 seeds failed: RuntimeError: no solution" in reports.terminal(boards(records))


# ---------------------------------------------------------------------------------------------- sentence


def said(*records):
    return sentence(the_board([record for group in records for record in group]))


def test_who_leads_where_and_where_fip_stands():
    """With 4 a task replay is 0.05, 0.02 and 0.05 above fip: sd 0.01732, half 4.3027 · 0.01732 / √3 = 4.30 points."""
    text = said(small())
    assert text.startswith(
        "split-digits-5, class-incremental average accuracy (3 paired seeds, p by Holm): "
        "without stored data ewc leads (25.67 ± 5.17 %), naive has 20.00 ± 2.48 %, "
        "fip (4 a task) is 31.00 ± 2.48 points above naive (p = 0.0"
    )
    replay = "replay leads (55.00 ± 2.48 %, not told apart from 1 other)"
    assert f"; with 4 examples a task {replay}, fip is 4.00 ± 4.30 points below it (" in text
    assert "; with 10 examples a task fip leads (60.00 ± 2.48 %, not told apart from 1 other), it is 1.67 ± " in text
    assert "points above replay, the best other method (not distinguishable from zero: p = " in text


def test_fip_may_stand_below_naive():
    text = said(runs("naive", [0.5, 0.6]), runs("fip", [0.4, 0.5], 4))
    assert "naive leads (55.00 ± 63.53 %), fip (4 a task) is 10.00 ± 0.00 points below naive (p < 0.001)" in text
    end = "with 4 examples a task fip leads (45.00 ± 63.53 %), no method but fip's own variants has a result."
    assert text.endswith(end)


def test_one_seed_is_no_test():
    text = said(runs("naive", [0.2]), runs("fip", [0.4], 4), runs("replay", [0.3], 4))
    assert "average accuracy: without" in text
    assert "fip (4 a task) is 20.00 points above naive (1 paired seed, too few for a test)" in text


def test_sections_without_a_result_are_silent():
    text = said(runs("fip", [0.4], 4), [continual("replay", 0, memory=10, error=("OSError", "no"))])
    assert "10" not in text.partition("with 4")[2].replace("(40.00 %)", "")
    assert sentence(the_board([continual("fip", 0, memory=4, error=("OSError", "no"))])) == (
        "split-digits-5: no method has a result."
    )


def test_a_memory_without_fip_says_so():
    text = said(runs("fip", [0.4, 0.5], 4), runs("der", [0.4, 0.5], 10))
    assert text.endswith("with 10 examples a task der leads (45.00 ± 63.53 %), fip has no result here.")


# ------------------------------------------------------------------------------------------------ header


def test_header_says_what_a_reader_needs():
    text = render.markdown(boards(small()))
    for needed in (
        "40 epochs of the first task, 20 of each later one, batches of 16", "at most 3 times the passes",
        "3 tasks, classes 0, 1; then 2, 3; then 4, 5; trained with the loss over all outputs",
        "class-incremental: arg-max over all outputs; task-incremental: arg-max over the outputs of the example's own",
        "keep 4 or 10 a task", "apart from those that store none, which are held against fip (4 a task)",
        "trained on the first task, for all methods", "Holm over the 4 comparisons of all sections together",
        "where nothing is stored, to fip (4 a task)", "(Chaudhry et al., 2018)", "examples of past tasks",
    ):  # fmt: skip
        assert needed in text, needed


def test_permuted_streams():
    stream = {"permutations": 5, "score": ["domain"], "softmax": "all"}
    changes = {"stream": stream, "headline": "average_accuracy/domain"}
    (record,) = runs("naive", [0.5], protocol_changes=changes)
    metrics = {name.replace("/class", "/domain"): value for name, value in record.metrics.items()}
    curves = {name.replace("/class", "/domain"): curve for name, curve in record.curves.items()}
    board = the_board([sealed(msgspec.structs.replace(record, metrics=metrics, curves=curves))])
    words = dict(shows.protocol(board))
    assert words["Stream"].startswith("5 tasks, the pixels in as many fixed orders")
    assert words["Scoring"] == "domain-incremental: all tasks share the outputs"
    assert shows.tables(board)[0].columns[3:5] == ("domain-incr., %", "forgetting, domain")
    assert len(shows.drawings(board)) == 1  # no course was recorded


def test_several_data_sets_and_a_bag_of_words():
    older = {"train": "e" * 64, "test": "f" * 64, "note": "an older release"}
    variants = {"made": {"train": "a" * 64, "test": "b" * 64, "note": "generated reviews"}, "old": older}
    other = {"made": {"train": "c" * 64, "test": "d" * 64, "note": "generated films"}}
    data = [{"embedded": "star-reviews", "variants": variants}, {"embedded": "film-reviews", "variants": other}]
    digests = {"train-1": "a" * 64, "test-1": "b" * 64, "train-2": "c" * 64, "test-2": "d" * 64}
    model = {"name": "bert", "inputs": [32], "vocabulary": 900, "width": 64, "depth": 2, "heads": 4, "outputs": 7}
    base = {"epochs": 5, "optimizer": "adam", "learning_rate": 0.001, "batch_size": 32, "clip": 1.0}
    changes = {"data": data, "model": model, "base": base}
    more = {"protocol_changes": changes, "data": digests, "data_variant": "made"}
    records = [*runs("naive", [0.5], **more)]
    bag = {"tfidf/1": 0.721, "tfidf/2": 0.8}
    records += runs("joint", [0.8, 0.9], role="reference", metrics=bag, **more)
    words = dict(shows.protocol(the_board(records)))
    assert words["Data"].startswith("star-reviews, then film-reviews, variant made (test-1 bbbbbbbbbbbb, ")
    assert "; star-reviews: generated reviews; film-reviews: generated films; " in words["Data"]
    assert words["Bag of words"].endswith("scores 72.10 ± 0.00 % on data set 1 and 80.00 ± 0.00 % on data set 2")
    network = "bert (2 layers of width 64, 4 heads, 900 words, 32 tokens, dense 7)"
    assert words["Network"].startswith(network) and "momentum" not in words["Network"]
    assert "gradients clipped to norm 1" in words["Network"]


def test_protocol_may_lack_what_the_header_tells():
    plain = continual("naive", 0, 0.5)
    (board,) = boards([sealed(msgspec.structs.replace(plain, protocol={"headline": "average_accuracy/class"}))])
    assert "naive" in render.markdown([board])
