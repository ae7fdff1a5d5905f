"""Intervals, paired differences and Holm against scipy.stats, numbers worked by hand, and simulation."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import warnings

import pytest
import scipy.stats

from fipbench.statistics import holm, interval, mean, paired_difference


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_interval_by_hand():
    """1, 2, 3: mean 2, sd 1, and t(0.975, 2) = 4.302653 from the tables: 4.302653 / √3 = 2.484138."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2.0, 1.0, 3)
    assert found.half == pytest.approx(2.484138, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 10, 50])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_interval_is_scipys(n, level):
    draw = random.Random(n)
    values = [draw.gauss(0.9, 0.01) for _ in range(n)]
    found = interval(values, level)
    low, high = scipy.stats.t.interval(level, n - 1, loc=found.mean, scale=scipy.stats.sem(values, ddof=1))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-12)


def test_interval_covers_the_mean_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(4000):
        found = interval([draw.gauss(3.0, 2.0) for _ in range(5)])
        covered += abs(found.mean - 3.0) <= found.half
    assert 0.94 <= covered / 4000 <= 0.96


def test_one_value_has_no_interval():
    found = interval([0.9])
    assert (found.mean, found.half, found.sd, found.n) == (0.9, None, None, 1)


def test_equal_values_have_an_interval_of_no_width():
    found = interval([0.1] * 3)
    assert (found.mean, found.half, found.sd) == (0.1, 0.0, 0.0)


def test_interval_of_values_whose_squares_are_beyond_all_floats():
    """1 and 3 times 1e200: mean 2, sd √2. A perplexity may be as large, and costs no other number its interval."""
    found = interval([1e200, 3e200])
    assert (found.mean, found.sd) == pytest.approx((2e200, math.sqrt(2) * 1e200), rel=1e-15)
    assert found.half == pytest.approx(scipy.stats.t.ppf(0.975, 1) * 1e200, rel=1e-12)
    largest = sys.float_info.max
    assert interval([largest] * 3).mean == largest
    assert interval([largest, -largest, largest / 2, largest / 2]).mean == pytest.approx(largest / 4)
    assert mean([1.0, 2.0]) == 1.5 and mean([largest, largest]) == largest


def test_interval_does_not_depend_on_the_order():
    values = [0.1, 0.2, 0.3, 1e-17, 0.7, 1 / 3]
    assert len({repr(interval(random.Random(k).sample(values, 6))) for k in range(20)}) == 1


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, math.inf]])
def test_interval_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="finite"):
        interval(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_interval_refuses_a_level_that_is_no_probability(level):
    with pytest.raises(ValueError, match="level"):
        interval([1.0, 2.0], level)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_paired_difference_is_scipys(n):
    draw = random.Random(n)
    a = {seed: draw.gauss(0.9, 0.01) for seed in range(n)}
    b = {seed: draw.gauss(0.895, 0.01) for seed in range(n)}
    found = paired_difference(a, b)
    expected = scipy.stats.ttest_rel(list(a.values()), list(b.values()))
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-9)


def test_paired_difference_pairs_by_seed_and_uses_common_seeds_only():
    """Common seeds 1, 2, 3 with differences 1, 2, 3; t = 2 √3, and p = 1 - t/√(2 + t²) for two degrees."""
    found = paired_difference({3: 13.0, 1: 11.0, 2: 12.0, 9: 99.0}, {1: 10.0, 2: 10.0, 3: 10.0, 4: 0.0})
    assert (found.mean, found.n) == (2.0, 3)
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_paired_difference_changes_sign_with_its_arguments():
    a, b = {0: 1.0, 1: 2.5}, {0: 0.5, 1: 0.2}
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.half, there.p) == (-back.mean, back.half, back.p)


def test_differences_without_spread():
    same = paired_difference({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7})
    assert (same.mean, same.half, same.p) == (0.0, 0.0, 1.0)
    shifted = paired_difference({0: 1.5, 1: 1.75}, {0: 1.0, 1: 1.25})
    assert (shifted.mean, shifted.half, shifted.p) == (0.5, 0.0, 0.0)


def test_too_few_common_seeds_make_no_test():
    one = paired_difference({0: 1.0, 1: 2.0}, {1: 1.5})
    assert (one.mean, one.half, one.n, one.p) == (0.5, None, 1, None)
    none = paired_difference({0: 1.0}, {1: 1.0})
    assert (none.mean, none.half, none.n, none.p) == (None, None, 0, None)


def test_holm_by_hand():
    """0.01 · 4, 0.02 · 3, then 0.03 · 2 and 0.04 · 1 lifted to those before them."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.001, 0.04]) == pytest.approx([0.002, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_passes_over_tests_that_were_not_made():
    assert holm([None, 0.01, None, 0.04]) == [None, pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([None]) == [None]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, p])


def test_holm_keeps_the_chance_of_any_false_rejection():
    """Five true nulls with uniform p values: some rejection in about 1 - 0.99^5 = 4.9 % of all tables."""
    draw = random.Random(1)
    wrong = sum(min(holm([draw.random() for _ in range(5)])) < 0.05 for _ in range(4000))
    assert 0.039 <= wrong / 4000 <= 0.059


def test_import_is_light():
    code = "import sys, fipbench.statistics; sys.exit(any(m in sys.modules for m in ('numpy', 'scipy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
