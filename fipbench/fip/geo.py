"""Geo(w_t, g, w_a, s): a path from one network towards another by steps that leave the outputs nearly as they are.

From w, each step solves (geodesics2021, equation 6)

    theta = argmin  theta' g theta - beta theta' (w_a - w)   subject to   theta' theta <= radius^2

and goes to w + eta theta / |theta| (equation 7). The solution is theta = (beta / 2) (g + mu I)^-1 (w_a - w), with the
least mu >= 0 that obeys the bound; it is found in the eigenbasis of the Gram matrix, to the rounding of the weights'
type. Since theta is normalised, the bound only sets how much of g's range is damped: beta |w_a - w| / radius large
gives the straight line, small the part of it in the null space of g.

What the paper leaves open is a parameter: `beta`, `eta`, how often g is taken anew (`refresh`), what counts as having
arrived (`reach`) and as small oscillations (`window`, `tolerance`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.fip.metric.gram import BLOCK_BYTES, MAX_ROWS, Gram, gram
from fipbench.fip.metric.operator import Forward, Metric, metric_of
from fipbench.fip.path import Point

# theta' theta <= 0.01 in the paper.
RADIUS = 0.1
Spend = Callable[[int, int], Any]


@dataclass(frozen=True, eq=False)
class Direction:
    """The solution of the quadratic programme.

    Attributes:
        vector: theta, shape (n,).
        mu: what is added to g; 0 where the bound does not bind.
        bound: whether theta' theta <= radius^2 binds.
    """

    vector: Tensor
    mu: float
    bound: bool


@dataclass(frozen=True, eq=False)
class GeoPath:
    """What Geo walked.

    Attributes:
        points: the weights that were kept, shape (n,) each: the start, every `keep`-th step's, the end.
        numbers: after how many steps each of them stands.
        distances: |w_a - w| at the start and after every step.
        mus: of every step.
        stopped: `reached`, `steps`, `oscillation` or `not finite`.
        problem: what was not finite; empty otherwise.
        metric: g at the start; its `unflatten` gives the parameters by name.
    """

    points: tuple[Tensor, ...]
    numbers: tuple[int, ...]
    distances: tuple[float, ...]
    mus: tuple[float, ...]
    stopped: str
    problem: str
    metric: Metric

    @property
    def reached(self) -> bool:
        """Whether the path ends at the target."""
        return self.stopped == "reached"

    @property
    def distance_left(self) -> float:
        """|w_a - w| at the end."""
        return self.distances[-1]

    def networks(self, like: nn.Module) -> Iterator[nn.Module]:
        """The points as networks: copies of `like` with their weights, one at a time."""
        for point in self.points:
            yield with_weights(like, self.metric, point)


def with_weights(network: nn.Module, metric: Metric, point: Tensor) -> nn.Module:
    """A copy of a network with the weights of a vector of shape (n,); whatever the metric does not move stays."""
    found = copy.deepcopy(network)
    parts = metric.unflatten(point)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name in parts:
                parameter.copy_(parts[name])
    return found


def direction(spectrum: Gram, difference: Tensor, *, beta: float = 1.0, radius: float = RADIUS) -> Direction:
    """The minimiser of theta' g theta - beta theta' difference among all |theta| <= radius.

    Where g is singular and the bound does not bind, it is the shortest minimiser.

    Args:
        spectrum: of g, by `fipbench.fip.metric.gram`.
        difference: w_a - w, shape (n,).

    Raises:
        ValueError: beta or radius out of range, a difference of another shape, or no difference at all.
        FloatingPointError: outputs, gradients or the difference are not finite.
    """
    for name, value in (("beta", beta), ("radius", radius)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    metric = spectrum.metric
    d = metric.flatten(difference)
    squared = float(d.double().square().sum())
    if not 0 < squared < math.inf:
        raise FloatingPointError("the difference is not finite") if squared else ValueError("there is no difference")
    known = spectrum.values > spectrum.floor
    values, vectors = spectrum.values[known], spectrum.vectors[:, known]
    # Components of d along the eigenvectors J' u / sqrt(lambda) of g, and how much of d g does not see.
    inside = (vectors.T @ metric.push(d).cpu().double()) / values.sqrt()
    free = squared - float(inside.square().sum())
    if len(values) == metric.size or free <= 64 * torch.finfo(d.dtype).eps * squared:  # nothing but rounding
        free = 0.0
    mu = _mu(values, inside.square(), free, 2 * radius / beta)
    if mu:
        # (1 / (lambda + mu) - 1 / mu) along g's range, 1 / mu everywhere.
        back = metric.pull((vectors @ (-inside / values.sqrt() * (values / (values + mu)))).to(d))
        theta = (d + back) / mu
    else:
        theta = metric.pull((vectors @ (inside / values.sqrt() / values)).to(d))
    # By the norm as it is known: what remains after rounding is scaled, its direction is the solution's.
    theta = beta / 2 * theta
    if mu:
        theta = theta * (radius / float(theta.double().norm()))
    return Direction(theta, mu, bool(mu))


def _mu(values: Tensor, squares: Tensor, free: float, most: float) -> float:
    """The least mu >= 0 with sum squares / (values + mu)^2 + free / mu^2 <= most^2, by bisection of its logarithm."""

    def too_long(mu: float) -> bool:
        seen = float((squares / (values + mu).square()).sum())
        return seen + (free / mu / mu if free else 0.0) > most * most

    if not free and not too_long(0.0):
        return 0.0
    high = math.sqrt(float(squares.sum()) + free) / most  # even if g were zero
    low = high
    while too_long(low) is False and low > high * 1e-15:
        low /= 16
    for _ in range(100):
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        low, high = (middle, high) if too_long(middle) else (low, middle)
    return high


def geo(
    network: nn.Module,
    target: Point | Tensor,
    inputs: Iterable[Any],
    steps: int,
    *,
    beta: float = 1.0,
    eta: float = 0.1,
    radius: float = RADIUS,
    refresh: int = 1,
    reach: float | None = None,
    window: int = 10,
    tolerance: float = 0.01,
    keep: int = 1,
    space: str = "logits",
    reduction: str = "mean",
    chunk: int = 64,
    max_rows: int = MAX_ROWS,
    forward: Forward | None = None,
    spend: Spend | None = None,
) -> GeoPath:
    """Walk from a network towards a target until it is reached, the steps are done, or the walk oscillates.

    Args:
        network: w_t; it is copied, and called in evaluation mode (batch norm by the statistics it has).
        target: w_a, of the same names and shapes.
        inputs: batches on which g is taken, one for each time it is; a list is gone through over and over.
        steps: s.
        beta: pull towards the target against keeping the outputs.
        eta: length of a step.
        refresh: g is taken anew at every so-manieth step; 0: at the start alone.
        reach: the target is reached at this distance or below, and becomes the last point; default eta.
        window, tolerance: small oscillations are `window` steps that together came nearer to the target by less than
            `tolerance` of their length, one of them at least going away from it.
        keep: every so-manieth point is kept, besides the first and the last.
        space, reduction, chunk, forward: as of `metric_of`; `max_rows` as of `gram`.
        spend: told before each piece of work how many examples it takes forward and backward. A product with J or its
            transpose takes the batch once each, J itself each of its rows once each for every block of weights.

    Raises:
        ValueError: an option out of range, a target of other names or shapes, no inputs, or batches too large for the
            Gram matrix (with the sizes and what to use instead).
        FloatingPointError: the start is not finite. What is not finite on the way stops the path at the last point at
            which g could be taken.
    """
    _check(steps=steps, eta=eta, refresh=refresh, reach=reach, window=window, tolerance=tolerance, keep=keep)
    batches = iter(inputs if isinstance(inputs, Iterator) else cycle(inputs))
    spent = spend or (lambda forward, backward: None)
    metric = metric_of(network, _next(batches), space=space, reduction=reduction, chunk=chunk, forward=forward)
    spent(min(chunk, metric.examples), 0)
    goal = metric.flatten(target).clone()
    if not bool(goal.isfinite().all()):
        raise FloatingPointError("the target's weights are not finite")
    near = eta * (1 + 1e-6) if reach is None else reach  # the last of n steps is eta long but for rounding
    walk = _Walk(metric, goal, keep)
    spectrum: Gram | None = None
    number, fresh, good, problem, stopped = 0, 0, 0, "", "steps"
    while number < steps and walk.distances[-1] > near and not problem:
        try:
            if spectrum is None or (refresh and number % refresh == 0):
                here = metric if spectrum is None else _on(metric.at(walk.w), _next(batches), reduction)
                spectrum, fresh = _spectrum(here, max_rows, spent), number
            spent(2 * spectrum.metric.examples, 2 * spectrum.metric.examples)
            found = direction(spectrum, goal - walk.w, beta=beta, radius=radius)
            good = fresh
            walk.step(eta * found.vector / found.vector.norm(), found.mu)
        except FloatingPointError as error:
            if not number:
                raise
            stopped, problem = "not finite", str(error)
            walk.back_to(good)
            break
        number += 1
        if _oscillates(walk.distances, window, tolerance * window * eta):
            stopped = "oscillation"
            break
    if not problem and walk.distances[-1] <= near:
        stopped = "reached"
        walk.arrive()
    return GeoPath(
        tuple(walk.points),
        tuple(walk.numbers),
        tuple(walk.distances),
        tuple(walk.mus),
        stopped,
        problem,
        metric,
    )


class _Walk:
    """Where a walk has been."""

    def __init__(self, metric: Metric, goal: Tensor, keep: int) -> None:
        self.w, self.goal, self.keep = metric.weights.clone(), goal, keep
        self.points, self.numbers = [self.w], [0]
        self.distances = [_distance(goal, self.w)]
        self.mus: list[float] = []

    def step(self, by: Tensor, mu: float) -> None:
        number = len(self.mus) + 1
        w = self.w + by
        if not bool(w.isfinite().all()):
            raise FloatingPointError(f"the weights after step {number} are not finite")
        self.w = w
        self.mus.append(mu)
        self._add(w, number)

    def arrive(self) -> None:
        """The target itself is the last point."""
        if self.distances[-1]:
            self._add(self.goal, len(self.distances))

    def back_to(self, good: int) -> None:
        """Give up what was walked after so many steps, or after the last point kept before."""
        count = sum(number <= good for number in self.numbers)
        last = self.numbers[count - 1]
        del self.points[count:], self.numbers[count:], self.distances[last + 1 :], self.mus[last:]

    def _add(self, w: Tensor, number: int) -> None:
        self.points.append(w)
        self.numbers.append(number)
        self.distances.append(_distance(self.goal, w))
        if self.numbers[-2] % self.keep:
            del self.points[-2], self.numbers[-2]


def _oscillates(distances: list[float], window: int, least: float) -> bool:
    if len(distances) <= window:
        return False
    recent = distances[-window - 1 :]
    away = any(after > before for before, after in pairwise(recent))
    return away and recent[0] - recent[-1] < least


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().norm())


def _on(metric: Metric, inputs: Any, reduction: str) -> Metric:
    """The same g on another batch."""
    first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    first = first if isinstance(first, Tensor) else first[0]
    scale = 1 / math.sqrt(len(first)) if reduction == "mean" else 1.0
    return replace(metric, inputs=inputs, examples=len(first), scale=scale)


def cost(weights: int, examples: int, outputs: int, element_size: int = 4) -> tuple[int, int]:
    """Passes, examples forward plus backward, that it takes to have g once, and that each step then takes."""
    rows = examples * outputs
    columns = max(1, BLOCK_BYTES // (rows * element_size))
    return 2 * -(-weights // columns) * rows, 4 * examples


def _spectrum(metric: Metric, max_rows: int, spent: Spend) -> Gram:
    if metric.rows <= max_rows:  # or it is refused, at no cost
        passes, _ = cost(metric.size, metric.examples, metric.outputs, metric.weights.element_size())
        spent(passes // 2, passes // 2)
    return gram(metric, max_rows=max_rows)


def _next(batches: Iterator[Any]) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError("there are no inputs on which to take g, or too few; give a list, or more batches") from None


def _check(
    *, steps: int, eta: float, refresh: int, reach: float | None, window: int, tolerance: float, keep: int
) -> None:
    for name, value in (("steps", steps), ("window", window), ("keep", keep)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 < eta < math.inf:
        raise ValueError(f"eta must be above 0 and finite, got {eta}")
    if refresh < 0:
        raise ValueError(f"refresh must be 0 (never) or a number of steps, got {refresh}")
    if reach is not None and not 0 <= reach < math.inf:
        raise ValueError(f"reach must be a distance, got {reach}")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be a fraction, got {tolerance}")
