"""A mirror that is exported: the same digests from it, nothing overwritten, nothing half, nothing elsewhere."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import tiny_mirror
from tiny_mirror import LABELS, lay_out, lay_out_weights, pictures, png, pretrained_task, task, tree
from workbench import write_tiny

from fipbench import data, mirror, plan, registry, stock

PARQUET = ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]
BELOW = f"{tiny_mirror.REPO}/{tiny_mirror.CONFIG}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A mirror of the pictures, one of weights, and no hub."""
    lay_out(tmp_path / "data")
    lay_out_weights(tmp_path / "models")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def entry_of(file):
    return stock.needed([registry.read_task(str(file))])[-1]


def exported(here, file, root=None):
    return mirror.export(entry_of(file), root or here / "out", here / "cache")


def contents(file, cache):
    return plan.contents(registry.read_task(str(file)), cache, allow_unknown=True)


def test_a_mirror_of_a_mirror_gives_the_same_digests(here, monkeypatch):
    file = task(here)
    done = exported(here, file)
    assert done.verdict == "written"
    assert tree(here / "out") == tree(here / "data")
    assert done.bytes == sum(map(len, tree(here / "out").values()))
    assert not (here / "cache").exists()
    before = contents(file, here / "cache")
    monkeypatch.setenv("FIPBENCH_DATA", str(here / "out"))
    assert contents(file, here / "cache") == before == contents(file, here / "another cache")


def test_again_there_is_nothing_to_do(here):
    file = task(here)
    exported(here, file)
    times = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*")}
    assert exported(here, file) == mirror.Export("there", "3 files, as they are here")
    (here / "out" / BELOW / PARQUET[0]).unlink()
    assert exported(here, file).text == "1 of 3 files" and tree(here / "out") == tree(here / "data")
    test = here / "out" / BELOW / PARQUET[1]
    assert test.stat().st_mtime_ns == times[test]


@pytest.mark.parametrize("name", [*PARQUET, "../README.md"])
def test_a_file_that_differs_is_named_and_left_and_nothing_added_beside_it(name, here):
    other = here / "out" / BELOW / name
    (here / "out" / BELOW).mkdir(parents=True)
    other.write_bytes(b"mine")
    before = tree(here / "out")
    done = exported(here, task(here))
    assert done.verdict == "refused" and done.bytes == 0
    assert (
        str(other.parent.resolve()) in str(other.resolve()) and f"{other.resolve()}: is there and differs" in done.text
    )
    assert tree(here / "out") == before


def test_a_part_of_another_release_would_be_read_with_it(here):
    other = here / "out" / BELOW / "train-00001-of-00002.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"more of it")
    done = exported(here, task(here))
    assert done.verdict == "refused" and done.text.startswith(f"{other}: is there and no part of this release")
    assert list(tree(here / "out")) == [f"{BELOW}/{other.name}"]


@pytest.mark.parametrize("fails_at", [0, 1])
def test_interrupted_it_leaves_no_half_file_and_goes_on(fails_at, here, monkeypatch):
    copy, done = shutil.copyfile, []

    def stopped(source, target):
        if len(done) == fails_at:
            target.write_bytes(source.read_bytes()[:10])
            raise KeyboardInterrupt
        done.append(source)
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", stopped)
    with pytest.raises(KeyboardInterrupt):
        exported(here, task(here))
    whole = tree(here / "data")
    left = tree(here / "out")
    assert len(left) == fails_at and all(whole[path] == content for path, content in left.items())
    monkeypatch.setattr(shutil, "copyfile", copy)
    assert exported(here, task(here)).verdict == "written" and tree(here / "out") == whole


