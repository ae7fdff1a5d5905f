"""Many boards at a glance: numbers worked by hand."""

from __future__ import annotations

from synthetic import continual_runs, record

from fipbench.reports import boards, overview
from fipbench.reports.calibration import calibrations

OF_FIP = [0.90, 0.92, 0.94]


def rows(method, areas):
    return [record(method, seed, area) for seed, area in enumerate(areas)]


def test_fip_is_held_against_the_best_that_is_not_of_its_family():
    # fip - lth is -5, -4, -3 points: mean -4, standard deviation 1, so +- 4.303 / sqrt(3) and t(2) = -6.93, p = 0.0202.
    # Holm's factor is 2, since fip-paper is compared, too (p = 0.0262).
    records = rows("fip", OF_FIP) + rows("lth", [0.95, 0.96, 0.97]) + rows("fip-paper", [0.99, 0.99, 0.99])
    [line] = overview.standings(boards(records))
    assert line == (
        "digits-sparsity", "–", "fip-paper", "99.00 ± 0.00", "92.00 ± 4.97", "−4.00 ± 2.48 (lth)", "0.04", "3",
    )  # fmt: skip


def test_without_fip_or_a_rival_there_is_no_difference():
    [line] = overview.standings(boards(rows("lth", [0.95, 0.96])))
    assert line[2] == "lth" and line[4:7] == ("–", "–", "–")
    [line] = overview.standings(boards(rows("fip", OF_FIP)))
    assert line[2] == "fip" and line[4:7] == ("92.00 ± 4.97", "–", "–")


def test_a_tie_names_all_who_lead():
    [line] = overview.standings(boards(rows("fip", [0.9, 0.9]) + rows("lth", [0.9, 0.9])))
    assert line[2] == "fip, lth" and line[5] == "0.00 ± 0.00 (lth)"


def test_a_line_a_section_and_none_where_all_failed():
    found = (
        continual_runs("naive", [0.2, 0.3])
        + continual_runs("fip", [0.8, 0.9], 4)
        + continual_runs("der", [0.7, 0.7], 10)
    )
    lines = overview.standings(boards(found + rows("fip", OF_FIP)))
    assert [(line[0], line[1], line[2]) for line in lines] == [
        ("digits-sparsity", "–", "fip"),
        ("split-digits-5", "0", "naive"),
        ("split-digits-5", "4", "fip"),
        ("split-digits-5", "10", "der"),
    ]
    failed = [record("fip", seed, error=("RuntimeError", "no")) for seed in (0, 1)]
    assert overview.standings(boards(failed)) == []


def test_the_tally_counts_what_can_be_told_apart():
    # -5, -4, -3 points to lth: p = 0.0202 (above). +14, +13, +13 to der: p < 0.01, twice that by Holm.
    below = rows("fip", OF_FIP) + rows("lth", [0.95, 0.96, 0.97])
    above = continual_runs("fip", [0.94, 0.93, 0.93], 4) + continual_runs("der", [0.8, 0.8, 0.8], 4)
    alike = continual_runs("fip", [0.8, 0.9, 0.8], 10) + continual_runs("der", [0.8, 0.9, 0.8], 10)
    assert overview.tally(boards(below + above + alike)) == (
        "In 3 comparisons with the best method that is no variant of it, fip is above it in 1 and below it in 1; in 1 "
        "no difference is found (p < 0.05, Holm within a board). In 3 the settings of one or both are not from the "
        "common search."
    )


def test_without_a_rival_there_is_no_tally():
    assert overview.tally(boards(rows("lth", [0.95, 0.96]))) == ""
    assert overview.tally(boards(rows("fip", OF_FIP) + rows("fip-paper", OF_FIP))) == ""
    assert overview.tally(boards(rows("fip", [0.9]) + rows("lth", [0.5]))) == ""  # one seed: no test


def test_variants_of_fip_that_have_a_higher_mean_are_named():
    higher, lower = [0.99, 0.99, 0.98], [0.5, 0.6, 0.7]
    digits = rows("fip", OF_FIP) + rows("fip-paper", higher) + rows("fip-kl", lower) + rows("lth", higher)
    stream = [
        run
        for memory in (4, 10)
        for method, scores in (("fip", OF_FIP), ("fip-paper", higher), ("fip-kl", higher if memory == 4 else lower))
        for run in continual_runs(method, scores, memory)
    ]
    assert overview.relatives(boards(digits + stream)) == (
        "Rows of fip's own family with a higher mean, told apart or not: `fip-kl` on split-digits-5; `fip-paper` on "
        "digits-sparsity and split-digits-5."
    )
    assert overview.relatives(boards(rows("fip", higher) + rows("fip-paper", OF_FIP))) == ""
    assert overview.relatives(boards(rows("fip-paper", OF_FIP))) == ""


def test_tasks_without_a_search_are_named():
    tuned = [record("fip", seed, settings="tuned") for seed in range(2)]
    plain = continual_runs("naive", [0.1, 0.2])
    assert overview.unsearched(boards(tuned + rows("lth", OF_FIP))) == ""
    assert overview.unsearched(boards(tuned + plain)) == "No search for settings was made for split-digits-5."
    both = boards(rows("lth", OF_FIP) + plain)
    assert overview.unsearched(both) == "No search for settings was made for digits-sparsity and split-digits-5."


def test_a_published_number_is_reached_or_missed():
    numbers = {
        label: {"metric": "average_accuracy/class", "value": 0.93, "margin": 0.02, "source": f"Paper of {label}"}
        for label in ("si", "ewc")
    }
    changes = {"name": "calibration-one", "suites": ["calibration"], "published": numbers}
    records = [
        one
        for label, value in (("si", 0.905), ("ewc", 0.915))
        for one in continual_runs(label, [value, value], task="calibration-one", protocol_changes=changes)
    ]
    assert overview.calibrated(calibrations(records)) == [
        ("ewc", "calibration-one", "93.00", "91.50 ± 0.00", "−2", "reached", "Paper of ewc"),
        ("si", "calibration-one", "93.00", "90.50 ± 0.00", "−2", "missed", "Paper of si"),
    ]


def calibrations_of(naive, ewc, si):
    """Of three methods, each published at 93 with a margin of 2."""
    numbers = {
        label: {"metric": "average_accuracy/class", "value": 0.93, "margin": 0.02, "source": "Somebody (2020)"}
        for label in ("naive", "ewc", "si")
    }
    changes = {"name": "calibration-one", "suites": ["calibration"], "published": numbers}
    records = [
        one
        for label, value in (("naive", naive), ("ewc", ewc), ("si", si))
        for one in continual_runs(label, [value, value], task="calibration-one", protocol_changes=changes)
    ]
    return calibrations(records)


def verdicts(*reached):
    return {line[0]: line[5] for line in overview.calibrated(calibrations_of(*reached))}


def test_what_plain_fine_tuning_reaches_too_tells_nothing():
    assert verdicts(0.912, 0.92, 0.90) == {"naive": "reached", "ewc": "reached (naive, too)", "si": "missed"}
    assert verdicts(0.908, 0.92, 0.90) == {"naive": "missed", "ewc": "reached", "si": "missed"}


def test_the_legend_explains_what_stands_in_the_table():
    marked, plain = (overview.calibration_legend(calibrations_of(naive, 0.92, 0.90)) for naive in (0.912, 0.908))
    assert plain.startswith("reached: our mean over 2 seeds is no further below") and "naive, too" not in plain
    assert marked.startswith(plain) and "naive, too: plain fine-tuning" in marked
