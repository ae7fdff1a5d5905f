"""The metric as an operator: against finite differences, dense Jacobians and known distances."""

import copy
import math

import numpy as np
import pytest
import torch
from geometry import Formula, batch, dense_jacobian, outputs_at, product, small_net
from torch import nn

from fipbench.fip import distance
from fipbench.fip.metric import jacobian, metric_of


def vector(length, seed=3):
    return torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("space", ["logits", "softmax", "fisher"])
def test_products_are_those_of_the_dense_jacobian(space, reduction):
    network, x = small_net(), batch(5)
    g = metric_of(network, x, space=space, reduction=reduction, chunk=2)
    j = dense_jacobian(network, x, space) / (math.sqrt(5) if reduction == "mean" else 1)
    v, u = vector(g.size), vector(g.rows)
    assert (g.rows, g.size, g.rank_bound) == (*j.shape, 15)
    np.testing.assert_allclose(g.push(v), j @ v.numpy(), atol=1e-8)
    np.testing.assert_allclose(g.pull(u), j.T @ u.numpy(), atol=1e-8)
    np.testing.assert_allclose(g.product(v), j.T @ j @ v.numpy(), atol=1e-8)
    np.testing.assert_allclose(g.dual_product(u), j @ j.T @ u.numpy(), atol=1e-8)
    np.testing.assert_allclose(jacobian(g), j, atol=1e-8)
    np.testing.assert_allclose(g.squared_speed(v), np.square(j @ v.numpy()).sum(), atol=1e-8)


def test_the_metric_at_another_point_is_that_points():
    network, other, x = small_net(0), small_net(7), batch(5)
    v = vector(metric_of(other, x).size)
    moved = metric_of(network, x).at(other)
    np.testing.assert_allclose(moved.product(v), metric_of(other, x).product(v), rtol=1e-12)
    again = metric_of(network, x).at(nn.utils.parameters_to_vector(other.parameters()))
    np.testing.assert_allclose(again.product(v), moved.product(v), rtol=1e-12)
    expected = dense_jacobian(other, x)
    np.testing.assert_allclose(moved.product(v), expected.T @ expected @ v.numpy() / 5, atol=1e-8)


def test_fisher_is_eight_bhattacharyya_to_second_order():
    """Two steps of unlike length tell the order: what is left of d / (e^2 F / 8) - 1 falls with e."""
    network, x = small_net(), batch(6)
    g = metric_of(network, x, space="fisher")
    v = vector(g.size) / math.sqrt(g.size)
    at = g.weights
    left = []
    for step in (1e-2, 1e-3):
        z = torch.from_numpy(outputs_at(network, x, at + step * v)).view(6, 3)
        measured = float(distance.bhattacharyya(z, torch.from_numpy(outputs_at(network, x, at)).view(6, 3)))
        left.append(abs(measured / (step**2 * g.squared_speed(v) / 8) - 1))
    assert left[1] < 1e-3 and left[1] < left[0] / 5
    # Neither metric of the two others has this quadratic form.
    others = [metric_of(network, x, space=space).squared_speed(v) for space in ("logits", "softmax")]
    assert all(abs(other / g.squared_speed(v) - 1) > 0.05 for other in others)


def test_frozen_weights_are_no_coordinates():
    network, x = small_net(), batch(5)
    network[0].weight.requires_grad_(False)
    g = metric_of(network, x)
    assert g.names == ("0.bias", "2.weight", "2.bias") and g.size == 6 + 18 + 3
    np.testing.assert_allclose(jacobian(g), dense_jacobian(network, x) / math.sqrt(5), atol=1e-8)


def test_batch_norm_and_dropout_are_in_evaluation_mode_and_the_network_stays_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2)).double().train()
    network(batch(32))
    before = copy.deepcopy(network.state_dict())
    x = batch(3)
    g = metric_of(network, x)
    expected = dense_jacobian(network, x) / math.sqrt(3)
    np.testing.assert_allclose(jacobian(g), expected, atol=1e-8)
    np.testing.assert_allclose(g.push(vector(g.size)), expected @ vector(g.size).numpy(), atol=1e-8)
    assert network.training and all(torch.equal(a, before[name]) for name, a in network.state_dict().items())


def test_convolutions_and_weights_used_twice():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    network[5].weight = network[3].weight
    x = torch.randn(3, 1, 4, 4).double()
    network = network.double()
    g = metric_of(network, x)
    assert g.size == 2 * 9 + 2 + 64 + 8 + 8
    expected = dense_jacobian(network, x) / math.sqrt(3)
    np.testing.assert_allclose(jacobian(g), expected, atol=1e-8)
    np.testing.assert_allclose(g.push(vector(g.size)), expected @ vector(g.size).numpy(), atol=1e-8)


