"""From records to verdicts: each can come out, at which scale, by which records, and what would settle the row."""

from __future__ import annotations

import claims_lab as lab
import pytest

from fipbench import claims
from fipbench.claims import VERDICTS
from fipbench.claims.evidence import reading

GOOD = [0.895, 0.900, 0.905, 0.900, 0.898]
HIGH = [x + 0.05 for x in GOOD]
LOW = [x - 0.05 for x in GOOD]
WIDE = [0.80, 0.85, 0.90, 0.95, 0.99]
NO_DIRECTION = lab.row(better='"neither"')
ORDER = lab.row(kind='"order"', value=None, better=None, relation='"above"', than='"LTH"')
UNTESTABLE = lab.row(kind='"fact"', ours=None, better=None, untestable='"gap"')


@pytest.mark.parametrize(
    ("records", "row", "expected"),
    [
        (lab.runs(GOOD), lab.VALUE, "confirmed"),
        (lab.runs(HIGH), lab.VALUE, "better"),
        (lab.runs(LOW), lab.VALUE, "worse"),
        (lab.runs(LOW), NO_DIRECTION, "refuted"),
        (lab.runs(WIDE), lab.VALUE, "underpowered"),
        (lab.runs(GOOD[:4]), lab.VALUE, "underpowered"),
        (lab.runs(GOOD, described=lab.protocol(model={"hidden": [400, 400]})), lab.VALUE, "protocol-mismatch"),
        ([], lab.VALUE, "not-run"),
        (lab.runs(GOOD, "lth"), lab.VALUE, "not-run"),
        (lab.runs(GOOD), UNTESTABLE, "not-testable"),
        (lab.runs(HIGH) + lab.runs(GOOD, "lth"), ORDER, "confirmed"),
        (lab.runs(LOW) + lab.runs(GOOD, "lth"), ORDER, "refuted"),
        (lab.runs(GOOD) + lab.runs(GOOD, "lth"), ORDER, "underpowered"),
        (lab.runs(HIGH), ORDER, "not-run"),
    ],
)
def test_every_verdict_comes_out(records, row, expected, tmp_path):
    found = lab.judge_one(tmp_path, records, row)
    assert (found.verdict, found.name) == (expected, expected)
    assert found.why


def test_no_verdict_is_left_out_above():
    marks = test_every_verdict_comes_out.pytestmark[0].args[1]
    assert {expected for *_, expected in marks} == set(VERDICTS)


def test_what_decided_is_said(tmp_path):
    found = lab.judge_one(tmp_path, lab.runs(GOOD))
    assert (found.scale, found.task, found.label, found.device) == ("paper", "digits-sparsity", "fip-paper", "cpu")
    assert found.finding.ours.mean == pytest.approx(89.96)
    assert found.finding.ours.n == 5
    assert found.departures == ()


# ------------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize(
    ("change", "said"),
    {
        "another suite": ({"described": lab.protocol(suites=["standard"])}, "suite standard, published paper"),
        "no suite": ({"described": lab.protocol(suites=[])}, "suite none"),
        "less training": ({"described": lab.protocol(base={"epochs": 15})}, "base.epochs 15, published 40"),
        "fewer images": ({"described": lab.protocol(subset=2000)}, "subset 2000, published none"),
        "re-encoded data": ({"data_variant": "mirror-jpeg92"}, "data variant mirror-jpeg92, published official"),
        "one of two data sets": ({"data_variant": "official+mirror"}, "data variant official+mirror"),
        "settings of the call": ({"settings": "user"}, "settings given in the call"),
    }.values(),
    ids=str,
)
@pytest.mark.parametrize("values", [GOOD, LOW, HIGH], ids=["confirmed", "worse", "better"])
def test_a_smaller_scale_is_never_the_papers(change, said, values, tmp_path):
    found = lab.judge_one(tmp_path, lab.runs(values, **change))
    assert found.scale == "smaller"
    assert found.name == f"{found.verdict} (smaller scale)"
    assert said in found.why


