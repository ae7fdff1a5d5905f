"""Residual networks, against torchvision's and against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fipbench import pruning
from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.models import build
from fipbench.spec import Model


def spec(channels, depth, outputs=10):
    return Model(
        name="resnet", inputs=(3, 32, 32), channels=channels, depth=depth, outputs=outputs, mean=0.47, std=0.25
    )


def weights(channels, depth, outputs):
    """Weights of convolutions, batch norms and the dense layer, added up by hand."""
    total = 3 * channels[0] * 9 + 2 * channels[0]
    before = channels[0]
    for width in channels:
        for block in range(depth):
            total += before * width * 9 + 2 * width + width * width * 9 + 2 * width
            if before != width and block == 0:
                total += before * width + 2 * width
            before = width
    return total + before * outputs + outputs


@pytest.mark.parametrize(
    ("channels", "depth", "outputs", "about"),
    [
        ((16, 32, 64), 3, 10, 272_474),  # ResNet-20
        ((64, 128, 256, 512), 2, 10, 11_173_962),  # ResNet-18 on CIFAR-10
        ((20, 40, 80, 160), 2, 100, 1_109_240),  # the slim one of GEM on CIFAR-100
    ],
)
def test_sizes(channels, depth, outputs, about):
    model = build(spec(channels, depth, outputs), seed=0)
    found = sum(p.numel() for p in model.parameters())
    assert found == weights(channels, depth, outputs)
    assert found == pytest.approx(about, rel=0.01)


def test_resnet18_is_torchvisions_with_a_small_stem():
    torchvision = import_torchvision()
    ours = build(spec((64, 128, 256, 512), 2), seed=3).eval()
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = nn.Identity()
    generator = torch.Generator().manual_seed(0)
    for model in (ours,):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    for mine, other in pairs:
        other.copy_(mine)
    x = torch.rand(4, 3, 32, 32, generator=generator)
    torch.testing.assert_close(ours(x), theirs((x - 0.47) / 0.25), rtol=1e-4, atol=1e-4)


def test_the_seed_decides_the_weights():
    first, again, other = (build(spec((4, 8), 1), seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_convolutions_and_the_dense_layer_are_prunable_and_norms_are_not():
    model = build(spec((4, 8), 1), seed=0)
    found = pruning.prunable(model)
    kinds = {id(m.weight): type(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {id(p) for p in found.values()} == set(kinds)


@pytest.mark.parametrize("missing", ["channels", "depth"])
def test_what_is_missing_is_named(missing):
    fields = {"channels": (4, 8), "depth": 1}
    fields.pop(missing)
    with pytest.raises(UserError, match=rf"field 'model': resnet needs .*'{missing}'"):
        build(Model(name="resnet", inputs=(3, 32, 32), outputs=10, **fields), seed=0)
