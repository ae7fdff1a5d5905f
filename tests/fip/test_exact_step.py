"""The exact step against dense eigen-decompositions, scipy's constrained minimiser and closed forms."""

import math

import numpy as np
import pytest
import torch
from geometry import batch, dense_jacobian, small_net
from scipy.optimize import minimize
from torch import nn

from fipbench.fip import metric, solvers

GRADIENT = torch.Generator().manual_seed(5)


def problem(examples=5, seed=0, space="logits", **net):
    """g of a small network (singular where 3 outputs an example are fewer than the weights), dense g, a gradient."""
    network, inputs = small_net(seed, **net), batch(examples, **{k: v for k, v in net.items() if k != "hidden"})
    g = metric.metric_of(network, inputs, space=space)
    jacobian = dense_jacobian(network, inputs, space) / math.sqrt(examples)
    gradient = torch.randn(g.size, generator=torch.Generator().manual_seed(seed + 7), dtype=torch.float64)
    return g, jacobian.T @ jacobian, gradient


def dense_step(dense, b, radius):
    """psi on the sphere by bisection on mu with numpy's eigenvectors; b must have a part along the least ones."""
    values, vectors = np.linalg.eigh(dense)
    c = vectors.T @ b
    low, high = 0.0, np.linalg.norm(b) / radius
    for _ in range(2000):
        middle = (low + high) / 2
        shifted = np.clip(values - values[0], 0, None) + middle
        low, high = (middle, high) if np.linalg.norm(c / shifted) > radius else (low, middle)
    return -vectors @ (c / (np.clip(values - values[0], 0, None) + high)), high - values[0]


@pytest.mark.parametrize("space", ["logits", "softmax", "fisher"])
@pytest.mark.parametrize("beta", [1e-3, 0.3, 30.0])
def test_a_singular_metric_against_a_dense_eigensystem(space, beta):
    g, dense, gradient = problem(space=space)
    assert g.rows < g.size
    step = solvers.exact_step(metric.gram(g), gradient, radius=0.05, beta=beta)
    wanted, mu = dense_step(dense, beta / 2 * gradient.numpy(), 0.05)
    # Finite differences leave about 1e-9 of J, which a small mu makes larger in the direction.
    assert np.abs(step.vector.numpy() - wanted).max() < 1e-5
    assert step.mu == pytest.approx(mu, rel=1e-5) and step.mu > 0 and step.case == "boundary"
    assert float(step.vector.norm()) == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize(("beta", "radius"), [(0.2, 0.5), (1e-6, 2.0)])
def test_a_regular_metric_against_scipy_on_the_sphere(beta, radius):
    # 21 weights, 60 rows: the second radius is beyond the minimum, so mu is negative and the length is forced.
    g, dense, gradient = problem(examples=20, hidden=3, inputs=2)
    assert g.rows > g.size
    step = solvers.exact_step(metric.gram(g), gradient, radius=radius, beta=beta)
    gradient = gradient.numpy()

    def objective(free):
        psi = radius * free / np.linalg.norm(free)
        return psi @ dense @ psi + beta * psi @ gradient

    starts = [-gradient, *np.random.default_rng(0).normal(size=(2, g.size))]
    best = min(
        minimize(objective, start, method="BFGS", options={"gtol": 1e-9, "maxiter": 300}).fun for start in starts
    )
    assert objective(step.vector.numpy()) <= best + 1e-8 * abs(best)
    assert float(step.vector.norm()) == pytest.approx(radius, rel=1e-12)
    assert (step.mu < 0) == (radius == 2.0) and step.mu > -np.linalg.eigvalsh(dense)[0] * (1 + 1e-6)
    left = dense @ step.vector.numpy() + step.mu * step.vector.numpy() + beta / 2 * gradient
    assert np.linalg.norm(left) < 1e-6 * np.linalg.norm(beta / 2 * gradient) + 1e-10


def test_what_it_says_of_the_step_is_so():
    network, inputs = small_net(), batch(4)
    g = metric.metric_of(network, inputs)
    gradient = torch.randn(g.size, generator=GRADIENT, dtype=torch.float64)
    step = solvers.exact_step(metric.gram(g), gradient, radius=1e-4, beta=0.5)
    before = network(inputs).detach()
    nn.utils.vector_to_parameters(g.weights + step.vector, network.parameters())
    moved = (network(inputs).detach() - before).flatten() / math.sqrt(4)
    assert torch.allclose(moved, step.change, rtol=1e-2, atol=1e-9)
    assert step.squared_speed == pytest.approx(float(moved.square().sum()), rel=1e-2)
    assert step.slope == pytest.approx(float(gradient @ step.vector)) and step.slope < 0