def test_the_papers_own_protocol_goes_first_however_few_its_seeds(tmp_path):
    small = lab.runs(GOOD, task="lenet300-mnist-sparsity", described=lab.protocol(suites=["standard"]))
    assert lab.judge_one(tmp_path, small).name == "confirmed (smaller scale)"
    full = lab.runs(LOW[:2], task="digits-sparsity")
    for records in (small + full, full + small):
        found = lab.judge_one(tmp_path, records)
        assert (found.name, found.task) == ("underpowered", "digits-sparsity")


def test_a_smaller_scale_goes_before_a_mismatch(tmp_path):
    odd = lab.runs(GOOD, described=lab.protocol(data={"repo": "b/other"}))
    small = lab.runs(GOOD, task="lenet300-mnist-sparsity", described=lab.protocol(suites=["quick"]))
    assert lab.judge_one(tmp_path, odd + small).name == "confirmed (smaller scale)"


# --------------------------------------------------------------------------------------------- protocols


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"model": {"hidden": [400, 400]}}, "model.hidden [400, 400], published [300, 100]"),
        ({"model": {}}, "model.hidden none"),
        ({"data": {"repo": "b/other"}}, "data.repo b/other, published a/digits"),
        ({"data": [{"repo": "a/digits"}]}, "data.repo none"),
    ],
)
def test_a_mismatch_names_its_field(described, said, tmp_path):
    found = lab.judge_one(tmp_path, lab.runs(GOOD, described=lab.protocol(**described)))
    assert found.verdict == "protocol-mismatch"
    assert said in found.why
    assert found.finding is None


def test_records_without_the_metric_are_of_another_protocol(tmp_path):
    found = lab.judge_one(tmp_path, lab.runs(GOOD), lab.row(ours='"accuracy@0.8"'))
    assert found.verdict == "protocol-mismatch"
    assert "accuracy@0.8" in found.why


STREAM = """
[study.protocol]
stream.tasks = 3
stream.classes_per_task = [2, 2, 2]
data = [{ repo = "a/one" }, { repo = "a/two" }]
"""


def stream_study(extra=""):
    head = lab.STUDIES.partition("[study.protocol]")[0].replace('"sparsity"', '"continual"')
    head = head.replace('"digits-sparsity", "lenet300-mnist-sparsity"', '"split-digits-5"').replace(
        '["lth"]', '["ewc"]'
    )
    return head.replace('"random" = ["random"]\n', "").replace("[study.labels]", extra + "[study.labels]") + STREAM


def stream_records(values=GOOD, **more):
    described = {
        "suites": ["paper"],
        "stream": {"classes": [[0, 1], [4, 5], [2, 3]]},
        "data": [{"repo": "a/one"}, {"repo": "a/two"}],
        "memories": [10, 50],
    } | more.pop("described", {})
    return [
        lab.record(
            seed=seed,
            accuracy=None,
            metrics={"average_accuracy/class": value},
            task="split-digits-5",
            track="continual",
            described=described,
            **more,
        )
        for seed, value in enumerate(values)
    ]


CONTINUAL = lab.row(ours='"average_accuracy/class"')


def test_a_stream_is_counted_whatever_its_order(tmp_path):
    judge = lambda records: lab.judge_one(tmp_path, records, CONTINUAL, studies=stream_study())  # noqa: E731
    assert judge(stream_records()).name == "confirmed"
    for classes in ([[0, 1], [2, 3]], [[0, 1, 2], [3], [4, 5]]):
        found = judge(stream_records(described={"stream": {"classes": classes}}))
        assert found.verdict == "protocol-mismatch"
        assert "stream." in found.why
    found = judge(stream_records(described={"data": [{"repo": "a/one"}, {"repo": "a/three"}]}))
    assert "data.2.repo a/three, published a/two" in found.why


