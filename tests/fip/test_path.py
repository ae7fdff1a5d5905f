"""Lengths in weight space against closed forms."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from fipbench.fip import distance_walked, path_length


def at(*values):
    return {"w": torch.tensor(values, dtype=torch.float32)}


def circle(points):
    return [at(math.cos(t), math.sin(t)) for t in np.linspace(0, 2 * math.pi, points)]


def test_distance_walked_is_the_norm_over_all_parameters():
    assert distance_walked(
        {"a": torch.zeros(2), "b": torch.zeros(1, 1)}, {"a": torch.ones(2), "b": torch.ones(1, 1)}
    ) == (pytest.approx(math.sqrt(3)))
    assert distance_walked(at(0.0, 0.0), at(3.0, 4.0)) == 5.0


def test_distance_walked_between_modules_equals_numpy():
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)) for _ in range(2))
    b[1].weight.data.fill_(2.0)
    flat = [np.concatenate([p.detach().numpy().ravel() for p in m.parameters()]) for m in (a, b)]
    assert distance_walked(a, b) == pytest.approx(float(np.linalg.norm(flat[0] - flat[1])), rel=1e-6)


def test_distance_walked_counts_no_buffers_and_tied_weights_once():
    a = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2, affine=False))
    a[1].weight = a[0].weight
    b = copy.deepcopy(a)
    b[2].running_mean.fill_(9.0)
    b[0].weight.data.add_(1.0)
    assert distance_walked(a, b) == pytest.approx(2.0)


def test_distance_walked_adds_in_double_precision():
    assert distance_walked(at(0.0), at(1e30)) == pytest.approx(1e30, rel=1e-6)
    n = 1_000_000
    assert distance_walked({"w": torch.zeros(n)}, {"w": torch.full((n,), 1e-3)}) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [(at(0.0, 1.0), at(0.0)), (at(1.0), {"v": torch.ones(1)}), (at(1.0), {})])
def test_distance_walked_refuses_other_names_or_shapes(a, b):
    with pytest.raises(ValueError, match="names or shapes"):
        distance_walked(a, b)


def test_path_length_of_segments_and_a_circle():
    assert path_length([at(0.0, 0.0), at(3.0, 4.0), at(3.0, 0.0)]) == pytest.approx(9.0)
    n = 400
    assert path_length(circle(n + 1)) == pytest.approx(2 * n * math.sin(math.pi / n), rel=1e-5)
    assert path_length([]) == path_length([at(1.0)]) == 0.0


def test_path_length_is_at_least_the_distance_and_equal_on_a_line():
    line = [at(t, 2 * t) for t in (0.0, 0.1, 0.5, 1.0)]
    assert path_length(line) == pytest.approx(distance_walked(line[0], line[-1]), rel=1e-6)
    assert path_length(circle(50)) > 6 > distance_walked(circle(50)[0], circle(50)[-1])


def test_path_length_of_one_module_changed_in_place():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.zero_()

    def walk():
        yield model
        for step in ([3.0, 4.0], [0.0, 1.0]):
            model.weight.data += torch.tensor([step])
            yield model

    assert path_length(walk()) == pytest.approx(6.0)


def test_path_length_of_a_mapping_changed_in_place():
    point = at(0.0, 0.0)

    def walk():
        yield point
        point["w"][0] = 2.0
        yield point

    assert path_length(walk()) == pytest.approx(2.0)


def test_path_length_refuses_other_shapes():
    with pytest.raises(ValueError, match="names or shapes"):
        path_length([at(1.0), at(1.0, 2.0)])
