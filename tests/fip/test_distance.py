"""Distances against NumPy in double precision, SciPy and torch's own divergences."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from scipy.spatial.distance import jensenshannon

from fipbench.fip import distance

NAMES = list(distance.DISTANCES)
DIVERGENCES = ["bhattacharyya", "jensen_shannon", "kl"]


def normal(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def softmax(logits):
    return scipy.special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)


ORACLES = {
    "bhattacharyya": lambda z, r: -np.log(np.sqrt(softmax(z) * softmax(r)).sum(-1)),
    "euclidean": lambda z, r: np.sqrt(((z - r) ** 2).sum(-1)),
    "jensen_shannon": lambda z, r: jensenshannon(softmax(z), softmax(r), axis=-1) ** 2,
    "kl": lambda z, r: scipy.special.rel_entr(softmax(r), softmax(z)).sum(-1),
    "squared_euclidean": lambda z, r: ((z - r) ** 2).sum(-1),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
def test_equals_the_formula(name, scale, dtype, tolerance):
    z, r = normal(500, 10, scale=scale, dtype=dtype), normal(500, 10, seed=1, scale=scale, dtype=dtype)
    expected = ORACLES[name](z.double().numpy(), r.double().numpy())
    got = distance.DISTANCES[name](z, r, "none")
    assert got.dtype == dtype
    np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_kl_is_torchs_own_from_the_reference_to_the_current():
    z, r = normal(64, 10), normal(64, 10, seed=1)
    expected = torch.nn.functional.kl_div(z.log_softmax(-1), r.log_softmax(-1), reduction="batchmean", log_target=True)
    torch.testing.assert_close(distance.kl(z, r), expected)
    assert abs(distance.kl(z, r) - distance.kl(r, z)) > 1e-3, "the direction would not be seen"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_zero_with_zero_gradient_for_equal_outputs(name, scale, dtype):
    z = normal(2000, 10, scale=scale, dtype=dtype).requires_grad_()
    values = distance.DISTANCES[name](z, z.detach().clone(), "none")
    (gradient,) = torch.autograd.grad(values.sum(), z)
    assert torch.equal(values, torch.zeros_like(values))
    # Exactly zero: Adam would blow rounding noise up to steps of full length.
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("apart", [1e-8, 1e-6, 1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("scale", [0.1, 5.0, 1e3])
def test_is_never_negative(name, apart, scale):
    r = normal(10_000, 10, scale=scale, dtype=torch.float32)
    z = r + normal(10_000, 10, seed=1, scale=apart, dtype=torch.float32)
    values = distance.DISTANCES[name](z, r, "none")
    assert values.isfinite().all()
    assert values.min() >= 0


@pytest.mark.parametrize("name", DIVERGENCES)
def test_keeps_its_digits_near_equality(name):
    r = normal(1000, 10, dtype=torch.float32)
    z = r + normal(1000, 10, seed=1, scale=1e-3, dtype=torch.float32)
    expected = ORACLES[name](z.double().numpy(), r.double().numpy())
    np.testing.assert_allclose(distance.DISTANCES[name](z, r, "none").numpy(), expected, rtol=5e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_finite_with_finite_gradients_at_extremes(name, dtype):
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, -1e4], [0.0, 0.0, 0.0], [1e4, 0.0, 0.0], [-1e4, -1e4, -1e4]]
    points = torch.tensor(rows, dtype=dtype)
    z = points.repeat_interleave(len(rows), 0).requires_grad_()
    r = points.repeat(len(rows), 1)
    values = distance.DISTANCES[name](z, r, "none")
    (gradient,) = torch.autograd.grad(values.sum(), z)
    assert values.isfinite().all() and gradient.isfinite().all()
    assert (values >= 0).all()


def test_keeps_growing_where_probabilities_underflow():
    """One-hot against another one-hot, 2e4 apart: -log of the largest sqrt(p q) is 1e4."""
    z, r = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert float(distance.bhattacharyya(z, r)) == pytest.approx(1e4 - math.log(2), rel=1e-6)
    assert float(distance.kl(z, r)) == pytest.approx(2e4, rel=1e-6)
    assert float(distance.jensen_shannon(z, r)) == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.05, 1.0, 6.0])
def test_gradients_by_finite_differences(name, scale):
    z = normal(3, 5, scale=scale).requires_grad_()
    r = normal(3, 5, seed=1, scale=scale).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: distance.DISTANCES[name](a, b, "none"), (z, r))


def test_gradient_with_epsilon_by_finite_differences():
    z, r = normal(3, 5).requires_grad_(), normal(3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda a: distance.bhattacharyya(a, r, "none", epsilon=1e-3), (z,))


def test_euclidean_has_a_zero_gradient_where_it_has_a_kink():
    z = normal(4, 3).requires_grad_()
    distance.euclidean(z, z.detach().clone()).backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("name", NAMES)
def test_reductions_and_batch_dimensions(name):
    function = distance.DISTANCES[name]
    z, r = normal(2, 3, 4, 7), normal(2, 3, 4, 7, seed=1)
    single = function(z, r, "none")
    assert single.shape == (2, 3, 4)
    torch.testing.assert_close(function(z, r, "sum"), single.sum())
    torch.testing.assert_close(function(z, r, "mean"), single.sum() / 24)
    torch.testing.assert_close(function(z, r), function(z, r, "mean"))
    torch.testing.assert_close(function(z[1, 2, 3], r[1, 2, 3], "none"), single[1, 2, 3])


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_sees_no_shift_of_the_logits(name):
    z, r = normal(20, 6), normal(20, 6, seed=1)
    shifted = distance.DISTANCES[name](z + 3.7, r - 11.0, "none")
    torch.testing.assert_close(shifted, distance.DISTANCES[name](z, r, "none"))


@pytest.mark.parametrize("name", ["bhattacharyya", "jensen_shannon", "euclidean", "squared_euclidean"])
def test_symmetric(name):
    z, r = normal(50, 6), normal(50, 6, seed=1)
    torch.testing.assert_close(distance.DISTANCES[name](z, r, "none"), distance.DISTANCES[name](r, z, "none"))


def test_jensen_shannon_is_at_most_log_two():
    values = distance.jensen_shannon(normal(10_000, 10, scale=50.0), normal(10_000, 10, seed=1, scale=50.0), "none")
    assert values.max() <= math.log(2) + 1e-12
    assert values.max() > math.log(2) - 1e-6


@pytest.mark.parametrize(("name", "share"), [("bhattacharyya", 1 / 8), ("kl", 1 / 2), ("jensen_shannon", 1 / 8)])
def test_second_order_is_a_share_of_the_fisher_information(name, share):
    """d(z + h v) = share h^2 v' F v + O(h^3), with the softmax's Fisher information F = diag(p) - p p'."""
    z, v, h = normal(10), normal(10, seed=1), 1e-4
    p = softmax(z)
    fisher = float(v.numpy() @ (np.diag(p) - np.outer(p, p)) @ v.numpy())
    plus, minus = (distance.DISTANCES[name](z + s * h * v, z, "none") for s in (1, -1))
    assert float(plus + minus) / (2 * h * h) == pytest.approx(share * fisher, rel=1e-5)


