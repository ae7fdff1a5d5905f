"""Where the networks of an atlas lie, which of them lie near, which answers best: against the weights themselves."""

from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest
import torch
from small_atlas import batches, grow_seven, network

from fipbench.fip import atlas
from fipbench.fip.atlas import storage
from fipbench.fip.atlas.plane import distances
from fipbench.fip.atlas.storage import AtlasError


@pytest.fixture
def grown(tmp_path):
    return grow_seven(tmp_path / "a")


def vectors(nets):
    return np.stack([torch.cat([p.detach().flatten() for p in n.parameters()]).double().numpy() for n in nets.values()])


# ---------------------------------------------------------------------------------- where the members lie


@pytest.mark.parametrize("block_bytes", [1, 400, 900])
def test_inner_products_hold_a_block_of_all_members_at_a_time(block_bytes, grown, monkeypatch):
    """In double precision no more than the block, or a row of each of the six that differ from the base."""
    folder, nets = grown
    module, read = sys.modules["fipbench.fip.atlas.plane"], []
    original = module.changed_part

    def noted(own, part):
        read.append(part.numel())
        return original(own, part)

    monkeypatch.setattr(module, "changed_part", noted)
    atlas.inner_products(folder, block_bytes=block_bytes)
    widest = max(value[0].numel() for value in nets["base"].parameters())
    assert 6 * 8 * max(read) <= max(block_bytes, 6 * 8 * widest)
    # Each number once, but for the matrix that all have from the base.
    assert sum(read) == 6 * sum(v.numel() for name, v in nets["base"].named_parameters() if name != "3.weight")


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_inner_products_and_distances_are_those_of_the_weights(block_bytes, grown):
    folder, nets = grown
    rows = vectors(nets)
    found = atlas.inner_products(folder, block_bytes=block_bytes)
    off = rows - rows[0]
    np.testing.assert_allclose(found, off @ off.T, rtol=1e-12, atol=1e-12)
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.testing.assert_allclose(distances(found), apart, rtol=1e-7, atol=1e-7)


def test_principal_components_are_scikit_learns(grown):
    from sklearn.decomposition import PCA

    folder, nets = grown
    pca = PCA(3, svd_solver="full")
    wanted = pca.fit_transform(vectors(nets))
    found = atlas.plane(folder, components=3)
    signs = np.sign((wanted * found.points).sum(0))
    np.testing.assert_allclose(found.points, wanted * signs, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-9)
    assert all(column[np.abs(column).argmax()] > 0 for column in found.points.T)
    with pytest.raises(AtlasError, match="2 members span no 2 components"):
        atlas.plane(folder, ["base", "cl/1"])


def test_the_graph_has_the_edges_that_are_asked_for(grown):
    from sklearn.neighbors import NearestNeighbors

    folder, nets = grown
    names, rows = list(nets), vectors(nets)
    complete = atlas.graph(folder, edges="complete")
    assert complete.number_of_edges() == 21
    for a, b, edge in complete.edges(data=True):
        apart = np.linalg.norm(rows[names.index(a)] - rows[names.index(b)])
        assert edge["weight"] == pytest.approx(apart, rel=1e-9)
    path = atlas.graph(folder, edges="path", scores={name: float(n) for n, name in enumerate(names)})
    assert {frozenset(e) for e in path.edges} == {
        frozenset(pair)
        for pair in [("base", "cl/1"), ("cl/1", "cl/2"), ("cl/2", "cl/3"), ("base", "co/1"), ("co/1", "co/2"),
                     ("co/1", "co-cl/1")]
    }  # fmt: skip
    assert path.nodes["cl/2"]["score"] == 2.0 and path.nodes["cl/2"]["parent"] == "cl/1"
    _, near = NearestNeighbors(n_neighbors=3).fit(rows).kneighbors(rows)
    wanted = {frozenset((names[row[0]], names[other])) for row in near for other in row[1:]}
    assert {frozenset(edge) for edge in atlas.graph(folder, edges="nearest", neighbours=2).edges} == wanted
    with pytest.raises(ValueError, match="edges must be one of complete, nearest, path"):
        atlas.graph(folder, edges="all")
    with pytest.raises(ValueError, match="at least 1"):
        atlas.graph(folder, neighbours=0)


# ------------------------------------------------------------------------------------------------ asking


