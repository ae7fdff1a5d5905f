"""Two methods on the same test items, seed by seed: what the drawing of the test set adds to that of the seeds.

A method's items are seed -> strata -> value of each item. Strata are sets whose means are averaged, such as the tasks
of a stream; most scores have one. Values are 0 and 1 for right and wrong, or any number whose mean is the score. Every
seed is scored on the same items in the same order: seeds and items are crossed, and no p value counts the seeds' items
as if they were so many independent ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from fipbench.statistics.seeds import LEVEL, t_quantile, t_tail

if TYPE_CHECKING:
    import numpy as np

    Items = Mapping[int, Sequence[np.ndarray]]


class ItemDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A mean difference ± `half` over `n` seeds and `items` test items; `p` two-sided with `freedom` degrees.

    `half`, `p` and `freedom` are None for one seed.
    """

    mean: float
    half: float | None
    p: float | None
    freedom: float | None
    n: int
    items: int


def item_difference(a: Items, b: Items, level: float = LEVEL) -> ItemDifference | None:
    """Mean of `a - b` with an interval for other seeds and another test set of the same size and origin.

    With d(s, i) = mean + seed effect + item effect + rest, both effects random (two-way crossed analysis of variance,
    mean squares M): variance of the mean = [M_seeds + max(0, M_items - M_rest)] / (S I), and Satterthwaite's degrees
    of freedom for it, as for readers and cases in radiology (Hillis, 2007). Without item effects this is the paired t
    interval over seeds, and it is never narrower, nor p smaller: more degrees of freedom do not outweigh the larger
    variance. Of several strata the items' part is the sum of theirs over (number of strata)². None without a common
    seed.

    Raises:
        ValueError: unlike numbers of strata or items.
    """
    import numpy as np

    blocks = _differences(a, b)
    if blocks is None:
        return None
    seeds, items = len(blocks[0]), sum(block.shape[1] for block in blocks)
    scores = np.stack([block.mean(1) for block in blocks]).mean(0)
    mean = math.fsum(scores) / seeds
    if seeds < 2:
        return ItemDifference(mean=mean, half=None, p=None, freedom=None, n=seeds, items=items)
    of_seeds = float(scores.var(ddof=1)) / seeds
    parts = [_item_squares(block) for block in blocks]
    of_items = sum(m_items - m_rest for m_items, m_rest, *_ in parts) / len(blocks) ** 2
    spread = sum(square**2 / f for m_items, m_rest, f, g in parts for square, f in ((m_items, f), (m_rest, g)))
    variance = of_seeds + max(0.0, of_items)
    if variance == 0:
        return ItemDifference(mean=mean, half=0.0, p=1.0 if mean == 0 else 0.0, freedom=None, n=seeds, items=items)
    uncertain = of_seeds**2 / (seeds - 1) + (spread / len(blocks) ** 4 if of_items > 0 else 0.0)
    freedom = variance**2 / uncertain
    ways = [(math.sqrt(variance), freedom)]  # standard error and degrees of freedom; then those of seeds alone
    ways += [(math.sqrt(of_seeds), seeds - 1)] if of_seeds > 0 else []
    return ItemDifference(
        mean=mean,
        half=max(t_quantile(degrees, level) * error for error, degrees in ways),
        p=max(2 * t_tail(abs(mean) / error, degrees) for error, degrees in ways),
        freedom=freedom,
        n=seeds,
        items=items,
    )


def bootstrap_items(
    a: Items, b: Items, draws: int = 2000, seed: int = 0, level: float = LEVEL
) -> tuple[float, float] | None:
    """Percentile interval of the bootstrap over seeds, then items; the drawn items are the same for all drawn seeds.

    Owen's (2007) pigeonhole bootstrap, seeded (numpy's PCG64). A check, not what the boards show: with few seeds it is
    too narrow where seeds decide and too wide where the rest does (docs/statistics.md has its measured coverage).
    None for fewer than two common seeds.

    Raises:
        ValueError: as `item_difference`.
    """
    import numpy as np

    blocks = _differences(a, b)
    if blocks is None or len(blocks[0]) < 2:
        return None
    generator = np.random.default_rng(seed)
    seeds = len(blocks[0])
    found = np.empty(draws)
    for n in range(draws):
        drawn = generator.integers(0, seeds, seeds)
        means = [b[:, generator.integers(0, b.shape[1], b.shape[1])].mean(1)[drawn].mean() for b in blocks]
        found[n] = sum(means) / len(means)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(a: Items, b: Items) -> dict[int, float]:
    """Two-sided p of McNemar's exact test (1947) for each common seed: right and wrong on the same items.

    The items on which the two differ are right for either with probability one half. One p a seed: they say how sure
    each single pair of networks is told apart, nothing of the methods.

    Raises:
        ValueError: a value that is neither 0 nor 1, or unlike numbers of strata or items.
    """
    from scipy.special import bdtr

    found = {}
    for seed in sorted(a.keys() & b.keys()):
        only_a = only_b = 0
        for x, y in _strata(a[seed], b[seed]):
            if not all(((values == 0) | (values == 1)).all() for values in (x, y)):
                raise ValueError("McNemar's test needs items that are right (1) or wrong (0)")
            only_a += int((x > y).sum())
            only_b += int((x < y).sum())
        unlike = only_a + only_b
        found[seed] = min(1.0, 2 * float(bdtr(min(only_a, only_b), unlike, 0.5))) if unlike else 1.0
    return found


def _differences(a: Items, b: Items) -> list[np.ndarray] | None:
    """One array of shape (seeds, items) a stratum; None without a common seed."""
    import numpy as np

    common = sorted(a.keys() & b.keys())
    if not common:
        return None
    rows = [[x.astype(float) - y for x, y in _strata(a[seed], b[seed])] for seed in common]
    if len({tuple(map(len, row)) for row in rows}) > 1:
        raise ValueError("items differ between seeds")
    return [np.stack(stratum) for stratum in zip(*rows, strict=True)]


def _strata(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of strata of two results of one seed."""
    if [len(values) for values in x] != [len(values) for values in y] or not all(map(len, x)):
        raise ValueError("items differ between methods, or there are none")
    return zip(x, y, strict=True)


def _item_squares(block: np.ndarray) -> tuple[float, float, int, int]:
    """Mean squares of items and of the rest over (S I), the variance of the mean that each makes, and their degrees."""
    seeds, items = block.shape
    by_item = block.mean(0) - block.mean()
    rest = block - block.mean(0) - block.mean(1, keepdims=True) + block.mean()
    degrees = max(1, items - 1), max(1, (seeds - 1) * (items - 1))
    m_items = float((by_item**2).sum()) / degrees[0] / items
    m_rest = float((rest**2).sum()) / degrees[1] / (seeds * items)
    return m_items, m_rest, *degrees
