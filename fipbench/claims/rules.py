"""The rules by which published numbers, orders and trends are judged: numbers in, a finding out. No records here.

All intervals are Student's t intervals over seeds at 90 %. An interval within a band at 90 % is what two one-sided
tests at 5 % show (TOST), so `confirmed` means equivalence to within the band, not the mere lack of a difference.
Comparisons at an edge are inclusive: an interval that ends on the edge of the band lies within it, and one that only
touches the band from outside does not exclude it. All values are in the unit of the claim: accuracies in %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET

from fipbench.claims.ledger import Claim
from fipbench.statistics import Interval, interval

Verdict = Literal[
    "confirmed", "better", "worse", "refuted", "underpowered", "protocol-mismatch", "not-run", "not-testable"
]
VERDICTS: tuple[Verdict, ...] = (
    "confirmed", "better", "worse", "refuted", "underpowered", "protocol-mismatch", "not-run", "not-testable",
)  # fmt: skip

LEVEL = 0.90
SEEDS = 5
# Half the width of the band, in points: without a published spread, and the least with one.
POINTS = 2.0
LEAST = 1.0
# Rounding of sums of fractions times 100, far below a digit that is shown.
_SLACK = 1e-9

Seeds = Mapping[int, float]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say of some seeds.

    Attributes:
        ours: mean and 90 % interval of what was judged: a value, a difference of two methods, or a slope.
        low, high: the 90 % interval that decides: ours less the published value, or the difference or slope with the
            published direction counted positive. None for fewer than two seeds.
        why: the rule's reason, in words.
    """

    verdict: Verdict
    ours: Interval
    low: float | None
    high: float | None
    why: str


def band(claim: Claim) -> tuple[float, float]:
    """The band around a published value, relative to it: ours − published must lie in it.

    ± max(1 point, 2 SD), or ± 2 points where no spread is given; ± `margin` where the row states one. A spread whose
    kind is not stated is read as an SD. Of a range the band goes from below its lower to above its upper end; of a
    bound it is open on the side that the bound allows. `about` changes nothing.

    Raises:
        ValueError: the claim is no number.
    """
    if not isinstance(claim.value, float):
        raise ValueError(f"{claim.id}: no number to compare with")
    half = _half(claim)
    width = 0.0 if claim.to is UNSET else claim.to - claim.value
    low = -math.inf if claim.bound == "at-most" else -half
    high = math.inf if claim.bound == "at-least" else width + half
    return low, high


def _half(claim: Claim) -> float:
    if claim.margin is not UNSET:
        return claim.margin
    return POINTS if claim.spread is UNSET else max(LEAST, 2 * claim.spread)


def value(claim: Claim, ours: Seeds) -> Finding:
    """A published value against ours.

    - confirmed: the interval of ours − published lies within the band, with 5 seeds or more;
    - better, worse: it lies wholly outside, on the side that the claim's direction calls so; refuted, where the claim
      has no direction;
    - underpowered: it overlaps an edge of the band (or covers the band), or there are fewer than 5 seeds.

    The published value is taken as a constant: what it may have been off by is in the band.

    Raises:
        ValueError: no seeds, or the claim is no number.
    """
    low, high = band(claim)
    assert isinstance(claim.value, float)
    found = interval(ours.values(), LEVEL)
    ends = _ends(interval([x - claim.value for x in ours.values()], LEVEL))
    shown = f"ours − published must lie in {_shown(low)} … {_shown(high)}"
    if ends is None or found.n < SEEDS:
        return _found("underpowered", found, ends, f"{_seeds(found.n)} of the {SEEDS} that a verdict needs")
    if ends[0] >= low - _SLACK and ends[1] <= high + _SLACK:
        return _found("confirmed", found, ends, shown)
    above, below = ends[0] > high + _SLACK, ends[1] < low - _SLACK
    if not above and not below:
        return _found("underpowered", found, ends, f"{shown}; the interval overlaps an edge")
    if claim.better == "neither":
        return _found("refuted", found, ends, shown)
    return _found("better" if above == (claim.better == "higher") else "worse", found, ends, shown)


