"""Directions and angles of paths whose geometry is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fipbench.fip.trajectory import trajectory


def circle(degrees, radius=1.0):
    turns = np.deg2rad(degrees)
    return [torch.tensor([radius * math.cos(t), radius * math.sin(t)], dtype=torch.float64) for t in turns]


def test_a_straight_way_out_of_the_origin():
    found = trajectory([t * torch.tensor([3.0, 4.0, 0.0]) for t in (1, 2, 4)])
    assert found.mean_directional_similarity == pytest.approx(1) and found.start_angle == pytest.approx(0, abs=1e-5)
    assert found.angles.tolist() == pytest.approx([0], abs=1e-5)
    assert (found.length, found.distance, found.straightness) == pytest.approx((15, 15, 1))


def test_a_quarter_of_a_circle():
    found = trajectory(circle([0, 30, 60, 90]))
    expected = np.cos(np.deg2rad(np.subtract.outer([0, 30, 60, 90], [0, 30, 60, 90])))
    assert np.allclose(found.similarity, expected)
    assert found.mean_directional_similarity == pytest.approx(expected.mean())
    assert found.angles.tolist() == pytest.approx([30, 30]) and found.start_angle == pytest.approx(90)
    assert found.length == pytest.approx(3 * 2 * math.sin(math.radians(15))) and found.distance == pytest.approx(2**0.5)


def test_turning_back_and_standing_still():
    found = trajectory([torch.tensor([v]) for v in (1.0, 2.0, 1.0, 1.0)])
    assert found.angles[0] == pytest.approx(180) and found.angles[1].isnan()
    assert found.straightness == 0
    still = trajectory([torch.ones(2), torch.ones(2)])
    assert math.isnan(still.straightness) and still.mean_directional_similarity == pytest.approx(1)


def test_small_angles_keep_their_digits():
    found = trajectory(circle([0, 1e-6]))
    assert found.start_angle == pytest.approx(1e-6, rel=1e-6)


@pytest.mark.parametrize("numbers", [1, 12, 10_000])
def test_a_block_of_weights_at_a_time_is_as_all_at_once(numbers, monkeypatch):
    """Against numpy on whole vectors in single precision: six points of ten weights, cut after two or not at all."""
    monkeypatch.setattr("fipbench.fip.trajectory.BLOCK_NUMBERS", numbers)
    points = torch.randn(6, 10, generator=torch.Generator().manual_seed(3))
    origin = torch.ones(10)
    found = trajectory(points, origin=origin)
    seen, steps = (points - origin).double().numpy(), np.diff(points.double().numpy(), axis=0)

    def cosine(a, b):
        return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)

    assert np.allclose(found.similarity, cosine(seen[:, None], seen[None]))
    assert np.allclose(np.cos(np.deg2rad(found.angles)), cosine(steps[1:], steps[:-1]))
    assert math.cos(math.radians(found.start_angle)) == pytest.approx(cosine(seen[0], seen[-1]))
    assert found.length == pytest.approx(np.linalg.norm(steps, axis=1).sum())
    assert found.distance == pytest.approx(np.linalg.norm(steps.sum(0)))


def test_seen_from_another_origin():
    points = [p + torch.tensor([5.0, 5.0]) for p in circle([0, 90])]
    assert trajectory(points).start_angle < 25
    moved = trajectory(points, origin=torch.tensor([5.0, 5.0]))
    assert moved.start_angle == pytest.approx(90) and moved.mean_directional_similarity == pytest.approx(0.5)
    # The origin itself has no direction, and is left out of the similarity alone.
    away = trajectory(points, origin=points[0])
    assert away.similarity.shape == (1, 1) and len(away.angles) == 0 and away.distance == pytest.approx(2**0.5)


def test_a_module_that_is_changed_in_place_is_seen_as_it_was():
    network = nn.Linear(2, 1, bias=False)

    def walk():
        for weights in ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]):
            network.weight.data = torch.tensor([weights])
            yield network

    found = trajectory(walk())
    assert found.start_angle == pytest.approx(180) and found.angles.tolist() == pytest.approx([90])
    as_mappings = trajectory([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-1.0, 0.0])}])
    assert as_mappings.start_angle == pytest.approx(180)


@pytest.mark.parametrize(
    ("points", "options", "error", "message"),
    [
        ([torch.ones(2)], {}, ValueError, "at least two points, got 1"),
        ([torch.ones(2), torch.ones(3)], {}, ValueError, "point 1 has 3 weights, the first has 2"),
        ([torch.ones(2), torch.ones(2)], {"origin": torch.ones(2)}, ValueError, "every point is the origin"),
        ([torch.ones(2), torch.ones(2)], {"origin": torch.ones(3)}, ValueError, "the origin has 3 weights"),
        ([torch.ones(2), torch.full((2,), math.nan)], {}, FloatingPointError, "point 1 of the path is not finite"),
    ],
)
def test_bad_paths_are_refused(points, options, error, message):
    with pytest.raises(error, match=message):
        trajectory(points, **options)