def test_limits_of_beta():
    g, dense, gradient = problem()
    spectrum = metric.gram(g)
    unit = gradient / gradient.norm()
    steep = solvers.exact_step(spectrum, gradient, radius=0.01, beta=1e9).vector / 0.01
    assert torch.allclose(steep, -unit, atol=1e-6)
    flat = solvers.exact_step(spectrum, gradient, radius=0.01, beta=1e-9).vector / 0.01
    values, vectors = np.linalg.eigh(dense)
    null = vectors[:, values < 1e-9]
    wanted = -null @ (null.T @ gradient.numpy())
    assert np.allclose(flat.numpy(), wanted / np.linalg.norm(wanted), atol=1e-5)
    assert steep @ -unit > flat @ -unit > 0


def test_a_linear_model_in_closed_form():
    # f = W x on the two first coordinates alone: g is 1 there for each output, 0 elsewhere.
    network = nn.Linear(4, 2, bias=False).double()
    inputs = torch.eye(4, dtype=torch.float64)[:2] * math.sqrt(2)
    gradient = torch.tensor([3.0, 0, 4.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    for spectrum in (
        metric.gram(metric.metric_of(network, inputs)),
        solvers.layer_jacobian(network, inputs).spectrum(),
    ):
        step = solvers.exact_step(spectrum, gradient, radius=1.0, beta=2.0)
        # mu solves 9 / (1 + mu)^2 + 16 / mu^2 = 1.
        assert 9 / (1 + step.mu) ** 2 + 16 / step.mu**2 == pytest.approx(1)
        wanted = torch.tensor([-3 / (1 + step.mu), 0, -4 / step.mu, 0, 0, 0, 0, 0], dtype=torch.float64)
        assert torch.allclose(step.vector, wanted, atol=1e-12)
        assert step.squared_speed == pytest.approx((3 / (1 + step.mu)) ** 2)


def test_the_hard_case_adds_a_null_vector_and_a_ball_needs_none():
    g, dense, gradient = problem()
    spectrum = metric.gram(g)
    within = torch.as_tensor(dense @ gradient.numpy())  # in the range of g
    least_squares = -0.5 * np.linalg.pinv(dense, rcond=1e-9) @ within.numpy()
    far = 2 * float(np.linalg.norm(least_squares))
    step = solvers.exact_step(spectrum, within, radius=far, generator=torch.Generator().manual_seed(0))
    assert step.case == "hard" and float(step.vector.norm()) == pytest.approx(far)
    extra = step.vector.numpy() - least_squares
    assert np.linalg.norm(dense @ extra) < 1e-6 and abs(extra @ least_squares) < 1e-5
    again = solvers.exact_step(spectrum, within, radius=far, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(step.vector, again.vector, atol=1e-3)
    inside = solvers.exact_step(spectrum, within, radius=far, constraint="ball")
    assert inside.case == "interior" and inside.mu == 0 and np.allclose(inside.vector.numpy(), least_squares, atol=1e-6)
    near = solvers.exact_step(spectrum, within, radius=far / 4, constraint="ball")
    assert near.case == "boundary" and float(near.vector.norm()) == pytest.approx(far / 4)


def test_the_hard_case_of_a_regular_metric():
    # g = diag(1, 4): b along the second alone, and a radius beyond: psi = (+-tau, -b / 3).
    network = nn.Linear(2, 1, bias=False).double()
    spectrum = metric.gram(metric.metric_of(network, torch.diag(torch.tensor([1.0, 2.0]).double()), reduction="sum"))
    gradient = torch.tensor([0.0, 6.0], dtype=torch.float64)
    step = solvers.exact_step(spectrum, gradient, radius=2.0, beta=1.0, generator=torch.Generator().manual_seed(0))
    assert step.case == "hard" and step.mu == pytest.approx(-1)
    assert step.vector.abs().tolist() == pytest.approx([math.sqrt(3), 1.0]) and step.vector[1] < 0
    assert step.squared_speed == pytest.approx(3 * 1 + 1 * 4)


def test_without_a_second_objective_it_is_a_null_vector():
    g, dense, gradient = problem()
    for given, beta in ((gradient, 0.0), (torch.zeros_like(gradient), 1.0)):
        generator = torch.Generator().manual_seed(0)
        step = solvers.exact_step(metric.gram(g), given, radius=0.1, beta=beta, generator=generator)
        assert step.vector.numpy() @ dense @ step.vector.numpy() < 1e-14
        assert float(step.vector.norm()) == pytest.approx(0.1)
    stays = solvers.exact_step(metric.gram(g), gradient, radius=0.1, beta=0.0, constraint="ball")
    assert stays.case == "interior" and not stays.vector.any()


@pytest.mark.parametrize("beta", [1e-4, 0.5])
def test_a_drift_is_taken_back(beta):
    g, dense, gradient = problem()
    drift = 0.1 * torch.randn(g.rows, generator=GRADIENT, dtype=torch.float64)
    step = solvers.exact_step(metric.gram(g), gradient, radius=0.3, beta=beta, drift=drift)
    b = beta / 2 * gradient + g.pull(drift)
    wanted, mu = dense_step(dense, b.numpy(), 0.3)
    assert np.allclose(step.vector.numpy(), wanted, atol=1e-4) and step.mu == pytest.approx(mu, rel=1e-3)
    plain = solvers.exact_step(metric.gram(g), gradient, radius=0.3, beta=beta)
    assert float((drift + step.change).norm()) < float((drift + plain.change).norm())


def test_single_precision_agrees_with_double():
    g, _, gradient = problem(dtype=torch.float32)
    exact = solvers.exact_step(metric.gram(g.double()), gradient, radius=0.1, beta=0.1)
    for refinements in (0, 1):
        step = solvers.exact_step(metric.gram(g), gradient.float(), radius=0.1, beta=0.1, refinements=refinements)
        assert torch.allclose(step.vector.double(), exact.vector, atol=1e-5)


def test_a_krylov_space_gives_the_same_step():
    g, _, gradient = problem()
    wanted = solvers.exact_step(metric.gram(g), gradient, radius=0.05, beta=0.3)
    step = solvers.krylov_step(g, gradient, radius=0.05, beta=0.3, steps=g.rows + 1)
    assert torch.allclose(step.vector, wanted.vector, atol=1e-8) and step.mu == pytest.approx(wanted.mu, rel=1e-6)
    assert torch.allclose(step.change, wanted.change, atol=1e-8)
    with pytest.raises(ValueError, match="after 2 steps the residual"):
        solvers.krylov_step(g, gradient, radius=0.05, beta=0.3, steps=2)


def test_a_krylov_space_lacks_null_vectors_and_says_so():
    g, dense, gradient = problem()
    within = g.product(gradient)
    with pytest.raises(ValueError, match=r"least eigenvectors of g decide.*a regular g, or the hard case"):
        solvers.krylov_step(g, within, radius=1e4, steps=g.rows + 1)
    regular, _, slope = problem(examples=20, hidden=3, inputs=2)  # beyond its minimum, as against scipy above
    with pytest.raises(ValueError, match="least eigenvectors of g decide"):
        solvers.krylov_step(regular, slope, radius=2.0, beta=1e-6, steps=regular.size)
    inside = solvers.krylov_step(g, within, radius=1e4, constraint="ball", steps=g.rows + 1)
    assert inside.case == "interior"
    assert np.allclose(inside.vector, -0.5 * np.linalg.pinv(dense, rcond=1e-9) @ within.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="other than zero"):
        solvers.krylov_step(g, torch.zeros_like(gradient), radius=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "radius must be above zero"),
        ({"radius": math.nan}, "radius must be above zero"),
        ({"beta": -1.0}, "beta must be a number"),
        ({"constraint": "cube"}, "constraint must be one of sphere, ball"),
        ({"drift": torch.zeros(3)}, "the drift has shape"),
    ],
)
def test_bad_options_are_refused(options, message):
    g, _, gradient = problem()
    with pytest.raises(ValueError, match=message):
        solvers.exact_step(metric.gram(g), gradient, **{"radius": 0.1, **options})


def test_a_gradient_that_is_not_finite_or_of_another_shape():
    g, _, gradient = problem()
    gradient[3] = math.nan
    with pytest.raises(FloatingPointError, match="the gradient is not finite at 3"):
        solvers.exact_step(metric.gram(g), gradient, radius=0.1)
    with pytest.raises(ValueError, match="the gradient has shape"):
        solvers.exact_step(metric.gram(g), gradient[1:], radius=0.1)
