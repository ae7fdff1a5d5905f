"""Length and energy of a path of networks under the metric, for networks of any size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from fipbench.fip.metric.operator import Metric
from fipbench.fip.path import Point


@dataclass(frozen=True)
class PathMeasure:
    """What a path measures.

    Attributes:
        length: the integral of sqrt(<w', w'>_g) dt; does not depend on how the path is passed through.
        energy: the integral of <w', w'>_g dt for t from 0 to 1, points at equal steps of t. It is what geodesics2021,
            equation 4, prints as a length; never below length^2, and equal to it at constant speed.
        euclidean: the sum of |w_i - w_(i-1)| (the FIP length of Nature Machine Intelligence 6, 2024).
        segments: number of points less one.
    """

    length: float
    energy: float
    euclidean: float
    segments: int


def measure_path(metric: Metric, points: Iterable[Point | Tensor]) -> PathMeasure:
    """Length and energy of a path, by one product for each segment with J at the segment's middle (midpoint rule).

    For points on a smooth path the error is of second order in the segment's length. The metric moves along the path;
    its batch, outputs and reduction stay. Two points are held at a time.

    Args:
        points: networks, mappings or vectors (n,) in order; a module that is changed in place is seen as it was.

    Raises:
        ValueError: no points, or weights of another shape.
        FloatingPointError: weights or outputs are not finite; says between which points.
    """
    length = squares = euclidean = 0.0
    count = 0
    last: Tensor | None = None
    for point in points:
        current = metric.flatten(point).clone()
        if last is not None:
            step = current - last
            try:
                squared = metric.at(last + step / 2).squared_speed(step)
            except FloatingPointError as error:
                raise FloatingPointError(f"between points {count - 1} and {count} of the path: {error}") from error
            length += math.sqrt(squared)
            squares += squared
            euclidean += float(step.double().norm())
        last = current
        count += 1
    if not count:
        raise ValueError("a path needs at least one point")
    return PathMeasure(length, squares * (count - 1), euclidean, count - 1)