def test_without_room_the_file_is_named(here, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        exported(here, task(here))
    assert str(caught.value.filename).endswith(".parquet") and not tree(here / "out")


@pytest.mark.parametrize("repo", ["../outside", "a/../../outside", "ABSOLUTE"])
def test_nothing_is_written_outside(repo, here):
    repo = str(here / "outside") if repo == "ABSOLUTE" else repo
    (here / "data" / "a").mkdir()
    shutil.copytree(here / "data" / tiny_mirror.REPO, (here / "data" / repo).resolve(), dirs_exist_ok=True)
    before = tree(here)
    done = exported(here, write_tiny(here, data=tiny_mirror.source(repo=repo)), here / "deep" / "out")
    assert done.verdict == "refused" and "would be written outside" in done.text and "'data.repo'" in done.text
    assert {k: v for k, v in tree(here).items() if k != "tiny.toml"} == {
        k: v for k, v in before.items() if k != "tiny.toml"
    }


def test_a_link_that_leads_outside_is_not_followed(here):
    (here / "else").mkdir()
    (here / "out").mkdir()
    (here / "out" / "someone").symlink_to(here / "else", target_is_directory=True)
    done = exported(here, task(here))
    assert done.verdict == "refused" and "a link there" in done.text and not tree(here / "else")


def test_a_mirror_into_itself(here):
    before = tree(here / "data")
    assert exported(here, task(here), here / "data").verdict == "there" and tree(here / "data") == before


def test_what_is_missing_incomplete_or_part_of_the_installation(here):
    assert exported(here, write_tiny(here)).verdict == "embedded"
    assert exported(here, write_tiny(here, data=tiny_mirror.source(repo="a/b"))).verdict == "missing"
    (here / "data" / BELOW / PARQUET[1]).unlink()
    done = exported(here, task(here))
    assert done.verdict == "refused" and "holds no test-*.parquet" in done.text
    assert not tree(here / "out")


def test_weights_come_without_what_may_run_code(here, monkeypatch):
    file = pretrained_task(here)
    done = exported(here, file)
    assert done.verdict == "written"
    whole = tree(here / "models" / tiny_mirror.WEIGHTS)
    out = here / "out" / mirror.MODELS
    assert tree(out / tiny_mirror.WEIGHTS) == {name: c for name, c in whole.items() if not name.endswith(".bin")}
    before = contents(file, here / "cache")
    monkeypatch.setenv("FIPBENCH_MODELS", str(out))
    assert contents(file, here / "cache") == before and before[1]["weights"]
    shutil.rmtree(here / "models")
    lay_out_weights(here / "models", value=3.0)
    monkeypatch.setenv("FIPBENCH_MODELS", str(here / "models"))
    assert "model.safetensors: is there and differs" in exported(here, file).text


@pytest.fixture
def fetched(here, monkeypatch):
    """The pictures in the hub's cache, and no mirror of them."""
    import datasets

    real = datasets.load_dataset

    def load(path, *more, split, **given):
        if path == "parquet":
            return real(path, *more, split=split, **given)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
        columns = {"image": [png(p) for p in pictures(split)], "label": LABELS[split]}
        return datasets.Dataset.from_dict(columns, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.delenv("FIPBENCH_DATA")
    file = task(here)
    return file, contents(file, here / "cache")


def test_what_came_from_the_hub_gives_the_same_digests(fetched, here, monkeypatch):
    file, before = fetched
    done = exported(here, file)
    assert done.verdict == "written" and done.text == "2 of 2 files"
    assert list(tree(here / "out")) == sorted(f"{BELOW}/{name}" for name in PARQUET)
    assert exported(here, file).verdict == "there"
    monkeypatch.setenv("FIPBENCH_DATA", str(here / "out"))
    assert contents(file, here / "another cache") == before
    # Laid out by the mirror's own files the content is the same, though the bytes are not.
    monkeypatch.delenv("FIPBENCH_DATA")
    assert exported(here, file, here / "data").verdict == "there"


def test_what_came_from_the_hub_overwrites_nothing_either(fetched, here):
    file, _ = fetched
    lay_out(here / "out", seed=1)
    before = tree(here / "out")
    done = exported(here, file)
    assert done.verdict == "refused" and f"{here / 'out' / BELOW}" in done.text and "is there" in done.text
    assert tree(here / "out") == before
    (here / "out" / BELOW / PARQUET[0]).unlink()
    assert exported(here, file).verdict == "refused" and not (here / "out" / BELOW / PARQUET[0]).exists()


def test_what_the_hubs_library_keeps_must_be_what_was_decoded(fetched, here, monkeypatch):
    file, _ = fetched
    monkeypatch.setattr(tiny_mirror, "LABELS", LABELS)
    monkeypatch.setitem(LABELS, "test", [2, 6, 4])
    done = exported(here, file)
    assert done.verdict == "refused" and "fetch it again" in done.text and not tree(here / "out")


def test_a_folder_that_cannot_be_written(here):
    (here / "out").write_text("a file")
    from fipbench.errors import UserError

    with pytest.raises(UserError, match="out: cannot write here"):
        exported(here, task(here))


def test_other_rights_than_the_owners_alone(here):
    exported(here, task(here))
    mask = os.umask(0o022)
    os.umask(mask)
    assert (here / "out" / BELOW / PARQUET[0]).stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_hubs_own_library_reads_it(here):
    """Without ours: pixels and labels are as they were laid out."""
    import datasets

    exported(here, task(here))
    for split in data.SPLITS:
        files = [str(here / "out" / BELOW / f"{split}-00000-of-00001.parquet")]
        found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(here / "hf"))
        assert found["label"][:] == LABELS[split]
        images = found.cast_column("image", datasets.Image())["image"][:]
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in images]), pictures(split))
