"""The Marchenko-Pastur law: the spectrum that g would have if the entries of J were independent noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fipbench.fip.metric.operator import Metric


@dataclass(frozen=True)
class MarchenkoPastur:
    """Limit of the eigenvalues of X X^T / q for X (p x q) with independent entries of variance `variance`.

    Attributes:
        ratio: p / q, in (0, 1]; for more rows than columns take the transpose, whose eigenvalues are the same but
            for zeros. At 1 the density grows as 1/sqrt(x) towards zero.
        variance: also the mean of the law.

    Raises:
        ValueError: out of range.

    Source: Marchenko and Pastur (Math. USSR-Sbornik 1, 1967).
    """

    ratio: float
    variance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, got {self.ratio}")
        if not 0 < self.variance < math.inf:
            raise ValueError(f"variance must be above 0 and finite, got {self.variance}")

    @property
    def edges(self) -> tuple[float, float]:
        """Where the law begins and ends: variance (1 -+ sqrt(ratio))^2."""
        root = math.sqrt(self.ratio)
        return self.variance * (1 - root) ** 2, self.variance * (1 + root) ** 2

    def density(self, x: ArrayLike) -> NDArray[np.float64]:
        """sqrt((b - x)(x - a)) / (2 pi ratio variance x) between the edges a and b, zero outside."""
        a, b = self.edges
        x = np.asarray(x, dtype=np.float64)
        inside = (x > a) & (x < b)
        at = np.where(inside, x, 1.0)
        root = np.sqrt(np.clip((b - x) * (x - a), 0, None))
        return np.where(inside, root / (2 * math.pi * self.ratio * self.variance * at), 0.0)

    def cdf(self, x: ArrayLike) -> NDArray[np.float64]:
        """Share of the eigenvalues up to `x`.

        With r = sqrt(ratio) and x = variance (1 + r^2 - 2 r cos t), t from 0 to pi, the density integrates to
        (t + sin(t) / r - (1 - r^2) / r^2 atan2(r sin t, 1 - r cos t)) / pi.
        """
        r = math.sqrt(self.ratio)
        cosine = (1 + r**2 - np.asarray(x, dtype=np.float64) / self.variance) / (2 * r)
        t = np.arccos(np.clip(cosine, -1, 1))
        angle = np.arctan2(r * np.sin(t), 1 - r * np.cos(t))
        return (t + np.sin(t) / r - (1 - r**2) / r**2 * angle) / math.pi


def law_of(metric: Metric, values: ArrayLike) -> MarchenkoPastur:
    """The law with the shape of J and the mean of these eigenvalues: those of g that need not be zero, as `Gram` has.

    Raises:
        ValueError: another number of eigenvalues than min(mN, n), or all are zero.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (metric.rank_bound,):
        raise ValueError(f"expected the {metric.rank_bound} eigenvalues that need not be zero, got {values.shape}")
    return MarchenkoPastur(metric.rank_bound / max(metric.rows, metric.size), float(values.mean()))


def kolmogorov_smirnov(values: ArrayLike, law: MarchenkoPastur) -> float:
    """Greatest difference between the share of `values` up to x and the law's, over all x; between 0 and 1.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not ordered.size or not np.isfinite(ordered).all():
        raise ValueError("expected at least one eigenvalue, and all of them finite")
    shares, expected = np.arange(ordered.size + 1) / ordered.size, law.cdf(ordered)
    return float(max(np.abs(shares[1:] - expected).max(), np.abs(expected - shares[:-1]).max()))