def test_epsilon_is_the_public_codes_formula_and_slightly_negative_at_equality():
    z, r = normal(50, 10), normal(50, 10, seed=1)
    expected = -np.log(np.sqrt(softmax(z) * softmax(r) + 1e-4).sum(-1))
    np.testing.assert_allclose(distance.bhattacharyya(z, r, "none", epsilon=1e-4).numpy(), expected, rtol=1e-12)
    equal = distance.bhattacharyya(z, z, "none", epsilon=1e-4)
    assert (equal < 0).all() and (equal > -0.1).all()
    torch.testing.assert_close(distance.bhattacharyya(z, r, epsilon=1e-30), distance.bhattacharyya(z, r))


@pytest.mark.parametrize("name", NAMES)
def test_errors(name):
    function = distance.DISTANCES[name]
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        function(normal(2, 3), normal(2, 4))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 3\)"):
        function(normal(2, 3), normal(1, 3))
    with pytest.raises(ValueError, match="none, mean or sum, got 'median'"):
        function(normal(2, 3), normal(2, 3), "median")


def test_by_name():
    assert all(distance.by_name(name) is getattr(distance, name) for name in NAMES)
    with pytest.raises(ValueError, match=r"bhattacharyya, .*got 'cosine'"):
        distance.by_name("cosine")
