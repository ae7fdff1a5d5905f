"""Christoffel symbols and exact geodesics of small networks (at most 300 weights), in double precision.

For g = J^T J the derivatives of the metric come from the second derivatives of the outputs: with the outputs f_k
stacked (and scaled as J is), Gamma_(r, mv) = sum_k (d_r f_k)(d_m d_v f_k). A constant mu I adds nothing to them. So the
geodesics of g + mu I obey

    (g + mu I) w'' = - J^T (d^2 f)[w', w'],

which is the geodesic equation (Nature Machine Intelligence 6, 2024, equation 5) with one solve of n equations in place
of n^3 symbols. Where g is singular, as with fewer output rows than weights, its inverse does not exist; then mu is
put in, and the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_bvp, solve_ivp
from torch import Tensor

from fipbench.fip.metric.gram import BLOCK_BYTES, jacobian, regularisation
from fipbench.fip.metric.operator import Metric, differentiable
from fipbench.fip.path import Point

MAX_WEIGHTS = 300


@dataclass(frozen=True, eq=False)
class Christoffel:
    """Symbols of the second kind of g + mu I.

    Attributes:
        symbols: Gamma^h_(mv), shape (n, n, n), indexed [h, m, v].
        mu: the regularisation that was used.
        regularised: whether it was put in because g is singular, and not asked for.
    """

    symbols: Tensor
    mu: float
    regularised: bool


@dataclass(frozen=True, eq=False)
class Geodesic:
    """A geodesic of g + mu I.

    Attributes:
        times: shape (k,), from 0.
        points, velocities: shape (k, n) each.
        squared_speeds: <w', w'> under g + mu I at each point, shape (k,); constant along an exact geodesic.
        mu: the regularisation that was used.
        regularised: whether it was put in because g is singular, and not asked for.
    """

    times: Tensor
    points: Tensor
    velocities: Tensor
    squared_speeds: Tensor
    mu: float
    regularised: bool

    @property
    def drift(self) -> float:
        """Largest relative change of the squared speed: how far the numerical solution is from a geodesic's law."""
        first = self.squared_speeds[0]
        return float((self.squared_speeds / first - 1).abs().max()) if first > 0 else 0.0

    @property
    def length(self) -> float:
        """Length under g + mu I, by the trapezoidal rule over the points."""
        return float(torch.trapezoid(self.squared_speeds.sqrt(), self.times))


