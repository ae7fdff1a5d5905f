"""J held layer by layer against finite differences and the metric's own products; what it is not for is refused."""

import math

import numpy as np
import pytest
import torch
from geometry import batch, dense_jacobian, small_net
from torch import nn

from fipbench.fip import metric, solvers
from fipbench.training import Meter


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x))


@pytest.mark.parametrize("space", ["logits", "softmax", "fisher"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_products_and_spectrum_against_finite_differences(space, reduction):
    network, inputs = small_net(), batch(5)
    held = solvers.layer_jacobian(network, inputs, space=space, reduction=reduction)
    dense = dense_jacobian(network, inputs, space) / (math.sqrt(5) if reduction == "mean" else 1)
    assert (held.rows, held.size) == dense.shape
    v, u = (torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in dense.shape[::-1])
    assert np.allclose(held.push(v), dense @ v.numpy(), atol=1e-7)
    assert np.allclose(held.pull(u), dense.T @ u.numpy(), atol=1e-7)
    spectrum = held.spectrum()
    assert np.allclose(spectrum.values, np.linalg.eigvalsh(dense @ dense.T)[::-1], atol=1e-7)
    assert torch.allclose(
        spectrum.values, metric.gram(metric.metric_of(network, inputs, space=space, reduction=reduction)).values
    )


def test_the_step_is_that_of_the_gram_matrix():
    network, inputs = small_net(), batch(5)
    g = metric.metric_of(network, inputs)
    gradient = torch.randn(g.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ways = (metric.gram(g), solvers.layer_jacobian(network, inputs).spectrum())
    a, b = (solvers.exact_step(way, gradient, radius=0.1, beta=0.2) for way in ways)
    assert torch.allclose(a.vector, b.vector, atol=1e-9) and torch.allclose(a.change, b.change, atol=1e-9)


def test_frozen_weights_layers_without_bias_and_modes():
    network = nn.Sequential(
        nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    network[0].requires_grad_(False)
    network[4].bias.requires_grad_(False)
    network.train()
    held = solvers.layer_jacobian(network, batch(3))
    g = metric.metric_of(network, batch(3))
    v = torch.randn(g.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert held.size == 30 + 15 and torch.allclose(held.push(v), g.push(v))
    assert network.training and network[1].training and all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("network", "inputs", "weights"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), torch.rand(2, 1, 4, 4), "0.weight"),
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), torch.rand(2, 4), "1.weight"),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten(), nn.Linear(6, 2)), torch.rand(2, 2, 4), "0.weight"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)), torch.rand(2, 4), "0.weight"),
        (Shared(), torch.rand(2, 4), "layer.weight"),
    ],
    ids=["convolution", "norm", "tokens", "in-place", "shared"],
)
def test_what_is_not_made_of_linear_layers_is_refused(network, inputs, weights):
    with pytest.raises(ValueError, match=f"weights '{weights}' are not those of a linear layer.*metric.gram"):
        solvers.layer_jacobian(network, inputs)


def test_an_unknown_space_and_numbers_that_are_not_finite():
    with pytest.raises(ValueError, match="space must be one of"):
        solvers.layer_jacobian(small_net(), batch(2), space="hidden")
    broken = small_net()
    broken[2].weight.data[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        solvers.layer_jacobian(broken, batch(2))


def test_a_meter_sees_the_network_and_is_told_of_the_products():
    network, inputs = small_net(), batch(5)
    meter = Meter()
    meter.attach(network)
    held = solvers.layer_jacobian(network, inputs, spend=meter.spend)
    assert (meter.forward, meter.backward) == (5, 5 * 3)
    spectrum = held.spectrum()
    held.push(torch.zeros(held.size, dtype=torch.float64))
    assert (meter.forward, meter.backward) == (10, 15)
    held.pull(torch.zeros(held.rows, dtype=torch.float64))
    assert (meter.forward, meter.backward) == (10, 20)
    gradient = torch.ones(held.size, dtype=torch.float64)
    solvers.exact_step(spectrum, gradient, radius=0.1, refinements=0)
    assert (meter.forward, meter.backward) == (15, 25)
    solvers.exact_step(spectrum, gradient, radius=0.1, refinements=2)
    assert (meter.forward, meter.backward) == (30, 40)
