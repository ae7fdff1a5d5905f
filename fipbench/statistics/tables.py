"""What is said of a whole table: correction for many comparisons, ranks with ties, the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec

from fipbench.statistics.seeds import LEVEL, paired_difference


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks, from 1, that a method may have: `first` is the best of them, `last` the worst."""

    first: int
    last: int


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """A rank for each method of each table, in the order given, and the number of `tests` that they rest on."""

    ranks: tuple[tuple[Rank, ...], ...]
    tests: int


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


def ranking(tables: Sequence[Sequence[Mapping[int, float]]], level: float = LEVEL) -> Ranking:
    """Ranks with ties of the methods of each table, more being better.

    Two methods of a table are told apart if the paired t test over their common seeds, adjusted by Holm over all pairs
    of all tables, has p < 1 - level. A method's ranks run from 1 + the number of methods found better to the number of
    methods minus those found worse. Where no true means are equal, all true ranks lie in these ranges with at least
    the probability `level` (Al Mohamad, Goeman & van Zwet, 2022).

    Being told apart is not transitive: A and B, B and C may be level while A beats C. Then the ranges are 1–2, 1–3 and
    2–3, and no cut between groups is drawn.

    Args:
        tables: for each method of each table, seed -> value. No common seed or only one: not told apart.

    Raises:
        ValueError: a value is not finite.
    """
    pairs = [(n, i, j) for n, table in enumerate(tables) for i, j in combinations(range(len(table)), 2)]
    found = [paired_difference(tables[n][i], tables[n][j]) for n, i, j in pairs]
    adjusted = holm([difference.p for difference in found])
    better = [[0] * len(table) for table in tables]
    worse = [[0] * len(table) for table in tables]
    for (n, i, j), difference, p in zip(pairs, found, adjusted, strict=True):
        if p is not None and difference.mean is not None and p < 1 - level:
            winner, loser = (i, j) if difference.mean > 0 else (j, i)
            better[n][loser] += 1
            worse[n][winner] += 1
    ranks = [
        tuple(Rank(first=1 + better[n][i], last=len(table) - worse[n][i]) for i in range(len(table)))
        for n, table in enumerate(tables)
    ]
    return Ranking(ranks=tuple(ranks), tests=sum(p is not None for p in adjusted))


def pareto_front(points: Sequence[tuple[float, float]], tolerance: float = 0.0) -> list[bool]:
    """Which (score, cost) are on the front: no other scores as much or more for as little or less, one of them truly.

    Args:
        tolerance: costs that differ by no more than this share of the smaller count as equal.
    """

    def cheaper(a: float, b: float) -> bool:
        return a * (1 + tolerance) < b

    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        no_worse = a[0] >= b[0] and not cheaper(b[1], a[1])
        return no_worse and (a[0] > b[0] or cheaper(a[1], b[1]))

    return [not any(dominates(other, point) for other in points) for point in points]
