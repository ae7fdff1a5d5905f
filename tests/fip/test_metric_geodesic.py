"""Christoffel symbols and geodesics against their definition, hand-worked models and known geometries."""

import math

import numpy as np
import pytest
import torch
from geometry import Formula, batch, dense_jacobian, distribution, product, small_net
from torch import nn

from fipbench.fip.metric import christoffel, connect, geodesic, measure_path, metric_of

ONE = torch.ones(1, 1, dtype=torch.float64)
NOTHING = torch.zeros(1, 1, dtype=torch.float64)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# Outputs (w1 w2, w1): a chart of the plane, so geodesics are straight lines of the outputs.
def chart(*weights):
    return Formula(weights, lambda w, x: torch.stack([w[0] * w[1], w[0]])[None].expand(len(x), -1))


# -------------------------------------------------------------------------------------------- symbols


def test_the_symbols_are_those_of_the_definition():
    """1/2 g^-1 (d_v g_rm + d_m g_rv - d_r g_mv), g dense and its derivatives by differences."""
    network, x, mu = small_net(inputs=2, hidden=2, outputs=2), batch(3, 2), 0.1
    n, step = 12, 1e-4
    here = nn.utils.parameters_to_vector(network.parameters()).detach()

    def g_at(vector):
        nn.utils.vector_to_parameters(vector, network.parameters())
        j = dense_jacobian(network, x) / math.sqrt(3)
        nn.utils.vector_to_parameters(here, network.parameters())
        return j.T @ j + mu * np.eye(n)

    d = np.stack([(g_at(here + step * e) - g_at(here - step * e)) / 2 / step for e in torch.eye(n).double()], axis=-1)
    lower = (d + d.transpose(0, 2, 1) - d.transpose(2, 0, 1)) / 2  # [r, m, v] of d[a, b, c] = d_c g_ab
    expected = np.einsum("hr,rmv->hmv", np.linalg.inv(g_at(here)), lower)
    found = christoffel(metric_of(network, x), mu=mu)
    np.testing.assert_allclose(found.symbols, expected, atol=1e-5)
    assert (found.mu, found.regularised) == (mu, False) and np.abs(expected).max() > 0.1


def test_the_symbols_of_the_product_model_by_hand():
    """f = w1 w2 x: Gamma^1_12 = x^2 w2 / (x^2 (w1^2 + w2^2) + mu), Gamma^2_12 with w1; all others are zero."""
    w1, w2, x, mu = 1.5, -0.7, 2.0, 0.3
    found = christoffel(metric_of(product(w1, w2), x * ONE), mu=mu).symbols
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 1] = expected[0, 1, 0] = x**2 * w2 / (x**2 * (w1**2 + w2**2) + mu)
    expected[1, 0, 1] = expected[1, 1, 0] = x**2 * w1 / (x**2 * (w1**2 + w2**2) + mu)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_linear_model_has_no_symbols_and_straight_geodesics():
    network, x = nn.Linear(3, 2).double(), batch(20, 3)
    g = metric_of(network, x)
    assert float(christoffel(g).symbols.abs().max()) < 1e-12
    v = torch.arange(8.0).double()
    for found in (geodesic(g, v, points=5), connect(g, g.weights + v, points=5)):
        np.testing.assert_allclose(found.points, g.weights + found.times[:, None] * v, atol=1e-8)
        assert found.drift < 1e-8 and not found.regularised and found.mu == 0
        assert found.length == pytest.approx(math.sqrt(g.squared_speed(v)))


# ------------------------------------------------------------------------------- from a point and a velocity


def test_the_geodesic_of_the_product_model_is_that_of_a_finely_integrated_equation():
    """w1'' = -2 x^2 w2 w1' w2' / (x^2 r^2 + mu), w2'' with w1, by Runge and Kutta's rule in 2,000 steps."""
    x, mu, steps = 2.0, 0.3, 2_000

    def slope(y):
        w1, w2, v1, v2 = y
        push = -2 * x**2 * v1 * v2 / (x**2 * (w1**2 + w2**2) + mu)
        return np.array([v1, v2, push * w2, push * w1])

    y, h = np.array([1.0, 0.5, 0.8, -1.1]), 2.0 / steps
    for _ in range(steps):
        a = slope(y)
        b = slope(y + h / 2 * a)
        c = slope(y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c))
    found = geodesic(metric_of(product(1.0, 0.5), x * ONE), tensor(0.8, -1.1), duration=2.0, mu=mu, points=9)
    np.testing.assert_allclose(found.points[-1], y[:2], atol=1e-8)
    np.testing.assert_allclose(found.velocities[-1], y[2:], atol=1e-8)
    assert found.drift < 1e-8 and found.times[-1] == 2
    # The surface z = x w1 w2 / sqrt(mu) is ruled: with one weight fixed the geodesic is a straight line.
    ruled = geodesic(metric_of(product(1.0, 0.5), x * ONE), tensor(0.0, -1.1), mu=mu, points=3)
    np.testing.assert_allclose(ruled.points, [[1.0, 0.5], [1.0, -0.05], [1.0, -0.6]], atol=1e-9)


