"""The multiplier of a trust-region problem with a known spectrum: a root in one variable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CONSTRAINTS = ("sphere", "ball")
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Multiplier:
    """mu with (g + mu I) psi = -b and psi as long as it is to be.

    Attributes:
        mu: the multiplier, at least -least.
        least, shift: the least eigenvalue of g, and mu + least with all its digits.
        case: `boundary`; `interior` (within the ball, mu = 0); or `hard`: b has no part along the least eigenvectors,
            and the rest of the solution is shorter than the radius.
        missing: in the hard case the length that is to be added along any of the least eigenvectors; else zero.
    """

    mu: float
    least: float
    shift: float
    case: str
    missing: float


def multiplier(
    values: Tensor, components: Tensor, outside: float, *, radius: float, constraint: str, singular: bool
) -> Multiplier:
    """Minimise psi^T g psi + 2 b^T psi over |psi| = radius (`sphere`) or |psi| <= radius (`ball`), g not negative.

    Args:
        values: eigenvalues of g, shape (k,), double precision; those that are zero may be left out.
        components: of b along their eigenvectors, shape (k,).
        outside: norm of the rest of b, which lies in the null space.
        radius: above zero.
        singular: whether g has a null space beside `values`.

    Source: Moré and Sorensen (SIAM J. Sci. Stat. Comput. 4, 1983), section 2, with the eigenvalues known.

    Raises:
        ValueError: the radius is not above zero, or another constraint.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be above zero, got {radius}")
    if constraint not in CONSTRAINTS:
        raise ValueError(f"constraint must be one of {', '.join(CONSTRAINTS)}, got {constraint!r}")
    least = 0.0 if singular or not len(values) else max(0.0, float(values.min()))
    gaps, squares = (values - least).clamp(min=0), components.square()
    # Eigenvalues that cannot be told from the least one are one eigenspace with it.
    lowest = gaps <= 8 * _EPS * float(values.max() if len(values) else 0)
    at_least = math.hypot(outside, float(squares[lowest].sum().sqrt()))
    gaps, squares = gaps[~lowest], squares[~lowest]
    whole = math.hypot(at_least, float(squares.sum().sqrt()))
    if at_least <= 64 * _EPS * whole:
        at_least = 0.0

    def length(shift: float) -> float:
        """|psi| at mu = shift - least."""
        along = at_least / shift if at_least else 0.0
        return math.hypot(along, float((squares / (gaps + shift).square()).sum().sqrt()))

    if constraint == "ball" and (least > 0 or not at_least) and length(least) <= radius:
        return Multiplier(0.0, least, least, "interior", 0.0)
    if not at_least and length(0.0) <= radius:
        return Multiplier(-least, least, 0.0, "hard", math.sqrt(radius**2 - length(0.0) ** 2))

    from scipy.optimize import brentq

    # 1 / |psi| is nearly linear in the shift.
    low, high = at_least / radius * (1 - 1e-9), whole / radius * (1 + 1e-9)
    shift = brentq(
        lambda x: 1 / length(x) - 1 / radius, low, high, xtol=(low or high * 1e-9) * 1e-15, rtol=1e-14, maxiter=1000
    )
    return Multiplier(shift - least, least, shift, "boundary", 0.0)
