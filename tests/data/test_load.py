"""Data sets: digests, the cache, a mirror of the hub, and what a person is told when something is missing."""

import hashlib
import io
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from fipbench import data
from fipbench.cache import tensor_digest
from fipbench.errors import UserError
from fipbench.spec import Data, Variant
from fipbench.training import Examples

ROOT = Path(__file__).parents[2]


def described(name):
    return msgspec.convert(tomllib.loads((ROOT / "tasks" / "data" / f"{name}.toml").read_text()), Data)


DIGITS = described("digits")
PINNED = {"train": DIGITS.variants["sklearn"].train, "test": DIGITS.variants["sklearn"].test}


# --- embedded


def test_digits_are_what_the_task_pins(tmp_path):
    label, digests = data.identify(DIGITS, tmp_path)
    assert label == "sklearn" and digests == PINNED
    train, test = (data.load(DIGITS, split, tmp_path, digests[split]) for split in data.SPLITS)
    assert train.inputs.shape == (1200, 1, 8, 8) and test.inputs.shape == (597, 1, 8, 8)
    assert train.inputs.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert train.labels.shape == (1200,) and test.labels.shape == (597,)


def test_digits_are_scikit_learns_every_one_once(tmp_path):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    found = Counter()
    for split in data.SPLITS:
        examples = data.load(DIGITS, split, tmp_path, PINNED[split])
        # 0 to 16 became 0 to 255, and comes back.
        back = np.rint(examples.inputs.flatten(1).double().numpy() * (16 / 255))
        found.update((row.tobytes(), int(label)) for row, label in zip(back, examples.labels, strict=True))
        assert int(examples.inputs.min()) == 0 and int(examples.inputs.max()) == 255
        share = np.bincount(examples.labels.numpy(), minlength=10) / len(examples.labels)
        assert share.min() > 0.07 and share.max() < 0.13
    assert found == Counter((row.tobytes(), int(label)) for row, label in zip(images, labels, strict=True))


def test_a_digest_is_of_names_types_shapes_and_bytes():
    """By hashlib from the definition; pins what every record's data digest means."""
    tensors = {"labels": torch.tensor([3, -1]), "inputs": torch.tensor([[0, 255]], dtype=torch.uint8)}
    expected = hashlib.sha256(
        b"inputs torch.uint8 (1, 2)\n\x00\xfflabels torch.int64 (2,)\n" + np.array([3, -1], dtype="<i8").tobytes()
    ).hexdigest()
    assert tensor_digest(tensors) == expected
    assert tensor_digest({**tensors, "inputs": tensors["inputs"].T}) != expected
    flipped = torch.tensor([[0, 254]], dtype=torch.uint8)
    assert tensor_digest({**tensors, "inputs": flipped}) != expected


def test_an_unknown_embedded_name(tmp_path):
    other = msgspec.structs.replace(DIGITS, embedded="letters")
    with pytest.raises(UserError, match=r"'data\.embedded': expected one of digits, .*, got 'letters'"):
        data.identify(other, tmp_path)


# --- digests and the cache


def test_contents_that_the_task_does_not_know_are_refused_unless_allowed(tmp_path):
    other = msgspec.structs.replace(DIGITS, variants={"mine": Variant(train="0" * 64, test=PINNED["test"])})
    with pytest.raises(UserError) as caught:
        data.identify(other, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert PINNED["train"][:12] in message and "mine" in message and "--allow-unknown-data" in message
    assert data.identify(other, tmp_path, allow_unknown=True) == (data.UNKNOWN, PINNED)


def test_load_refuses_another_digest_than_was_planned(tmp_path):
    with pytest.raises(
        UserError, match=f"digits .*train: digest {PINNED['train'][:12]} is not the expected ffffffffffff"
    ):
        data.load(DIGITS, "train", tmp_path, "f" * 64)


def kept(cache):
    return {path.name: path.read_bytes() for path in sorted((cache / "data").glob("*.safetensors"))}


def test_a_kept_file_is_used_and_nothing_is_decoded_again(tmp_path, monkeypatch):
    data.identify(DIGITS, tmp_path)
    monkeypatch.setattr(data, "_embedded", lambda *_: pytest.fail("decoded again"))
    assert data.identify(DIGITS, tmp_path) == ("sklearn", PINNED)
    assert data.load(DIGITS, "train", tmp_path, PINNED["train"]).inputs.shape[0] == 1200
    assert data.present(DIGITS, tmp_path)


@pytest.mark.parametrize("where", [0, 5, 9, 30, 60, 100, 0.2, 0.5, 0.9, -1])
def test_a_flipped_bit_in_a_kept_file_is_found_and_the_file_built_again(tmp_path, where):
    data.identify(DIGITS, tmp_path)
    sound = kept(tmp_path)
    for name, content in sound.items():
        at = int(where * len(content)) if isinstance(where, float) else where
        damaged = bytearray(content)
        damaged[at] ^= 1
        (tmp_path / "data" / name).write_bytes(damaged)
    for split in data.SPLITS:
        examples = data.load(DIGITS, split, tmp_path, PINNED[split])
        assert tensor_digest(examples._asdict()) == PINNED[split]
    # Damage to a note beside the tensors does no harm to them and may stay.
    for name, content in kept(tmp_path).items():
        assert len(content) == len(sound[name])


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"{}"])
def test_a_kept_file_that_is_cut_or_foreign_is_built_again(tmp_path, content):
    data.identify(DIGITS, tmp_path)
    sound = kept(tmp_path)
    for name in sound:
        (tmp_path / "data" / name).write_bytes(content)
    data.load(DIGITS, "test", tmp_path, PINNED["test"])
    data.load(DIGITS, "train", tmp_path, PINNED["train"])
    assert kept(tmp_path) == sound


