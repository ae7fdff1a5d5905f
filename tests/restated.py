"""Continual methods restated in numpy: what is changed about a gradient, and the walk that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from streams import Weights, cross_entropy_slope, gradient, images, length, logits

from fipbench.training import Batch, Examples

Change = Callable[[Weights, Weights, Batch], Weights]


def own_gradient(weights: Weights, examples: Batch | Examples) -> Weights:
    """Gradient of the mean cross-entropy over all outputs."""
    x, y = images(examples.inputs), examples.labels.numpy()
    return gradient(weights, x, cross_entropy_slope(logits(weights, x), y))


def walk(start: Weights, batches: Iterable[Batch], change: Change, rate: float, momentum: float = 0.9) -> list[Weights]:
    """Gradient descent with momentum; `change(weights, gradient, batch)` is the method. The weights after each step."""
    weights, speed, path = dict(start), {name: np.zeros_like(value) for name, value in start.items()}, []
    for batch in batches:
        slope = change(weights, own_gradient(weights, batch), batch)
        speed = {name: momentum * speed[name] + slope[name] for name in weights}
        weights = {name: weights[name] - rate * speed[name] for name in weights}
        path.append(weights)
    return path


def flat(weights: Weights) -> np.ndarray:
    """All of it as one vector, by name."""
    return np.concatenate([weights[name].ravel() for name in sorted(weights)])


def shaped(vector: np.ndarray, like: Weights) -> Weights:
    """The vector that `flat` makes, cut into the shapes of `like`."""
    names = sorted(like)
    parts = np.split(vector, np.cumsum([like[name].size for name in names])[:-1])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}


def apart(found: Weights, wanted: Weights, start: Weights) -> float:
    """How far two ends of a walk lie apart, as a fraction of the way from the start."""
    return length(found, wanted) / length(wanted, start)
