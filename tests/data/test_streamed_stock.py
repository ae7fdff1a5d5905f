"""`fipbench data` of images that stay on disk: counted, digested and laid out as they are encoded."""

from __future__ import annotations

import io

import pytest
import tiny_imagenet
from PIL import Image
from tiny_imagenet import ROWS, encoded, label, lay_out, task
from tiny_mirror import tree

from fipbench import data, mirror, registry, stock
from fipbench.data import sizes, streamed

BELOW = f"{tiny_imagenet.REPO}/{tiny_imagenet.CONFIG}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A mirror with the pictures, in two files a split; nothing may be decoded."""
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    monkeypatch.setattr(streamed, "decoded", lambda *_: pytest.fail("decoded"))
    lay_out(tmp_path / "mirror")
    return tmp_path


def entry_of(file):
    (entry,) = stock.needed([registry.read_task(str(file))])
    return entry


def test_rows_are_known_from_the_files_and_from_what_is_kept(here):
    entry, cache = entry_of(task(here)), here / "cache"
    found = stock.state(entry, cache)
    assert found.place == "mirror" and found.examples == {"train": ROWS["train"], "test": ROWS["validation"]}
    assert (sizes.size_of(entry.source, cache).train, sizes.size_of(entry.source, cache).test) == (40, 18)
    data.identify(entry.source, cache, allow_unknown=True)
    kept = sizes.size_of(entry.source, cache)
    assert kept.train_labels == {digit: 4 for digit in range(10)} and kept.test == 18
    # Digests and labels, no pixels.
    assert kept.kept_bytes < 58 * 40 + 2000


def test_verify_digests_again(here):
    entry, cache = entry_of(task(here)), here / "cache"
    assert stock.verify(entry, cache).verdict == "cannot"
    found = data.identify(entry.source, cache, allow_unknown=True)[1]
    known = f'official = {{ train = "{found["train"]}", test = "{found["test"]}" }}'
    entry = entry_of(task(here, data=tiny_imagenet.source().replace("variants = {}", f"variants = {{ {known} }}")))
    check = stock.verify(entry, cache)
    assert check.verdict == "known" and check.text.startswith("variant official: train ")
    assert not list(cache.glob("examined-*"))
    lay_out(here / "mirror", {"train": [encoded("train", row + 1) for row in range(40)]})
    assert stock.verify(entry, cache).verdict == "differs"


def test_export_copies_the_files_as_they_are(here):
    done = mirror.export(entry_of(task(here)), here / "out", here / "cache")
    assert done.verdict == "written" and tree(here / "out") == tree(here / "mirror")
    assert len(tree(here / "out")) == 4
    assert mirror.export(entry_of(task(here)), here / "out", here / "cache").verdict == "there"


def test_what_came_from_the_hub_is_laid_out_encoded(here, monkeypatch):
    """The hub has the pictures in two files; they leave in one, byte for byte, and read as the same content."""
    import datasets

    real, folder = datasets.load_dataset, here / "mirror" / BELOW

    def load(path, *more, split, **given):
        if path == "parquet":
            return real(path, *more, split=split, **given)
        files = {split: sorted(map(str, folder.glob(f"{split}-*")))}
        return real("parquet", data_files=files, split=split, cache_dir=given["cache_dir"])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setenv("FIPBENCH_DATA", str(here))
    about = 'about = { licence = "research only", bytes = 12345 }'
    entry = entry_of(task(here, more=f", {about}"))
    cache = here / "cache"
    before = data.identify(entry.source, cache, allow_unknown=True)
    found = stock.state(entry, cache)
    assert (found.place, found.bytes, found.examples) == ("cache", 12345, {"train": 40, "test": 18})
    assert mirror.export(entry, here / "out", cache).verdict == "written"
    assert len(tree(here / "out")) == 2
    out = real("parquet", data_files=[str(here / "out" / BELOW / "train-00000-of-00001.parquet")], split="train")
    rows = out.cast_column("image", datasets.Image(decode=False))
    assert [row["bytes"] for row in rows["image"]] == [encoded("train", row) for row in range(40)]
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (40, 60)
    assert rows["label"][:] == [label(row) for row in range(40)]
    monkeypatch.setenv("FIPBENCH_DATA", str(here / "out"))
    assert data.identify(entry.source, here / "another", allow_unknown=True) == before