def test_only_rows_with_the_published_memory_count(tmp_path):
    studies = stream_study("memory = 50\n")
    records = stream_records(params={"memory": 50}) + stream_records(LOW, params={"memory": 10}, time="2025")
    assert lab.judge_one(tmp_path, records, CONTINUAL, studies=studies).verdict == "confirmed"
    assert lab.judge_one(tmp_path, stream_records(LOW, params={"memory": 10}), CONTINUAL, studies=studies).verdict == (
        "not-run"
    )
    other = stream_records(params={"memory": 10}, described={"memories": [10]})
    found = lab.judge_one(tmp_path, other, CONTINUAL, studies=studies)
    assert (found.verdict, found.why) == ("protocol-mismatch", "split-digits-5: memories [10], published 50")


# -------------------------------------------------------------------------------------- which records count


def test_the_newest_version_counts(tmp_path):
    for old in ({"method_version": "0+old"}, {"task_digest": "f" * 12, "task_version": 2}, {"params": {"rate": 0.1}}):
        records = lab.runs(LOW, time="2023", **old) + lab.runs(GOOD, time="2024")
        assert lab.judge_one(tmp_path, records).verdict == "confirmed"
        assert lab.judge_one(tmp_path, lab.runs(LOW, time="2025", **old) + records).verdict == "worse"


def test_settings_of_a_call_do_not_displace_the_tasks(tmp_path):
    records = lab.runs(GOOD) + lab.runs(LOW, time="2025", params={"rate": 0.1}, settings="user")
    assert lab.judge_one(tmp_path, records).name == "confirmed"


def test_validation_results_do_not_count(tmp_path):
    assert lab.judge_one(tmp_path, lab.runs(GOOD, split="validation")).verdict == "not-run"


def test_a_record_counts_once(tmp_path):
    found = lab.judge_one(tmp_path, lab.runs(GOOD) + lab.runs(GOOD))
    assert found.finding.ours.n == 5


def test_devices_are_not_mixed(tmp_path):
    records = lab.runs(GOOD[:3]) + [lab.record(seed=9 + n, device="cuda") for n in range(3)]
    found = lab.judge_one(tmp_path, records)
    assert (found.verdict, found.finding.ours.n) == ("underpowered", 3)


def test_failed_seeds_are_said(tmp_path):
    records = [*lab.runs(GOOD), lab.record(seed=7, failed=True)]
    found = lab.judge_one(tmp_path, records)
    assert (found.verdict, found.finding.ours.n) == ("confirmed", 5)
    assert "failed seeds of fip-paper: 1" in found.why
    found = lab.judge_one(tmp_path, [lab.record(seed=seed, failed=True) for seed in range(5)])
    assert found.verdict == "not-run"
    assert "RuntimeError: loss is nan" in found.why


def test_an_order_needs_both_methods_in_one_place(tmp_path):
    records = lab.runs(HIGH) + lab.runs(GOOD, "lth", device="cuda")
    assert lab.judge_one(tmp_path, records, ORDER).verdict == "not-run"


# ---------------------------------------------------------------------------------------------- numbers


def test_several_metrics_are_joined(tmp_path):
    records = [lab.record(seed=seed, accuracy=0.90, metrics={"accuracy@0.8": 0.96}) for seed in range(5)]
    for how, mean in (("least", 90.0), ("most", 96.0), ("mean", 93.0)):
        text = lab.row(ours=f'{{ {how} = ["accuracy@0.8", "accuracy@0.9"] }}')
        assert lab.judge_one(tmp_path, records, text).finding.ours.mean == pytest.approx(mean)


