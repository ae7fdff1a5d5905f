"""Images that stay on disk: what is read of them, when, and how much of it is ever in memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from itertools import islice

import msgspec
import numpy as np
import pytest
import tiny_imagenet
import torch
from PIL import Image
from tiny_imagenet import CROP, RESIZE, ROWS, encoded, label, lay_out
from tiny_mirror import write

from fipbench import data
from fipbench.compat import import_torchvision
from fipbench.data import streamed
from fipbench.errors import UserError
from fipbench.spec import Data, Streamed
from fipbench.training import Examples, predict, stream

SOURCE = Data(
    repo=tiny_imagenet.REPO,
    config=tiny_imagenet.CONFIG,
    revision="1" * 40,
    test="validation",
    streamed=Streamed(resize=RESIZE, crop=CROP),
    variants={},
)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    return lay_out(tmp_path / "mirror")


def both(source, cache):
    _, digests = data.identify(source, cache, allow_unknown=True)
    return [data.load(source, split, cache, digests[split]) for split in data.SPLITS]


@pytest.fixture
def loaded(mirror, tmp_path):
    return both(SOURCE, tmp_path / "cache")


def theirs(content, resize=RESIZE, crop=CROP):
    """By torchvision's own transforms, as ImageNet is evaluated with."""
    import_torchvision()
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

    cut = Compose([Resize(resize, InterpolationMode.BICUBIC), CenterCrop(crop), PILToTensor()])
    return cut(Image.open(io.BytesIO(content)).convert("RGB"))


def picture(width, height, mode="RGB", kind="JPEG"):
    noise = np.random.default_rng([width, height]).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).convert(mode).save(content, kind)
    return content.getvalue()


# ------------------------------------------------------------------------------------------------ pixels


def test_every_picture_is_torchvisions(loaded):
    """Of all modes and sizes of the mirror, smaller ones than the cut among them."""
    for examples, split in zip(loaded, ROWS, strict=True):
        found = examples.inputs[torch.arange(ROWS[split])]
        assert found.dtype == torch.uint8 and found.shape == (ROWS[split], 3, CROP, CROP) == examples.inputs.shape
        for row in range(ROWS[split]):
            assert torch.equal(found[row], theirs(encoded(split, row))), row
        assert examples.labels.tolist() == [label(row) for row in range(ROWS[split])]
        assert len({picture.numpy().tobytes() for picture in found}) > 0.9 * ROWS[split]


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (257, 999), (60, 90), (224, 224), (333, 255)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_at_imagenets_own_size(size, mode):
    content = picture(*size, mode)
    found = streamed.decoded(content, Streamed(resize=256, crop=224))
    np.testing.assert_array_equal(found, theirs(content, 256, 224).numpy())


def test_a_cameras_note_on_which_side_is_up_is_not_followed():
    """Nor is it by the loaders with which the published accuracies were measured."""
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = Image.open(io.BytesIO(picture(40, 60)))
    plain.save(content, "JPEG", exif=exif, quality=95)
    turned = streamed.decoded(content.getvalue(), Streamed(resize=RESIZE, crop=CROP))
    np.testing.assert_array_equal(turned, theirs(content.getvalue()).numpy())


# --------------------------------------------------------------------------------- what is asked for, no more


@pytest.fixture
def counted(monkeypatch):
    """How many pictures were decoded."""
    calls = []
    honest = streamed.decoded
    monkeypatch.setattr(streamed, "decoded", lambda *given: calls.append(1) or honest(*given))
    return calls


def test_nothing_is_decoded_until_it_is_asked_for(mirror, tmp_path, counted):
    train, test = both(SOURCE, tmp_path / "cache")
    assert data.without_repeats(train, test).tolist() == list(range(40))
    left = train.only(torch.arange(39, -1, -1))
    some = left.only(torch.tensor([5, 3, 30]))
    moved = Examples(some.inputs.to("cpu"), some.labels.to("cpu"))
    assert (len(moved.inputs), moved.inputs.shape, moved.inputs.dtype) == (3, (3, 3, CROP, CROP), torch.uint8)
    assert not counted
    batches = stream(left, 8, torch.Generator().manual_seed(0))
    batches.skip()
    assert not counted
    next(batches)
    assert len(counted) == 8
    assert torch.equal(moved.inputs[torch.tensor([1, 1])], train.inputs[torch.tensor([36, 36])])
    assert len(counted) == 12