def test_a_query_ranks_as_evaluating_all_does(grown):
    folder, nets = grown
    asked = batches()
    x, y = (torch.cat(column) for column in zip(*asked, strict=True))
    wanted = {}
    for name, net in nets.items():
        p = torch.softmax(net.eval()(x).double(), 1)[torch.arange(60), y]
        wanted[name] = float(-p.detach().log().mean())
    found = atlas.query(folder, network(seed=3), asked)
    assert [one.name for one in found] == sorted(wanted, key=wanted.__getitem__)
    for one in found:
        assert one.loss == pytest.approx(wanted[one.name], rel=1e-5)
        assert one.perplexity == pytest.approx(np.exp(wanted[one.name]), rel=1e-5)
    summed = atlas.query(folder, network(seed=3), asked, reduction="sum")
    assert [one.name for one in summed] == [one.name for one in found]
    assert summed[0].perplexity == pytest.approx(np.exp(60 * summed[0].loss), rel=1e-5)


def test_a_member_whose_loss_is_no_number_is_named(grown):
    """In an order it would have no place, nor would those beside it."""
    folder, nets = grown

    def loss(net, batch):
        same = torch.equal(net.state_dict()["0.weight"], nets["cl/2"].state_dict()["0.weight"])
        return torch.full((20,), float("nan") if same else 1.0)

    with pytest.raises(AtlasError, match=r"^member 'cl/2': its loss on these data is nan; leave it out by `members`$"):
        atlas.query(folder, network(), batches(), loss=loss)
    assert len(atlas.query(folder, network(), batches(), loss=loss, members=["base", "cl/1"])) == 2


def test_a_query_asks_by_the_loss_that_it_is_given(grown):
    folder, nets = grown
    found = atlas.query(folder, network(), batches(), loss=lambda net, batch: net(batch[0]).norm(dim=1))
    x = torch.cat([batch[0] for batch in batches()])
    assert found[0].loss == pytest.approx(min(float(n.eval()(x).norm(dim=1).mean()) for n in nets.values()), rel=1e-5)


def test_one_member_is_in_memory_at_a_time(grown, monkeypatch):
    """Of all that is read from files never more than a tensor and its like of the base, and nothing while asking."""
    folder, _ = grown
    read, held, original = [], [], storage.tensors_of

    def alive():
        return sum(one() is not None for one in read)

    def watched(found, name):
        for key, value in original(found, name):
            read.append(weakref.ref(value))
            held.append(alive())
            yield key, value

    def loss(net, batch):
        assert alive() == 0
        return net(batch[0]).norm(dim=1)

    monkeypatch.setattr(storage, "tensors_of", watched)
    asked = network()
    atlas.query(folder, asked, batches(), loss=loss)
    assert len(read) == 7 * len(asked.state_dict()) and max(held) <= 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda folder: atlas.query(folder, network(), iter(batches())), "read once for each member"),
        (lambda folder: atlas.query(folder, network(), []), "no examples to ask with"),
        (lambda folder: atlas.query(folder, network(), batches(), reduction="max"), "reduction must be mean or sum"),
        (lambda folder: atlas.query(folder, network(), batches(), members=["x"]), "no member 'x'; there are: base"),
        (lambda folder: atlas.query(folder, network(width=6), batches()), "the given network has '0.weight'"),
    ],
)
def test_what_cannot_be_asked_is_said(asked, words, grown):
    with pytest.raises(ValueError, match=words):
        asked(grown[0])


def test_the_pictures_show_every_member(grown):
    from matplotlib.figure import Figure

    from fipbench.fip.atlas import pictures

    folder, nets = grown
    found, where = atlas.open_atlas(folder), atlas.plane(folder)
    scores = {name: 1 / (n + 1) for n, name in enumerate(nets)}
    axes = Figure().subplots(1, 3)
    pictures.paths(axes[0], found, where)
    drawn = np.concatenate([line.get_xydata() for line in axes[0].lines if line.get_marker() != "None"])
    assert {tuple(point) for point in drawn} == {tuple(point) for point in where.points}
    assert sum(line.get_marker() == "None" for line in axes[0].lines) == 6  # a line to each parent
    pictures.network(axes[1], atlas.graph(folder, scores=scores), where, "score")
    np.testing.assert_array_equal(axes[1].collections[0].get_array(), list(scores.values()))
    assert [text.get_text() for text in axes[1].texts] == ["base"]
    pictures.scatter(axes[2], scores, {name: 2 * value for name, value in scores.items()}, ["one", "other"])
    points = np.concatenate([line.get_xydata() for line in axes[2].lines])
    assert sorted(points[:, 0]) == sorted(scores.values()) and np.array_equal(points[:, 1], 2 * points[:, 0])