def test_what_a_record_holds_is_read_by_name():
    curves = {
        "layer/b": {"sparsity": [0.8, 0.99], "value": [0.7, 0.95]},
        "layer/a": {"sparsity": [0.8, 0.99], "value": [0.1, 0.2]},
    }
    record = lab.record(curves=curves)
    assert reading(record, "accuracy@0.9") == 0.9
    assert reading(record, "layer/b@0.99") == 0.95
    assert (reading(record, "layer/#1@0.8"), reading(record, "layer/#2@0.8")) == (0.7, 0.1)
    assert reading(record, "cost/wall_s") == 0.0
    for missing in ("accuracy@0.5", "layer/b@0.9", "layer/#3@0.8", "layer/#0@0.8", "layer/c@0.8", "area"):
        assert reading(record, missing) is None


def test_other_readings_are_shown_and_do_not_decide(tmp_path):
    records = lab.runs(GOOD, metrics={"accuracy@0.8": 0.99}) + lab.runs(LOW, "fip")
    found = lab.judge_one(tmp_path, records, lab.row(also='["accuracy@0.8"]'))
    assert found.verdict == "confirmed"
    assert [(r.label, r.metric, r.finding.verdict) for r in found.readings] == [
        ("fip", "accuracy@0.9", "worse"),
        ("fip-paper", "accuracy@0.8", "better"),
    ]


def test_a_trend_along_methods(tmp_path):
    text = lab.row(
        kind='"trend"', method=None, value=None, better=None, relation='"falling"', along='["FIP", "LTH", "random"]'
    )
    records = lab.runs(HIGH) + lab.runs(GOOD, "lth") + lab.runs(LOW, "random")
    found = lab.judge_one(tmp_path, records, text)
    assert found.verdict == "confirmed"
    assert found.finding.ours.mean == pytest.approx(5.0)
    assert lab.judge_one(tmp_path, records, text.replace("falling", "rising")).verdict == "refuted"
    assert lab.judge_one(tmp_path, records[:10], text).verdict == "not-run"


# --------------------------------------------------------------------------------------------- commands


def test_the_command_that_settles(tmp_path):
    assert lab.judge_one(tmp_path, []).command == "fipbench run digits-sparsity --methods fip-paper --seeds 5"
    assert (
        lab.judge_one(tmp_path, [], ORDER).command == "fipbench run digits-sparsity --methods fip-paper,lth --seeds 5"
    )
    assert lab.judge_one(tmp_path, [], UNTESTABLE).command == ""


def test_what_is_planned_is_said(tmp_path):
    planned = '[methods]\nsvite = "sparse training"\n[tasks.digits-paper]\ntitle = "Later"\ntrack = "sparsity"\n'
    studies = lab.STUDIES.replace('tasks = ["digits-sparsity", ', 'tasks = ["digits-paper", ')
    found = lab.judge_one(tmp_path, [], studies=studies, planned=planned)
    assert (found.verdict, found.why) == ("not-run", "no task yet: digits-paper is planned")
    assert found.command == "no task yet: digits-paper"  # the other task has other data: no smaller scale of it
    alike = studies.replace('data.repo = "a/digits"', 'data.repo = "ylecun/mnist"')
    found = lab.judge_one(tmp_path, [], studies=alike, planned=planned)
    small = "fipbench run lenet300-mnist-sparsity --methods fip-paper --seeds 5"
    assert found.command == f"no task yet: digits-paper; at a smaller scale: {small}"
    lacking = studies.replace('["fip-paper", "fip"]', '["svite"]')
    assert lab.judge_one(tmp_path, [], studies=lacking, planned=planned).command == (
        "no task yet: digits-paper; no method yet: svite"
    )
    built = lab.STUDIES.replace('["fip-paper", "fip"]', '["svite"]')
    found = lab.judge_one(tmp_path, [], studies=built, planned=planned)
    assert found.command == "no method yet: svite (sparse training)"


def test_the_order_of_the_records_changes_nothing(tmp_path):
    records = lab.runs(GOOD) + lab.runs(LOW, "lth") + lab.runs(HIGH, time="2023", method_version="0+old")
    ledger = lab.ledger(tmp_path, lab.VALUE)
    assert claims.judge(ledger, records) == claims.judge(ledger, records[::-1])
