"""Scalar curvature against surfaces and distributions of which it is known, and two formulae against each other."""

import math
import re
from pathlib import Path

import pytest
import torch
from geometry import Formula, batch, distribution, product, small_net
from torch import nn

from fipbench.fip.metric import metric_of
from fipbench.fip.metric.curvature import curvature_of_graph, scalar_curvature

ONE = torch.ones(1, 1, dtype=torch.float64)


def surface(formula, *weights):
    """The metric that a map from weights to points in space takes from there."""
    network = Formula(weights, lambda w, x: torch.stack(formula(w))[None].expand(len(x), -1))
    return metric_of(network, ONE)


def sphere(radius, angles):
    """A sphere by its angles: as many dimensions as angles."""

    def formula(w):
        rest, found = radius, []
        for angle in w:
            found.append(rest * angle.cos())
            rest = rest * angle.sin()
        return [*found, rest]

    return surface(formula, *angles)


@pytest.mark.parametrize("radius", [0.5, 1.7])
@pytest.mark.parametrize("angles", [(0.7, 0.3), (1.1, 0.4, 2.0), (0.9, 1.2, 0.5, 0.1)])
def test_a_sphere_has_n_times_n_less_one_over_its_radius_squared(radius, angles):
    n = len(angles)
    found = scalar_curvature(sphere(radius, angles))
    assert found.value == pytest.approx(n * (n - 1) / radius**2, rel=1e-9)
    assert (found.mu, found.regularised) == (0.0, False)


@pytest.mark.parametrize("v", [0.0, 1.0, math.pi / 2, 3.0])
def test_a_torus_is_curved_one_way_outside_and_the_other_inside(v):
    big, small = 2.0, 0.7

    def formula(w):
        out = big + small * w[1].cos()
        return [out * w[0].cos(), out * w[0].sin(), small * w[1].sin()]

    gaussian = math.cos(v) / (small * (big + small * math.cos(v)))
    assert scalar_curvature(surface(formula, 0.4, v)).value == pytest.approx(2 * gaussian, abs=1e-9)


def test_a_saddle_at_its_centre():
    assert scalar_curvature(surface(lambda w: [w[0], w[1], w[0] * w[1]], 0.0, 0.0)).value == pytest.approx(-2)


def test_what_can_be_laid_flat_is_flat():
    def cylinder(w):
        return [w[0].cos(), w[0].sin(), w[1]]

    assert scalar_curvature(surface(cylinder, 0.3, 2.0)).value == pytest.approx(0, abs=1e-12)
    torch.manual_seed(0)
    linear = nn.Linear(3, 2).double()
    assert scalar_curvature(metric_of(linear, batch(20, 3))).value == pytest.approx(0, abs=1e-12)
    assert scalar_curvature(surface(lambda w: [w[0].exp(), w[0] ** 3], 0.8)).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("weights", [(0.3, -0.8), (1.0, 0.2, -0.5)])
def test_distributions_on_k_classes_are_a_piece_of_a_sphere_of_radius_two(weights):
    k = len(weights) + 1
    found = scalar_curvature(metric_of(distribution(*weights), ONE, space="fisher"))
    assert found.value == pytest.approx((k - 1) * (k - 2) / 4, rel=1e-8)


def test_the_surface_of_a_function_is_its_graph_and_the_metric_with_mu_one():
    """(f(w), w): the equation of Gauss for one output against the formula of a graph."""
    w1, w2 = 0.6, -1.1
    graph = curvature_of_graph(torch.tensor([w2, w1]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert graph == pytest.approx(-2 / (1 + w1**2 + w2**2) ** 2)  # z = xy, by hand
    assert scalar_curvature(metric_of(product(w1, w2), ONE), mu=1.0).value == pytest.approx(graph, rel=1e-6)
    network, x = small_net(inputs=2, hidden=2, outputs=1), batch(1, 2)
    weights = nn.utils.parameters_to_vector(network.parameters()).detach()

    def value(w):
        parts = w.split([p.numel() for p in network.parameters()])
        named = {k: p.view_as(v) for (k, v), p in zip(network.named_parameters(), parts, strict=True)}
        return torch.func.functional_call(network, named, (x,)).squeeze()

    wanted = curvature_of_graph(torch.func.grad(value)(weights), torch.func.hessian(value)(weights))
    assert scalar_curvature(metric_of(network, x), mu=1.0).value == pytest.approx(wanted, rel=1e-8)
    assert abs(wanted) > 1e-3


def test_examples_in_blocks_are_the_same(monkeypatch):
    network, x = small_net(inputs=2, hidden=2, outputs=2), batch(9, 2)
    whole = scalar_curvature(metric_of(network, x), mu=0.1).value
    monkeypatch.setattr("fipbench.fip.metric.curvature.BLOCK_BYTES", 1)
    assert scalar_curvature(metric_of(network, x), mu=0.1).value == pytest.approx(whole, rel=1e-10)


def test_in_units_of_another_size():
    """Outputs c times as large: lengths grow by c, curvature falls by its square."""
    one, three = (surface(lambda w, c=c: [c * w[0], c * w[1], c * (w[0] ** 2 + w[1] ** 2)], 0.2, 0.5) for c in (1, 3))
    assert scalar_curvature(one).value == pytest.approx(9 * scalar_curvature(three).value)


def test_a_hemisphere_as_a_graph():
    radius, x, y = 1.3, 0.4, -0.6
    w = torch.tensor([x, y], dtype=torch.float64)

    def height(w):
        return (radius**2 - w @ w).sqrt()

    found = curvature_of_graph(torch.func.grad(height)(w), torch.func.hessian(height)(w))
    assert found == pytest.approx(2 / radius**2)


def test_a_singular_metric_is_regularised_and_the_result_says_so():
    found = scalar_curvature(metric_of(product(0.5, 0.8), ONE))
    assert found.regularised and found.mu > 0 and math.isfinite(found.value)


def test_mistakes():
    with pytest.raises(ValueError, match="at most 300 weights, got 404"):
        scalar_curvature(metric_of(nn.Linear(100, 4), torch.randn(3, 100)))
    with pytest.raises(ValueError, match=r"expected shapes \(n,\) and \(n, n\), got \(2,\) and \(3, 3\)"):
        curvature_of_graph(torch.zeros(2), torch.zeros(3, 3))


def test_the_page_shows_what_works():
    page = (Path(__file__).resolve().parents[2] / "docs" / "geometry.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from fipbench\.fip\.metric\.curvature .*?)```", page, flags=re.DOTALL)
    exec(code, {"g": sphere(1.0, (0.7, 0.3)), "gradient": torch.zeros(2), "hessian": torch.eye(2)})