def test_the_speed_is_conserved_where_the_euclidean_one_is_not():
    network, x = small_net(inputs=2, hidden=3, outputs=2), batch(12, 2)
    g = metric_of(network, x, space="fisher")
    v = torch.randn(g.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = geodesic(g, v, mu=1e-2, points=11)
    euclidean = found.velocities.square().sum(1)
    assert found.drift < 1e-6 and float((euclidean / euclidean[0] - 1).abs().max()) > 0.05
    assert float(found.squared_speeds[0]) == pytest.approx(g.squared_speed(v) + 1e-2 * float(v.square().sum()))


def test_outputs_that_are_a_chart_of_the_plane_move_in_straight_lines():
    g = metric_of(chart(2.0, 1.0), NOTHING)
    found = geodesic(g, tensor(0.5, 1.0), points=5)
    outputs = torch.stack([found.points[:, 0] * found.points[:, 1], found.points[:, 0]], 1)
    expected = tensor(2.0, 2.0) + found.times[:, None] * tensor(2.5, 0.5)
    np.testing.assert_allclose(outputs, expected, atol=1e-8)
    assert found.length == pytest.approx(math.hypot(2.5, 0.5), rel=1e-8)


def test_a_singular_metric_is_regularised_and_the_result_says_so():
    g = metric_of(product(1.0, 2.0), ONE)
    mu = 5 * math.sqrt(np.finfo(float).eps)
    found = geodesic(g, tensor(1.0, 1.0), points=3)
    assert found.regularised and found.mu == pytest.approx(mu)
    assert christoffel(g).regularised and connect(g, tensor(1.1, 2.1)).regularised
    # What is left of the metric is the output's own line: the output changes at a constant rate.
    values = found.points.prod(1)
    assert float(values[2] - values[1]) == pytest.approx(float(values[1] - values[0]), rel=1e-5)


# ------------------------------------------------------------------------------------- between two points


def test_the_geodesic_between_two_distributions_is_the_great_circle():
    """Fisher's metric of three classes is a sphere of radius 2: distance 2 arccos sum_k sqrt(p_k q_k)."""
    a, b = (1.0, -0.5), (-1.0, 1.5)
    p, q = (torch.softmax(tensor(*end, 0.0), 0) for end in (a, b))
    arc = 2 * math.acos(float((p * q).sqrt().sum()))
    g = metric_of(distribution(*a), NOTHING, space="fisher")
    found = connect(g, distribution(*b), points=41)
    np.testing.assert_allclose(found.points[-1], b, atol=1e-9)
    assert found.length == pytest.approx(arc, rel=1e-5) and found.drift < 1e-4 and not found.regularised
    middle = torch.softmax(torch.cat([found.points[20], tensor(0.0)]), 0)
    halfway = (p.sqrt() + q.sqrt()) / (p.sqrt() + q.sqrt()).norm()
    np.testing.assert_allclose(middle.sqrt(), halfway, atol=1e-5)
    # The straight line is longer, by the measure that serves networks of any size.
    ends = tensor(*a), tensor(*b)
    line = [ends[0] + (ends[1] - ends[0]) * i / 200 for i in range(201)]
    assert measure_path(g, found.points).length == pytest.approx(arc, rel=1e-3)
    assert measure_path(g, line).length > arc * 1.01


def test_the_two_problems_have_the_same_solution():
    """From the start and the velocity that `connect` found, `geodesic` arrives where it ended."""
    network, other = (small_net(seed, inputs=2, hidden=2, outputs=2) for seed in (0, 1))
    g = metric_of(network, batch(4, 2))
    found = connect(g, other, mu=0.1, points=5)
    shot = geodesic(g, found.velocities[0], mu=0.1, points=5)
    np.testing.assert_allclose(shot.points, found.points, atol=1e-4)
    np.testing.assert_allclose(found.points[-1], nn.utils.parameters_to_vector(other.parameters()).detach(), atol=1e-9)


# ------------------------------------------------------------------------------------------------- mistakes


def test_too_many_weights():
    g = metric_of(small_net(hidden=40), batch(2))
    for call in (christoffel, lambda g: geodesic(g, g.weights), lambda g: connect(g, g.weights)):
        with pytest.raises(ValueError, match="at most 300 weights, got 323"):
            call(g)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: geodesic(g, tensor(1.0)), r"\(2,\), got \(1,\)"),
        (lambda g: connect(g, small_net()), "no weights 'w'"),
        (lambda g: geodesic(g, tensor(1.0, 1.0), mu=-1), "mu must be"),
        (lambda g: christoffel(g, mu=math.nan), "mu must be"),
        (lambda g: geodesic(g, tensor(1.0, 1.0), points=1), "two points or more"),
        (lambda g: geodesic(g, tensor(1.0, 1.0), duration=0), "duration above 0"),
        (lambda g: connect(g, tensor(1.0, 1.0), points=1), "two points or more"),
    ],
)
def test_options_out_of_range(call, says):
    with pytest.raises(ValueError, match=says):
        call(metric_of(product(1.0, 1.0), ONE))


def test_a_geodesic_that_runs_into_a_singular_point_says_when():
    """The chart (w1 w2, w1) ends at w1 = 0, which a start from 0.01 at speed -1 reaches at t = 0.01."""
    with pytest.raises(FloatingPointError, match=r"g is singular at t = 0\.0(0|1)"):
        geodesic(metric_of(chart(0.01, 1.0), NOTHING), tensor(-1.0, 0.5), duration=2.0, rtol=1e-4)


def test_no_geodesic_within_the_nodes():
    g = metric_of(small_net(0, inputs=2, hidden=2, outputs=2), batch(4, 2))
    with pytest.raises(RuntimeError, match="no geodesic found"):
        connect(g, small_net(1, inputs=2, hidden=2, outputs=2), mu=1e-3, tolerance=1e-9, max_nodes=12)
