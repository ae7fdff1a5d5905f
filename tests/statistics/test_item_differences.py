"""Items in seeds: against an analysis of variance by statsmodels, the paired t test, scipy's bootstrap, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.formula.api import ols
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar

from fipbench.statistics import bootstrap_items, item_difference, mcnemar, paired_difference


def split(*strata):
    """Arrays of shape (seeds, items) of differences as the items of two methods."""
    seeds = range(len(strata[0]))
    ours = {s: [np.asarray(stratum[s], float) for stratum in strata] for s in seeds}
    return ours, {s: [np.zeros(len(stratum[s])) for stratum in strata] for s in seeds}


def drawn(seeds, items, of_seed=1.0, of_item=1.0, rest=1.0, seed=0):
    draw = np.random.default_rng(seed)
    block = draw.normal(0, of_seed, (seeds, 1)) + draw.normal(0, of_item, items) + draw.normal(0, rest, (seeds, items))
    return block + 0.3


def mean_squares(block):
    """(mean square, degrees) of seeds, items and the rest, by statsmodels."""
    seeds, items = block.shape
    frame = pd.DataFrame({"y": block.ravel(), "s": np.repeat(range(seeds), items), "i": np.tile(range(items), seeds)})
    table = sm.stats.anova_lm(ols("y ~ C(s) + C(i)", frame).fit(), typ=1)
    return [(row["sum_sq"] / row["df"], row["df"]) for _, row in table.iterrows()]


def test_by_hand():
    """1 2 / 2 7: mean squares 9 of seeds, 9 of items, 4 of the rest; variance (9 + 9 − 4) / 4 = 3.5, and
    14² / (9² + 9² + 4²) = 196 / 178 degrees."""
    found = item_difference(*split([[1, 2], [2, 7]]))
    assert (found.mean, found.n, found.items) == (3.0, 2, 2)
    assert found.freedom == pytest.approx(196 / 178)
    assert found.half == pytest.approx(scipy.stats.t.ppf(0.975, 196 / 178) * math.sqrt(3.5))
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(3 / math.sqrt(3.5), 196 / 178))


def test_it_is_never_surer_than_the_seeds_alone():
    """1 2 / 3 6: mean squares 9, 4 and 1; 12² / 98 = 1.47 degrees for a variance of 3 would be narrower than one for
    9 / 4: t(0.975, 1) = 12.706."""
    found = item_difference(*split([[1, 2], [3, 6]]))
    assert found.freedom == pytest.approx(144 / 98)
    assert found.half == pytest.approx(12.7062 * 1.5, rel=1e-5)
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(3 / 1.5, 1))


@pytest.mark.parametrize(("seeds", "items"), [(4, 8), (7, 12)])
def test_the_interval_is_that_of_the_mean_squares(seeds, items):
    block = drawn(seeds, items, of_seed=0.3)
    (of_seeds, f), (of_items, g), (rest, h) = mean_squares(block)
    assert of_items > rest
    total = of_seeds + of_items - rest
    freedom = total**2 / (of_seeds**2 / f + of_items**2 / g + rest**2 / h)
    found = item_difference(*split(block), level=0.9)
    assert found.mean == pytest.approx(block.mean())
    assert found.freedom == pytest.approx(freedom)
    assert found.half == pytest.approx(scipy.stats.t.ppf(0.95, freedom) * math.sqrt(total / (seeds * items)))


def test_strata_count_alike_whatever_their_size():
    """Their items' parts add up over the square of their number; seeds are of the mean over the strata."""
    small, large = drawn(8, 5, 0.1, 2.0, seed=1), drawn(8, 30, 0.1, 2.0, seed=2)
    scores = (small.mean(1) + large.mean(1)) / 2
    variance = scores.var(ddof=1) / 8
    uncertain = variance**2 / 7
    for block in (small, large):
        _, (of_items, g), (rest, h) = mean_squares(block)
        variance += (of_items - rest) / block.size / 4
        uncertain += (of_items**2 / g + rest**2 / h) / block.size**2 / 16
    found = item_difference(*split(small, large))
    assert found.mean == pytest.approx(scores.mean()) and found.items == 35
    assert found.freedom == pytest.approx(variance**2 / uncertain)
    assert found.half == pytest.approx(scipy.stats.t.ppf(0.975, found.freedom) * math.sqrt(variance))


def test_without_item_effects_it_is_the_paired_t_test():
    block = np.array([[1.0, 2.0, 3.0], [2.0, 1.5, 1.0], [0.0, 0.5, 1.0], [3.0, 2.0, 1.0]])
    block -= block.mean(0)  # no item is harder than another
    block += np.array([[0.5], [0.1], [0.9], [0.6]])
    over_seeds = paired_difference(dict(enumerate(block.mean(1).tolist())), dict.fromkeys(range(4), 0.0))
    found = item_difference(*split(block))
    assert (found.mean, found.half, found.p) == pytest.approx((over_seeds.mean, over_seeds.half, over_seeds.p))
    assert found.freedom == pytest.approx(3)