def test_attention_has_its_derivatives():
    """The fused kernels that evaluation mode would choose have no forward mode."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.Linear(4, 8), layer, nn.Flatten(), nn.Linear(24, 2)).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    g = metric_of(network, x)
    v = vector(g.size)
    step = 1e-5
    ahead, behind = (outputs_at(network, x, g.weights + s * step * v) for s in (1, -1))
    np.testing.assert_allclose(g.push(v), (ahead - behind) / 2 / step / math.sqrt(2), atol=1e-7)
    np.testing.assert_allclose(jacobian(g) @ v, (ahead - behind) / 2 / step / math.sqrt(2), atol=1e-7)
    assert torch.backends.mha.get_fastpath_enabled()


def test_inputs_may_be_several_tensors_and_the_call_another():
    network = small_net()
    x = batch(5)
    expected = metric_of(network, x).product(vector(51))
    halves = metric_of(network, (x[:, :2], x[:, 2:]), forward=lambda net, pair: net(torch.cat(pair, 1)))
    named = metric_of(network, {"x": x}, forward=lambda net, given: net(**{"input": given["x"]}), chunk=2)
    for g in (halves, named):
        torch.testing.assert_close(g.product(vector(51)), expected)
        torch.testing.assert_close(jacobian(g), jacobian(metric_of(network, x)))


def test_double_precision_of_a_single_one():
    network, x = small_net(dtype=torch.float32), batch(5, dtype=torch.float32)
    fine = metric_of(network, x).double()
    expected = dense_jacobian(copy.deepcopy(network).double(), x.double()) / math.sqrt(5)
    np.testing.assert_allclose(jacobian(fine), expected, atol=1e-8)
    assert metric_of(network, x).product(vector(51)).dtype == torch.float32


# ------------------------------------------------------------------------------------------------- mistakes


def one_more(network):
    network.add_module("extra", nn.Linear(2, 2))
    return network


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (small_net(hidden=7), r"'0.weight' have shape \(7, 4\), expected \(6, 4\)"),
        (nn.Sequential(nn.Linear(4, 6)).double(), "no weights '2.weight'"),
        (one_more(small_net()), "weights 'extra.bias', which this one has not"),
        (torch.zeros(50), r"\(51,\), got \(50,\)"),
    ],
)
def test_a_target_of_another_shape(other, says):
    g = metric_of(small_net(), batch(5))
    with pytest.raises(ValueError, match=says):
        g.at(other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"space": "probabilities"}, "logits, softmax, fisher, got 'probabilities'"),
        ({"reduction": "none"}, "mean, sum, got 'none'"),
        ({"chunk": 0}, "at least 1, got 0"),
        ({"inputs": torch.zeros(0, 4)}, r"at least one, got \[0\]"),
        ({"inputs": (torch.zeros(2, 4), torch.zeros(3, 4))}, r"got \[2, 3\]"),
        ({"network": small_net().requires_grad_(False)}, "no weights that require a gradient"),
        ({"network": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())}, "share one type"),
        ({"forward": lambda net, x: net(x).sum(0, keepdim=True)}, "5 examples gave 1 outputs"),
    ],
)
def test_options_out_of_range(change, says):
    with pytest.raises(ValueError, match=says):
        metric_of(**{"network": small_net(), "inputs": batch(5), **change})


def test_where_it_is_not_finite_is_said():
    broken = small_net()
    with torch.no_grad():
        broken[2].bias[1] = math.nan
    with pytest.raises(FloatingPointError, match=r"the weights '2.bias' are not finite"):
        metric_of(broken, batch(5))
    x = batch(5)
    x[3, 0] = math.inf
    g = metric_of(small_net(), x, chunk=2)
    with pytest.raises(FloatingPointError, match="change of the outputs at example 3"):
        g.push(vector(51))
    with pytest.raises(FloatingPointError, match=r"the gradient by '0.weight'"):
        g.pull(vector(15))
    with pytest.raises(FloatingPointError, match="output 0 of example 3"):
        jacobian(g)
    root = Formula([-1.0], lambda w, x: w.sqrt() * x)
    with pytest.raises(FloatingPointError, match="the outputs at example 0"):
        metric_of(root, torch.ones(2, 1).double()).push(torch.ones(1))


def test_the_product_model_by_hand():
    """f = w1 w2 x: J = x (w2, w1), so g = mean(x^2) [[w2^2, w1 w2], [w1 w2, w1^2]]."""
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    g = metric_of(product(2.0, -0.5), x)
    assert g.product(torch.tensor([1.0, 0.0])).tolist() == pytest.approx([5 * 0.25, 5 * -1.0])
    assert g.product(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([5 * -1.0, 5 * 4.0])