def test_a_prediction_reads_a_batch_at_a_time(loaded, counted, monkeypatch):
    train = loaded[0]
    most = []

    class Network(torch.nn.Module):
        def forward(self, x):
            most.append((len(x), len(counted)))
            counted.clear()
            return x.mean((2, 3))

    found = predict(Network(), train, batch_size=16)
    assert most == [(16, 16), (16, 16), (8, 8)]
    everything = train.inputs[torch.arange(40)].float() / 255
    torch.testing.assert_close(found, everything.mean((2, 3)))


def test_batches_are_those_of_the_same_pixels_in_memory(loaded):
    train = loaded[0]
    held = Examples(train.inputs[torch.arange(40)], train.labels)
    ours, others = (stream(x, 12, torch.Generator().manual_seed(3)) for x in (train, held))
    for a, b in islice(zip(ours, others, strict=True), 8):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert a.inputs.dtype == torch.float32 and float(a.inputs.max()) <= 1
    for stream_ in (ours, others):
        stream_.skip()
    assert torch.equal(next(ours).positions, next(others).positions)


def test_more_threads_give_the_same(loaded):
    before = torch.get_num_threads()
    index = torch.tensor([7, 0, 39, 12, 12, 3])
    try:
        torch.set_num_threads(1)
        alone = loaded[0].inputs[index]
        torch.set_num_threads(4)
        together = loaded[0].inputs[index]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


MEASURED = """
import json, sys
from pathlib import Path
import msgspec, psutil, torch
from fipbench import data
from fipbench.data import streamed
from fipbench.spec import Data
source, cache = msgspec.json.decode(sys.argv[1], type=Data), Path(sys.argv[2])
now = lambda: psutil.Process().memory_info().rss
most, honest = [0], streamed.Places.read
def read(self, row):
    content = honest(self, row)
    most[0] = max(most[0], now())
    return content
streamed.Places.read = read
found = json.loads(data._note(source, cache).read_text())
train = data.load(source, "train", cache, found["train"])
train.batch(torch.arange(4))
table = data.table(source, "train", cache, data._mirror(source))
before, most[0] = now(), 0
streamed.digests(table, "image")
digested, most[0] = most[0], 0
for start in range(0, len(train.labels), 4):
    train.batch(torch.arange(start, start + 4))
print(json.dumps([len(train.labels), digested - before, most[0] - before]))
"""


def test_memory_stays_flat(tmp_path, monkeypatch):
    """In a process of its own, which reads 96 MB of files: once to digest them, once to decode them."""
    filling = np.random.default_rng(0).bytes(3_000_000)
    # What stands behind a picture's end is no part of it.
    files = {"train": [encoded("train", 0) + bytes([row]) + filling for row in range(32)]}
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    lay_out(tmp_path / "mirror", files, parts=4)
    data.identify(SOURCE, tmp_path / "cache", allow_unknown=True)
    words = [sys.executable, "-c", MEASURED, msgspec.json.encode(SOURCE).decode(), str(tmp_path / "cache")]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    count, digested, decoded = json.loads(done.stdout)
    assert count == 32 and digested < 24e6 and decoded < 24e6


# ----------------------------------------------------------------------------------------------- digests


def test_the_digest_is_of_the_encoded_bytes_and_labels_in_their_order(mirror, tmp_path):
    """By hashlib from the definition in docs/data.md."""
    _, found = data.identify(SOURCE, tmp_path / "cache", allow_unknown=True)
    for split, name in zip(data.SPLITS, ROWS, strict=True):
        sums = b"".join(hashlib.sha256(encoded(name, row)).digest() for row in range(ROWS[name]))
        labels = np.array([label(row) for row in range(ROWS[name])], "<i8").tobytes()
        text = f"encoded torch.uint8 ({ROWS[name]}, 32)\n".encode() + sums
        text += f"labels torch.int64 ({ROWS[name]},)\n".encode() + labels
        assert found[split] == hashlib.sha256(text).hexdigest()


def test_other_shards_and_another_cut_are_the_same_content(mirror, tmp_path, monkeypatch):
    before = data.identify(SOURCE, tmp_path / "cache", allow_unknown=True)
    wider = msgspec.structs.replace(SOURCE, streamed=Streamed(resize=30, crop=24))
    assert data.identify(wider, tmp_path / "cache", allow_unknown=True) == before
    assert both(wider, tmp_path / "cache")[0].inputs.shape == (40, 3, 24, 24)
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "another"))
    lay_out(tmp_path / "another", parts=5)
    assert data.identify(SOURCE, tmp_path / "cache", allow_unknown=True) == before


