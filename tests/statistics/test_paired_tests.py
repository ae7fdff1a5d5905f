"""Sign flips, Wilcoxon, equivalence and power against scipy, statsmodels, exact counts and numbers worked by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from fipbench.statistics import detectable, equivalence, interval, paired_difference, power, sign_flip, wilcoxon


def against_zero(differences):
    """Two methods whose results differ by these numbers."""
    return dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0)


def flips(differences, **more):
    return sign_flip(*against_zero(differences), **more)


def counted(sizes, observed):
    """The share of signs of these whole numbers with |sum| >= observed, by the number of ways to every sum."""
    ways = {0: 1}
    for size in sizes:
        after: dict[int, int] = {}
        for total, n in ways.items():
            for signed in (total + size, total - size):
                after[signed] = after.get(signed, 0) + n
        ways = after
    return sum(n for total, n in ways.items() if abs(total) >= observed) / 2 ** len(sizes)


def gauss(n, mean=0.0, seed=0):
    draw = random.Random(f"{n}{mean}{seed}")
    return [draw.gauss(mean, 1.0) for _ in range(n)]


# ------------------------------------------------------------------------------------------- sign flips


def test_sign_flips_by_hand():
    """1, 2, 3: only all plus and all minus reach 6. ½, ½, 1, −1: 12 of 16 reach 1."""
    assert flips([1, 2, 3]) == 2 / 8
    assert flips([0.5, 0.5, 1.0, -1.0]) == 12 / 16
    assert flips([1, -1]) == 1.0
    assert flips([2.5]) == flips([0, 0, 0]) == 1.0


@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_sign_flips_are_scipys(n):
    values = gauss(n, 0.6)
    expected = scipy.stats.permutation_test(
        (values, [0.0] * n),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        n_resamples=math.inf,
        vectorized=True,
    )
    assert flips(values) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sums_that_differ_by_rounding_are_ties():
    draw = random.Random(0)
    for _ in range(50):
        whole = [draw.randint(-4, 4) for _ in range(7)]
        exact = counted([abs(value) for value in whole], abs(sum(whole)))
        assert flips([value / 10 for value in whole]) == flips([0.9 + value / 10 - 0.9 for value in whole]) == exact


def test_all_signs_are_counted_up_to_twenty_differences():
    whole = [random.Random(3).randint(-5, 9) for _ in range(20)]
    assert flips(whole) == counted([abs(value) for value in whole], abs(sum(whole)))


def test_drawn_signs_come_near_the_count_and_are_seeded():
    draw = random.Random(5)
    whole = [draw.randint(-6, 9) for _ in range(24)]
    exact = counted([abs(value) for value in whole], abs(sum(whole)))
    found = [flips(whole, draws=20_000, seed=seed) for seed in (0, 1, 0)]
    assert found[0] == found[2] != found[1]
    assert 0.01 < exact < 0.9
    assert found[0] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_drawn_signs_never_give_zero():
    assert flips([1.0] * 60, draws=999) == 1 / 1000


def test_sign_flips_use_common_seeds():
    assert sign_flip({1: 1.0, 2: 2.0, 9: 5.0}, {2: 0.0, 1: 0.0, 3: 7.0}) == 2 / 4
    assert sign_flip({1: 1.0}, {2: 1.0}) is None


@pytest.mark.parametrize("test", [sign_flip, wilcoxon, lambda a, b: equivalence(a, b, 1.0), paired_difference])
def test_a_value_that_is_not_finite_is_refused(test):
    with pytest.raises(ValueError, match="finite"):
        test({0: math.nan, 1: 0.0}, {0: 1.0, 1: 2.0})


# --------------------------------------------------------------------------------------------- Wilcoxon


@pytest.mark.parametrize("n", [6, 9, 14])
def test_wilcoxon_is_scipys(n):
    values = gauss(n, 0.5)
    expected = scipy.stats.wilcoxon(values, method="exact").pvalue
    assert wilcoxon(*against_zero(values)) == pytest.approx(expected, abs=1e-12)


def test_wilcoxon_with_ties_and_zeros_is_scipys_over_all_signs():
    values = [1.0, 1.0, -1.0, 2.0, 3.0, 3.0, -2.0, 0.0, 4.0, 0.0]
    without = [value for value in values if value]
    expected = scipy.stats.wilcoxon(without, method=scipy.stats.PermutationMethod(n_resamples=10_000)).pvalue
    assert wilcoxon(*against_zero(values)) == pytest.approx(expected, abs=1e-12)


def test_wilcoxon_is_made_only_where_it_could_be_significant():
    assert wilcoxon(*against_zero([1, 2, 3, 4, 5])) is None
    assert wilcoxon(*against_zero([1, 2, 3, 4, 5, 0])) is None
    assert wilcoxon(*against_zero([1, 2, 3, 4, 5, 6])) == 2 / 64


# ------------------------------------------------------------------------------------------ equivalence


@pytest.mark.parametrize("mean", [-0.7, 0.1, 1.4])
@pytest.mark.parametrize("n", [2, 5, 12])
def test_equivalence_is_statsmodels(n, mean):
    a, b = gauss(n, mean, seed=1), gauss(n, seed=2)
    expected = ttost_paired(np.array(a), np.array(b), -1.0, 1.0)[0]
    found = equivalence(dict(enumerate(a)), dict(enumerate(b)), 1.0)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_equivalent_is_what_has_its_90_per_cent_interval_inside(seed):
    values = gauss(6, 0.2, seed)
    ninety = interval(values, 0.9)
    inside = abs(ninety.mean) + ninety.half < 1.0
    assert (equivalence(*against_zero(values), 1.0) < 0.05) == inside


def test_equivalence_without_spread():
    assert equivalence(*against_zero([0.5, 0.5]), 0.6) == 0.0
    assert equivalence(*against_zero([0.5, 0.5]), 0.5) == 1.0
    assert equivalence({0: 1.0}, {0: 1.0}, 0.1) is None


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_equivalence_needs_a_margin(margin):
    with pytest.raises(ValueError, match="margin"):
        equivalence({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, margin)


# ------------------------------------------------------------------------------------------------ power


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("size", [0.0, 0.4, -1.5])
def test_power_is_statsmodels(n, size):
    assert power(2 * size, 2.0, n) == pytest.approx(TTestPower().power(size, n, 0.05), abs=1e-9)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
def test_detectable_is_statsmodels(n, target):
    found = detectable(3.0, n, target, alpha=0.02)
    assert TTestPower().power(found / 3, n, 0.02) == pytest.approx(target, abs=1e-9)


@pytest.mark.parametrize(("n", "alpha", "size"), [(3, 0.01, 4.8), (2, 0.01, 40.0), (5, 0.001, 30.0)])
def test_power_far_out_by_numerical_integration(n, alpha, size):
    limit, shift = scipy.stats.t.ppf(1 - alpha / 2, n - 1), size * math.sqrt(n)

    def found_at(chi):
        tail = limit * chi / math.sqrt(n - 1)
        outside = scipy.stats.norm.sf(tail - shift) + scipy.stats.norm.cdf(-tail - shift)
        return scipy.stats.chi(n - 1).pdf(chi) * outside

    expected = scipy.integrate.quad(found_at, 0, 12, limit=200)[0]
    assert power(size, 1.0, n, alpha) == pytest.approx(expected, abs=1e-7)


def test_detectable_by_the_normal_limit():
    """With many seeds (z(0.975) + z(0.8)) / √n = 2.8016 / √n standard deviations."""
    assert detectable(1.0, 10_000) == pytest.approx(0.028016, rel=1e-3)


@pytest.mark.parametrize(("sd", "n", "alpha"), [(0.0, 5, 0.05), (math.inf, 5, 0.05), (1.0, 1, 0.05), (1.0, 5, 1.0)])
def test_power_refuses_what_makes_no_test(sd, n, alpha):
    with pytest.raises(ValueError, match="n >= 2"):
        power(1.0, sd, n, alpha)
    with pytest.raises(ValueError, match="n >= 2"):
        detectable(sd, n, alpha=alpha)


def test_detectable_refuses_a_power_below_chance():
    with pytest.raises(ValueError, match="power must lie"):
        detectable(1.0, 5, target=0.05)
