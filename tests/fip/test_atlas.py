"""Networks on disk: what is read is what was written, several may write, and what is not whole is refused in a line."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fipbench.fip import atlas
from fipbench.fip.atlas import storage
from fipbench.fip.atlas.grow import Shoot
from fipbench.fip.atlas.plane import distances
from fipbench.fip.atlas.storage import AtlasError


def network(seed=0, width=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


def moved(net, seed, size=0.3):
    """A copy some way off, one matrix left where it was and one weight exactly zero."""
    found, drawing = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in found.named_parameters():
            if name != "3.weight":
                value.add_(size * torch.randn(value.shape, generator=drawing))
        found[0].weight[0, 0] = 0.0
        found[1].num_batches_tracked += seed
    return found


@pytest.fixture
def grown(tmp_path):
    """An atlas of seven and its networks by name: two paths from the base."""
    base = network()
    nets = {"base": base}
    atlas.create(tmp_path / "a", base, about={"of": "nothing"})
    for number, (name, parent) in enumerate(
        [("cl/1", "base"), ("cl/2", "cl/1"), ("cl/3", "cl/2"), ("co/1", "base"), ("co/2", "co/1"), ("co-cl/1", "co/1")]
    ):
        nets[name] = moved(nets[parent], number + 1)
        atlas.add(tmp_path / "a", name, nets[name], parent=parent, operation="step")
    return tmp_path / "a", nets


def vectors(nets):
    return np.stack([torch.cat([p.detach().flatten() for p in n.parameters()]).double().numpy() for n in nets.values()])


def batches(seed=9):
    drawing = torch.Generator().manual_seed(seed)
    return [(torch.randn(20, 4, generator=drawing), torch.randint(0, 3, (20,), generator=drawing)) for _ in range(3)]


# ----------------------------------------------------------------------------------------------- on disk


def test_what_is_read_is_what_was_written_to_the_bit(grown):
    folder, nets = grown
    found = atlas.open_atlas(folder)
    assert list(found.members) == list(nets) and found.about == {"of": "nothing"}
    for name, written in nets.items():
        read = atlas.load(folder, name, network(seed=7)).state_dict()
        assert all(torch.equal(read[key], value) for key, value in written.state_dict().items()), name
    assert found.path_to("co-cl/1") == ["base", "co/1", "co-cl/1"]


def test_what_is_the_bases_takes_no_room(grown):
    from safetensors import safe_open

    folder, _ = grown
    with safe_open(folder / "members" / "cl__1.safetensors", framework="pt") as file:
        assert "0.weight" in file.keys() and "3.weight" not in file.keys()  # noqa: SIM118 (not a mapping)


def test_the_same_base_is_taken_and_another_refused(grown):
    folder, nets = grown
    assert len(atlas.create(folder, copy.deepcopy(nets["base"])).members) == 7
    with pytest.raises(AtlasError, match="atlas of another base network; name another folder"):
        atlas.create(folder, network(seed=1))


def _truncate(folder):
    path = folder / "members" / "cl__2.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def _swap(folder):
    a, b = (folder / "members" / f"cl__{n}.safetensors" for n in (2, 3))
    a.write_bytes(b.read_bytes())


def _forge(folder):
    """A file of another atlas, with its digest in the index."""
    other = folder.parent / "b"
    atlas.create(other, network(seed=1))
    member = atlas.add(other, "cl/2", moved(network(seed=1), 2))
    (folder / member.file).write_bytes((other / member.file).read_bytes())
    content = json.loads((folder / "index.json").read_text())
    content["members"]["cl/2"].update(digest=member.digest, size=member.size)
    (folder / "index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "members" / "cl__2.safetensors").unlink(), "is missing; remove 'cl/2'"),
        (_truncate, r"is truncated \([\d,]+ of [\d,]+ bytes\); remove 'cl/2'"),
        (_swap, "is not the file that was added"),
        (_forge, "was made for another base network"),
        (lambda folder: (folder / "base.safetensors").unlink(), "base.safetensors: is missing; grow the atlas anew"),
        (lambda folder: (folder / "index.json").write_text('{"schema": "fipb'), "index.json: is damaged"),
        (lambda folder: (folder / "index.json").write_text('{"schema": "x/9"}'), "schema is 'x/9', expected"),
        (lambda folder: (folder / "index.json").unlink(), "no atlas here"),
    ],
)
def test_what_is_not_whole_is_refused_by_name(damage, words, grown):
    folder, _ = grown
    damage(folder)
    for asked in (
        lambda: atlas.load(folder, "cl/2", network()),
        lambda: atlas.query(folder, network(), batches()),
        lambda: atlas.plane(folder),
    ):
        with pytest.raises(AtlasError, match=words) as caught:
            asked()
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_outside_the_folder_is_no_member(grown):
    folder, _ = grown
    content = json.loads((folder / "index.json").read_text())
    content["members"]["cl/1"]["file"] = "../../secret.safetensors"
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(AtlasError, match="lies outside the atlas"):
        atlas.open_atlas(folder)


@pytest.mark.parametrize(
    ("name", "net", "parent", "words"),
    [
        (
            "cl/9",
            network(width=6),
            "base",
            r"has '0.weight' of torch.float32 \(6, 4\), the base of torch.float32 \(5, 4\)",
        ),
        ("cl/9", nn.Linear(4, 3), "base", "differ in '0.bias'"),
        ("cl/9", network(), "cl/8", "no member 'cl/8', the parent of 'cl/9'; add it first"),
        ("../9", network(), "base", "a name holds letters"),
        # Their files would be those of cl/1 and cl/_1.
        ("cl__1", network(), "base", "no '..', '__' or '_/'"),
        ("cl_/1", network(), "base", "no '..', '__' or '_/'"),
        ("base", network(), "base", "is not 'base'"),
    ],
)
def test_what_cannot_be_a_member_is_not_added(name, net, parent, words, grown):
    folder, nets = grown
    with pytest.raises(AtlasError, match=words):
        atlas.add(folder, name, net, parent=parent)
    assert list(atlas.open_atlas(folder).members) == list(nets)


def test_weights_that_are_not_finite_are_not_added(grown):
    folder, nets = grown
    bad = copy.deepcopy(nets["base"])
    with torch.no_grad():
        bad[3].bias[1] = float("nan")
    with pytest.raises(AtlasError, match=r"3\.bias is not finite"):
        atlas.add(folder, "bad", bad)


# ---------------------------------------------------------------------------------------------- growing


def shoots(pause=0.0, log=None):
    """Six members; the parent's weights plus a number of their own."""

    def made(number):
        def make(parent):
            if log is not None:
                with open(log, "a") as file:
                    file.write(f"{number}\n")
            time.sleep(pause)
            found = copy.deepcopy(parent)
            with torch.no_grad():
                found[0].weight += number
            return found

        return make

    names = [("a/1", "base"), ("a/2", "a/1"), ("a/3", "a/2"), ("b/1", "base"), ("b/2", "b/1"), ("c/1", "a/1")]
    return [Shoot(name, parent, "add", made(n)) for n, (name, parent) in enumerate(names, start=1)]


