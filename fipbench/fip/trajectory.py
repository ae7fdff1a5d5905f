"""How straight a path in weight space is: directions of its points and the angles between its steps.

Source: the measures that the ETH abstracts name for the complexity of a training trajectory. They print no formula;
directional similarity is that of Singh, He and Hofmann ("Hallmarks of optimization trajectories in neural networks",
2024): the matrix of cosines of all pairs of points, and its mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fipbench.fip.path import Point


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a path of T + 1 points measures.

    Attributes:
        similarity: cosines of the points, each as seen from the origin, shape (T', T'), T' the points that are not it.
        mean_directional_similarity: the mean of all entries of `similarity`; 1 for a straight way out of the origin.
        angles: between consecutive steps in degrees, shape (T - 1,); nan beside a step of no length.
        start_angle: between the first and the last point that are not the origin, in degrees.
        length, distance: the sum of the steps' lengths, and from the first to the last point; Euclidean.
    """

    similarity: Tensor
    mean_directional_similarity: float
    angles: Tensor
    start_angle: float
    length: float
    distance: float

    @property
    def straightness(self) -> float:
        """distance / length: 1 for a straight path that does not turn back, nan where nothing moved."""
        return self.distance / self.length if self.length else math.nan


def trajectory(points: Iterable[Point | Tensor], *, origin: Point | Tensor | None = None) -> Trajectory:
    """Directional similarity, angles and straightness of a recorded path.

    All points are held, in double precision: T + 1 vectors of n numbers. Record every few steps of a large network.

    Args:
        points: networks, mappings from names to tensors, or vectors (n,), in order; a module or tensor that is changed
            in place is seen as it was.
        origin: what directions are seen from: None is zero, as in the source; the network before training gives the
            way that was gone.

    Raises:
        ValueError: fewer than two points, another size, or no point but the origin; FloatingPointError: a point that
            is not finite.
    """
    rows: list[Tensor] = []
    for number, point in enumerate(points):
        row = _flat(point)
        if rows and row.shape != rows[0].shape:
            raise ValueError(f"point {number} has {len(row)} weights, the first has {len(rows[0])}")
        if not bool(row.isfinite().all()):
            raise FloatingPointError(f"point {number} of the path is not finite")
        rows.append(row)
    if len(rows) < 2:
        raise ValueError(f"a trajectory needs at least two points, got {len(rows)}")
    path = torch.stack(rows)
    from_where = torch.zeros_like(path[0]) if origin is None else _flat(origin)
    if from_where.shape != path[0].shape:
        raise ValueError(f"the origin has {len(from_where)} weights, the path {path.shape[1]}")
    seen = path - from_where
    seen = seen[seen.norm(dim=1) > 0]
    if not len(seen):
        raise ValueError("every point is the origin")
    seen = seen / seen.norm(dim=1, keepdim=True)
    similarity = (seen @ seen.T).clamp(-1, 1)
    steps = path.diff(dim=0)
    lengths = steps.norm(dim=1)
    return Trajectory(
        similarity=similarity,
        mean_directional_similarity=float(similarity.mean()),
        angles=_angles(steps[:-1], steps[1:]),
        start_angle=float(_angles(seen[:1], seen[-1:])[0]),
        length=float(lengths.sum()),
        distance=float((path[-1] - path[0]).norm()),
    )


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between rows, exact near 0 and 180 too (Kahan: twice the arc tangent of the halved rhombus)."""
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)))


def _flat(point: Point | Tensor) -> Tensor:
    if isinstance(point, Tensor):
        parts = [point]
    else:
        parts = list(point.parameters() if isinstance(point, nn.Module) else point.values())
    return torch.cat([part.detach().flatten().double() for part in parts])
