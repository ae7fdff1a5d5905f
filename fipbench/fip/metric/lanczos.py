"""Ends and density of the spectrum of g by Lanczos' method, where even the Gram matrix is too large.

It runs on the smaller of g (n x n) and K = J J^T (mN x mN), which share the eigenvalues that need not be zero. So its
basis holds vectors of min(mN, n) numbers; the remaining eigenvalues of g are zero and are counted, not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fipbench.fip.metric.operator import Metric

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """Lanczos' T = Q^T A Q of a symmetric A.

    Attributes:
        diagonal, off: T, shapes (k,) and (k - 1,).
        basis: Q, orthonormal rows, shape (k, dimension).
        left: norm of what the last step left over; zero if the space is invariant under A.
    """

    diagonal: Tensor
    off: Tensor
    basis: Tensor
    left: float

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of T (Ritz values), ascending, and its eigenvectors, columns."""
        return torch.linalg.eigh(self.diagonal.diag() + self.off.diag(1) + self.off.diag(-1))


@dataclass(frozen=True)
class Extremes:
    """Ends of the spectrum of g, each with a bound of its error: some eigenvalue is that near to it.

    Attributes:
        largest, smallest: of the min(mN, n) eigenvalues that need not be zero.
        zeros: number of further eigenvalues, all of them zero.
    """

    largest: float
    largest_error: float
    smallest: float
    smallest_error: float
    zeros: int


@dataclass(frozen=True, eq=False)
class Density:
    """The spectral density of g as weighted points (stochastic Lanczos quadrature).

    Attributes:
        nodes, weights: shape (probes, steps) each; every row of weights sums to 1. Rows are independent estimates of
            the density of the min(mN, n) eigenvalues that need not be zero.
        dimension: min(mN, n).
        zeros: number of further eigenvalues of g, all of them zero.
    """

    nodes: Tensor
    weights: Tensor
    dimension: int
    zeros: int

    def dimension_below(self, threshold: float) -> tuple[float, float]:
        """Dimension of the functionally invariant subspace at a threshold, and its standard error over the probes."""
        each = self.dimension * (self.weights * (self.nodes < threshold)).sum(1)
        return self.zeros + float(each.mean()), _standard_error(each)

    def trace(self) -> tuple[float, float]:
        """The trace of g, and its standard error over the probes."""
        each = self.dimension * (self.weights * self.nodes).sum(1)
        return float(each.mean()), _standard_error(each)

    def smoothed(self, x: Tensor, width: float) -> Tensor:
        """The density of the eigenvalues that need not be zero at `x`, each point as a Gaussian of that deviation."""
        distance = (x.double()[..., None] - self.nodes.flatten()) / width
        bumps = (-0.5 * distance.square()).exp() / (width * math.sqrt(2 * math.pi))
        return (bumps * self.weights.flatten() / len(self.weights)).sum(-1)


def lanczos(product: Product, start: Tensor, steps: int) -> Tridiagonal:
    """Lanczos' method for a symmetric product, in double precision and with full reorthogonalisation.

    Args:
        start: any vector but zero, shape (dimension,).
        steps: at most; it stops before where the space has become invariant.

    Raises:
        ValueError: the start is zero or there are no steps; FloatingPointError: a product is not finite.
    """
    q = start.double()
    if steps < 1 or not q.any():
        raise ValueError("Lanczos' method needs a start other than zero and at least one step")
    basis = [q / q.norm()]
    diagonal: list[float] = []
    off: list[float] = []
    while True:
        w = product(basis[-1]).to(basis[-1])
        if not bool(w.isfinite().all()):
            raise FloatingPointError(f"the product in step {len(basis)} of Lanczos' method is not finite")
        diagonal.append(float(w @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):
            w = w - known.T @ (known @ w)
        left = float(w.norm())
        size = max(map(abs, (*diagonal, *off)))
        if len(basis) == min(steps, len(q)) or left <= 1e-13 * size:
            break
        off.append(left)
        basis.append(w / left)
    kept = [torch.tensor(numbers, dtype=torch.float64) for numbers in (diagonal, off)]
    return Tridiagonal(kept[0], kept[1], known, left)


def extremes(metric: Metric, *, steps: int = 100, generator: torch.Generator | None = None) -> Extremes:
    """The largest and the smallest eigenvalue of g that need not be zero, by `steps` products.

    The large end is found in few steps, the small one in many, or never where small eigenvalues crowd: see the bound.
    """
    product, dimension = _smaller_side(metric)
    found = lanczos(product, _normal(dimension, generator), steps)
    values, vectors = found.eigen()
    bounds = found.left * vectors[-1].abs()
    return Extremes(
        float(values[-1]), float(bounds[-1]), float(values[0]), float(bounds[0]), metric.size - metric.rank_bound
    )


def density(metric: Metric, *, probes: int = 8, steps: int = 50, generator: torch.Generator | None = None) -> Density:
    """The spectral density of g by stochastic Lanczos quadrature, with probes * steps products.

    Each probe is a normal vector of length one; the Ritz values of its Lanczos run are nodes, and the squares of the
    first components of T's eigenvectors their weights. The first 2 steps - 1 moments of a probe are exact.

    Source: Ubaru, Chen and Saad (SIAM J. Matrix Anal. Appl. 38, 2017).

    Raises:
        ValueError: no probes or no steps.
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    product, dimension = _smaller_side(metric)
    steps = min(steps, dimension)
    nodes, weights = (torch.zeros(probes, steps, dtype=torch.float64) for _ in range(2))
    for i in range(probes):
        values, vectors = lanczos(product, _normal(dimension, generator), steps).eigen()
        nodes[i, : len(values)] = values.cpu()
        weights[i, : len(values)] = vectors[0].square().cpu()
    return Density(nodes, weights, dimension, metric.size - dimension)


def _smaller_side(metric: Metric) -> tuple[Product, int]:
    return (metric.dual_product if metric.rows < metric.size else metric.product), metric.rank_bound


def _normal(dimension: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(dimension, generator=generator, dtype=torch.float64)


def _standard_error(each: Tensor) -> float:
    return float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.nan
