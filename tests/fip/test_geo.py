"""Geo: its quadratic programme against closed forms and scipy, its walk against what can be said by hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from geometry import Formula, batch, dense_jacobian, small_net
from scipy.optimize import minimize
from torch import nn

from fipbench.fip import metric
from fipbench.fip.geo import cost, direction, geo

ONE = torch.ones(1, 1, dtype=torch.float64)


def linear(*weights):
    """f = A w with the inputs as A: g = A'A / N, the same everywhere."""
    return Formula(list(weights), lambda w, x: x @ w[:, None])


def flat(*weights):
    """Outputs that no weight changes: g = 0."""
    return Formula(list(weights), lambda w, x: 0 * w.sum() + x[:, :1])


def spectrum(network, inputs, **options):
    return metric.gram(metric.metric_of(network, inputs, **options))


def moved(network, by=0.3, seed=5):
    other = copy.deepcopy(network)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(by * torch.randn_like(p))
    return other


def vector(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach()


# -------------------------------------------------------------------------------------- the quadratic programme


@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
def test_without_a_metric_theta_is_the_difference_at_the_bound(beta):
    found = direction(spectrum(flat(0.0, 0.0), ONE), torch.tensor([3.0, 4.0]), beta=beta)
    torch.testing.assert_close(found.vector, torch.tensor([0.06, 0.08], dtype=torch.float64))
    # (beta / 2) d / mu has norm 0.1.
    assert found.bound and found.mu == pytest.approx(beta / 2 * 5 / 0.1)


def test_with_the_identity_as_metric_theta_is_half_beta_times_the_difference_until_the_bound_binds():
    g = spectrum(linear(0.0, 0.0), torch.eye(2, dtype=torch.float64), reduction="sum")
    free = direction(g, torch.tensor([0.03, 0.04]), beta=2.0)
    torch.testing.assert_close(free.vector, torch.tensor([0.03, 0.04], dtype=torch.float64))
    assert (free.mu, free.bound) == (0.0, False)
    held = direction(g, torch.tensor([0.3, 0.4]), beta=2.0)
    torch.testing.assert_close(held.vector, torch.tensor([0.06, 0.08], dtype=torch.float64))
    # d / (1 + mu) = 0.5 / (1 + mu) = 0.1
    assert held.bound and held.mu == pytest.approx(4.0)


def test_a_metric_with_a_stiff_and_a_soft_direction_by_hand():
    """g = diag(3, 1), mu = 1 where the bound is the length of (0.4 / 4, 0.2 / 2) = (0.1, 0.1)."""
    g = spectrum(linear(0.0, 0.0), torch.tensor([[3**0.5, 0.0], [0.0, 1.0]], dtype=torch.float64), reduction="sum")
    found = direction(g, torch.tensor([0.4, 0.2]), beta=2.0, radius=0.1 * 2**0.5)
    torch.testing.assert_close(found.vector, torch.tensor([0.1, 0.1], dtype=torch.float64))
    assert found.mu == pytest.approx(1.0)


@pytest.mark.parametrize("beta", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("examples", [2, 40])  # fewer rows than weights, and more
def test_nothing_that_scipy_finds_is_better(beta, examples):
    network, x = small_net(), batch(examples)
    j = dense_jacobian(network, x) / math.sqrt(examples)
    d = vector(moved(network)) - vector(network)
    found = direction(spectrum(network, x), d, beta=beta)
    assert found.vector.norm() <= 0.1 * (1 + 1e-9)

    def value(theta):
        return float((j @ theta) @ (j @ theta) - beta * theta @ d.numpy())

    def slope(theta):
        return 2 * j.T @ (j @ theta) - beta * d.numpy()

    inside = {"type": "ineq", "fun": lambda t: 0.01 - t @ t, "jac": lambda t: -2 * t}
    best = minimize(value, np.zeros(len(d)), jac=slope, constraints=[inside], options={"ftol": 1e-15, "maxiter": 500})
    ours = value(found.vector.numpy())
    assert ours <= best.fun + 1e-9 * abs(best.fun)
    assert ours == pytest.approx(best.fun, rel=1e-4)
    # And (g + mu I) theta = (beta / 2) d.
    left = j.T @ (j @ found.vector.numpy()) + found.mu * found.vector.numpy()
    np.testing.assert_allclose(left, beta / 2 * d.numpy(), atol=1e-7 * beta * float(d.norm()))


def test_a_small_beta_leaves_the_part_of_the_difference_that_the_metric_does_not_see():
    network, x = small_net(), batch(4)
    g, d = spectrum(network, x), vector(moved(network)) - vector(network)
    found, null = direction(g, d, beta=1e-9).vector, g.invariant_part(d)
    assert torch.cosine_similarity(found, null, dim=0) > 1 - 1e-9
    straight = direction(g, d, beta=1e9).vector
    assert torch.cosine_similarity(straight, d, dim=0) > 1 - 1e-9
    assert torch.cosine_similarity(null, d, dim=0) < 0.95, "the two must be unlike for this to say anything"


def test_a_difference_within_the_range_of_a_singular_metric_is_gone_along_by_its_pseudo_inverse():
    g = spectrum(linear(0.0, 0.0), torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    found = direction(g, torch.tensor([0.01, 0.0]), beta=2.0)
    torch.testing.assert_close(found.vector, torch.tensor([0.0025, 0.0], dtype=torch.float64))
    assert not found.bound


def test_mistakes_in_the_programme():
    g = spectrum(linear(0.0, 0.0), ONE.expand(1, 2))
    for options in ({"beta": 0.0}, {"beta": math.nan}, {"radius": -1.0}):
        with pytest.raises(ValueError, match="must be above 0"):
            direction(g, torch.ones(2), **options)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        direction(g, torch.ones(3))
    with pytest.raises(ValueError, match="no difference"):
        direction(g, torch.zeros(2))
    with pytest.raises(FloatingPointError):
        direction(g, torch.tensor([1.0, math.nan]))


# -------------------------------------------------------------------------------------------------- the walk


def test_without_a_metric_the_walk_is_the_straight_line_in_steps_of_eta():
    start, end = flat(0.0, 0.0), torch.tensor([3.0, 4.0], dtype=torch.float64)
    path = geo(start, end, [ONE], 100, eta=0.5)
    assert path.reached and path.distance_left == 0
    torch.testing.assert_close(
        torch.stack(path.points), torch.stack([end * n / 10 for n in range(11)]), atol=1e-9, rtol=0
    )
    np.testing.assert_allclose(path.distances, [5 - 0.5 * n for n in range(10)] + [0.0], atol=1e-9)
    assert path.numbers == tuple(range(11))


def test_a_linear_network_goes_round_what_changes_its_outputs():
    """f = w_1: first along w_2, which nothing sees; a large step along w_1 comes only with a large beta."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    end = torch.tensor([1.0, 1.0], dtype=torch.float64)
    soft = geo(linear(0.0, 0.0), end, [x], 5, beta=1e-6, eta=0.1)
    torch.testing.assert_close(soft.points[-1], torch.tensor([0.0, 0.5], dtype=torch.float64), atol=1e-4, rtol=0)
    hard = geo(linear(0.0, 0.0), end, [x], 5, beta=1e6, eta=0.1)
    torch.testing.assert_close(hard.points[-1], torch.full((2,), 0.5 / 2**0.5, dtype=torch.float64))


def test_each_step_is_eta_long_and_along_theta():
    network, x = small_net(), batch(3)
    other = moved(network)
    path = geo(network, other, [x], 3, beta=0.01, eta=0.05)
    w = vector(network)
    for point in path.points[1:]:
        at = copy.deepcopy(network)
        nn.utils.vector_to_parameters(w, at.parameters())
        theta = direction(spectrum(at, x), vector(other) - w, beta=0.01).vector
        w = w + 0.05 * theta / theta.norm()
        torch.testing.assert_close(point, w)
    assert path.stopped == "steps" and len(path.mus) == 3


def test_the_outputs_change_less_than_along_the_line():
    network, x = small_net(hidden=12), batch(3)
    other = moved(network, 0.5)
    path = geo(network, other, [x], 40, beta=1e-3, eta=0.02)
    far = float((path.points[-1] - path.points[0]).norm())
    line = vector(network) + far * (d := vector(other) - vector(network)) / d.norm()

    def change(w):
        at = copy.deepcopy(network)
        nn.utils.vector_to_parameters(w, at.parameters())
        return (at(x) - network(x)).norm().item()

    assert change(path.points[-1]) < 0.05 * change(line)


def test_refresh_says_how_often_g_is_taken():
    network, x = small_net(), batch(2)
    taken = []
    for refresh in (1, 3, 0):
        drawn = iter([x] * 20)
        geo(network, moved(network), drawn, 7, beta=0.01, eta=0.01, refresh=refresh)
        taken.append(20 - len(list(drawn)))
    assert taken == [7, 3, 1]
    fixed, anew = (geo(network, moved(network, 1.0), [x], 20, beta=1e-3, eta=0.1, refresh=k).points[-1] for k in (0, 1))
    assert (fixed - anew).norm() > 1e-3


def test_every_batch_in_turn_is_what_g_is_taken_on():
    network, other = small_net(), moved(small_net())
    a, b = batch(2), batch(5, seed=9)
    path = geo(network, other, [a, b], 2, beta=0.01, eta=0.05)
    at = copy.deepcopy(network)
    nn.utils.vector_to_parameters(path.points[1], at.parameters())
    theta = direction(spectrum(at, b), vector(other) - path.points[1], beta=0.01).vector
    torch.testing.assert_close(path.points[2], path.points[1] + 0.05 * theta / theta.norm())


def test_small_oscillations_stop_it():
    """A step twice as long as the way left goes over the target and back again."""
    path = geo(flat(0.0), torch.tensor([1.05]), [ONE], 100, eta=0.1, reach=0.0, window=4)
    # Ten steps to 1.0, then 1.1, 1.0, 1.1, 1.0: 0.05 away each time.
    assert path.stopped == "oscillation" and not path.reached
    assert len(path.mus) == 14 and path.distance_left == pytest.approx(0.05)
    assert geo(flat(0.0), torch.tensor([1.05]), [ONE], 100, eta=0.1, reach=0.06).reached


def test_a_start_at_the_target_is_there():
    path = geo(flat(1.0), torch.tensor([1.0]), [ONE], 10)
    assert path.reached and len(path.points) == 1 and path.distances == (0.0,)


def test_keep_thins_the_points_and_leaves_both_ends():
    path = geo(flat(0.0), torch.tensor([1.0]), [ONE], 8, eta=0.1, keep=3)
    assert path.numbers == (0, 3, 6, 8) and len(path.distances) == 9
    torch.testing.assert_close(torch.cat(path.points), torch.tensor([0.0, 0.3, 0.6, 0.8], dtype=torch.float64))


def test_batch_norm_keeps_the_statistics_of_the_start():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    other = moved(network)
    other[1].running_mean.add_(1.0)
    found = list(geo(network, other, [batch(2)], 3, eta=0.1).networks(network))
    assert all(torch.equal(one[1].running_mean, network[1].running_mean) for one in found)
    assert not torch.equal(found[-1][1].weight, network[1].weight)


# ------------------------------------------------------------------------------------------ cost and mistakes


def test_what_is_told_as_spent():
    network, x = small_net(), batch(4)
    told = []
    geo(network, moved(network), [x], 5, eta=0.01, refresh=2, spend=lambda f, b: told.append((f, b)))
    # To begin with one look at the batch; g three times, 4 examples of 3 outputs; each step a product and a transposed.
    assert sum(f for f, _ in told) == 4 + 3 * 12 + 5 * 8
    assert sum(b for _, b in told) == 3 * 12 + 5 * 8
    assert cost(network[0].weight.numel(), 4, 3) == (24, 16)
    assert cost(3 * (2**28 // 48), 4, 3) == (72, 16)  # three blocks of a quarter GiB each


def test_what_is_not_finite_on_the_way_stops_at_the_last_good_point():
    """The outputs are the logarithm of w, which ends at zero."""
    network = Formula([1.0, 0.0], lambda w, x: (w[0] * x).log() + 0 * w[1])
    path = geo(network, torch.tensor([-1.0, 0.0]), [ONE], 100, beta=1e6, eta=0.15)
    assert path.stopped == "not finite" and "not finite" in path.problem
    assert bool(torch.stack(path.points).isfinite().all()) and float(path.points[-1][0]) > 0
    assert len(path.points) == len(path.distances) == len(path.mus) + 1
    assert path.distance_left == pytest.approx(float(path.points[-1][0]) + 1)


def test_mistakes_in_the_walk():
    network, x = small_net(), batch(3)
    with pytest.raises(ValueError, match="have shape"):
        geo(network, small_net(hidden=7), [x], 3)
    with pytest.raises(ValueError, match="shape"):
        geo(network, torch.zeros(3), [x], 3)
    with pytest.raises(ValueError, match=r"Gram matrix of 9 x 9.*take at most 2 examples"):
        geo(network, moved(network), [x], 3, max_rows=8)
    with pytest.raises(ValueError, match="no inputs"):
        geo(network, moved(network), [], 3)
    with pytest.raises(ValueError, match="too few"):
        geo(network, moved(network), iter([x]), 3, eta=0.01)
    broken = moved(network)
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="target"):
        geo(network, broken, [x], 3)
    with pytest.raises(FloatingPointError, match=r"0\.weight"):
        geo(broken, network, [x], 3)
    for option, value in (("eta", 0.0), ("refresh", -1), ("window", 0), ("keep", 0), ("tolerance", 2.0), ("reach", -1)):
        with pytest.raises(ValueError, match=option):
            geo(network, moved(network), [x], 3, **{option: value})
    with pytest.raises(ValueError, match="steps"):
        geo(network, moved(network), [x], 0)
