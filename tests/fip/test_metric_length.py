"""Lengths under the metric against distances that are known in closed form."""

import math

import numpy as np
import pytest
import torch
from geometry import Formula, batch, distribution, small_net
from torch import nn

from fipbench.fip.metric import measure_path, metric_of

NOTHING = torch.zeros(1, 1, dtype=torch.float64)


def line(a, b, segments):
    a, b = (torch.tensor(end, dtype=torch.float64) for end in (a, b))
    return [a + (b - a) * i / segments for i in range(segments + 1)]


def test_a_linear_model_measures_every_straight_path_as_the_matrix_does():
    """f = A x with weights A: <v, v>_g is the mean of |V x|^2, the same everywhere, so one segment is enough."""
    network, x = nn.Linear(3, 2, bias=False).double(), batch(7, 3)
    g = metric_of(network, x)
    end = g.weights + torch.arange(6.0)
    change = (end - g.weights).view(2, 3)
    squared = float((x @ change.T).square().sum() / 7)
    for segments in (1, 5):
        found = measure_path(g, [g.weights + (end - g.weights) * i / segments for i in range(segments + 1)])
        assert found.length == pytest.approx(math.sqrt(squared)) and found.energy == pytest.approx(squared)
        assert found.euclidean == pytest.approx(math.sqrt(55)) and found.segments == segments


def test_fisher_length_is_the_arc_between_two_distributions_and_the_rule_is_of_second_order():
    """With two classes there is one way: its length is 2 arccos sum_k sqrt(p_k q_k) (Rao)."""
    g = metric_of(distribution(0.0), NOTHING, space="fisher")

    def known(w):
        return np.array([math.exp(w), 1]) / (math.exp(w) + 1)

    arc = 2 * math.acos(np.sqrt(known(-1.0) * known(2.0)).sum())
    errors = [abs(measure_path(g, line([-1.0], [2.0], k)).length - arc) for k in (8, 16, 32)]
    assert errors[0] < 0.01
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05) and errors[1] / errors[2] == pytest.approx(4, rel=0.05)


def test_the_energy_of_a_path_that_speeds_up():
    """f = w^2 / 2 from w = 0 to 2 in equal steps: v = 2 w, length 2, energy integral of 4 w^2 over t = 16 / 3."""
    g = metric_of(Formula([0.0], lambda w, x: w**2 / 2 + 0 * x), NOTHING)
    found = measure_path(g, line([0.0], [2.0], 400))
    assert found.length == pytest.approx(2) and found.energy == pytest.approx(16 / 3, rel=1e-4)
    assert found.energy > found.length**2


def test_networks_are_points_and_may_be_the_same_one_changed_in_place():
    network = small_net()
    g = metric_of(network, batch(5))
    vectors = [g.weights + 0.1 * i for i in range(3)]

    def walked():
        for vector in vectors:
            nn.utils.vector_to_parameters(vector, network.parameters())
            yield network

    assert measure_path(g, walked()) == measure_path(g, vectors) == measure_path(g, [g.unflatten(v) for v in vectors])
    assert measure_path(g, vectors[:1]).length == 0


def test_mistakes():
    g = metric_of(Formula([1.0], lambda w, x: w.sqrt() * x), torch.ones(1, 1).double())
    with pytest.raises(ValueError, match="at least one point"):
        measure_path(g, [])
    with pytest.raises(ValueError, match=r"\(1,\), got \(2,\)"):
        measure_path(g, [torch.ones(2)])
    with pytest.raises(FloatingPointError, match="between points 1 and 2 of the path: the outputs at example 0"):
        measure_path(g, [torch.tensor([w]) for w in (2.0, 1.0, -2.0, 3.0)])
