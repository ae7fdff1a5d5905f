"""The pre-activation network of 164 layers and VGG11, against counts by hand and the published formulae."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from fipbench.errors import UserError
from fipbench.fip import metric
from fipbench.models import build
from fipbench.models.preactivation import Bottleneck
from fipbench.spec import Model


def spec(channels=(16, 32, 64), depth=18, outputs=10, name="preresnet"):
    return Model(name=name, inputs=(3, 32, 32), channels=channels, depth=depth, outputs=outputs, mean=0.47, std=0.25)


def weights(channels, depth, outputs):
    """Weights of convolutions, batch norms and the dense layer, added up by hand."""
    total, before = 3 * channels[0] * 9, channels[0]
    for width in channels:
        for block in range(depth):
            total += 2 * before + before * width  # batch norm, 1 x 1
            total += 2 * width + width * width * 9  # batch norm, 3 x 3
            total += 2 * width + width * 4 * width  # batch norm, 1 x 1
            if block == 0:
                total += before * 4 * width  # the shortcut
            before = 4 * width
    return total + 2 * before + before * outputs + outputs


@pytest.mark.parametrize(("channels", "depth", "outputs"), [((16, 32, 64), 18, 10), ((4, 6), 2, 7)])
def test_sizes(channels, depth, outputs):
    model = build(spec(channels, depth, outputs), seed=0)
    assert sum(p.numel() for p in model.parameters()) == weights(channels, depth, outputs)


def test_it_is_the_published_network():
    model = build(spec(), seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.7e6, rel=0.01)  # He et al., 2016, table 3
    shortcuts = {id(m.shortcut) for m in model.modules() if isinstance(m, Bottleneck)}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and id(m) not in shortcuts]
    assert len(layers) == 164
    assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("channels", "width", "stride"), [(12, 3, 1), (8, 4, 2)])
def test_a_block_is_the_formula(channels, width, stride):
    torch.manual_seed(0)
    block = Bottleneck(channels, width, stride).eval()
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        for value in (norm.running_mean, norm.weight, norm.bias):
            nn.init.normal_(value)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    a, b, c = (m.weight for m in block.inside if isinstance(m, nn.Conv2d))
    x = torch.randn(2, channels, 6, 6)

    def activated(value, norm):
        mean, var, gain, bias = (
            part.view(-1, 1, 1) for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return ((value - mean) / (var + 1e-5).sqrt() * gain + bias).clamp(min=0)

    h = functional.conv2d(activated(x, norms[0]), a)
    h = functional.conv2d(activated(h, norms[1]), b, stride=stride, padding=1)
    h = functional.conv2d(activated(h, norms[2]), c)
    shortcut = x if stride == 1 else functional.conv2d(x, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x), h + shortcut)


def test_without_its_inside_a_block_is_the_identity():
    block = Bottleneck(12, 3, 1).eval()
    nn.init.zeros_(block.inside[-1].weight)
    x = torch.randn(2, 12, 4, 4)
    assert torch.equal(block(x), x)  # negative values too: nothing comes after the sum


def test_vgg11():
    model = build(
        Model(name="vgg11", inputs=(3, 32, 32), channels=(64, 128, 256, 512, 512), hidden=(512, 512), outputs=10), 0
    )
    filters = [m.out_channels for m in model if isinstance(m, nn.Conv2d)]
    assert filters == [64, 128, 256, 256, 512, 512, 512, 512]  # Simonyan & Zisserman, 2015, table 1, column A
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model) == 11
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["vgg", "vgg11", "preresnet", "resnet"])
def test_the_metric_can_be_taken_at_networks_that_keep_images_channels_last(name):
    """Geo walks between them; J by autograd, one output after another."""
    channels = (2, 2, 2, 2, 2) if name == "vgg11" else (2, 3)
    network = build(
        Model(name=name, inputs=(3, 32, 32), channels=channels, depth=1, outputs=2, mean=0.47, std=0.25), seed=0
    ).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(out, list(network.parameters()), retain_graph=True)])
        for out in network(x).flatten()
    ]
    g = metric.metric_of(network, x)
    v = torch.randn(g.size, generator=torch.Generator().manual_seed(0))
    j = torch.stack(rows) / 2**0.5
    torch.testing.assert_close(
        metric.gram(g).values.flip(0), torch.linalg.svdvals(j).square().flip(0).double(), rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(g.product(v), j.T @ (j @ v), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (spec(depth=18, channels=()), "preresnet needs 'channels'"),
        (Model(name="preresnet", inputs=(3, 32, 32), channels=(4,), outputs=3), "preresnet needs 'channels'"),
        (spec(channels=(8, 16), name="vgg11"), "vgg11 needs five"),
    ],
)
def test_what_is_missing_is_said(wrong, words):
    with pytest.raises(UserError, match=words):
        build(wrong, 0)
