"""Units put in order: a known permutation is found again, transport is what a linear programme says, and the curve."""

from __future__ import annotations

import copy
from itertools import permutations

import numpy as np
import pytest
import torch
from fipbench.baselines import _alignment as alignment
from fipbench.baselines import bezier, fusion, rebasin
from scipy.optimize import linprog
from torch import nn

from fipbench import models, spec

MLP = spec.Model(name="mlp", inputs=(1, 5, 5), hidden=(12, 9), outputs=4)
CNN = spec.Model(name="cnn", inputs=(1, 12, 12), channels=(6, 8), hidden=(11,), outputs=4)
VGG = spec.Model(name="vgg", inputs=(3, 8, 8), channels=(4, 6), hidden=(7,), outputs=4, mean=0.4, std=0.2)


def inputs(model, count=20):
    return torch.rand(count, *model.inputs, generator=torch.Generator().manual_seed(3))


def orders_of(network, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randperm(len(layer.weight), generator=drawn) for _, layer in alignment.chain(network)[:-1]]


def inverse(order):
    return order.argsort()


@pytest.mark.parametrize("model", [MLP, CNN, VGG], ids=lambda model: model.name)
class TestAKnownOrder:
    def test_a_permuted_network_computes_the_same_function_with_other_weights(self, model):
        network = models.build(model, 0)
        other = alignment.permuted(network, orders_of(network))
        torch.testing.assert_close(other(inputs(model)), network(inputs(model)), atol=1e-5, rtol=1e-4)
        assert not torch.equal(next(other.parameters()), next(network.parameters()))

    def test_weight_matching_finds_it_again(self, model):
        network = models.build(model, 0)
        other = alignment.permuted(network, orders := orders_of(network))
        found = rebasin.matching(network, other, torch.Generator().manual_seed(0))
        assert all(torch.equal(a, inverse(b)) for a, b in zip(found, orders, strict=True))
        back = alignment.permuted(other, found)
        assert all(torch.equal(a, b) for a, b in zip(back.parameters(), network.parameters(), strict=True))

    def test_transport_finds_it_again_by_weights_and_by_activations(self, model):
        network = models.build(model, 0)
        other = alignment.permuted(network, orders := orders_of(network))
        for found in (fusion.by_weights(network, other), fusion.by_activations(network, other, inputs(model))):
            assert all(torch.equal(a, inverse(b)) for a, b in zip(found, orders, strict=True))


def test_a_matched_line_has_no_barrier_where_the_plain_one_has():
    network, x = models.build(MLP, 0), inputs(MLP, 100)
    other = alignment.permuted(network, orders_of(network))
    matched = alignment.permuted(other, rebasin.matching(network, other, torch.Generator().manual_seed(0)))

    def middle(end):
        found = copy.deepcopy(network)
        with torch.no_grad():
            for p, a, b in zip(found.parameters(), network.parameters(), end.parameters(), strict=True):
                p.copy_((a + b) / 2)
        return (found(x) - network(x)).abs().max().item()

    assert middle(matched) < 1e-5 < 0.1 < middle(other)


def test_matching_beats_every_other_order_of_one_hidden_layer():
    first, second = (models.build(spec.Model(name="mlp", inputs=(6,), hidden=(5,), outputs=3), seed) for seed in (0, 1))
    [found] = rebasin.matching(first, second, torch.Generator().manual_seed(0))

    def distance(order):
        other = alignment.permuted(second, [torch.tensor(order)])
        pairs = zip(first.parameters(), other.parameters(), strict=True)
        return sum((a - b).double().square().sum().item() for a, b in pairs)

    best = min(permutations(range(5)), key=distance)
    assert tuple(found.tolist()) == best


def test_an_assignment_solves_the_transport_problem():
    """The linear programme over all plans with uniform masses, by scipy's HiGHS."""
    drawn = torch.Generator().manual_seed(2)
    a, b = (torch.rand(6, 3, generator=drawn, dtype=torch.float64) for _ in range(2))
    costs = torch.cdist(a, b).numpy()
    k = len(a)
    sums = np.concatenate([np.kron(np.eye(k), np.ones((1, k))), np.kron(np.ones((1, k)), np.eye(k))])
    plan = linprog(costs.ravel(), A_eq=sums, b_eq=np.full(2 * k, 1 / k))
    order = fusion.transport(a, b)
    assert costs[np.arange(k), order].sum() / k == pytest.approx(plan.fun)
    np.testing.assert_allclose(plan.x.reshape(k, k)[np.arange(k), order], 1 / k, atol=1e-9)


RESNET = spec.Model(name="resnet", inputs=(3, 8, 8), channels=(4, 8), depth=1, outputs=2)


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), "'1', a BatchNorm1d"),
        (models.build(RESNET, 0), "BatchNorm2d"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 2)), "'0', a Conv2d"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2)), "'1', a Sequential"),
        (nn.Linear(3, 2), "no hidden units"),
    ],
    ids=["batch norm", "resnet", "groups", "nested", "one layer"],
)  # fmt: skip
def test_what_cannot_be_permuted_is_refused(network, what):
    with pytest.raises(ValueError, match=what):
        alignment.chain(network)


# ------------------------------------------------------------------------------------------- the Bezier curve


def test_the_curve_begins_and_ends_at_the_networks_and_bends_towards_its_control_point():
    a, theta, b = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert torch.equal(bezier.between(a, theta, b, 0.0), a) and torch.equal(bezier.between(a, theta, b, 1.0), b)
    torch.testing.assert_close(bezier.between(a, theta, b, 0.5), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(bezier.between(a, theta, b, 0.25), torch.tensor([0.5, 0.75]))