@pytest.mark.parametrize("damage", ["flip", "empty", "list", "nothing in it", "gone"])
def test_a_damaged_note_of_digests_is_found_and_written_again(tmp_path, damage):
    data.identify(DIGITS, tmp_path)
    (note,) = (tmp_path / "data").glob("*.json")
    sound = note.read_bytes()
    flipped = bytearray(sound)
    at = sound.index(PINNED["train"].encode())
    flipped[at : at + 1] = b"f" if sound[at : at + 1] != b"f" else b"e"
    if damage == "gone":
        note.unlink()
    else:
        note.write_bytes({"flip": bytes(flipped), "empty": b"", "list": b"[]", "nothing in it": b"{}"}[damage])
    assert data.identify(DIGITS, tmp_path) == ("sklearn", PINNED)
    assert note.read_bytes() == sound


# --- repeats


def test_repeats_are_dropped_from_training():
    train = Examples(torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6]], dtype=torch.uint8), torch.tensor([0, 1, 2, 3]))
    test = Examples(torch.tensor([[1, 2], [6, 5], [5, 7]], dtype=torch.uint8), torch.tensor([9, 9, 9]))
    assert data.without_repeats(train, test).tolist() == [1, 3]


def test_no_repeats_and_nothing_but_repeats():
    inputs, labels = torch.rand(5, 1, 2, 2), torch.arange(5)
    some = Examples(inputs, labels)
    assert data.without_repeats(some, Examples(inputs + 1, labels)).tolist() == [0, 1, 2, 3, 4]
    assert data.without_repeats(some, some).tolist() == []


def test_digits_have_no_repeats_between_the_splits(tmp_path):
    train, test = (data.load(DIGITS, split, tmp_path, PINNED[split]) for split in data.SPLITS)
    assert len(data.without_repeats(train, test)) == len(train.labels)


# --- a mirror of the hub

TINY = Data(
    repo="someone/tiny",
    config="plain",
    revision="1" * 40,
    variants={"official": Variant(train="0" * 64, test="0" * 64)},
)


