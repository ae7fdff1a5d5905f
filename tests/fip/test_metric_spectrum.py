"""Lanczos against numpy's eigenvalues; the Marchenko-Pastur law against random matrices and quadrature."""

import math

import numpy as np
import pytest
import torch
from geometry import Formula, batch, dense_jacobian, small_net
from scipy import stats
from scipy.integrate import quad

from fipbench.fip.metric import (
    MarchenkoPastur,
    density,
    extremes,
    gram,
    kolmogorov_smirnov,
    lanczos,
    law_of,
    metric_of,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetric(size, seed=0):
    a = torch.randn(size, size, generator=seeded(seed), dtype=torch.float64)
    return a + a.T


def test_lanczos_to_the_end_has_every_eigenvalue():
    a = symmetric(40)
    found = lanczos(lambda v: a @ v, torch.ones(40), 40)
    np.testing.assert_allclose(found.eigen()[0], np.linalg.eigvalsh(a.numpy()), atol=1e-10)
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(40), atol=1e-12)


def test_lanczos_keeps_its_basis_orthogonal_and_stops_where_the_space_is_invariant():
    """Eigenvalues over 16 decades cost an unguarded recurrence its orthogonality; three unlike ones end it."""
    wide = torch.logspace(-8, 8, 100, dtype=torch.float64)
    basis = lanczos(lambda v: wide * v, torch.ones(100), 60).basis
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)
    three = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).repeat(10)
    found = lanczos(lambda v: three * v, torch.randn(30, generator=seeded(), dtype=torch.float64), 20)
    assert found.left < 1e-12
    np.testing.assert_allclose(found.eigen()[0], [1, 2, 5], atol=1e-12)


@pytest.mark.parametrize("examples", [5, 40])
def test_the_ends_of_the_spectrum(examples):
    """15 rows of 51 weights (the smaller side is K), and 120 of 51 (it is g)."""
    network, x = small_net(), batch(examples)
    j = dense_jacobian(network, x) / math.sqrt(examples)
    values = np.linalg.eigvalsh(j @ j.T if examples == 5 else j.T @ j)
    g = metric_of(network, x)
    found = extremes(g, steps=51, generator=seeded())
    assert found.largest == pytest.approx(values[-1], rel=1e-7)
    assert found.smallest == pytest.approx(values[0], abs=1e-8)
    assert found.zeros == max(0, 51 - 3 * examples)


def test_the_bounds_of_the_ends_hold_before_convergence():
    network, x = small_net(), batch(5)
    values = gram(metric_of(network, x)).values.numpy()
    found = extremes(metric_of(network, x), steps=4, generator=seeded())
    assert np.abs(values - found.largest).min() <= found.largest_error
    assert np.abs(values - found.smallest).min() <= found.smallest_error
    assert found.smallest_error > 1e-6 * found.largest
    # They are the residuals |K y - theta y| of the unit vectors y that belong to the ends.
    j = dense_jacobian(network, x) / math.sqrt(5)
    k = torch.from_numpy(j @ j.T)
    run = lanczos(lambda v: k @ v, torch.randn(15, generator=seeded(), dtype=torch.float64), 4)
    ends, vectors = run.eigen()
    y = run.basis.T @ vectors
    residuals = (k @ y - ends * y).norm(dim=0)
    assert found.largest_error == pytest.approx(float(residuals[-1]), rel=1e-4)
    assert found.smallest_error == pytest.approx(float(residuals[0]), rel=1e-4)


def test_the_density_has_the_moments_and_the_counts_of_the_spectrum():
    network, x = small_net(hidden=20), batch(30)
    g = metric_of(network, x)
    values = gram(g).values.numpy()
    found = density(g, probes=12, steps=20, generator=seeded())
    np.testing.assert_allclose(found.weights.sum(1), 1)
    trace, error = found.trace()
    assert abs(trace - values.sum()) < 4 * error < values.sum()
    threshold = float(np.median(values))
    below, error = found.dimension_below(threshold)
    assert abs(below - (g.size - (values >= threshold).sum())) < 4 * error + 1
    assert 0 < error < 5 and found.zeros == g.size - 90 > 0
    assert found.dimension_below(1e9)[0] == pytest.approx(g.size)


