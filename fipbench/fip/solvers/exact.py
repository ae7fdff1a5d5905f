"""The exact step of a functionally invariant path: equation 4 as the trust-region problem that it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fipbench.fip.solvers.trust_region import multiplier


class Products(Protocol):
    """J by its products; `fipbench.fip.metric.Metric` and `LayerJacobian` are such."""

    @property
    def size(self) -> int: ...

    def push(self, direction: Tensor) -> Tensor: ...

    def pull(self, change: Tensor) -> Tensor: ...


class Spectrum(Protocol):
    """Eigenvalues of g and eigenvectors of K = J J^T; `fipbench.fip.metric.Gram` and `LayerSpectrum` are such."""

    @property
    def metric(self) -> Products: ...

    @property
    def values(self) -> Tensor: ...

    @property
    def vectors(self) -> Tensor: ...

    @property
    def floor(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Step:
    """A step psi in weight space.

    Attributes:
        vector: psi, shape (n,).
        mu: (g + mu I) psi = -b holds with it.
        case: `boundary`, `interior` or `hard`; see `Multiplier`.
        change: J psi, how the outputs change to first order, shape (mN,), with J's factor 1/sqrt(N) where it has one.
        slope: <psi, gradient>, how the second objective changes to first order.
    """

    vector: Tensor
    mu: float
    case: str
    change: Tensor
    slope: float

    @property
    def squared_speed(self) -> float:
        """<psi, psi>_g."""
        return float(self.change.square().sum())


def exact_step(
    spectrum: Spectrum,
    gradient: Tensor,
    *,
    radius: float,
    beta: float = 1.0,
    drift: Tensor | None = None,
    constraint: str = "sphere",
    refinements: int = 1,
    generator: torch.Generator | None = None,
) -> Step:
    """The psi of length `radius` that minimises <psi, psi>_g + beta <psi, gradient>, to rounding.

    psi = -(g + mu I)^-1 b with b = beta / 2 gradient, mu at least minus the least eigenvalue of g and fixed by the
    length. A large beta gives steepest descent, a small one the descent within the null space of g. With beta = 0 the
    objective has no slope (equation 3): psi is then a random vector of the eigenspace of the least eigenvalue.

    Costs one push and one pull, and as many again for each refinement.

    Args:
        spectrum: of g, by `metric.gram` or `LayerJacobian.spectrum`.
        gradient: of the second objective, shape (n,).
        radius: |psi|; eps of the paper's constraint is its square.
        beta: weight of the second objective.
        drift: outputs less those that are to be kept, shape (mN,), with J's factor; |J psi + drift|^2 then takes the
            place of <psi, psi>_g. None is zero, the equation as printed.
        constraint: `sphere` (|psi| = radius, equation 4) or `ball` (at most).
        refinements: each takes out what rounding left in the range of g.
        generator: draws the direction where any one of several is as good (the hard case).

    Source: Nature Machine Intelligence 6 (2024), equations 3 and 4.

    Raises:
        ValueError: an option out of range, or a gradient or drift of another shape.
        FloatingPointError: the gradient or the drift is not finite.
    """
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta must be a number and not negative, got {beta}")
    jacobian = spectrum.metric
    along = _finite(gradient, (jacobian.size,), "the gradient") * (beta / 2)
    own = spectrum.values > spectrum.floor
    values, basis = spectrum.values[own], spectrum.vectors[:, own]
    singular = len(values) < jacobian.size
    pushed = jacobian.push(along)
    shown = pushed.cpu().double()
    moved = torch.zeros_like(shown) if drift is None else _finite(drift, shown.shape, "the drift").cpu().double()
    own_part = basis.T @ shown
    inner = own_part + values * (basis.T @ moved)  # J b along the eigenvectors of K
    # What lies outside the range of g is the gradient's alone. A difference of squares: of equal ones rounding is left.
    squared = float(along.double().square().sum())
    outside = squared - float((own_part.square() / values).sum())
    outside = math.sqrt(outside) if singular and outside > 64 * torch.finfo(pushed.dtype).eps * squared else 0.0
    components = inner / values.sqrt()
    found = multiplier(values, components, outside, radius=radius, constraint=constraint, singular=singular)
    shifted = (values - found.least).clamp(min=0) + found.shift
    change = torch.where(shifted > 0, -inner / shifted, 0.0)  # of the outputs, along the eigenvectors of K
    if outside:
        # Woodbury: the gradient by mu, and what that is off in the range of g.
        vector = _pull(jacobian, basis @ ((own_part / found.mu + change) / values), along) - along / found.mu
    else:
        vector = _pull(jacobian, basis @ (change / values), along)
    if found.missing:
        extra = _least(jacobian, values, basis, along, found.missing, singular, generator)
        vector, change = vector + extra, change + basis.T @ _push(jacobian, extra)
    for _ in range(refinements):
        left = change - basis.T @ _push(jacobian, vector)
        vector = vector + _pull(jacobian, basis @ (left / values), along)
    if found.case != "interior":
        vector = vector * (radius / float(vector.double().norm()))
    slope = float(vector.double() @ gradient.detach().to(vector).double())
    return Step(vector, found.mu, found.case, basis @ change, slope)


def _least(
    jacobian: Products,
    values: Tensor,
    basis: Tensor,
    like: Tensor,
    length: float,
    singular: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """A vector of that length along the least eigenvalue: a random one of the null space, where there is one."""
    if not singular:
        last = values <= values.min() * (1 + 1e-12)
        chosen = torch.randn(int(last.sum()), generator=generator, dtype=torch.float64)
        part = _pull(jacobian, basis[:, last] @ (chosen / values[last].sqrt()), like)
    else:
        part = torch.randn(jacobian.size, generator=generator, dtype=torch.float64).to(like)
        for _ in range(2):
            part = part - _pull(jacobian, basis @ ((basis.T @ _push(jacobian, part)) / values), like)
    return part * (length / float(part.double().norm()))


def _push(jacobian: Products, direction: Tensor) -> Tensor:
    return jacobian.push(direction).cpu().double()


def _pull(jacobian: Products, change: Tensor, like: Tensor) -> Tensor:
    return jacobian.pull(change.to(like)).to(like)


def _finite(vector: Tensor, shape: tuple[int, ...] | torch.Size, what: str) -> Tensor:
    if vector.shape != tuple(shape):
        raise ValueError(f"{what} has shape {tuple(shape)}, got {tuple(vector.shape)}")
    if not bool(vector.isfinite().all()):
        raise FloatingPointError(f"{what} is not finite at {int((~vector.isfinite()).nonzero()[0])}")
    return vector.detach()