def pictures(n, shape, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_split(folder, split, arrays, labels, input_column="image", label_column="label", parts=1):
    import datasets

    def png(array):
        content = io.BytesIO()
        Image.fromarray(array).save(content, "PNG")
        return {"bytes": content.getvalue(), "path": None}

    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({input_column: datasets.Image(), label_column: datasets.ClassLabel(num_classes=10)})
    size = len(arrays) // parts
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        columns = {input_column: [png(a) for a in arrays[rows]], label_column: labels[rows]}
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(folder / f"{split}-{part:05d}-of-{parts:05d}.parquet")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder laid out like the hub, with grey pictures in two files for training."""
    root = tmp_path / "mirror"
    folder = root / "someone" / "tiny" / "plain"
    write_split(folder, "train", pictures(6, (5, 4), 0), [3, 1, 4, 1, 5, 9], parts=2)
    write_split(folder, "test", pictures(3, (5, 4), 1), [2, 6, 5])
    monkeypatch.setenv("FIPBENCH_DATA", str(root))
    return folder


def both(source, cache):
    _, digests = data.identify(source, cache, allow_unknown=True)
    return [data.load(source, split, cache, digests[split]) for split in data.SPLITS], digests


def test_a_mirror_gives_the_exact_pixels_and_labels_in_their_order(mirror, tmp_path):
    (train, test), digests = both(TINY, tmp_path / "cache")
    np.testing.assert_array_equal(train.inputs.numpy(), pictures(6, (5, 4), 0)[:, None])
    np.testing.assert_array_equal(test.inputs.numpy(), pictures(3, (5, 4), 1)[:, None])
    assert train.labels.tolist() == [3, 1, 4, 1, 5, 9] and test.labels.tolist() == [2, 6, 5]
    assert train.inputs.dtype == torch.uint8 and train.labels.dtype == torch.int64
    known = msgspec.structs.replace(TINY, variants={"right": Variant(**digests)})
    assert data.identify(known, tmp_path / "cache") == ("right", digests)
    assert data.present(TINY, tmp_path / "elsewhere")


def test_colours_come_channels_first(mirror, tmp_path):
    for split, seed in (("train", 0), ("test", 1)):
        for old in mirror.glob(f"{split}-*"):
            old.unlink()
        write_split(mirror, split, pictures(4, (5, 4, 3), seed), [0, 1, 2, 3], "img", "fine_label")
    source = msgspec.structs.replace(TINY, input="img", label="fine_label")
    (train, _), _ = both(source, tmp_path / "cache")
    np.testing.assert_array_equal(train.inputs.numpy(), pictures(4, (5, 4, 3), 0).transpose(0, 3, 1, 2))


def test_another_file_in_the_mirror_is_seen(mirror, tmp_path):
    _, before = both(TINY, tmp_path / "cache")
    write_split(mirror, "test", pictures(3, (5, 4), 2), [2, 6, 5])
    (_, test), after = both(TINY, tmp_path / "cache")
    assert after["test"] != before["test"] and after["train"] == before["train"]
    np.testing.assert_array_equal(test.inputs.numpy(), pictures(3, (5, 4), 2)[:, None])


def refused(source, cache):
    with pytest.raises(UserError) as caught:
        data.identify(source, cache, allow_unknown=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_column_is_named_with_those_there_are(mirror, tmp_path):
    message = refused(msgspec.structs.replace(TINY, label="coarse_label"), tmp_path / "cache")
    assert "someone/tiny" in message and "'coarse_label'" in message and "image, label" in message
    assert "'pixels'" in refused(msgspec.structs.replace(TINY, input="pixels"), tmp_path / "cache")


def test_a_missing_split_is_named_with_its_folder(mirror, tmp_path):
    for path in mirror.glob("test-*"):
        path.unlink()
    message = refused(TINY, tmp_path / "cache")
    assert str(mirror) in message and "test-*.parquet" in message and "someone/tiny" in message


def test_a_file_that_is_no_parquet_is_the_users_error(mirror, tmp_path):
    for path in mirror.glob("train-*"):
        path.write_bytes(b"not this")
    assert "someone/tiny" in refused(TINY, tmp_path / "cache")


def test_without_mirror_and_hub_one_line_names_the_remedy(tmp_path):
    """In a process of its own: whether the hub may be asked is read when its library is imported."""
    code = (
        "import sys; from pathlib import Path; from fipbench import data; from fipbench.errors import UserError\n"
        "from fipbench.spec import Data\n"
        "source = Data(repo='someone/tiny', config='plain', revision='1'*40, variants={})\n"
        "assert not data.present(source, Path(sys.argv[1]))\n"
        "try: data.identify(source, Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FIPBENCH_DATA"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cache"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert line.startswith("someone/tiny: cannot be loaded") and "FIPBENCH_DATA" in line and "hub" in line


# --- the real thing


@pytest.mark.mnist
def test_mnist_is_the_official_release(tmp_path, monkeypatch):
    beside = ROOT.parent / "shared" / "data"
    root = Path(os.environ.get("FIPBENCH_DATA") or beside)
    if not (root / "ylecun" / "mnist").is_dir():
        pytest.skip(f"no ylecun/mnist in {root}; set FIPBENCH_DATA to a mirror that holds it")
    monkeypatch.setenv("FIPBENCH_DATA", str(root))
    label, digests = data.identify(described("mnist"), tmp_path)
    assert label == "official"
    train, test = (data.load(described("mnist"), split, tmp_path, digests[split]) for split in data.SPLITS)
    assert train.inputs.shape == (60_000, 1, 28, 28) and test.inputs.shape == (10_000, 1, 28, 28)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(train.labels.numpy()).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    pixels = train.inputs.numpy() / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3081, abs=5e-5)
    assert len(data.without_repeats(train, test)) == len(train.labels)