def christoffel(metric: Metric, *, mu: float = 0.0) -> Christoffel:
    """The Christoffel symbols at the metric's weights.

    Raises:
        ValueError: more than 300 weights, a batch too large, or mu out of range.
        FloatingPointError: outputs or derivatives are not finite.
    """
    fine, used, regularised = _prepared(metric, mu)
    n = fine.size
    lower = torch.zeros(n, n, n, dtype=torch.float64)
    g = used * torch.eye(n, dtype=torch.float64)
    at_once = max(1, BLOCK_BYTES // (8 * n * n * fine.outputs))
    for start in range(0, fine.examples, at_once):
        numbers = torch.arange(start, min(start + at_once, fine.examples))
        outputs = _flat_outputs(fine, numbers)
        with differentiable():
            first = torch.func.jacrev(outputs)(fine.weights)
            second = torch.func.jacfwd(torch.func.jacrev(outputs))(fine.weights)
        lower += torch.einsum("kr,kmv->rmv", first, second)
        g += first.T @ first
    symbols = torch.linalg.solve(g, lower.view(n, n * n)).view(n, n, n)
    if not bool(symbols.isfinite().all()):
        raise FloatingPointError("the Christoffel symbols are not finite: give a larger mu")
    return Christoffel(symbols, used, regularised)


def geodesic(
    metric: Metric,
    velocity: Tensor,
    *,
    duration: float = 1.0,
    points: int = 101,
    mu: float = 0.0,
    rtol: float = 1e-9,
) -> Geodesic:
    """The geodesic from the metric's weights with a given initial velocity (scipy's DOP853).

    Args:
        velocity: w'(0), shape (n,).
        duration: w is followed from t = 0 to there.
        points: at equal steps of t.
        mu: g + mu I is the metric; 0 is g itself, unless it is singular at the start.
        rtol: relative tolerance of a step; the absolute one is a hundredth of it.

    Raises:
        ValueError: more than 300 weights, a batch too large, a velocity of another shape, or an option out of range.
        FloatingPointError: not finite, or g singular, on the way; says at which time.
    """
    if points < 2 or not 0 < duration < math.inf:
        raise ValueError(f"expected two points or more and a duration above 0, got {points} and {duration}")
    fine, used, regularised = _prepared(metric, mu)
    start = torch.cat([fine.weights, fine.flatten(velocity)]).numpy()
    change = _right_hand_side(fine, used)
    found = solve_ivp(
        lambda t, y: change(np.array([t]), y[:, None])[:, 0],
        (0.0, duration),
        start,
        method="DOP853",
        t_eval=np.linspace(0.0, duration, points),
        rtol=rtol,
        atol=rtol / 100,
    )
    if not found.success:
        raise FloatingPointError(f"the geodesic ends at t = {found.t[-1]:.6g}: {found.message}")
    return _walked(fine, found.t, found.y, used, regularised)


def connect(
    metric: Metric,
    end: Point | Tensor,
    *,
    points: int = 101,
    mu: float = 0.0,
    tolerance: float = 1e-6,
    max_nodes: int = 1000,
) -> Geodesic:
    """A geodesic from the metric's weights to those of another network, t from 0 to 1 (scipy's solve_bvp).

    The search starts at the straight line. A solution is a geodesic; that it is the shortest path is not checked.

    Args:
        tolerance: relative residual of the differential equation on each interval.
        max_nodes: of the collocation mesh.

    Raises:
        ValueError: more than 300 weights, a batch too large, an end of another shape, or an option out of range.
        FloatingPointError: not finite, or g singular, on the way; says at which time.
        RuntimeError: no geodesic was found within `max_nodes`.
    """
    if points < 2:
        raise ValueError(f"expected two points or more, got {points}")
    fine, used, regularised = _prepared(metric, mu)
    n = fine.size
    a, b = fine.weights.numpy(), fine.at(end).weights.numpy()
    mesh = np.linspace(0.0, 1.0, 11)
    line = np.concatenate([a[:, None] + (b - a)[:, None] * mesh, np.repeat((b - a)[:, None], len(mesh), axis=1)])

    def ends(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.concatenate([first[:n] - a, last[:n] - b])

    found = solve_bvp(_right_hand_side(fine, used), ends, mesh, line, tol=tolerance, max_nodes=max_nodes)
    if not found.success:
        raise RuntimeError(f"no geodesic found: {found.message} Take a nearer end, a larger mu or more nodes")
    times = np.linspace(0.0, 1.0, points)
    return _walked(fine, times, found.sol(times), used, regularised)


def _prepared(metric: Metric, mu: float) -> tuple[Metric, float, bool]:
    """The metric in double precision, the mu to use, and whether it was put in."""
    if metric.size > MAX_WEIGHTS:
        raise ValueError(
            f"exact geodesics are for at most {MAX_WEIGHTS} weights, got {metric.size}; for larger networks take "
            "steps by Gram.solve or by products, and measure them with measure_path"
        )
    if not 0 <= mu < math.inf:
        raise ValueError(f"mu must be a number and not negative, got {mu}")
    fine = metric.double()
    values = torch.linalg.svdvals(jacobian(fine)).square()
    floor = max(fine.rows, fine.size) * torch.finfo(torch.float64).eps * float(values[0])
    used, regularised = regularisation(mu, int((values > floor).sum()) == fine.size, float(values[0]), torch.float64)
    return fine, used, regularised


def _flat_outputs(metric: Metric, numbers: Tensor) -> Callable[[Tensor], Tensor]:
    """The scaled outputs of these examples, in one row, as a function of the vector of weights."""
    inputs = metric.inputs_of(numbers)
    return lambda w: metric.scale * metric.embedded(metric.unflatten(w), inputs).flatten()


def _right_hand_side(metric: Metric, mu: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(w, w') -> (w', w'') for many times at once: (k,) and (2n, k) to (2n, k), as scipy has it."""
    n = metric.size
    outputs = _flat_outputs(metric, torch.arange(metric.examples))
    derivative = torch.func.jacrev(outputs) if metric.rows < n else torch.func.jacfwd(outputs)
    root = math.sqrt(mu) * torch.eye(n, dtype=torch.float64)
    tolerance = math.sqrt(max(metric.rows, n) * torch.finfo(torch.float64).eps)

    def derivatives(w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """J, and the second derivative of the outputs along v."""

        def speed(at: Tensor) -> Tensor:
            return torch.func.jvp(outputs, (at,), (v,))[1]

        return derivative(w), torch.func.jvp(speed, (w,), (v,))[1]

    at_once = max(1, BLOCK_BYTES // (8 * metric.rows * n))
    at_many = torch.func.vmap(derivatives, chunk_size=at_once)

    def change(t: np.ndarray, y: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(np.ascontiguousarray(y.T))
        with differentiable():
            j, second = at_many(state[:, :n], state[:, n:])
        # Least squares with rows [J; sqrt(mu) I], which squares no condition number as J^T J would.
        q, r = torch.linalg.qr(torch.cat([j, root.expand(len(j), n, n)], 1) if mu else j)
        turn = -torch.linalg.solve_triangular(r, q[:, : metric.rows].mT @ second[..., None], upper=True).squeeze(-1)
        pivots = r.diagonal(dim1=1, dim2=2).abs()
        bad = (pivots.amin(1) <= tolerance * pivots.amax(1)) | ~turn.isfinite().all(1)
        if bool(bad.any()):
            at = float(t[int(bad.nonzero()[0])])
            raise FloatingPointError(f"the geodesic is not finite or g is singular at t = {at:.6g}: give a larger mu")
        return np.concatenate([y[n:], turn.numpy().T])

    return change


def _walked(metric: Metric, times: np.ndarray, states: np.ndarray, mu: float, regularised: bool) -> Geodesic:
    n = metric.size
    points, velocities = (torch.from_numpy(np.ascontiguousarray(part.T)) for part in (states[:n], states[n:]))
    speeds = [
        metric.at(w).squared_speed(v) + mu * float(v.square().sum()) for w, v in zip(points, velocities, strict=True)
    ]
    return Geodesic(
        torch.from_numpy(np.ascontiguousarray(times)),
        points,
        velocities,
        torch.tensor(speeds, dtype=torch.float64),
        mu,
        regularised,
    )
