"""What a number of seeds can show: power, the smallest difference that is found, and equivalence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

from fipbench.statistics.seeds import interval, paired, t_quantile, t_tail

ALPHA = 0.05
POWER = 0.8


def power(difference: float, sd: float, n: int, alpha: float = ALPHA) -> float:
    """The chance that a two-sided paired t test over n seeds finds a true difference, by the non-central t.

    With δ = |difference| √n / sd: P(|T| > t(1 - alpha, n - 1)), T non-central with n - 1 degrees and shift δ.

    Args:
        sd: standard deviation of the paired differences.

    Raises:
        ValueError: n < 2, sd not above 0, or alpha outside (0, 1).
    """
    from scipy.special import nctdtr

    _check(sd, n, alpha)
    shift, limit = abs(difference) * math.sqrt(n) / sd, t_quantile(n - 1, 1 - alpha)
    far = float(nctdtr(n - 1, shift, -limit))  # nan in scipy where it is nothing
    return 1 - float(nctdtr(n - 1, shift, limit)) + (0.0 if math.isnan(far) else far)


def detectable(sd: float, n: int, target: float = POWER, alpha: float = ALPHA) -> float:
    """The minimum detectable difference: the true difference that has the power `target` (in the unit of `sd`).

    It is proportional to sd, as the half-width of the t interval is; their ratio depends on n alone.

    Raises:
        ValueError: as `power`; or a target not between alpha and 1.
    """
    _check(sd, n, alpha)
    if not alpha < target < 1:
        raise ValueError(f"power must lie between alpha = {alpha} and 1, got {target}")
    return sd * _detectable_of_unit_sd(n, target, alpha)


def equivalence(a: Mapping[int, float], b: Mapping[int, float], margin: float) -> float | None:
    """p of two one-sided paired t tests (TOST; Schuirmann, 1987) that `a - b` is not within ± margin.

    Below 0.05 the methods are equivalent up to the margin, which must have been chosen before looking; a p above it
    says nothing. The same: the 90 % interval of the difference lies inside. None for fewer than two common seeds.

    Raises:
        ValueError: a margin that is not above 0, or a value that is not finite.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin must be above 0, got {margin}")
    differences = paired(a, b)
    if len(differences) < 2:
        return None
    found = interval(differences)
    assert found.sd is not None
    room = margin - abs(found.mean)  # the nearer bound decides
    if found.sd == 0:
        return 0.0 if room > 0 else 1.0
    return t_tail(room * math.sqrt(found.n) / found.sd, found.n - 1)


@cache
def _detectable_of_unit_sd(n: int, target: float, alpha: float) -> float:
    low, high = 0.0, 1.0
    while power(high, 1.0, n, alpha) < target:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, 1.0, n, alpha) < target else (low, middle)
    return high


def _check(sd: float, n: int, alpha: float) -> None:
    if n < 2 or not (sd > 0 and math.isfinite(sd)) or not 0 < alpha < 1:
        raise ValueError(f"needs n >= 2, sd > 0 and 0 < alpha < 1, got n = {n}, sd = {sd}, alpha = {alpha}")
