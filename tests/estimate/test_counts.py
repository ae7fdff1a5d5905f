"""Counts of networks on the meta device against closed forms, and against networks that are really built."""

from __future__ import annotations

import math

import pytest
import torch

from fipbench import models, registry
from fipbench.estimate import fits
from fipbench.estimate.counts import count
from fipbench.spec import Model

MLP = Model(name="mlp", inputs=(1, 28, 28), hidden=(300, 100), outputs=10)
CNN = Model(name="cnn", inputs=(1, 8, 8), channels=(16, 32), hidden=(64,), outputs=10)
BERT = Model(name="bert", inputs=(24,), outputs=5, vocabulary=200, width=64, depth=2, heads=4)
RESNET20 = Model(name="resnet", inputs=(3, 32, 32), channels=(16, 32, 64), depth=3, outputs=10)
VGG = Model(name="vgg", inputs=(3, 32, 32), channels=(8, 16), hidden=(64,), outputs=10)
ALL = {"mlp": MLP, "cnn": CNN, "bert": BERT, "resnet": RESNET20, "vgg": VGG}


def test_mlp_by_hand():
    """LeNet-300-100: 266,610 parameters; a multiplication and an addition for each weight. Backwards the same again
    for the weights, and for what goes into each layer but the first."""
    found = count(MLP)
    weights = 784 * 300 + 300 * 100 + 100 * 10
    assert found.parameters == weights + 300 + 100 + 10 == 266_610
    assert found.forward_flops == 2 * weights
    assert found.backward_flops == 2 * 2 * weights - 2 * 784 * 300
    # The input of each layer is kept (a ReLU's output is the next layer's input), in single precision.
    assert found.activation_bytes == 4 * (784 + 300 + 100)


def test_cnn_by_hand():
    """8 x 8 padded, pooled to 4 x 4; 2 x 2 unpadded, pooled to one: 9 multiplications a pair of channels and pixel."""
    found = count(CNN)
    first, second, dense = 8 * 8 * 9 * 1 * 16, 2 * 2 * 9 * 16 * 32, 32 * 64 + 64 * 10
    assert found.parameters == 9 * 16 + 16 + 9 * 16 * 32 + 32 + 32 * 64 + 64 + 64 * 10 + 10
    assert found.forward_flops == 2 * (first + second + dense)
    assert found.backward_flops == 2 * found.forward_flops - 2 * first


def test_bert_by_hand():
    """A layer: four projections, two products of the attention, a feed-forward layer of twice the width."""
    found, width, length, outputs = count(BERT), 64, 24, 5
    layer = length * 4 * width**2 + 2 * length**2 * width + length * 2 * width * 2 * width
    assert found.forward_flops == 2 * (2 * layer + width * outputs)
    # Every layer has weights before it (the embeddings), so all that goes forward goes back twice.
    assert found.backward_flops == 2 * found.forward_flops


def test_resnet20_by_hand():
    """ResNet-20 on 32 x 32 images: 9 blocks of two convolutions, two of them with a shortcut of its own."""
    stem = 32 * 32 * 9 * 3 * 16
    stages = 0
    for side, before, width in ((32, 16, 16), (16, 16, 32), (8, 32, 64)):
        stages += side**2 * 9 * (before * width + 5 * width**2)
        stages += side**2 * before * width if before != width else 0
    found = count(RESNET20)
    assert found.forward_flops == 2 * (stem + stages + 64 * 10)
    assert found.backward_flops == 2 * found.forward_flops - 2 * stem


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_those_of_the_network_itself(name):
    network = models.build(ALL[name], 0)
    assert count(ALL[name]).parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ALL)
def test_what_is_kept_grows_as_on_the_cpu(name):
    """Bytes that autograd really keeps for batches of three and of seven, weights left out."""
    network = models.build(ALL[name], 0)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def kept(batch):
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        inputs = (
            torch.ones((batch, 24), dtype=torch.int64) if name == "bert" else torch.rand((batch, *ALL[name].inputs))
        )
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output = network(inputs)
        assert output.shape == (batch, ALL[name].outputs)
        return sum(t.untyped_storage().nbytes() for k, t in storages.items() if k not in own)

    real = (kept(7) - kept(3)) / 4
    assert count(ALL[name]).activation_bytes == pytest.approx(real, rel=0.05)


def test_nothing_of_its_size_is_allocated():
    """A hundred billion parameters, counted on any machine."""
    wide = Model(name="mlp", inputs=(1, 1, 100), hidden=(300_000, 300_000), outputs=10)
    assert count(wide).parameters == math.prod((300_000, 300_000)) + 100 * 300_000 + 2 * 300_000 + 10 * 300_001


def test_the_bound_that_spares_the_count_is_one():
    specs = [registry.read_task(name).model for name in registry.task_files()]
    for spec in [*ALL.values(), *(spec for spec in specs if not spec.weights)]:
        network = models.build(spec, 0)
        assert fits.at_most(spec) >= sum(p.numel() for p in network.parameters()), spec
    pretrained = Model(name="transformer", inputs=(8,), outputs=2, weights="somebody/something")
    assert fits.at_most(pretrained) > 10**15