def test_one_probe_of_all_steps_integrates_as_the_probe_does():
    """With as many steps as dimensions the quadrature is exact: sum_i w_i f(theta_i) = q^T f(K) q."""
    network, x = small_net(), batch(4)
    j = dense_jacobian(network, x) / 2
    found = density(metric_of(network, x), probes=1, steps=12, generator=seeded(5))
    q = torch.randn(12, generator=seeded(5), dtype=torch.float64).numpy()
    q /= np.linalg.norm(q)
    values, vectors = np.linalg.eigh(j @ j.T)
    nodes, weights = found.nodes[0].numpy(), found.weights[0].numpy()
    for f in (np.square, np.sqrt, lambda v: 1 / (v + 0.1)):
        expected = (vectors.T @ q) ** 2 @ f(np.clip(values, 0, None))
        assert weights @ f(np.clip(nodes, 0, None)) == pytest.approx(expected, rel=1e-6)
    grid = torch.linspace(-20, 60, 8001, dtype=torch.float64)
    smooth = found.smoothed(grid, 0.3)
    assert float(torch.trapezoid(smooth, grid)) == pytest.approx(1, abs=1e-6)
    assert float(torch.trapezoid(smooth * grid, grid)) == pytest.approx(weights @ nodes, rel=1e-6)


def test_mistakes():
    with pytest.raises(ValueError, match="start other than zero"):
        lanczos(lambda v: v, torch.zeros(3), 2)
    with pytest.raises(ValueError, match="at least one step"):
        lanczos(lambda v: v, torch.ones(3), 0)
    with pytest.raises(FloatingPointError, match="step 1 of Lanczos"):
        lanczos(lambda v: v / 0, torch.ones(3), 2)
    with pytest.raises(ValueError, match="probes must be at least 1"):
        density(metric_of(small_net(), batch(2)), probes=0)


# ------------------------------------------------------------------------------------- Marchenko-Pastur


@pytest.mark.parametrize(("ratio", "variance"), [(0.1, 1.0), (0.5, 3.0), (0.99, 0.2), (1.0, 2.0)])
def test_the_law_is_the_integral_of_its_density(ratio, variance):
    law = MarchenkoPastur(ratio, variance)
    a, b = law.edges
    assert (a, b) == pytest.approx((variance * (1 - ratio**0.5) ** 2, variance * (1 + ratio**0.5) ** 2))

    def integral(f, upto):
        # x = t^2, so that the density's 1/sqrt(x) at ratio 1 does no harm.
        return quad(lambda t: 2 * t * f(t * t), math.sqrt(a), math.sqrt(upto), limit=200)[0]

    for share in (0.01, 0.3, 0.7, 1.0):
        upto = a + share * (b - a)
        assert float(law.cdf(upto)) == pytest.approx(integral(law.density, upto), abs=1e-7)
    assert integral(lambda x: x * law.density(x), b) == pytest.approx(variance, rel=1e-6)
    assert law.density([a - 1e-3, b + 1e-3]).tolist() == [0, 0]
    assert law.cdf([a - 1e-3, b + 1e-3]).tolist() == pytest.approx([0, 1])


def test_the_density_grows_as_one_over_the_root_when_rows_reach_columns():
    near = MarchenkoPastur(1.0).density([1e-6, 1e-8])
    assert near[1] / near[0] == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(200, 800), (400, 400)])
def test_noise_follows_the_law_and_what_is_no_noise_does_not(rows, columns):
    x = np.random.default_rng(0).normal(scale=1.5, size=(rows, columns))
    values = np.linalg.eigvalsh(x @ x.T / columns)
    law = MarchenkoPastur(rows / columns, 1.5**2)
    assert kolmogorov_smirnov(values, law) < 0.02
    assert kolmogorov_smirnov(values, MarchenkoPastur(rows / columns, 1.8)) > 0.05
    assert kolmogorov_smirnov(np.sort(values) ** 2, law) > 0.2


def test_the_distance_is_scipys():
    values = np.random.default_rng(1).uniform(0, 4, 50)
    law = MarchenkoPastur(0.4)
    assert kolmogorov_smirnov(values, law) == pytest.approx(stats.ks_1samp(values, law.cdf).statistic)


@pytest.mark.parametrize("examples", [40, 360])
def test_the_metric_of_a_linear_model_on_noise_follows_its_law(examples):
    """f = <w, x> with 120 weights: J is the normal inputs themselves, 1/sqrt(N) scaled."""
    x = batch(examples, 120)
    network = Formula([0.0] * 120, lambda w, x: x @ w[:, None])
    g = metric_of(network, x)
    values = gram(g).values
    law = law_of(g, values)
    assert law.ratio == pytest.approx(1 / 3)
    assert law.variance == pytest.approx(120 / examples if examples < 120 else 1, rel=0.05)
    assert kolmogorov_smirnov(values, law) < 0.06
    with pytest.raises(ValueError, match="eigenvalues that need not be zero"):
        law_of(g, np.zeros(7))


@pytest.mark.parametrize("arguments", [(0.0,), (1.5,), (0.5, 0.0), (0.5, math.inf), (math.nan,)])
def test_a_law_out_of_range(arguments):
    with pytest.raises(ValueError, match="must be above 0"):
        MarchenkoPastur(*arguments)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_values_that_are_none(values):
    with pytest.raises(ValueError, match="at least one eigenvalue"):
        kolmogorov_smirnov(values, MarchenkoPastur(0.5))
