"""Networks on disk: what is read is what was written, several may write, and what is not whole is refused in a line."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import time

import pytest
import torch
from small_atlas import batches, grow_seven, moved, network
from torch import nn

from fipbench.fip import atlas
from fipbench.fip.atlas.grow import Shoot
from fipbench.fip.atlas.storage import AtlasError


@pytest.fixture
def grown(tmp_path):
    return grow_seven(tmp_path / "a")


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
