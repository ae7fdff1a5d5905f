"""Statistics over seeds: intervals, paired differences, correction for many comparisons.

Values are plain numbers in the unit of the metric (accuracies are fractions); results are in the same unit.
Sums are `math.fsum`, so no permutation of the values changes a digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

LEVEL = 0.95


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over seeds: `mean` ± `half`, the standard deviation `sd` (ddof 1), and `n` values.

    `half` and `sd` are None for one value: there is no interval then, and none is invented.
    """

    mean: float
    half: float | None
    sd: float | None
    n: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A mean paired difference ± `half` over `n` common seeds; `p` is two-sided. No test (None) for n < 2.

    `mean` is None when no seed is common.
    """

    mean: float | None
    half: float | None
    n: int
    p: float | None


def interval(values: Iterable[float], level: float = LEVEL) -> Interval:
    """The mean and Student's t interval of independent values: mean ± t(level, n - 1) · sd / √n.

    Raises:
        ValueError: no values, a value that is not finite, or a level outside (0, 1).
    """
    values = list(values)
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval needs one or more finite values, got {values}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean=mean, half=None, sd=None, n=n)
    if min(values) == max(values):
        return Interval(mean=values[0], half=0.0, sd=0.0, n=n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean=mean, half=_t_quantile(n - 1, level) * sd / math.sqrt(n), sd=sd, n=n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> Difference:
    """Mean of `a - b` over the seeds that both have, its t interval, and the p of the paired t test.

    Differences that are all zero have p = 1; differences that are all the same otherwise have p = 0.

    Raises:
        ValueError: a value of a common seed is not finite.
    """
    common = sorted(a.keys() & b.keys())
    if not common:
        return Difference(mean=None, half=None, n=0, p=None)
    found = interval([a[seed] - b[seed] for seed in common], level)
    return Difference(mean=found.mean, half=found.half, n=found.n, p=_p_of_zero_mean(found))


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values, in the order given; None (no test was made) passes through.

    With m tests and p(1) <= ... <= p(m), the i-th is max over j <= i of min(1, (m - j + 1) p(j)): rejecting
    where it is below α keeps the chance of any false rejection below α (Holm, 1979).

    Raises:
        ValueError: a p value outside [0, 1].
    """
    made = sorted((p, index) for index, p in enumerate(pvalues) if p is not None)
    if any(not 0 <= p <= 1 for p, _ in made):
        raise ValueError(f"p values must lie between 0 and 1, got {list(pvalues)}")
    adjusted: list[float | None] = [None] * len(pvalues)
    largest = 0.0
    for rank, (p, index) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p))
        adjusted[index] = largest
    return adjusted


def _p_of_zero_mean(found: Interval) -> float | None:
    """Two-sided p of the one-sample t test that the mean is zero; None for one value."""
    if found.sd is None:
        return None
    if found.mean == 0:
        return 1.0
    if found.sd == 0:
        return 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(found.n - 1, -abs(found.mean) * math.sqrt(found.n) / found.sd))


def _t_quantile(freedom: int, level: float) -> float:
    """The t with probability `level` between -t and t. scipy.special: scipy.stats takes 0.7 s to import."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))
