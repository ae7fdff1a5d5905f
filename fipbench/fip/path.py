"""Paths in weight space: points and lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

Point = nn.Module | Mapping[str, Tensor]


def distance_walked(start: Point, end: Point) -> float:
    """Euclidean distance of two networks in weight space, || w_end - w_start ||_2, over all parameters.

    Args:
        start, end: modules, or mappings from names to tensors; same names and shapes.

    Raises:
        ValueError: names or shapes differ.
    """
    a, b = _weights(start), _weights(end)
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        raise ValueError("the networks differ in the names or shapes of their weights")
    with torch.no_grad():
        return sum(float((b[n].double() - a[n].double()).square().sum()) for n in a) ** 0.5


def path_length(points: Iterable[Point]) -> float:
    """Length of a path: the sum of || w_i - w_(i-1) ||_2 over consecutive networks (FIP length).

    Two points are held at a time, so a long path can be streamed. A module that is yielded again after being
    changed in place is seen as it was at each time.

    Source: Nature Machine Intelligence 6 (2024), Methods.
    """
    total = 0.0
    last: dict[str, Tensor] | None = None
    for point in points:
        current = {name: value.detach().clone() for name, value in _weights(point).items()}
        if last is not None:
            total += distance_walked(last, current)
        last = current
    return total


def _weights(point: Point) -> Mapping[str, Tensor]:
    return dict(point.named_parameters()) if isinstance(point, nn.Module) else point