def test_the_test_set_is_not_counted_once_a_seed():
    """Networks that are alike in all seeds: the interval is that of so many items, not of seeds times items."""
    row = np.random.default_rng(0).normal(0.2, 1, 40)
    once = scipy.stats.ttest_1samp(row, 0)
    found = item_difference(*split(np.tile(row, (10, 1))))
    assert found.p == pytest.approx(once.pvalue)
    assert found.half == pytest.approx(once.confidence_interval().high - row.mean())


def test_order_of_items_and_seeds_does_not_matter_and_sides_change_the_sign():
    block = drawn(4, 9)
    found, turned = item_difference(*split(block)), item_difference(*split(block[::-1, ::-1]))
    assert (turned.mean, turned.half, turned.p) == pytest.approx((found.mean, found.half, found.p))
    back = item_difference(*reversed(split(block)))
    assert (back.mean, back.half, back.p) == pytest.approx((-found.mean, found.half, found.p))


def test_common_seeds_only_and_one_is_no_test():
    a, b = split(drawn(3, 4))
    one = item_difference({7: a[1], 1: a[2]}, {1: b[0], 2: b[1]})
    assert (one.n, one.half, one.p) == (1, None, None) and one.mean == pytest.approx(a[2][0].mean())
    assert item_difference({1: a[0]}, {2: b[0]}) is None


def test_no_difference_anywhere():
    found = item_difference(*split(np.zeros((3, 4))))
    assert (found.mean, found.half, found.p) == (0.0, 0.0, 1.0)


def test_right_and_wrong_may_be_booleans():
    draw = np.random.default_rng(4)
    a, b = ({s: [draw.random(30) < chance] for s in range(3)} for chance in (0.9, 0.5))
    as_numbers = [{s: [x.astype(float) for x in strata] for s, strata in side.items()} for side in (a, b)]
    assert item_difference(a, b) == item_difference(*as_numbers)
    assert mcnemar(a, b) == mcnemar(*as_numbers)


@pytest.mark.parametrize("compare", [item_difference, mcnemar, bootstrap_items])
@pytest.mark.parametrize("other", [[np.ones(3)], [np.ones(2), np.ones(2)], [np.ones(0)]])
def test_unlike_items_are_refused(compare, other):
    with pytest.raises(ValueError, match="items differ"):
        compare({0: [np.ones(2)], 1: [np.ones(2)]}, {0: other, 1: other})


def test_items_that_differ_between_seeds_are_refused():
    a = {0: [np.ones(2)], 1: [np.ones(3)]}
    with pytest.raises(ValueError, match="between seeds"):
        item_difference(a, a)


# -------------------------------------------------------------------------------------------- bootstrap


def test_bootstrap_of_items_alone_is_scipys():
    row = np.random.default_rng(1).normal(0, 1, 60)
    theirs = scipy.stats.bootstrap((row,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    low, high = bootstrap_items(*split(np.tile(row, (5, 1))), draws=4000)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.06 * (high - low))


def test_bootstrap_of_seeds_alone_is_scipys():
    values = np.random.default_rng(2).normal(0, 1, 8)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0)
    low, high = bootstrap_items(*split(np.tile(values[:, None], (1, 3))), draws=4000, level=0.95)
    expected = theirs.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.06 * (high - low))


def test_bootstrap_is_seeded_and_follows_the_level():
    sides = split(drawn(4, 9))
    wide, again, other, narrow = (
        bootstrap_items(*sides, draws=300, seed=seed, level=level)
        for seed, level in ((0, 0.95), (0, 0.95), (1, 0.95), (0, 0.5))
    )
    assert wide == again != other
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_items({0: [np.ones(3)]}, {0: [np.ones(3)]}) is None


# ---------------------------------------------------------------------------------------------- McNemar


def test_mcnemar_is_statsmodels_seed_by_seed():
    draw = np.random.default_rng(3)
    a, b = ({s: [draw.random(40) < chance, draw.random(9) < 0.5] for s in range(4)} for chance in (0.9, 0.7))
    found = mcnemar(a, b)
    for s in range(4):
        x, y = np.concatenate(a[s]), np.concatenate(b[s])
        table = [[np.sum(x & y), np.sum(x & ~y)], [np.sum(~x & y), np.sum(~x & ~y)]]
        assert found[s] == pytest.approx(their_mcnemar(table, exact=True).pvalue)
    assert len(set(found.values())) > 1


def test_mcnemar_by_hand():
    """Five items right for one method only: 2 / 2⁵. One each: nothing. None unlike: nothing."""
    one, none = [np.array([1] * 5 + [0, 1])], [np.array([0] * 5 + [0, 1])]
    assert mcnemar({0: one}, {0: none, 1: none}) == {0: 2 / 32}
    assert mcnemar({0: [np.array([1, 0])]}, {0: [np.array([0, 1])]}) == {0: 1.0}
    assert mcnemar({0: one}, {0: one}) == {0: 1.0}


def test_mcnemar_needs_right_and_wrong():
    with pytest.raises(ValueError, match="right"):
        mcnemar({0: [np.array([0.5, 1.0])]}, {0: [np.array([0.0, 1.0])]})
