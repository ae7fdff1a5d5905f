"""The page of questions: the pairs that it makes, their numbers by hand, and what it says where nothing can be said."""

from __future__ import annotations

import pytest
from scipy import stats
from synthetic import _job, _record, continual_protocol, continual_runs, continual_small, record

from fipbench.reports import boards, questions
from fipbench.spec import Cost


def composed(method, seed, **metrics):
    """A record of the composition track with these metrics, slashes and at signs spelled out by `__`."""
    job = _job("reviews-composition", "composition", method, seed, {"data": {"train": "a" * 64, "test": "b" * 64}})
    described = continual_protocol(
        name=job.task, track="composition", headline="average_accuracy", sparsities=[0.6, 0.9], repeat=0.9, memory=10
    )
    cost = Cost(wall_s=1.0, forward_examples=10, backward_examples=10, peak_memory_bytes=2**20, parameters_stored=5)
    return _record(job, described, None, metrics={"average_accuracy": 0.5, **metrics}, cost=cost, provenance={})


def test_fip_is_compared_with_replay_of_the_same_memory_only():
    """At 4: −5, −2, −5 points; at 10: +2, +4, −1: means −4 and 1.667, paired by seed."""
    found = questions.pairs(boards(continual_small()), [("fip", "replay")])
    assert [(pair.section.key, pair.of.label, pair.rival.label) for pair in found] == [
        (4, "fip", "replay"),
        (10, "fip", "replay"),
    ]
    assert [round(100 * pair.found.mean, 3) for pair in found] == [-4.0, 1.667]
    raw = [stats.ttest_1samp([-5, -2, -5], 0).pvalue, stats.ttest_1samp([2, 4, -1], 0).pvalue]
    assert [pair.found.p for pair in found] == pytest.approx(raw)
    assert found[0].p == pytest.approx(min(1, 2 * min(raw))) and raw[0] < raw[1]


def test_the_page_says_how_many_are_sure_and_what_each_spent():
    runs = [*continual_runs("fip", [0.5, 0.6, 0.7], 4), *continual_runs("fip-exact", [0.6, 0.701, 0.8], 4)]
    text = questions.page(boards(runs))
    said = "in 1 of 1 comparisons the difference is above zero, in 0 it is below, in 0 neither is found.\n"
    assert f"- **fip-exact less fip**: in the quick suite, a smoke test, {said}" in text
    [line] = [line for line in text.splitlines() if "fip-exact |" in line and line.startswith("| split-digits-5")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:7] == ["4", "fip-exact", "70.03 ± 24.84", "fip", "60.00 ± 24.84", "+10.03 ± 0.14"]
    less = questions.page(boards([*continual_runs("fip", [0.5, 0.6], 4), *continual_runs("fip-ball", [0.3, 0.4], 4)]))
    assert "in 0 of 1 comparisons the difference is above zero, in 1 it is below, in 0 neither is found.\n" in less


def test_rivals_and_suites_are_counted_apart():
    """A rival that loses says nothing of one that wins, nor a smoke test of real data."""
    real = {"protocol_changes": {"suites": ["standard"], "name": "split-real"}}
    runs = [
        *(run for name, base in (("fip", 0.5), ("replay", 0.3), ("der", 0.8)) for run in spread(name, base)),
        *(run for name, base in (("fip", 0.8), ("replay", 0.85)) for run in spread(name, base, **real)),
    ]
    text = questions.page(boards(runs))
    above, below = ("in 1 of 1 comparisons the difference is above zero, in 0 it is below, in 0 neither is found",) * 2
    below = below.replace("in 1 of", "in 0 of").replace("in 0 it is", "in 1 it is")
    assert f"- **fip less replay**: on real data {below}; in the quick suite, a smoke test, {above}.\n" in text
    assert f"- **fip less der**: in the quick suite, a smoke test, {below}.\n" in text


def test_a_geodesic_is_compared_with_the_straight_line():
    runs = [*spread("geodesic", 0.6), *continual_runs("linear-path", [0.5, 0.52, 0.5])]
    text = questions.page(boards(runs))
    assert "- **geodesic less linear-path**: in the quick suite, a smoke test, in 1 of 1 comparisons the" in text


def spread(name, base, **changes):
    return continual_runs(name, [base, base + 0.011, base + 0.02], 0 if name == "geodesic" else 4, **changes)


def test_ewc_is_compared_with_every_weight_alike():
    """EWC is 20 points above and L2 is no rival of anything else."""
    runs = [run for name, base in (("ewc", 0.5), ("l2", 0.3), ("si", 0.6)) for run in spread(name, base)]
    text = questions.page(boards(runs))
    assert "- **ewc less l2**: in the quick suite, a smoke test, in 1 of 1 comparisons the difference is above" in text
    assert text.count("less l2**") == 1


def test_an_excess_is_tested_against_zero():
    values = {"weights": [0.02, 0.03, 0.04], "outputs": [-0.01, 0.02, 0.005]}
    records = [
        composed(
            "fip",
            seed,
            **{f"excess/{kind}@0.9": values[kind][seed] for kind in values},
            **{f"{what}/weights@0.9": 0.3 for what in ("commutator", "noise")},
            **{"commutator/weights@0.6": 0.2},
        )
        for seed in range(3)
    ]
    weights, outputs = sorted(questions.excesses(boards(records)), key=lambda one: one.kind, reverse=True)
    assert (weights.kind, weights.place, outputs.kind) == ("weights", "0.9", "outputs")
    assert weights.found.mean == pytest.approx(0.03)
    p = stats.ttest_1samp(values["weights"], 0).pvalue
    assert weights.p == pytest.approx(2 * p) and outputs.p > 0.5
    text = questions.page(boards(records))
    said = "in 0 of 2 comparisons the excess is above zero, in 0 it is below, in 2 neither is found.\n"
    assert f"- **fip**: in the quick suite, a smoke test, {said}" in text
    assert p < 0.05 < 2 * p
    assert "0.300 ± 0.000" in text and "0.0300 ± 0.0248" in text


def test_nothing_is_said_where_there_is_nothing():
    text = questions.page(boards([record("fip", 0, 0.9)]))
    assert text.count("No board has both rows yet.") == 4 and "No board of the composition track yet." in text


def test_calibrations_are_no_evidence():
    changes = {"protocol_changes": {"suites": ["calibration"]}}
    runs = [run for name in ("fip", "replay") for run in continual_runs(name, [0.5, 0.6], 4, **changes)]
    assert questions.pairs(boards(runs), [("fip", "replay")])
    assert questions.page(boards(runs)).count("No board has both rows yet.") == 4
