"""Spectrum, null space and regularised inverse of g through the Gram matrix K = J J^T of its mN output rows.

K has the eigenvalues of g = J^T J that need not be zero; for K u = lambda u, J^T u / sqrt(lambda) is the eigenvector
of g. The Jacobian is never held: K is the sum over blocks of weights, layer after layer, of the inner products of
J's rows within the block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fipbench.fip.metric.operator import Metric, differentiable, each_tensor

MAX_ROWS = 8192
BLOCK_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Solution:
    """x with (g + mu I) x = v.

    Attributes:
        vector: x, shape (n,).
        mu: the regularisation that was used.
        regularised: whether it was put in because g is singular, and not asked for.
        residual: |(g + mu I) x - v| / |v|, from a product with g.
    """

    vector: Tensor
    mu: float
    regularised: bool
    residual: float


@dataclass(frozen=True, eq=False)
class Gram:
    """The eigensystem of K = J J^T, made by `gram`; in double precision, on the CPU.

    Attributes:
        values: eigenvalues of g that need not be zero, descending, shape (min(mN, n),); g has n - min(mN, n) more,
            all zero.
        vectors: the eigenvectors of K that belong to them, columns, shape (mN, min(mN, n)).
        floor: an eigenvalue at or below it cannot be told from zero: mN eps lambda_max, eps that of the weights' type.
    """

    metric: Metric
    values: Tensor
    vectors: Tensor
    floor: float

    @property
    def rank(self) -> int:
        """Number of eigenvalues of g above `floor`."""
        return int((self.values > self.floor).sum())

    def dimension_below(self, threshold: float) -> int:
        """Dimension of the functionally invariant subspace: eigenvalues of g below a threshold, zeros included.

        Source: Nature Machine Intelligence 6 (2024), Methods; the example threshold there is 1e-3.
        """
        return self.metric.size - int(self._above(threshold).sum())

    def eigenvectors(self, count: int) -> Tensor:
        """Unit eigenvectors of g of the `count` largest eigenvalues, one a row, shape (count, n).

        Raises:
            ValueError: more than the rank, beyond which directions are rounding.
        """
        if not 0 < count <= self.rank:
            raise ValueError(f"count must be between 1 and the rank {self.rank}, got {count}")
        scaled = self.vectors[:, :count] / self.values[:count].sqrt()
        return torch.stack([self.metric.pull(column) for column in scaled.T])

    def invariant_part(self, direction: Tensor, threshold: float = 0.0) -> Tensor:
        """The part of a direction, shape (n,), that lies in the functionally invariant subspace.

        It is orthogonal to every eigenvector whose eigenvalue is at least `threshold` (and above `floor`): an
        infinitesimal step along it changes the outputs by less than sqrt(threshold) a unit of length.
        """
        keep = self._above(threshold)
        basis, values = self.vectors[:, keep], self.values[keep]
        part = self.metric.flatten(direction)
        for _ in range(2):  # Once leaves what cancellation leaves; twice is enough.
            inner = basis.T @ self._push(part)
            part = part - self.metric.pull(basis @ (inner / values))
        return part

    def solve(self, vector: Tensor, mu: float = 0.0) -> Solution:
        """(g + mu I)^-1 v by Woodbury's identity, (v - J^T (K + mu I)^-1 J v) / mu, with iterative refinement.

        With mu = 0 the exact inverse, if g has full rank. If g is singular, mu is set to sqrt(eps) lambda_max (eps
        that of the weights' type), and the result says so.

        Raises:
            ValueError: mu is negative or not a number, or the vector has another shape.
        """
        if not 0 <= mu < math.inf:
            raise ValueError(f"mu must be a number and not negative, got {mu}")
        v = self.metric.flatten(vector)
        used, regularised = regularisation(mu, self.rank == self.metric.size, float(self.values[0]), v.dtype)
        inverse = self._regularised_inverse if used else self._inverse
        x = inverse(v, used)
        for _ in range(2):
            x = x + inverse(v - self.metric.product(x) - used * x, used)
        left = v - self.metric.product(x) - used * x
        return Solution(x, used, regularised, float(left.norm() / v.norm()) if v.any() else 0.0)

    def _regularised_inverse(self, v: Tensor, mu: float) -> Tensor:
        inner = self.vectors.T @ self._push(v)
        return (v - self.metric.pull(self.vectors @ (inner / (self.values + mu)))) / mu

    def _inverse(self, v: Tensor, _: float) -> Tensor:
        return self.metric.pull(self.vectors @ ((self.vectors.T @ self._push(v)) / self.values.square()))

    def _above(self, threshold: float) -> Tensor:
        return (self.values > self.floor) & (self.values >= threshold)

    def _push(self, direction: Tensor) -> Tensor:
        return self.metric.push(direction).cpu().double()


def gram(metric: Metric, *, max_rows: int = MAX_ROWS, block_bytes: int = BLOCK_BYTES) -> Gram:
    """The Gram matrix K = J J^T of a metric and its eigensystem.

    Time: each row of J is computed once for every block of weights; a block has as many columns as fit.

    Args:
        max_rows: largest mN; K takes 8 (mN)^2 bytes, its eigensystem some four times that and O((mN)^3) time.
        block_bytes: memory for a block of J, and again for the rows of whole layers from which it is cut.

    Raises:
        ValueError: mN is too large; names the sizes and the alternatives.
        FloatingPointError: a row of J is not finite.
    """
    if metric.rows > max_rows:
        raise ValueError(
            f"{metric.examples} examples of {metric.outputs} outputs make a Gram matrix of "
            f"{metric.rows} x {metric.rows} ({8 * metric.rows**2 / 1e9:.1f} GB), more than {max_rows} rows; "
            f"take at most {max_rows // metric.outputs} examples, or use products (Metric.product, conjugate "
            "gradients) and Lanczos (extremes, density)"
        )
    total = torch.zeros(metric.rows, metric.rows, dtype=torch.float64)
    columns = max(1, block_bytes // (metric.rows * metric.weights.element_size()))
    for start in range(0, metric.size, columns):
        block = jacobian(metric, start, min(start + columns, metric.size), block_bytes)
        total += (block @ block.T).cpu()
        del block
    values, vectors = torch.linalg.eigh(total)
    kept = metric.rank_bound
    values, vectors = values.flip(0)[:kept].clamp(min=0), vectors.flip(1)[:, :kept]
    floor = metric.rows * torch.finfo(metric.weights.dtype).eps * float(values[0])
    return Gram(metric, values, vectors, floor)


def jacobian(metric: Metric, start: int = 0, stop: int | None = None, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Columns `start` to `stop` of J, shape (mN, stop - start): row after row, by those layers alone that it needs.

    Raises:
        ValueError: the block takes more than `block_bytes` and there is more than one column.
        FloatingPointError: a row is not finite.
    """
    stop = metric.size if stop is None else stop
    each = metric.weights.element_size()
    if (needed := metric.rows * (stop - start) * each) > block_bytes and stop - start > 1:
        raise ValueError(
            f"J with {metric.rows} rows and {stop - start} columns takes {needed / 1e6:.3f} MB, more than "
            f"{block_bytes / 1e6:.3f} MB; take fewer columns or examples, or products (Metric.push, Metric.pull)"
        )
    here = metric.unflatten(metric.weights)
    moving, first = _overlapping(metric, start, stop)
    fixed = {name: value for name, value in here.items() if name not in moving}

    def value(weights: dict[str, Tensor], example: Any, output: Tensor) -> Tensor:
        one = each_tensor(example, lambda x: x.unsqueeze(0))
        return metric.embedded({**fixed, **weights}, one)[0].gather(0, output[None])[0]

    row = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0, 0))
    wide = sum(value.numel() for value in moving.values())
    at_once = max(1, min(metric.chunk, block_bytes // (wide * each)))
    block = metric.weights.new_empty(metric.rows, stop - start)
    for begin in range(0, metric.rows, at_once):
        numbers = torch.arange(begin, min(begin + at_once, metric.rows), device=metric.weights.device)
        with differentiable():
            gradients = row(moving, metric.inputs_of(numbers // metric.outputs), numbers % metric.outputs)
        flat = torch.cat([gradients[name].flatten(1) for name in moving], 1)[:, start - first : stop - first]
        if not bool(flat.isfinite().all()):
            worst = begin + int((~flat.isfinite().all(1)).nonzero()[0])
            raise FloatingPointError(
                f"the gradient of output {worst % metric.outputs} of example {worst // metric.outputs} is not finite"
            )
        block[begin : begin + len(flat)] = flat
    return block.mul_(metric.scale)


def regularisation(mu: float, full_rank: bool, largest: float, dtype: torch.dtype) -> tuple[float, bool]:
    """The mu to use, and whether it was put in: sqrt(eps) lambda_max where g is singular and mu is zero."""
    if mu > 0 or full_rank:
        return mu, False
    return math.sqrt(torch.finfo(dtype).eps) * (largest if largest > 0 else 1.0), True


def _overlapping(metric: Metric, start: int, stop: int) -> tuple[dict[str, Tensor], int]:
    """The parameters that hold any of the weights `start` to `stop`, and where the first of them begins."""
    moving: dict[str, Tensor] = {}
    first, begin = 0, 0
    for name, value in metric.unflatten(metric.weights).items():
        if begin < stop and begin + value.numel() > start:
            first = first if moving else begin
            moving[name] = value
        begin += value.numel()
    return moving, first