def order(claim: Claim, pairs: Sequence[tuple[Seeds, Seeds]]) -> Finding:
    """A published order of two methods, by the differences of seeds that both have, for one metric or several.

    With d = method − than, its sign turned where the claim says `below`:

    - confirmed: the interval of d lies above 0 for every metric; `alike`: within ± the band's half-width;
    - refuted: for some metric it lies below 0; `alike`: outside the band. Of k metrics each is judged at
      1 − 0.1 / k here, so that k chances to fail do not add up (Bonferroni); that all hold needs no such correction;
    - underpowered: otherwise, with an interval that touches 0 too, and for fewer than 5 common seeds.

    Args:
        pairs: for each metric the seeds of the method and of the one it is held against.

    Raises:
        ValueError: no metric, or none with a common seed.
    """
    sign = -1.0 if claim.relation == "below" else 1.0
    each = [[sign * (a[s] - b[s]) for s in sorted(a.keys() & b.keys())] for a, b in pairs]
    if not each or not all(each):
        raise ValueError(f"{claim.id}: no seed in common")
    low, high = (-_half(claim), _half(claim)) if claim.relation == "alike" else (0.0, math.inf)
    intervals = [interval(differences, LEVEL) for differences in each]
    worst = min(range(len(each)), key=lambda k: _room(intervals[k].mean, low, high))
    found, ends = intervals[worst], _ends(intervals[worst])
    of = f" in the least of {len(each)} metrics" if len(each) > 1 else ""
    if ends is None or any(i.n < SEEDS for i in intervals):
        fewest = min(i.n for i in intervals)
        return _found("underpowered", found, ends, f"{_seeds(fewest)} in common of the {SEEDS} that a verdict needs")
    shown = f"the difference{of} must lie {'above 0' if low == 0 else f'in {_shown(low)} … {_shown(high)}'}"
    strict = claim.relation != "alike"
    if all(_within(e, low, high, strict) for i in intervals if (e := _ends(i)) is not None):
        return _found("confirmed", found, ends, shown)
    for differences in each:
        wide = _ends(interval(differences, 1 - (1 - LEVEL) / len(each)))
        if wide is not None and (wide[1] < low - _SLACK or wide[0] > high + _SLACK):
            return _found("refuted", found, ends, shown)
    return _found("underpowered", found, ends, f"{shown}; the interval does not decide")


def trend(claim: Claim, along: Sequence[Seeds]) -> Finding:
    """A published trend of a metric along methods in a stated order, by seeds that all of them have.

    For each seed the least-squares slope of the metric against the place in the order (1, 2, …), in units of the claim
    a place, its sign turned where the claim says `falling`. Confirmed: the interval of the slope lies above 0; refuted:
    below 0; underpowered: otherwise, and for fewer than 5 common seeds. A trend need not hold between all neighbours.

    Raises:
        ValueError: fewer than three places, or no seed that all have.
    """
    common = sorted(set.intersection(*(set(values) for values in along))) if along else []
    if len(along) < 3 or not common:
        raise ValueError(f"{claim.id}: needs three places and a seed in common")
    sign = -1.0 if claim.relation == "falling" else 1.0
    middle = (len(along) - 1) / 2
    scale = math.fsum((place - middle) ** 2 for place in range(len(along)))
    slopes = [
        sign * math.fsum((place - middle) * values[seed] for place, values in enumerate(along)) / scale
        for seed in common
    ]
    found = interval(slopes, LEVEL)
    ends = _ends(found)
    if ends is None or found.n < SEEDS:
        return _found("underpowered", found, ends, f"{_seeds(found.n)} in common of the {SEEDS} that a verdict needs")
    shown = f"the slope over {len(along)} places must lie above 0, {claim.relation} counted positive"
    if ends[0] > _SLACK:
        return _found("confirmed", found, ends, shown)
    if ends[1] < -_SLACK:
        return _found("refuted", found, ends, shown)
    return _found("underpowered", found, ends, f"{shown}; the interval does not decide")


def _found(verdict: Verdict, ours: Interval, ends: tuple[float, float] | None, why: str) -> Finding:
    low, high = ends or (None, None)
    return Finding(verdict=verdict, ours=ours, low=low, high=high, why=why)


def _ends(found: Interval) -> tuple[float, float] | None:
    return None if found.half is None else (found.mean - found.half, found.mean + found.half)


def _within(ends: tuple[float, float], low: float, high: float, strict: bool) -> bool:
    if strict:
        return ends[0] > low + _SLACK
    return ends[0] >= low - _SLACK and ends[1] <= high + _SLACK


def _room(mean: float, low: float, high: float) -> float:
    """How far inside the band a mean lies; negative outside."""
    return min(mean - low, high - mean)


def _shown(edge: float) -> str:
    return "−∞" if edge == -math.inf else "∞" if edge == math.inf else f"{edge:+.4g}".replace("-", "−")


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"
