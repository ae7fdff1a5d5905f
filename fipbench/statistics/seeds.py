"""One value a seed: intervals, and the paired tests of two methods.

Sums are `math.fsum`, so no permutation of the values changes a digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

LEVEL = 0.95
# All 2^n signs up to this many differences (half a second); above it so many random ones.
ENUMERATED = 20
DRAWS = 100_000
# Below this many differences no two-sided sign or rank test can reach 5 %: the smallest p is 2 / 2^n.
SMALLEST_FOR_RANKS = 6


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

    `mean` is None when no seed is common; `sd` is the standard deviation of the differences (ddof 1).
    """

    mean: float | None
    half: float | None
    sd: float | None
    n: int
    p: float | None


def interval(values: Iterable[float], level: float = LEVEL) -> Interval:
    """The mean and Student's t interval of independent values: mean ± t(level, n - 1) · sd / √n.

    Raises:
        ValueError: no values, a value that is not finite, or a level outside (0, 1).
    """
    values = list(values)
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"an interval needs one or more finite values, got {values}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    n = len(values)
    middle = mean(values)
    if n < 2:
        return Interval(mean=middle, half=None, sd=None, n=n)
    if min(values) == max(values):
        return Interval(mean=values[0], half=0.0, sd=0.0, n=n)
    sd = _deviation(values, middle)
    return Interval(mean=middle, half=t_quantile(n - 1, level) * sd / math.sqrt(n), sd=sd, n=n)


def mean(values: Sequence[float]) -> float:
    """The mean of finite values, also where their sum is beyond all floats."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        unit = max(map(abs, values))
        return unit * (math.fsum(value / unit for value in values) / len(values))


def _deviation(values: Sequence[float], middle: float) -> float:
    """Their standard deviation (ddof 1), also where a square is beyond all floats: a perplexity may be."""
    try:
        return math.sqrt(math.fsum([(value - middle) ** 2 for value in values]) / (len(values) - 1))
    except OverflowError:
        unit = max(map(abs, values))
        return unit * _deviation([value / unit for value in values], middle / unit)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> Difference:
    """Mean of `a - b` over the seeds that both have, its t interval, and the p of the paired t test.

    Differences that are all zero have p = 1; differences that are all the same otherwise have p = 0.

    Raises:
        ValueError: a value of a common seed is not finite.
    """
    differences = paired(a, b)
    if not differences:
        return Difference(mean=None, half=None, sd=None, n=0, p=None)
    found = interval(differences, level)
    return Difference(mean=found.mean, half=found.half, sd=found.sd, n=found.n, p=_p_of_zero_mean(found))


def sign_flip(a: Mapping[int, float], b: Mapping[int, float], draws: int = DRAWS, seed: int = 0) -> float | None:
    """Two-sided p of the sign-flip permutation test: were the methods alike, each difference could have either sign.

    The statistic is the mean difference. Exact for up to `ENUMERATED` (20) common seeds, by all 2^n signs. Above
    that (k + 1) / (draws + 1), where k of so many random signs (numpy's PCG64 from `seed`) are as extreme (Phipson &
    Smyth, 2010). The smallest p is 2 / 2^n, so that fewer than 6 seeds never give p < 0.05. None without a common seed.

    Raises:
        ValueError: a value of a common seed is not finite.
    """
    differences = paired(a, b)
    return _flipped_p(differences, draws, seed) if differences else None


def wilcoxon(a: Mapping[int, float], b: Mapping[int, float], draws: int = DRAWS, seed: int = 0) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test (1945): `sign_flip` of the ranks of the absolute differences.

    Zero differences are dropped, ties share their mean rank, and p is exact with ties, too. None where fewer than 6
    differences remain: no outcome could be significant at 5 % then.

    Raises:
        ValueError: a value of a common seed is not finite.
    """
    differences = [value for value in paired(a, b) if value]
    if len(differences) < SMALLEST_FOR_RANKS:
        return None
    ordered = sorted(abs(value) for value in differences)
    first = {size: ordered.index(size) for size in set(ordered)}
    ranks = [first[abs(value)] + (ordered.count(abs(value)) + 1) / 2 for value in differences]
    return _flipped_p([math.copysign(r, value) for r, value in zip(ranks, differences, strict=True)], draws, seed)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    """`a - b` for each seed that both have, by seed.

    Raises:
        ValueError: a difference is not finite.
    """
    found = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    if not all(math.isfinite(value) for value in found):
        raise ValueError(f"a paired test needs finite values, got differences {found}")
    return found


def t_quantile(freedom: float, level: float) -> float:
    """The t with probability `level` between -t and t. scipy.special: scipy.stats takes 0.7 s to import."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def t_tail(t: float, freedom: float) -> float:
    """The probability of a Student t above `t`."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))


def _p_of_zero_mean(found: Interval) -> float | None:
    """Two-sided p of the one-sample t test that the mean is zero; None for one value."""
    if found.sd is None:
        return None
    if found.mean == 0:
        return 1.0
    if found.sd == 0:
        return 0.0
    return 2 * t_tail(abs(found.mean) * math.sqrt(found.n) / found.sd, found.n - 1)


def _flipped_p(values: Sequence[float], draws: int, seed: int) -> float:
    """The share of signs under which |sum| is at least as large as it is. Sums that differ by rounding are equal."""
    import numpy as np

    observed = abs(math.fsum(values)) - 1e-12 * math.fsum(map(abs, values))
    if len(values) <= ENUMERATED:
        sums = np.array([values[0]])  # the other half, with the first sign turned, is as extreme
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed))
    generator = np.random.default_rng(seed)
    signs = (generator.integers(0, 2, (1000, len(values))) * 2 - 1 for _ in range(0, draws, 1000))
    sums = np.concatenate([block @ np.asarray(values) for block in signs])[:draws]
    return float((np.count_nonzero(np.abs(sums) >= observed) + 1) / (draws + 1))
