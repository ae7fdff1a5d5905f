"""Calibrations: a published number beside ours, and what one that is missed does to every other table."""

from __future__ import annotations

import pytest
from synthetic import continual_runs as runs
from synthetic import continual_small, robustness_suite

from fipbench.reports import boards, render, write
from fipbench.reports.build import current
from fipbench.reports.calibration import calibration_table, calibrations, failed

SOURCE = "Somebody (2020), table 1"


def published(value, margin=0.02, metric="average_accuracy/class", **more):
    return {"metric": metric, "value": value, "margin": margin, "source": SOURCE} | more


def calibrated(values, numbers, name="calibration-one", **more):
    """Records of a calibration task: label -> values, label -> published number; `more` as of a run."""
    changes = {"name": name, "title": "Calibration", "suites": ["calibration"], "published": numbers}
    return [
        record
        for label, each in values.items()
        for record in runs(label, each, task=name, protocol_changes=changes, **more)
    ]


def test_ours_is_the_mean_over_seeds():
    (found,) = calibrations(calibrated({"ewc": [0.90, 0.92, 0.94]}, {"ewc": published(0.93)}))
    assert (found.task, found.track, found.label, found.method) == ("calibration-one", "continual", "ewc", "ewc")
    assert found.ours.mean == pytest.approx(0.92) and found.ours.n == 3
    assert found.passed


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.911, "reached"), (0.909, "missed"), (0.949, "reached"), (0.951, "far above")]
)
def test_ours_may_be_lower_by_the_margin_and_is_told_apart_above_it(ours, verdict):
    (found,) = calibrations(calibrated({"ewc": [ours]}, {"ewc": published(0.93)}))
    assert found.verdict == verdict
    assert found.passed is (verdict != "missed")


def test_methods_without_a_number_or_a_result_have_no_verdict():
    assert calibrations(continual_small()) == []
    assert calibrations(calibrated({"ewc": [0.9]}, {"si": published(0.93)})) == []
    changes = {"name": "c", "published": {"ewc": published(0.9)}}
    broken = runs("ewc", [0.9], task="c", protocol_changes=changes, error=("RuntimeError", "no"))
    assert calibrations(broken) == []


def test_what_was_missed_is_said_with_both_numbers():
    records = calibrated({"ewc": [0.80, 0.82], "si": [0.93]}, {"ewc": published(0.93), "si": published(0.93)})
    assert failed(calibrations(records), "continual") == {"ewc": f"calibration-one: 81.0 % here, 93.0 % in {SOURCE}"}
    assert failed(calibrations(records), "robustness") == {}


def test_settings_given_in_the_call_calibrate_nothing():
    """Nor do they change what the task's own settings reached."""
    tried = calibrated({"ewc": [0.1, 0.1]}, {"ewc": published(0.93)}, settings="user", params={"strength": 0.0})
    assert calibrations(tried) == []
    (found,) = calibrations([*tried, *calibrated({"ewc": [0.92, 0.94]}, {"ewc": published(0.93)})])
    assert found.ours.mean == pytest.approx(0.93) and found.ours.n == 2


def test_rows_of_other_parameters_are_calibrations_of_their_own():
    records = calibrated({"replay": [0.90, 0.92]}, {"replay": published(0.9)}, memory=10)
    records += calibrated({"replay": [0.70, 0.72]}, {"replay": published(0.9)}, memory=4)
    assert sorted((round(found.ours.mean, 6), found.ours.n) for found in calibrations(records)) == [
        (0.71, 2),
        (0.91, 2),
    ]


def test_records_of_an_older_version_of_the_method_are_not_counted():
    old = calibrated({"ewc": [0.1, 0.1]}, {"ewc": published(0.93)}, method_version="1+old", time="2020-01-01")
    new = calibrated({"ewc": [0.92, 0.94]}, {"ewc": published(0.93)}, method_version="1+new", time="2021-01-01")
    (found,) = calibrations(current([*old, *new]))
    assert found.ours.mean == pytest.approx(0.93) and found.ours.n == 2


def test_two_missed_numbers_are_both_said():
    records = calibrated({"ewc": [0.8]}, {"ewc": published(0.93)}) + calibrated(
        {"ewc": [0.7]}, {"ewc": published(0.9)}, name="calibration-two"
    )
    text = failed(calibrations(records), "continual")["ewc"]
    assert "calibration-one: 80.0 %" in text and "calibration-two: 70.0 %" in text


def test_every_board_of_the_track_marks_a_method_that_failed():
    records = [*continual_small(), *calibrated({"ewc": [0.8]}, {"ewc": published(0.93)}), *robustness_suite()]
    marked = {(board.task, row.method) for board in boards(records) for row in board.rows if row.calibration}
    assert marked == {("split-digits-5", "ewc"), ("calibration-one", "ewc")}
    by_hand = boards(records, failed_calibrations={"naive": "so I say"})
    assert {row.method for board in by_hand for row in board.rows if row.calibration} == {"naive"}


def test_a_method_that_passed_is_not_marked():
    records = [*continual_small(), *calibrated({"ewc": [0.93]}, {"ewc": published(0.93)})]
    assert not [row for board in boards(records) for row in board.rows if row.calibration]


def test_the_table():
    numbers = {
        "ewc": published(0.9312, 0.015, spread=0.004, spread_is="standard error", n=20, note="98 % of the steps"),
        "si": published(0.90),
    }
    records = calibrated({"ewc": [0.90, 0.92], "si": [0.915], "naive": [0.2]}, numbers)
    (board,) = boards(records)
    table = calibration_table(board)
    assert [dict(zip(table.columns, row, strict=True)) for row in table.rows] == [
        {
            "method": "si", "published": "90.00", "here": "91.50", "margin": "−2", "verdict": "reached",
            "source": SOURCE, "differences": "",
        },
        {
            "method": "ewc", "published": "93.12 ± 0.40 (standard error)", "here": "91.00 ± 12.71", "margin": "−1.5",
            "verdict": "missed", "source": SOURCE, "differences": "98 % of the steps",
        },
    ]  # fmt: skip
    assert table.caption.split(":")[0] in render.markdown([board])


def test_a_task_without_published_numbers_has_none():
    (board,) = boards(continual_small())
    assert calibration_table(board) is None


def test_a_source_is_escaped(tmp_path):
    evil = published(0.9) | {"source": "<script>alert(1)</script> | x"}
    for path in write(calibrated({"ewc": [0.8]}, {"ewc": evil}), tmp_path, ("md", "html")):
        assert "<script>alert" not in path.read_text()
