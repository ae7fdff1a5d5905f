"""Ranks with ties and the Pareto front by hand, by brute force and by their definitions; Holm as in statsmodels."""

from __future__ import annotations

import random

import pytest
from statsmodels.stats.multitest import multipletests

from fipbench.statistics import holm, paired_difference, pareto_front, ranking


def by_seed(*values):
    return dict(enumerate(values))


def ranges(*methods):
    (found,) = ranking([methods]).ranks
    return [(rank.first, rank.last) for rank in found]


CLEAR = (by_seed(0.50, 0.51, 0.52), by_seed(0.902, 0.91, 0.921), by_seed(0.70, 0.712, 0.72))


def test_methods_that_are_told_apart_have_a_rank_each():
    assert ranges(*CLEAR) == [(3, 3), (1, 1), (2, 2)]


def test_methods_that_cannot_be_told_apart_share_a_rank():
    noisy = by_seed(0.90, 0.93, 0.90)
    assert ranges(noisy, by_seed(0.92, 0.90, 0.93), CLEAR[0]) == [(1, 2), (1, 2), (3, 3)]


def test_equal_results_share_a_rank():
    assert ranges(by_seed(0.9, 0.8), by_seed(0.9, 0.8)) == [(1, 2), (1, 2)]


def test_being_level_is_not_handed_on():
    """A − B and B − C are 1 ± 2.0 (p = 0.26), A − C is 2 ± 0.1: A beats C, B is level with either."""
    a, c = by_seed(2.05, 1.95, 2.0, 2.0, 2.0), by_seed(0, 0, 0, 0, 0)
    b = by_seed(3.0, -0.7, 2.2, 0.5, 0.0)
    assert ranges(a, b, c) == [(1, 2), (1, 3), (2, 3)]


def test_nothing_is_told_apart_by_one_seed_or_by_unlike_ones():
    assert ranges(by_seed(0.9), by_seed(0.1)) == [(1, 2), (1, 2)]
    assert ranges({0: 0.9, 1: 0.91}, {5: 0.1, 6: 0.11}) == [(1, 2), (1, 2)]
    assert ranking([[by_seed(0.9), by_seed(0.1)], []]).tests == 0


def test_tests_are_corrected_over_all_tables():
    """Differences of 3.4, 5.0 and 6.6 have p = 0.033: enough alone, not beside two others."""
    narrow = [by_seed(0.934, 0.950, 0.966), by_seed(0.90, 0.90, 0.90)]
    assert paired_difference(*narrow).p == pytest.approx(0.033, abs=0.001)
    alone = ranking([narrow])
    assert (alone.tests, alone.ranks[0][1].first) == (1, 2)
    beside = ranking([narrow, [by_seed(0.1, 0.3, 0.2), by_seed(0.2, 0.3, 0.1)]])
    assert (beside.tests, beside.ranks[0][1].first) == (2, 1)
    assert len(beside.ranks) == 2


def test_ranks_follow_the_level():
    narrow = [by_seed(0.934, 0.950, 0.966), by_seed(0.90, 0.90, 0.90)]
    assert [ranking([narrow], level).ranks[0][1].first for level in (0.95, 0.97)] == [2, 1]


def test_ranks_count_those_found_better_and_worse():
    draw = random.Random(2)
    for trial in range(20):
        methods = [by_seed(*(draw.gauss(m, 1.0) for _ in range(6))) for m in (0, 1, 2, 4, 8)]
        tests = [(i, j, paired_difference(methods[i], methods[j])) for i in range(5) for j in range(i)]
        adjusted = multipletests([test.p for *_, test in tests], method="holm")[1]
        told = [test for test, p in zip(tests, adjusted, strict=True) if p < 0.05]
        sure = [(i, j) if test.mean > 0 else (j, i) for i, j, test in told]
        expected = [
            (1 + sum(loser == i for _, loser in sure), 5 - sum(winner == i for winner, _ in sure)) for i in range(5)
        ]
        assert ranges(*methods) == expected, trial


@pytest.mark.parametrize("seed", range(10))
def test_holm_is_statsmodels(seed):
    draw = random.Random(seed)
    pvalues = [draw.random() ** 3 for _ in range(12)]
    assert holm(pvalues) == pytest.approx(list(multipletests(pvalues, method="holm")[1]))


# ------------------------------------------------------------------------------------------ Pareto front


def test_front_by_hand():
    """(3, 1) and (5, 2) are on it; (4, 2) and (5, 3) cost more or score less than (5, 2), (1, 1) than (3, 1)."""
    assert pareto_front([(3, 1), (4, 2), (5, 2), (5, 3), (1, 1)]) == [True, False, True, False, False]
    assert pareto_front([(3, 1), (3, 1)]) == [True, True]
    assert pareto_front([]) == []


def test_costs_within_the_tolerance_are_equal():
    points = [(5.0, 100.9), (4.0, 100.0), (3.0, 98.0)]
    assert pareto_front(points) == [True, True, True]
    assert pareto_front(points, tolerance=0.01) == [True, False, True]


def test_front_by_brute_force():
    draw = random.Random(0)
    for _ in range(50):
        points = [(draw.randint(0, 6), draw.randint(0, 6)) for _ in range(8)]
        expected = [
            not any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in points) for score, cost in points
        ]
        assert pareto_front(points) == expected
        assert any(expected)


def test_the_best_is_never_off_the_front_whatever_the_tolerance():
    draw = random.Random(1)
    for _ in range(50):
        points = [(draw.random(), 100 + draw.random()) for _ in range(8)]
        front = pareto_front(points, tolerance=0.5)
        assert [n for n, on in enumerate(front) if on] == [max(range(8), key=lambda n: points[n][0])]
