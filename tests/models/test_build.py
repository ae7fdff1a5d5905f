"""The architectures that tasks name."""

import math

import pytest
import torch
from torch import nn

from fipbench import models, pruning
from fipbench.errors import UserError
from fipbench.spec import Model

LENET = Model(name="mlp", inputs=(1, 28, 28), hidden=(300, 100), outputs=10, mean=0.1307, std=0.3081)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_lenet_has_the_parameters_that_are_published():
    model = models.build(LENET, 0)
    assert sum(p.numel() for p in model.parameters()) == 266_610
    assert [tuple(p.shape) for p in pruning.prunable(model).values()] == [(300, 784), (100, 300), (10, 100)]
    assert pruning.zeros(model) == (0, 266_200)


def test_outputs_are_those_of_the_layers_by_hand():
    model = models.build(LENET, 0)
    images = torch.rand(3, 1, 28, 28)
    x = (images.reshape(3, 784) - 0.1307) / 0.3081
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for layer in layers[:-1]:
        x = (x @ layer.weight.T + layer.bias).clamp_min(0)
    torch.testing.assert_close(model(images), x @ layers[-1].weight.T + layers[-1].bias)


def test_without_hidden_layers_it_is_linear():
    model = models.build(Model(name="mlp", inputs=(5,), outputs=2), 0)
    assert [tuple(p.shape) for p in model.parameters()] == [(2, 5), (2,)]
    x = torch.rand(4, 5)
    torch.testing.assert_close(model(2 * x) - model(x), model(x) - model(0 * x))


def test_the_seed_decides_and_nothing_else():
    torch.manual_seed(1)
    first = weights(models.build(LENET, 7))
    torch.manual_seed(2)
    assert torch.equal(weights(models.build(LENET, 7)), first)
    assert not torch.equal(weights(models.build(LENET, 8)), first)


def test_torchs_own_generator_is_left_as_it_was():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    models.build(LENET, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_kaiming_normal():
    model = models.build(LENET, 0)
    for weight in pruning.prunable(model).values():
        n, wanted = weight.numel(), math.sqrt(2 / weight.shape[1])
        std, mean = float(weight.detach().std()), float(weight.detach().mean())
        assert std == pytest.approx(wanted, rel=4 / math.sqrt(2 * n))
        assert abs(mean) < 4 * wanted / math.sqrt(n)
        # A normal law, not a uniform one, which would end at sqrt(3) standard deviations.
        assert float(weight.detach().abs().max()) > 2.5 * wanted
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    assert float(first.bias.detach().abs().max()) <= 1 / math.sqrt(784)


def test_an_unknown_name_is_the_users_error():
    with pytest.raises(UserError, match="unknown model 'mpl': did you mean mlp"):
        models.build(Model(name="mpl", inputs=(4,), outputs=2), 0)


def test_normalize_has_no_parameters():
    layer = models.Normalize(0.5, 0.25)
    assert not list(layer.parameters()) and not layer.state_dict()
    torch.testing.assert_close(layer(torch.tensor([0.5, 1.0])), torch.tensor([0.0, 2.0]))
