"""The step by sampling: points in a ball around the weights, and gradient descent from the best of them.

The papers describe it in a sentence ("samples points in an eps ball", then descends), and give neither the number of
points nor that of descents nor how one is chosen. Here the points are uniform in the ball, the centre is one of them,
the best is where the descent begins, and every step of the descent is brought back into the ball.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Objective = Callable[[nn.Module], Tensor]


@dataclass(frozen=True, eq=False)
class Ball:
    """A ball in weight space.

    Attributes:
        centre: the weights that require a gradient, in the order of `parameters()`, shape (n,).
        radius: Euclidean; above zero.
    """

    centre: Tensor
    radius: float

    @staticmethod
    def around(network: nn.Module, radius: float) -> Ball:
        """The ball around a network's weights.

        Raises:
            ValueError: the radius is not above zero, or there are no weights that require a gradient.
        """
        if not 0 < radius < math.inf:
            raise ValueError(f"radius must be above zero, got {radius}")
        if not (weights := _weights(network)):
            raise ValueError("the network has no weights that require a gradient")
        return Ball(nn.utils.parameters_to_vector(weights).detach().clone(), radius)

    def point(self, generator: torch.Generator | None = None) -> Tensor:
        """A point drawn uniformly in the ball, shape (n,). In many dimensions it is nearly always close to the rim."""
        direction = torch.randn(len(self.centre), generator=generator, dtype=torch.float64)
        share = float(torch.rand((), generator=generator, dtype=torch.float64)) ** (1 / len(self.centre))
        return self._within(self.centre, (self.radius * share / direction.norm() * direction).to(self.centre))

    def confine(self, network: nn.Module) -> float:
        """Bring the network's weights back into the ball along the line to the centre; returns their distance from it.

        Raises:
            FloatingPointError: a weight is not finite; the network is put back to the centre.
        """
        away = nn.utils.parameters_to_vector(_weights(network)).detach() - self.centre
        length = float(away.double().norm())
        if not math.isfinite(length):
            self.put(network, self.centre)
            raise FloatingPointError("the weights are not finite; the network was put back to the ball's centre")
        if length > self.radius:
            self.put(network, self._within(self.centre, away))
            length = self.radius
        return length

    def scatter(
        self, network: nn.Module, objective: Objective, samples: int, generator: torch.Generator | None = None
    ) -> list[float]:
        """Put the network on the best of `samples` points and the centre; the objective there, the centre's first.

        A point where the objective is not finite is none. The first of equals is taken, so that the centre is left for
        a lower value only.
        """
        best, lowest = self.centre, math.inf
        values: list[float] = []
        with torch.no_grad():
            for number in range(samples + 1):
                point = self.point(generator) if number else self.centre
                self.put(network, point)
                value = float(objective(network))
                if math.isfinite(value) and value < lowest:
                    best, lowest = point, value
                values.append(value)
            self.put(network, best)
        return values

    @torch.no_grad()
    def put(self, network: nn.Module, vector: Tensor) -> None:
        """Set the network's weights to a vector (n,), in place."""
        begin = 0
        for weight in _weights(network):
            weight.copy_(vector[begin : begin + weight.numel()].view_as(weight))
            begin += weight.numel()

    def _within(self, centre: Tensor, away: Tensor) -> Tensor:
        """centre + away, no further than the radius even after rounding."""
        point = centre + away
        while (length := float((point - centre).double().norm())) > self.radius:
            away = away * (self.radius / length * (1 - torch.finfo(away.dtype).eps))
            point = centre + away
        return point


@dataclass(frozen=True, eq=False)
class BallStep:
    """What `ball_step` found.

    Attributes:
        vector: the step psi, from the centre to where the network is now, shape (n,).
        before, after: the objective there and here.
        sampled: the objective at the points that were drawn.
    """

    vector: Tensor
    before: float
    after: float
    sampled: tuple[float, ...]


def ball_step(
    network: nn.Module,
    objective: Objective,
    *,
    radius: float,
    samples: int = 8,
    steps: int = 8,
    learning_rate: float = 0.01,
    generator: torch.Generator | None = None,
) -> BallStep:
    """Move a network to the lowest point found in the ball around it: never higher, never outside.

    For the direction of equation 4 the objective is distance(f(x, w), f(x, w_centre)) + beta L(w).

    Costs samples + steps + 1 evaluations of the objective and `steps` of its gradient.

    Args:
        objective: `network -> scalar`, the same function at every call.
        radius: of the ball, Euclidean.
        samples: points drawn beside the centre; the descent begins at the best.
        steps: of gradient descent, each followed by the projection on the ball.
        learning_rate: of the descent.
        generator: for the points.

    Source: Nature Machine Intelligence 6 (2024), the description of the algorithm; the defaults are ours.

    Raises:
        ValueError: an option out of range, or the objective at the centre is not finite.
        FloatingPointError: the descent left the finite numbers; the network is back at the centre.
    """
    if samples < 0 or steps < 0 or not learning_rate > 0:
        raise ValueError(
            f"samples and steps must not be negative, learning_rate above zero, got {samples}, {steps}, {learning_rate}"
        )
    ball = Ball.around(network, radius)
    values = ball.scatter(network, objective, samples, generator)
    if not math.isfinite(values[0]):
        raise ValueError(f"the objective at the centre is {values[0]}")
    best = nn.utils.parameters_to_vector(_weights(network)).detach().clone()
    lowest = min(value for value in values if math.isfinite(value))
    rule = torch.optim.SGD(_weights(network), lr=learning_rate)
    for _ in range(steps):
        rule.zero_grad(set_to_none=True)
        with torch.enable_grad():
            value = objective(network)
            value.backward()
        if (now := float(value.detach())) < lowest:
            lowest, best = now, nn.utils.parameters_to_vector(_weights(network)).detach().clone()
        rule.step()
        ball.confine(network)
    rule.zero_grad(set_to_none=True)
    with torch.no_grad():
        last = float(objective(network)) if steps else lowest
    if last < lowest:
        lowest, best = last, nn.utils.parameters_to_vector(_weights(network)).detach().clone()
    ball.put(network, best)
    return BallStep(best - ball.centre, values[0], lowest, tuple(values[1:]))


def _weights(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