def _grow(folder, pause, log):
    atlas.grow(folder, shoots(pause, log), network(), poll_s=0.02)


def sums(folder):
    """How much was added to each member, and its place."""
    base = network()[0].weight.detach().double().sum()
    return {
        name: round(float(atlas.load(folder, name, network())[0].weight.detach().double().sum() - base) / 20)
        for name in atlas.open_atlas(folder).members
    }


WANTED = {"base": 0, "a/1": 1, "a/2": 3, "a/3": 6, "b/1": 4, "b/2": 9, "c/1": 7}


def test_several_processes_grow_it_once_and_one_that_is_killed_leaves_it_whole(tmp_path):
    folder, log = tmp_path / "a", tmp_path / "log"
    atlas.create(folder, network())
    fork = multiprocessing.get_context("fork")
    first = fork.Process(target=_grow, args=(folder, 60, log))
    first.start()
    while not log.exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert list(atlas.open_atlas(folder).members) == ["base"]
    others = [fork.Process(target=_grow, args=(folder, 0.02, log)) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    assert sums(folder) == WANTED
    # What was interrupted is made anew, and everything else once.
    assert sorted(log.read_text().split()) == ["1", "1", "2", "3", "4", "5", "6"]
    assert not list(folder.rglob("*.tmp"))
    assert atlas.grow(folder, shoots(log=log), network()) == 0


def test_names_are_looked_at_before_anything_is_made(tmp_path):
    atlas.create(tmp_path, network())
    made = []
    shoots = [atlas.Shoot(name, "base", "", made.append) for name in ("one", "one__two")]
    with pytest.raises(AtlasError, match="member 'one__two': a name holds letters"):
        atlas.grow(tmp_path, shoots, network())
    assert made == []


def test_parents_come_first(tmp_path):
    atlas.create(tmp_path, network())
    with pytest.raises(AtlasError, match="'a/2' needs 'a/1' before it"):
        atlas.grow(tmp_path, shoots()[1:], network())


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
    assert Path(folder).exists()
