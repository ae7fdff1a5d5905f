"""How straight a path in weight space is: directions of its points and the angles between its steps.

Source: the measures that the ETH abstracts name for the complexity of a training trajectory. They print no formula;
directional similarity is that of Singh, He and Hofmann ("Hallmarks of optimization trajectories in neural networks",
2024): the matrix of cosines of all pairs of points, and its mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fipbench.fip.path import Point

# Numbers in double precision that are in memory at a time beside the points.
BLOCK_NUMBERS = 2**24


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

    All points are held, T + 1 vectors of n numbers of their own type; sums are taken in double precision, a block of
    weights at a time. Record every few steps of a large network.

    Args:
        points: networks, mappings from names to tensors, or vectors (n,), in order; a module or tensor that is changed
            in place is seen as it was.
        origin: what directions are seen from: None is zero, as in the source; the network before training gives the
            way that was gone.

    Raises:
        ValueError: fewer than two points, another size, or no point but the origin; FloatingPointError: a point that
            is not finite.
    """
    path: list[Tensor] = []
    for number, point in enumerate(points):
        row = _flat(point)
        if path and row.shape != path[0].shape:
            raise ValueError(f"point {number} has {len(row)} weights, the first has {len(path[0])}")
        if not bool(row.isfinite().all()):
            raise FloatingPointError(f"point {number} of the path is not finite")
        path.append(row)
    if len(path) < 2:
        raise ValueError(f"a trajectory needs at least two points, got {len(path)}")
    start = torch.zeros_like(path[0]) if origin is None else _flat(origin)
    if start.shape != path[0].shape:
        raise ValueError(f"the origin has {len(start)} weights, the path {len(path[0])}")

    seen = _total(x @ x.T for x in _blocks(path, start))
    lengths = _total(x.diff(dim=0).square().sum(1) for x in _blocks(path)).sqrt()
    distance = _total((x[-1] - x[0]).square().sum() for x in _blocks(path)).sqrt()
    away = seen.diagonal().sqrt()
    elsewhere = away > 0
    if not bool(elsewhere.any()):
        raise ValueError("every point is the origin")
    similarity = (seen / away / away[:, None])[elsewhere][:, elsewhere].clamp(-1, 1)
    ends = elsewhere.nonzero().flatten()[[0, -1]]
    rays = (x[ends] / away[ends, None] for x in _blocks(path, start))
    steps = (x.diff(dim=0) / lengths[:, None] for x in _blocks(path))
    return Trajectory(
        similarity=similarity,
        mean_directional_similarity=float(similarity.mean()),
        angles=_angles(steps),
        start_angle=float(_angles(rays)[0]),
        length=float(lengths.sum()),
        distance=float(distance),
    )


def _angles(unit_rows: Iterable[Tensor]) -> Tensor:
    """Degrees between consecutive rows of length 1, given a block of their columns at a time; exact near 0 and 180 too
    (Kahan: twice the arc tangent of the halved rhombus)."""
    both = _total(torch.stack([rows[1:] - rows[:-1], rows[1:] + rows[:-1]]).square().sum(2) for rows in unit_rows)
    apart, together = both.sqrt()
    return torch.rad2deg(2 * torch.atan2(apart, together))


def _total(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _blocks(path: Sequence[Tensor], start: Tensor | None = None) -> Iterator[Tensor]:
    """All points, less `start`, in double precision, a block of weights at a time: shape (T + 1, width)."""
    width = max(1, BLOCK_NUMBERS // len(path))
    for first in range(0, len(path[0]), width):
        block = torch.stack([row[first : first + width].double() for row in path])
        yield block if start is None else block - start[first : first + width].double()


def _flat(point: Point | Tensor) -> Tensor:
    if isinstance(point, Tensor):
        parts = [point]
    else:
        parts = list(point.parameters() if isinstance(point, nn.Module) else point.values())
    return torch.cat([part.detach().flatten() for part in parts])
