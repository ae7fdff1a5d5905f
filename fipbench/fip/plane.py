"""The plane through three networks in weight space: where the loss landscape around a path can be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Plane:
    """Coordinates (x, y) of weight space: origin + x right + y up, in units of Euclidean length.

    Attributes:
        origin: shape (n,); `right` and `up`: of unit length, orthogonal to each other.
    """

    origin: Tensor
    right: Tensor
    up: Tensor

    def point(self, x: float, y: float) -> Tensor:
        """The weights there, shape (n,)."""
        return (self.origin + x * self.right + y * self.up).to(self.origin)

    def project(self, weights: Tensor) -> tuple[float, float]:
        """The place in the plane that is nearest to these weights, of shape (n,)."""
        away = weights.double() - self.origin.double()
        return float(away @ self.right.double()), float(away @ self.up.double())


def plane_through(first: Tensor, second: Tensor, third: Tensor) -> Plane | None:
    """The plane in which `first` is (0, 0), `second` lies to the right of it, and `third` above that line.

    Args:
        first, second, third: weights, shape (n,) each.

    Returns:
        None where they lie on one line (the third within 1e-6 of the first two's distance of it).

    Raises:
        ValueError: first and second are the same.

    Source: Garipov et al., "Loss surfaces, mode connectivity, and fast ensembling of DNNs", 2018, appendix A.2.
    """
    across = (second - first).double()
    span = float(across.norm())
    if not span:
        raise ValueError("the first two networks are the same; a plane needs three points that are not on a line")
    right = across / span
    rest = (third - first).double()
    for _ in range(2):  # once more for what cancellation leaves
        rest = rest - (rest @ right) * right
    height = float(rest.norm())
    if height <= 1e-6 * span:
        return None
    return Plane(first, right.to(first), (rest / height).to(first))


def grid(plane: Plane, points: list[Tensor], size: int, margin: float = 0.2) -> tuple[list[float], list[float]]:
    """`size` places each along x and y that cover the points, with so much of their extent on either side."""
    places = torch.tensor([plane.project(point) for point in points], dtype=torch.float64)
    low, high = places.min(0).values, places.max(0).values
    room = margin * (high - low).max()
    axes = [torch.linspace(float(a - room), float(b + room), size).tolist() for a, b in zip(low, high, strict=True)]
    return axes[0], axes[1]
