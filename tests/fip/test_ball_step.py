"""The step by sampling: where its points lie, what it never does, and a linear model in closed form."""

import copy
import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from fipbench.fip import solvers
from fipbench.training import Meter


def flat(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (8,), generator=torch.Generator().manual_seed(1))


def loss(network):
    return nn.functional.cross_entropy(network(X), Y)


def seeded(number):
    return torch.Generator().manual_seed(number)


def test_points_are_uniform_in_the_ball():
    centre = torch.tensor([1.0, -2.0, 3.0])
    ball, generator = solvers.Ball(centre, 0.5), seeded(0)
    points = torch.stack([ball.point(generator) - centre for _ in range(4000)])
    lengths = points.norm(dim=1)
    assert float(lengths.max()) <= 0.5
    assert kstest((lengths / 0.5).numpy(), lambda r: r**3).pvalue > 0.01
    assert points.mean(0).abs().max() < 0.02
    # Any one coordinate of a direction uniform on the sphere of three dimensions is uniform on [-1, 1].
    assert kstest((points[:, 0] / lengths).numpy(), lambda c: (c + 1) / 2).pvalue > 0.01


@pytest.mark.parametrize("rate", [0.01, 1.0, 1e4])
def test_it_never_leaves_the_ball_and_never_gets_worse(rate):
    network = net()
    centre, before = flat(network), float(loss(network).detach())
    seen = []

    def watched(moving):
        seen.append(float((flat(moving) - centre).double().norm()))
        return loss(moving)

    step = solvers.ball_step(network, watched, radius=0.1, samples=5, steps=7, learning_rate=rate, generator=seeded(0))
    assert len(seen) == 5 + 1 + 7 + 1 and max(seen) <= 0.1 * (1 + 1e-6)
    assert torch.equal(flat(network), centre + step.vector) or torch.allclose(flat(network), centre + step.vector)
    assert step.before == before and step.after == pytest.approx(float(loss(network).detach())) and step.after <= before
    assert len(step.sampled) == 5 and step.after <= min(step.sampled)


def test_it_improves_a_loss_that_can_be_improved():
    network = net()
    step = solvers.ball_step(network, loss, radius=0.5, samples=4, steps=20, learning_rate=0.1, generator=seeded(0))
    assert step.after < step.before - 0.05


def test_a_linear_objective_ends_on_the_rim_along_the_gradient():
    network = nn.Linear(3, 1, bias=False)
    along = torch.tensor([[2.0, -1.0, 2.0]])
    step = solvers.ball_step(
        network, lambda moving: (moving.weight * along).sum(), radius=0.3, samples=0, steps=3, learning_rate=1.0
    )
    assert torch.allclose(step.vector, -0.3 * along[0] / 3, atol=1e-6)
    assert step.before - step.after == pytest.approx(0.9, rel=1e-5)


def test_equation_4_of_a_linear_model_is_reached_by_descent():
    # <psi, psi>_g + beta <psi, gradient> is the ball's own objective where outputs and loss are linear in the weights.
    inputs, slope = torch.diag(torch.tensor([1.0, 2.0, 0.0])).double(), torch.tensor([[1.0, 1.0, 1.0]]).double()
    network = nn.Linear(3, 1, bias=False).double()
    start = copy.deepcopy(network)

    def objective(moving):
        change = (moving(inputs) - start(inputs).detach()).square().sum()
        return change + 0.5 * ((moving.weight - start.weight.detach()) * slope).sum()

    spectrum = solvers.layer_jacobian(network, inputs, reduction="sum").spectrum()
    wanted = solvers.exact_step(spectrum, slope[0], radius=0.4, beta=0.5, constraint="ball")
    step = solvers.ball_step(
        network, objective, radius=0.4, samples=6, steps=400, learning_rate=0.1, generator=seeded(2)
    )
    assert torch.allclose(step.vector, wanted.vector, atol=1e-4)


def test_the_seed_decides():
    steps = []
    for number in (3, 3, 4):
        network = net()
        steps.append(
            solvers.ball_step(
                network, loss, radius=2.0, samples=6, steps=2, learning_rate=0.1, generator=seeded(number)
            )
        )
    assert torch.equal(steps[0].vector, steps[1].vector) and steps[0].sampled == steps[1].sampled
    assert steps[0].sampled != steps[2].sampled


def test_scatter_takes_the_best_point_and_leaves_the_centre_only_for_a_lower_one():
    network = net()
    ball = solvers.Ball.around(network, 1.0)
    values = ball.scatter(network, loss, 12, seeded(0))
    assert (
        float(loss(network).detach()) == pytest.approx(min(values))
        and len(values) == 13
        and min(values[1:]) < values[0]
    )
    network = net()
    centre = flat(network)
    ball.scatter(network, lambda moving: torch.tensor(1.0), 5, seeded(0))
    assert torch.equal(flat(network), centre)
    ball.scatter(network, lambda moving: (flat(moving) - centre).norm() + (0 if moving is network else 1), 5, seeded(0))
    assert torch.equal(flat(network), centre)


def test_points_with_a_loss_that_is_not_finite_are_none():
    network = net()
    centre = flat(network)

    def broken(moving):
        return torch.tensor(0.0) if torch.equal(flat(moving), centre) else torch.tensor(-math.inf)

    step = solvers.ball_step(network, broken, radius=0.1, samples=3, steps=0, generator=seeded(0))
    assert not step.vector.any() and step.after == 0
    with pytest.raises(ValueError, match="the objective at the centre is nan"):
        solvers.ball_step(network, lambda moving: torch.tensor(math.nan), radius=0.1, samples=1, steps=0)


def test_a_descent_that_leaves_the_numbers_puts_the_network_back():
    network = net()
    centre = flat(network)

    def cliff(moving):
        return (flat_graph(moving) * math.inf).sum() if calls.append(0) or len(calls) > 1 else loss(moving)

    def flat_graph(moving):
        return nn.utils.parameters_to_vector(moving.parameters())

    calls = []
    with pytest.raises(FloatingPointError, match="put back to the ball's centre"):
        solvers.ball_step(network, cliff, radius=0.1, samples=0, steps=2)
    assert torch.equal(flat(network), centre)


def test_frozen_weights_stay_and_costs_are_those_of_the_calls():
    network = net()
    network[0].requires_grad_(False)
    frozen = network[0].weight.clone()
    meter = Meter()
    meter.attach(network)
    solvers.ball_step(network, loss, radius=1.0, samples=4, steps=3, learning_rate=0.1, generator=seeded(0))
    assert torch.equal(network[0].weight, frozen)
    assert (meter.forward, meter.backward) == (8 * (4 + 1 + 3 + 1), 8 * 3)


@pytest.mark.parametrize(
    "options", [{"radius": 0.0}, {"radius": math.inf}, {"samples": -1}, {"steps": -1}, {"learning_rate": 0.0}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"must be above zero|must not be negative"):
        solvers.ball_step(net(), loss, **{"radius": 0.1, **options})
