"""The rules on numbers: bands, intervals, orders and trends, against scipy, numpy and examples worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fipbench.claims import Claim, rules


def claim(**fields):
    own = {"at": "Table 1", "study": "study", "kind": "value", "metric": "accuracy", "method": "FIP", "unit": "%"}
    if fields.get("kind", "value") == "value":
        own |= {"value": 90.0, "better": "higher", "ours": "accuracy@0.9"}
    return Claim(**own | fields)


def seeds(*values):
    return dict(enumerate(values))


# Five values of mean 0 whose 90 % interval is ± 1: the t with 4 degrees is 2.131847 (tables), the SD of
# -2, -1, 0, 1, 2 is √2.5, so that ± 2.131847 √2.5 / √5 = ± 1.507443 before scaling.
UNIT = [x / 1.5074435 for x in (-2.0, -1.0, 0.0, 1.0, 2.0)]


def around(mean, half=1.0):
    """Five seeds whose mean and half-width are these."""
    return seeds(*(mean + half * x for x in UNIT))


@pytest.mark.parametrize(
    ("fields", "expected"),
    {
        "no spread: two points": ({}, (-2, 2)),
        "a small spread: one point": ({"spread": 0.17, "spread_is": "sd"}, (-1, 1)),
        "twice a large spread": ({"spread": 1.1, "spread_is": "sd"}, (-2.2, 2.2)),
        "half a point is where they meet": ({"spread": 0.5, "spread_is": "sd"}, (-1, 1)),
        "not said what it is: read as an SD": ({"spread": 3.0, "spread_is": "unstated"}, (-6, 6)),
        "a margin of its own": ({"margin": 0.25, "spread": 3.0, "spread_is": "sd"}, (-0.25, 0.25)),
        "a range": ({"value": 96.3, "to": 96.8}, (-2, 2.5)),
        "about": ({"bound": "about"}, (-2, 2)),
        "at least": ({"bound": "at-least"}, (-2, math.inf)),
        "at most": ({"bound": "at-most"}, (-math.inf, 2)),
    }.values(),
    ids=str,
)
def test_the_band(fields, expected):
    assert rules.band(claim(**fields)) == pytest.approx(expected)


def test_a_text_has_no_band():
    with pytest.raises(ValueError, match="no number"):
        rules.band(claim(value="CoCL"))


def test_the_interval_is_scipys():
    values = [88.1, 90.4, 91.9, 89.2, 90.8, 87.7]
    found = rules.value(claim(), seeds(*values))
    expected = stats.ttest_1samp(values, 90.0).confidence_interval(0.90)
    assert found.low == pytest.approx(expected.low - 90, abs=1e-9)
    assert found.high == pytest.approx(expected.high - 90, abs=1e-9)
    assert found.ours.mean == pytest.approx(np.mean(values))
    assert found.ours.half == pytest.approx((expected.high - expected.low) / 2)


def test_the_example_worked_by_hand():
    found = rules.value(claim(), around(90.5))
    assert (found.low, found.high) == (pytest.approx(-0.5, abs=1e-5), pytest.approx(1.5, abs=1e-5))


# Ours is mean ± 1; the band is ± 2 around 90. Just inside and just outside of every edge that matters.
@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (90.0, "confirmed"),
        (90.99, "confirmed"),
        (91.01, "underpowered"),
        (92.99, "underpowered"),
        (93.01, "better"),
        (89.01, "confirmed"),
        (88.99, "underpowered"),
        (87.01, "underpowered"),
        (86.99, "worse"),
    ],
)
def test_a_value_near_the_edges(mean, expected):
    assert rules.value(claim(), around(mean)).verdict == expected


@pytest.mark.parametrize(
    ("better", "above", "below"),
    [("higher", "better", "worse"), ("lower", "worse", "better"), ("neither", "refuted", "refuted")],
)
def test_the_direction_names_the_sides(better, above, below):
    assert rules.value(claim(better=better), around(95.0)).verdict == above
    assert rules.value(claim(better=better), around(85.0)).verdict == below


def test_an_interval_that_covers_the_band_decides_nothing():
    assert rules.value(claim(), around(90.0, half=2.5)).verdict == "underpowered"


def test_edges_are_inclusive():
    """Values without spread that lie on an edge: 0.07 * 100 is above 7 in binary, and is within all the same."""
    for value in (88.0, 92.0):
        assert rules.value(claim(), seeds(*[value] * 5)).verdict == "confirmed"
    assert rules.value(claim(value=5.0), seeds(*[0.07 * 100] * 5)).verdict == "confirmed"
    assert rules.value(claim(value=5.0), seeds(*[7.001] * 5)).verdict == "better"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_than_five_seeds_never_decide(n):
    for value in (90.0, 50.0):
        found = rules.value(claim(), seeds(*[value] * n))
        assert found.verdict == "underpowered"
        assert f"{n} seed" in found.why
    assert (rules.value(claim(), seeds(90.0)).low is None) and rules.value(claim(), seeds(90.0, 90.0)).low == 0


def test_bounds_are_open_on_one_side():
    least, most = claim(bound="at-least"), claim(bound="at-most", better="lower")
    assert rules.value(least, around(99.0)).verdict == "confirmed"
    assert rules.value(least, around(86.0)).verdict == "worse"
    assert rules.value(most, around(10.0)).verdict == "confirmed"
    assert rules.value(most, around(94.0)).verdict == "worse"


# ------------------------------------------------------------------------------------------------- orders


def an_order(relation="above", **fields):
    return claim(kind="order", than="LTH", relation=relation, ours="accuracy@0.9", **fields)


def test_an_order_is_paired():
    """Seeds that differ by 10 points and methods by 1: unpaired intervals overlap, the paired one does not."""
    base = [60.0, 70.0, 80.0, 90.0, 65.0]
    theirs = seeds(*base)
    mine = seeds(*(x + d for x, d in zip(base, (1.0, 1.2, 0.9, 1.1, 0.8), strict=True)))
    found = rules.order(an_order(), [(mine, theirs)])
    expected = stats.ttest_rel(list(mine.values()), base).confidence_interval(0.90)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.verdict == "confirmed"
    assert rules.order(an_order("below"), [(mine, theirs)]).verdict == "refuted"
    assert rules.order(an_order("below"), [(theirs, mine)]).verdict == "confirmed"


def test_only_seeds_in_common_count():
    mine = {seed: 91.0 + 0.1 * seed for seed in range(6)}
    theirs = {seed: 90.0 for seed in range(1, 9)} | {0: 900.0}
    del mine[0]
    assert rules.order(an_order(), [(mine, theirs)]).ours.n == 5
    del mine[1]
    found = rules.order(an_order(), [(mine, theirs)])
    assert (found.verdict, found.ours.n) == ("underpowered", 4)
    with pytest.raises(ValueError, match="no seed in common"):
        rules.order(an_order(), [({0: 1.0}, {1: 1.0})])


def difference(mean, half=1.0):
    return around(mean, half), seeds(*[0.0] * 5)


@pytest.mark.parametrize(
    ("relation", "mean", "expected"),
    [
        ("above", 1.01, "confirmed"),
        ("above", 0.99, "underpowered"),
        ("above", -0.99, "underpowered"),
        ("above", -1.01, "refuted"),
        ("below", -1.01, "confirmed"),
        ("below", 1.01, "refuted"),
        ("alike", 0.99, "confirmed"),
        ("alike", 1.01, "underpowered"),
        ("alike", 2.99, "underpowered"),
        ("alike", 3.01, "refuted"),
        ("alike", -3.01, "refuted"),
    ],
)
def test_an_order_near_the_edges(relation, mean, expected):
    assert rules.order(an_order(relation), [difference(mean)]).verdict == expected


def test_a_tie_is_no_order():
    same = seeds(*[90.0] * 5)
    assert rules.order(an_order(), [(same, same)]).verdict == "underpowered"
    assert rules.order(an_order("alike"), [(same, same)]).verdict == "confirmed"


def test_an_order_of_several_metrics_must_hold_for_each():
    good, undecided, bad = difference(5.0), difference(0.5), difference(-5.0)
    assert rules.order(an_order(), [good, good]).verdict == "confirmed"
    assert rules.order(an_order(), [good, undecided]).verdict == "underpowered"
    assert rules.order(an_order(), [good, bad]).verdict == "refuted"


def test_more_metrics_need_more_to_refute():
    """d = -1.2 ± 1 at 90 %: enough to refute one metric, at 1 - 0.1 / 6 not enough for one of six."""
    broken = difference(-1.2)
    wide = stats.ttest_1samp(list(broken[0].values()), 0).confidence_interval(1 - 0.1 / 6)
    assert wide.high > 0
    assert rules.order(an_order(), [broken]).verdict == "refuted"
    assert rules.order(an_order(), [broken] + [difference(5.0)] * 5).verdict == "underpowered"
    assert rules.order(an_order(), [difference(-2.5)] + [difference(5.0)] * 5).verdict == "refuted"


# ------------------------------------------------------------------------------------------------- trends


def a_trend(relation="falling"):
    names = ("a", "b", "c", "d", "e")
    return claim(kind="trend", relation=relation, method="", along=names, ours="accuracy@0.9")


# What the paper prints for LoRA ranks 1, 4, 8, 16, 32: it falls, though not from rank 4 to 8.
PRINTED = [61.1, 48.0, 50.6, 30.3, 23.9]


def test_the_slope_is_numpys():
    rows = [seeds(*(value + shift for shift in (0.0, 1.0, -2.0, 0.5, 3.0))) for value in PRINTED]
    rows[0] = rows[0] | {0: 66.0}
    found = rules.trend(a_trend(), rows)
    slopes = [-np.polyfit(range(5), [row[seed] for row in rows], 1)[0] for seed in range(5)]
    expected = stats.ttest_1samp(slopes, 0).confidence_interval(0.90)
    assert found.ours.mean == pytest.approx(np.mean(slopes))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_a_trend_need_not_hold_between_neighbours():
    rows = [around(value) for value in PRINTED]
    assert rules.trend(a_trend("falling"), rows).verdict == "confirmed"
    assert rules.trend(a_trend("rising"), rows).verdict == "refuted"


def test_a_flat_line_is_no_trend():
    noisy = [seeds(50.0, 51.0, 49.0, 50.5, 49.5), seeds(49.0, 50.0, 51.0, 49.5, 50.5), around(50.0)]
    assert rules.trend(a_trend(), noisy).verdict == "underpowered"
    assert rules.trend(a_trend(), [seeds(*[50.0] * 5)] * 3).verdict == "underpowered"


def test_a_trend_needs_five_seeds_that_all_places_have():
    rows = [around(value) for value in PRINTED]
    rows[2] = {seed: value for seed, value in rows[2].items() if seed}
    found = rules.trend(a_trend(), rows)
    assert (found.verdict, found.ours.n) == ("underpowered", 4)
    with pytest.raises(ValueError, match="three places"):
        rules.trend(a_trend(), rows[:2])