def test_held_in_memory_the_same_repository_is_other_content(mirror, tmp_path, monkeypatch):
    """The one does not take what is kept of the other."""
    pictures = [picture(16, 16, kind="PNG")] * 3
    lay_out(tmp_path / "mirror", {"train": pictures, "validation": pictures})
    held = msgspec.structs.replace(SOURCE, streamed=msgspec.UNSET)
    one = data.identify(SOURCE, tmp_path / "cache", allow_unknown=True)[1]
    other = data.identify(held, tmp_path / "cache", allow_unknown=True)[1]
    assert one["train"] != other["train"] and both(held, tmp_path / "cache")[0].inputs.shape == (3, 3, 16, 16)


def test_nothing_is_digested_twice(mirror, tmp_path, monkeypatch):
    both(SOURCE, tmp_path / "cache")
    monkeypatch.setattr(streamed, "digests", lambda *_: pytest.fail("digested again"))
    both(SOURCE, tmp_path / "cache")


def test_repeats_are_found_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    train = [encoded("train", row) for row in range(20)]
    train[3] = train[17] = encoded("validation", 5)
    lay_out(tmp_path / "mirror", {"train": train})
    seen, test = both(SOURCE, tmp_path / "cache")
    rows = data.without_repeats(seen, test)
    left = seen.only(rows)
    kept = [row for row in range(20) if row not in (3, 17)]
    assert rows.tolist() == kept and left.labels.tolist() == [label(row) for row in kept]
    for position, row in enumerate(kept):
        assert torch.equal(left.inputs[torch.tensor([position])][0], theirs(train[row]))


# --------------------------------------------------------------------------------------------- bad input


def refused(work):
    with pytest.raises(UserError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def laid_out_with(root, row, content):
    files = [encoded("train", n) for n in range(12)]
    files[row] = content
    return lay_out(root, {"train": files})


@pytest.mark.parametrize(
    "content",
    [b"no picture", encoded("train", 0)[:60], picture(30, 30, "L", "EPS")],
    ids=["text", "cut off", "PostScript"],
)
def test_what_is_no_picture_is_named_with_its_row(tmp_path, monkeypatch, content):
    """Encapsulated PostScript would be handed to a program to draw it."""
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    folder = laid_out_with(tmp_path / "mirror", 7, content)
    train, _ = both(SOURCE, tmp_path / "cache")
    train.batch(torch.arange(7))
    said = refused(lambda: train.batch(torch.tensor([6, 7])))
    assert said.startswith(f"{folder}, train: the image of row 7 cannot be read (")
    assert ("cannot identify image file" in said) == (content[:2] != b"\xff\xd8")


def test_a_row_without_a_picture_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    folder = lay_out(tmp_path / "mirror")
    for file in folder.glob("train-*"):
        file.unlink()
    rows = [{"bytes": encoded("train", row), "path": "x"} for row in range(12)]
    rows[8]["bytes"] = None
    write(folder, "train", image=rows, label=[label(row) for row in range(12)])
    said = refused(lambda: data.identify(SOURCE, tmp_path / "cache", allow_unknown=True))
    assert said.startswith(
        f"{folder}, train: column 'image' (field 'data.input'): expected encoded images (row 8 has no"
    )


def test_a_column_of_something_else_is_refused(mirror, tmp_path):
    other = msgspec.structs.replace(SOURCE, input="label")
    said = refused(lambda: data.identify(other, tmp_path / "cache", allow_unknown=True))
    assert "column 'label' (field 'data.input'): expected encoded images (holds int64)" in said


def test_a_picture_that_changed_on_disk_is_not_taken(loaded, tmp_path):
    """As decoded examples are checked against the plan's digest when they are loaded."""
    train = loaded[0]
    train.batch(torch.tensor([4]))
    file = train.inputs.kept.files[train.inputs.kept.file[4]]
    with open(file, "r+b") as content:
        content.seek(int(train.inputs.kept.start[4]) + 30)
        byte = content.read(1)
        content.seek(-1, 1)
        content.write(bytes([byte[0] ^ 1]))
    said = refused(lambda: train.batch(torch.tensor([4])))
    assert "train: row 4 is not what it was when it was digested; remove " in said
    os.unlink(file)
    assert "row 4 cannot be read" in refused(lambda: train.batch(torch.tensor([4])))


def test_a_gated_repository_says_so_and_names_the_mirror(tmp_path, monkeypatch):
    import datasets

    def closed(*given, **more):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub.")

    monkeypatch.delenv("FIPBENCH_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", closed)
    gated = msgspec.structs.replace(SOURCE, gated=True)
    said = refused(lambda: data.identify(gated, tmp_path))
    assert said.startswith(f"{SOURCE.repo}: cannot be loaded") and "it is gated" in said.lower()
    assert "accept its terms" in said and "FIPBENCH_DATA" in said
    assert "gated:" not in refused(lambda: data.identify(SOURCE, tmp_path))
