"""Spectrum, null space and inverse through the Gram matrix: against numpy on dense Jacobians, and its memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from geometry import Formula, batch, dense_jacobian, product, small_net

from fipbench.fip.metric import gram, jacobian, metric_of


def vector(length, seed=3):
    return torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Fewer rows than weights, as many, and more: 15 x 51, 51 x 51, 90 x 51. Rows beyond the rank of tanh's units repeat.
SIZES = [5, 17, 30]


@pytest.mark.parametrize("examples", SIZES)
@pytest.mark.parametrize("block_bytes", [2**28, 5000])
def test_the_spectrum_is_that_of_the_dense_metric(examples, block_bytes):
    """Blocks of 5,000 bytes cut through the layers."""
    network, x = small_net(), batch(examples)
    found = gram(metric_of(network, x), block_bytes=block_bytes)
    j = dense_jacobian(network, x) / np.sqrt(examples)
    expected = np.linalg.eigvalsh(j.T @ j)[::-1]
    kept = min(j.shape)
    np.testing.assert_allclose(found.values, expected[:kept], atol=1e-8)
    np.testing.assert_allclose(expected[kept:], 0, atol=1e-8)
    for threshold in (1e-3, 0.1, 1.0):
        assert found.dimension_below(threshold) == (expected < threshold).sum()
    assert found.dimension_below(1e9) == 51


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_example_that_is_there_twice_adds_nothing_to_the_rank(dtype):
    x = batch(4, dtype=dtype)
    found = gram(metric_of(small_net(dtype=dtype), torch.cat([x, x[:2]])))
    assert (found.rank, found.dimension_below(1e-12), len(found.values)) == (12, 51 - 12, 18)


def test_eigenvectors_are_those_of_g():
    network, x = small_net(), batch(5)
    found = gram(metric_of(network, x))
    j = dense_jacobian(network, x) / np.sqrt(5)
    e = found.eigenvectors(15).numpy()
    np.testing.assert_allclose(e @ e.T, np.eye(15), atol=1e-8)
    np.testing.assert_allclose(j.T @ j @ e.T, e.T * found.values.numpy(), atol=1e-7)
    with pytest.raises(ValueError, match="between 1 and the rank 15, got 16"):
        found.eigenvectors(16)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_the_invariant_part_is_the_projection_on_small_eigenvectors(threshold):
    network, x = small_net(), batch(5)
    found = gram(metric_of(network, x))
    j = dense_jacobian(network, x) / np.sqrt(5)
    values, vectors = np.linalg.eigh(j.T @ j)
    small = vectors[:, values < max(threshold, 1e-6)]
    assert 51 - 15 <= small.shape[1] == found.dimension_below(max(threshold, 1e-6)) < 51
    part = found.invariant_part(vector(51), threshold).numpy()
    np.testing.assert_allclose(part, small @ (small.T @ vector(51).numpy()), atol=1e-7)


def test_the_invariant_part_beside_an_example_that_is_there_twice():
    """Its eigenvalues of zero are no directions to project out."""
    network, x = small_net(), torch.cat([batch(4), batch(4)[:2]])
    values, vectors = np.linalg.eigh((j := dense_jacobian(network, x)).T @ j)
    null = vectors[:, values < 1e-6]
    part = gram(metric_of(network, x)).invariant_part(vector(51)).numpy()
    assert null.shape[1] == 51 - 12
    np.testing.assert_allclose(part, null @ (null.T @ vector(51).numpy()), atol=1e-7)


@pytest.mark.parametrize("examples", SIZES)
@pytest.mark.parametrize("mu", [1e-4, 1.0])
def test_the_regularised_inverse_is_numpys(examples, mu):
    network, x = small_net(), batch(examples)
    found = gram(metric_of(network, x)).solve(vector(51), mu)
    j = dense_jacobian(network, x) / np.sqrt(examples)
    expected = np.linalg.solve(j.T @ j + mu * np.eye(51), vector(51).numpy())
    np.testing.assert_allclose(found.vector, expected, rtol=1e-4, atol=1e-6 / mu * 1e-2)
    assert (found.mu, found.regularised) == (mu, False) and found.residual < 1e-9


def test_the_inverse_of_a_regular_metric_needs_no_regularisation():
    network = Formula([0.3, -1.2, 2.0], lambda w, x: (x * w).sin())
    x = batch(4, 3)
    found = gram(metric_of(network, x)).solve(vector(3))
    j = dense_jacobian(network, x) / 2
    np.testing.assert_allclose(found.vector, np.linalg.solve(j.T @ j, vector(3).numpy()), rtol=1e-6)
    assert (found.mu, found.regularised) == (0, False)


def test_a_singular_metric_is_regularised_and_the_result_says_so():
    """f = w1 w2 x has rank 1: its eigenvalue is x^2 (w1^2 + w2^2) = 5, so mu = sqrt(eps) 5."""
    g = metric_of(product(1.0, 2.0), torch.ones(1, 1).double())
    found = gram(g).solve(torch.tensor([1.0, 1.0]))
    mu = 5 * np.sqrt(np.finfo(float).eps)
    expected = np.linalg.solve(np.array([[4.0, 2.0], [2.0, 1.0]]) + mu * np.eye(2), [1.0, 1.0])
    assert found.regularised and found.mu == pytest.approx(mu)
    np.testing.assert_allclose(found.vector, expected, rtol=1e-6)
    assert found.residual < 1e-6


def test_a_metric_that_is_zero():
    g = metric_of(product(0.0, 0.0), torch.ones(1, 1).double())
    found = gram(g).solve(torch.tensor([1.0, 3.0]))
    assert found.regularised and (found.vector * found.mu).tolist() == pytest.approx([1, 3])
    assert gram(g).rank == 0 and gram(g).dimension_below(1e-3) == 2


@pytest.mark.parametrize("mu", [-1.0, float("nan"), float("inf")])
def test_mu_out_of_range(mu):
    with pytest.raises(ValueError, match="mu must be a number and not negative"):
        gram(metric_of(small_net(), batch(2))).solve(vector(51), mu)


def test_too_large_a_batch_is_refused_with_sizes_and_the_alternative():
    g = metric_of(small_net(), batch(3000))
    with pytest.raises(
        ValueError, match=r"3000 examples of 3 outputs .* 9000 x 9000 \(0.6 GB\).* 2730 examples.*Lanczos"
    ):
        gram(g)
    assert len(gram(metric_of(small_net(), batch(4)), max_rows=12).values) == 12
    with pytest.raises(ValueError, match=r"15 rows and 51 columns takes 0.006 MB, more than 0.005 MB.*Metric.push"):
        jacobian(metric_of(small_net(), batch(5)), block_bytes=5000)


MEMORY = """
import resource, torch
from fipbench.fip.metric import gram, metric_of

torch.set_num_threads(1)
layers = [torch.nn.Linear(32, 700), torch.nn.Tanh(), torch.nn.Linear(700, 700), torch.nn.Tanh()]
network = torch.nn.Sequential(*layers, torch.nn.Linear(700, 5))
g = metric_of(network, torch.randn(12, 32))
gram(metric_of(network, torch.randn(1, 32)), block_bytes=2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
values = gram(g, block_bytes=2**23).values
print(g.rows * g.size * 4, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), float(values.sum()))
"""


def test_the_jacobian_of_a_wide_network_is_never_held():
    """60 rows of 0.5 million weights, 124 MB; blocks of 8 MB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole, grown, trace = map(float, done.stdout.split())
    assert whole > 120e6 and trace > 0
    assert grown < whole / 2
