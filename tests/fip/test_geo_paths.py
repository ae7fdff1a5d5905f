"""The walks that are made of Geo: to the sparse hyperplane, to an earlier network, between two; and planes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from geometry import batch, small_net
from torch import nn

from fipbench import pruning
from fipbench.fip import geo_paths, plane
from fipbench.fip.geo import geo
from fipbench.fip.geo_paths import cf_geodesic, connect_modes, sparse_geodesic


def moved(network, by=0.3):
    other = copy.deepcopy(network)
    torch.manual_seed(5)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(by * torch.randn_like(p))
    return other


def vector(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def test_sparse_networks_have_exactly_their_zeros_and_the_given_one_stays():
    network, x = small_net(), batch(3)
    before = vector(network).clone()
    found = list(sparse_geodesic(network, [x], [0.3, 0.6], steps=20, n_s=4, eta=0.05, beta=0.01))
    assert [level for level, _ in found] == [0.3, 0.6]
    for level, sparse in found:
        zeros, total = pruning.zeros(sparse)
        assert zeros == pruning.zeros_at(level, total)
    assert torch.equal(vector(network), before)


def test_it_keeps_the_outputs_better_than_the_projection_alone():
    network, x = small_net(hidden=20), batch(3)
    [(_, walked)] = sparse_geodesic(network, [x], [0.5], steps=100, n_s=5, eta=0.05, beta=1e-3)
    cut = copy.deepcopy(network)
    pruning.apply(cut, pruning.magnitude_masks(pruning.prunable(cut), 0.5))
    lost = [(one(x) - network(x)).norm().item() for one in (walked, cut)]
    assert lost[0] < 0.5 * lost[1]


def test_the_hyperplane_is_aimed_at_anew_from_where_the_walk_stands(monkeypatch):
    """Every walk's target is its own start with the smallest half of the weights at zero."""
    walks = []

    def watched(start, target, *given, **options):
        walks.append((vector_of_matrices(start), vector_of_matrices(target)))
        return geo(start, target, *given, **options)

    monkeypatch.setattr(geo_paths, "geo", watched)
    network, x = small_net(hidden=20), batch(3)
    list(sparse_geodesic(network, [x], [0.5], steps=40, n_s=5, eta=0.05, beta=1e-3))
    assert len(walks) == 8
    for start, target in walks:
        smallest = start.abs().argsort()[: pruning.zeros_at(0.5, len(start))]
        wanted = start.clone()
        wanted[smallest] = 0.0
        assert torch.equal(target, wanted)
    assert not torch.equal(walks[0][1], walks[-1][1]), "a target taken once would do"


def vector_of_matrices(network):
    return torch.cat([p.detach().flatten() for p in pruning.prunable(network).values()])


def test_steps_are_what_a_level_may_take_at_most():
    network, x = small_net(), batch(2)
    drawn = iter([x] * 100)
    list(sparse_geodesic(network, drawn, [0.5, 0.9], steps=7, n_s=3, eta=1e-4))
    # Each walk of at most three steps takes g at each: 3 + 3 + 1, twice.
    assert 100 - len(list(drawn)) == 14
    with pytest.raises(ValueError, match="n_s"):
        list(sparse_geodesic(network, [x], [0.5], steps=7, n_s=0))


def test_the_network_between_two_tasks_is_the_last_that_is_accepted():
    new, old, x = small_net(), moved(small_net()), batch(3)
    seen = []

    def accept(network):
        seen.append(vector(network))
        return len(seen) < 4

    chosen, path = cf_geodesic(new, old, [x], 10, accept=accept, eta=0.02, beta=0.1)
    assert len(seen) == 4 and torch.equal(vector(chosen), path.points[3])
    whole, path = cf_geodesic(new, old, [x], 10, eta=0.02, beta=0.1)
    assert torch.equal(vector(whole), path.points[-1])
    nothing, path = cf_geodesic(new, old, [x], 10, accept=lambda network: False, eta=0.02)
    assert torch.equal(vector(nothing), vector(new))


def test_two_modes_are_joined_by_networks_of_their_kind():
    first, second, x = small_net(), moved(small_net()), batch(2)
    networks, path = connect_modes(first, second, [x], 500, eta=0.1, beta=10.0)
    assert path.reached and torch.equal(vector(networks[0]), vector(first))
    assert torch.equal(vector(networks[-1]), vector(second))
    torch.testing.assert_close(vector(networks[3]), path.points[3])


# ------------------------------------------------------------------------------------------------- planes


def test_a_plane_has_the_three_points_where_they_are():
    a, b, c = torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 2, 0]), torch.tensor([1.0, 1, 3])
    found = plane.plane_through(a, b, c)
    assert [found.project(p) for p in (a, b, c)] == [
        pytest.approx((0, 0)),
        pytest.approx((2, 0)),
        pytest.approx((1, 3)),
    ]
    torch.testing.assert_close(found.point(0.5, -1.0), torch.tensor([1.0, 0.5, -1.0]))
    # What lies off the plane is seen from above.
    assert found.project(torch.tensor([7.0, 1.0, 1.0])) == pytest.approx((1, 1))


def test_a_line_has_no_plane_and_a_point_is_a_mistake():
    a = torch.zeros(4)
    assert plane.plane_through(a, torch.ones(4), 0.3 * torch.ones(4)) is None
    with pytest.raises(ValueError, match="the same"):
        plane.plane_through(a, a, torch.ones(4))


def test_a_grid_covers_the_points_with_room():
    found = plane.plane_through(torch.tensor([0.0, 0]), torch.tensor([10.0, 0]), torch.tensor([5.0, 5]))
    points = [torch.tensor([0.0, 0]), torch.tensor([5.0, 5]), torch.tensor([10.0, 0])]
    xs, ys = plane.grid(found, points, 5)
    assert xs == pytest.approx([-2, 1.5, 5, 8.5, 12]) and ys == pytest.approx([-2, 0.25, 2.5, 4.75, 7])
    assert math.isclose(xs[0], ys[0])
