"""The one sentence: true in every case that a board can be in."""

from __future__ import annotations

from itertools import permutations

import pytest
from synthetic import record

from fipbench.reports import boards, sentence, text
from fipbench.reports.text import count, difference, p_value, per_cent, plus_minus
from fipbench.statistics import Interval, interval


def said(**methods):
    """The sentence of a board with these methods (underscores for hyphens) and values by seed."""
    records = [
        record(name.replace("_", "-"), seed, value)
        for name, values in methods.items()
        for seed, value in enumerate(values)
    ]
    (board,) = boards(records)
    return sentence(board)


def test_another_method_leads():
    """Differences 0.020, 0.021, 0.022: mean 2.1, sd 0.1, half 4.3027 · 0.1 / √3 = 0.25 points, t = 36.4."""
    text = said(fip=[0.90, 0.90, 0.90], gradual=[0.920, 0.921, 0.922], random=[0.3, 0.4, 0.5])
    assert text == (
        "digits-sparsity: gradual leads (92.10 ± 0.25 %); "
        "fip is 2.10 ± 0.25 points below it (3 paired seeds, p = 0.0015, Holm)."
    )


def test_fip_leads_and_the_best_other_method_is_named():
    text = said(fip=[0.920, 0.921, 0.922], gradual=[0.90, 0.90, 0.90], random=[0.3, 0.4, 0.5])
    assert text == (
        "digits-sparsity: fip leads (92.10 ± 0.25 %); "
        "it is 2.10 ± 0.25 points above gradual, the best other method (3 paired seeds, p = 0.0015, Holm)."
    )


def test_the_p_in_it_is_the_adjusted_one():
    alone = said(fip=[0.90, 0.90, 0.90], gradual=[0.920, 0.921, 0.922])
    among = said(fip=[0.90, 0.90, 0.90], gradual=[0.920, 0.921, 0.922], random=[0.3, 0.4, 0.5])
    assert "p < 0.001" in alone and "p = 0.0015" in among


def test_a_difference_that_may_be_none_is_not_called_one():
    text = said(fip=[0.90, 0.93, 0.90], gradual=[0.92, 0.90, 0.93])
    assert "leads" in text and "not distinguishable from zero" in text
    assert "not distinguishable" not in said(fip=[0.9, 0.9, 0.9], gradual=[0.920, 0.921, 0.922])


def test_doubt_is_about_the_adjusted_p():
    """Differences of 3.4, 5.0 and 6.6 points have p = 0.033 alone, and 0.065 among two comparisons."""
    fip, gradual = [0.90, 0.90, 0.90], [0.934, 0.950, 0.966]
    assert "not distinguishable" not in said(fip=fip, gradual=gradual)
    text = said(fip=fip, gradual=gradual, random=[0.2, 0.95, 0.5])
    assert "not distinguishable from zero: 3 paired seeds, p = 0.065, Holm" in text


def test_variants_of_fip_are_no_rivals_of_fip():
    text = said(fip_paper=[0.95], fip=[0.90], lth=[0.85])
    assert text == (
        "digits-sparsity: fip-paper leads (95.00 %); fip is 5.00 points above lth, the best other method "
        "(1 paired seed, too few for a test)."
    )
    assert said(fip=[0.9], fip_paper=[0.8]).endswith("no method but fip's own variants has a result.")


def test_without_fip():
    assert said(lth=[0.9], random=[0.1]) == "digits-sparsity: lth leads (90.00 %); fip has no result here."


def test_one_method_leads_nobody():
    assert said(lth=[0.9]) == "digits-sparsity: lth is the only method with a result (90.00 %)."


def test_ties():
    text = said(fip=[0.9, 0.8], lth=[0.8, 0.9])
    assert "fip and lth tie for the lead" in text
    assert "fip is level with lth (difference 0.00 ± " in text
    text = said(gradual=[0.9], lth=[0.9], random=[0.9])
    assert "gradual, lth and random tie" in text


def test_no_common_seed():
    (board,) = boards([record("fip", 0, 0.9), record("lth", 1, 0.95)])
    assert sentence(board).endswith("fip and lth have no seed in common.")


def test_no_result():
    (board,) = boards([record("fip", 0, error=("OSError", "no"))])
    assert sentence(board) == "digits-sparsity: no method has a result."


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.9, "90 %"), (0.29, "29 %"), (0.999, "99.9 %"), (0.994, "99.4 %")]
)
def test_per_cent_shows_the_digits_it_needs(fraction, expected):
    assert per_cent(fraction) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (9999, "9999"), (47_368, "47.4 k"), (999_999, "1.00 M"), (2_150_000, "2.15 M"), (7.25e9, "7.25 G")],
)
def test_counts(value, expected):
    assert count(value) == expected


def test_numbers():
    assert plus_minus(interval([0.9]), "area") == "90.00"
    assert plus_minus(Interval(mean=0.9213, half=0.0031, sd=0.1, n=9), "accuracy@0.9") == "92.13 ± 0.31"
    assert plus_minus(Interval(mean=0.9213, half=0.0031, sd=0.1, n=9), "weights_walked") == "0.9213 ± 0.0031"
    assert plus_minus(None, "area") == difference(None, "area") == p_value(None) == "–"
    assert (p_value(0.0), p_value(0.00099), p_value(0.001), p_value(1.0)) == ("< 0.001", "< 0.001", "0.001", "1")


def test_columns_have_one_order_whatever_the_set_gives_first():
    # Strings of a set come in another order in every process.
    names = ["accuracy@0.417", "layer/10.weight", "accuracy@0.0417", "layer/4.weight"]
    wanted = ["accuracy@0.0417", "accuracy@0.417", "layer/4.weight", "layer/10.weight"]
    assert all(sorted(turned, key=text.by_number) == wanted for turned in permutations(names))
