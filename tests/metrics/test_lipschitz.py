"""Lipschitz bounds against closed forms and dense maps; upper is never below lower."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fipbench import lipschitz, models
from fipbench.spec import Model


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dense(layer, shape):
    """The matrix of a linear map of images, by numpy from its columns."""
    with torch.no_grad():
        zero = layer(torch.zeros(1, *shape))
        columns = [(layer(e.view(1, *shape)) - zero).flatten().numpy() for e in torch.eye(math.prod(shape))]
    return np.stack(columns, 1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_of_a_linear_layer_both_are_the_spectral_norm():
    network = nn.Linear(5, 3)
    found = lipschitz.bounds(network, rand(4, 5))
    wanted = np.linalg.norm(network.weight.detach().numpy(), 2)
    assert found.lower == pytest.approx(wanted, rel=1e-5) and found.upper == pytest.approx(wanted, rel=1e-5)


def test_of_a_product_of_aligned_layers_too_and_else_the_upper_is_above():
    aligned = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    for layer, values in zip(aligned, ([3.0, 1.0, 1.0], [2.0, 5.0, 1.0]), strict=True):
        layer.weight.data = torch.diag(torch.tensor(values))
    found = lipschitz.bounds(aligned, rand(2, 3))
    assert found.lower == pytest.approx(6) and found.upper == pytest.approx(15)
    assert found.layers == pytest.approx({"0": 3, "1": 5})
    aligned[1].weight.data = torch.diag(torch.tensor([5.0, 2.0, 1.0]))
    found = lipschitz.bounds(aligned, rand(2, 3))
    assert found.lower == pytest.approx(15) == found.upper


def test_the_lower_bound_is_the_largest_over_the_inputs():
    # d/dx tanh(2 x) = 2 (1 - tanh^2 2x): largest at the input nearest to zero.
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    network[0].weight.data.fill_(2.0)
    x = torch.tensor([[1.0], [0.25], [-3.0]])
    assert lipschitz.lower(network, x, chunk=1) == pytest.approx(2 * (1 - math.tanh(0.5) ** 2), rel=1e-6)
    assert lipschitz.bounds(network, x).upper == pytest.approx(2)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 4, 3, stride=2, groups=2),
        nn.Conv2d(1, 2, 2, dilation=2, bias=False),
        nn.Conv2d(1, 1, 2, stride=2, dilation=2),
        nn.Conv2d(1, 1, 3, stride=2, dilation=2, padding=2),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=1),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=str,
)
def test_linear_maps_of_images_against_their_matrices(layer, monkeypatch):
    shape = (getattr(layer, "in_channels", 2), 6, 6)
    wanted = np.linalg.norm(dense(layer, shape), 2)
    found = lipschitz.bounds(layer, rand(2, *shape))
    assert found.lower == pytest.approx(wanted, rel=1e-4) and found.upper >= wanted * (1 - 1e-6)
    if isinstance(layer, nn.Conv2d):
        assert found.upper == pytest.approx(wanted, rel=1e-5)
        monkeypatch.setattr(lipschitz, "_ENTRIES", 0)
        by_kernel = lipschitz.bounds(layer, rand(2, *shape)).upper
        assert wanted * (1 - 1e-6) <= by_kernel <= wanted * 3.01


def test_batch_norm_by_its_statistics_and_scaling_of_inputs():
    norm = nn.BatchNorm1d(2)
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    norm.weight.data = torch.tensor([-6.0, 1.0])
    network = nn.Sequential(models.Normalize(0.3, 0.5), norm)
    found = lipschitz.bounds(network, rand(3, 2))
    assert found.upper == pytest.approx(6.0, rel=1e-4) and found.lower == pytest.approx(found.upper)
    assert network.training and not norm.weight.grad
    assert lipschitz.upper(models.Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 1.0)), (3, 2, 2)) == {"Normalize": 4.0}


@pytest.mark.parametrize(
    ("pool", "wanted"),
    [
        (nn.MaxPool2d(2), 1),
        (nn.MaxPool2d(3, stride=1), 3),
        (nn.MaxPool2d(2, stride=2, dilation=2), 2),
        (nn.MaxPool2d(2, stride=2, dilation=3), 1),
        (nn.MaxPool2d(3, stride=4, dilation=2), 2),
    ],
)
def test_max_pooling_counts_the_windows_that_share_an_input(pool, wanted):
    """One bright pixel, wherever it is, reaches no more windows, and somewhere as many."""
    (bound,) = lipschitz.upper(pool, (1, 14, 14)).values()
    seen = pool(torch.eye(14 * 14).view(-1, 1, 14, 14)).flatten(1).norm(dim=1)
    assert bound == wanted == pytest.approx(float(seen.max()))


@pytest.mark.parametrize(
    ("function", "layer"),
    [
        (nn.functional.gelu, nn.GELU()),
        (nn.GELU("tanh"), nn.GELU("tanh")),
        (nn.functional.silu, nn.SiLU()),
        (torch.sigmoid, nn.Sigmoid()),
    ],
)
def test_slopes_of_activations(function, layer):
    x = torch.linspace(-10, 10, 400_001, dtype=torch.float64, requires_grad=True)
    function(x).sum().backward()
    (bound,) = lipschitz.upper(layer, (1,)).values()
    assert 0 <= bound - float(x.grad.abs().max()) < 1e-4


def test_a_bottleneck_is_the_sum_of_its_two_ways():
    """1 x 1 kernels of 2, 3 and 2 times each channel, and a shortcut of 5 times."""
    from fipbench.models.preactivation import Bottleneck

    block = Bottleneck(2, 2, 1)
    for convolution, factor in zip((m for m in block.modules() if isinstance(m, nn.Conv2d)), (2, 3, 2, 5), strict=True):
        convolution.weight.data.zero_()
        middle = convolution.kernel_size[0] // 2
        convolution.weight.data[:2, :2, middle, middle] = factor * torch.eye(2)
    (bound,) = lipschitz.upper(block, (2, 4, 4)).values()
    assert bound == pytest.approx(2 * 3 * 2 + 5, rel=1e-4)  # the three batch norms divide by sqrt(1 + 1e-5)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mlp", {"hidden": (20, 10)}),
        ("cnn", {"channels": (3, 4), "hidden": (12,)}),
        ("vgg", {"channels": (4, 6), "hidden": (8,)}),
        ("resnet", {"channels": (4, 6), "depth": 2}),
        ("preresnet", {"channels": (4, 6), "depth": 2}),
    ],
)
def test_the_suites_networks_are_bounded_and_upper_is_above_lower(name, fields):
    network = models.build(Model(name=name, inputs=(1, 12, 12), outputs=5, mean=0.3, std=0.4, **fields), 0)
    x = rand(6, 1, 12, 12)
    found = lipschitz.bounds(network, x)
    assert 0 < found.lower <= found.upper < math.inf
    with torch.no_grad():
        network.eval()
        a, b = network(x[:3]), network(x[3:])
        seen = (a - b).norm(dim=1) / (x[:3] - x[3:]).flatten(1).norm(dim=1)
    assert float(seen.max()) <= found.upper


def test_a_residual_block_is_the_sum_of_its_two_ways():
    from fipbench.models.residual import Block

    block = Block(2, 2, 1)
    for convolution in (block.conv1, block.conv2):
        convolution.weight.data.zero_()
        convolution.weight.data[:, :, 1, 1] = 2 * torch.eye(2)
    (bound,) = lipschitz.upper(block, (2, 4, 4)).values()
    assert bound == pytest.approx(2 * 2 + 1, rel=1e-4)  # the two batch norms divide by sqrt(1 + 1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "layer"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (4,), r"layer '1', LayerNorm"),
        (
            nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
            (3, 4),
            r"layer '0', TransformerEncoder",
        ),
        (nn.BatchNorm1d(3, track_running_stats=False), (3,), r"layer 'network', BatchNorm1d"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 4, 4), r"Conv2d: no upper bound is known"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name(network, shape, layer):
    with pytest.raises(ValueError, match=layer):
        lipschitz.upper(network, shape)


def test_inputs_that_are_none_or_not_finite():
    with pytest.raises(ValueError, match="there are no inputs"):
        lipschitz.lower(nn.Linear(2, 2), torch.zeros(0, 2))
    broken = nn.Linear(2, 2)
    broken.weight.data[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="inputs 0 to 2"):
        lipschitz.lower(broken, torch.ones(3, 2))
