"""A mirror that is not what it should be: one line that names the file, the field of the task and the remedy."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
import tiny_mirror
from PIL import Image
from tiny_mirror import LABELS, pictures, png, write

from fipbench import data
from fipbench.errors import UserError
from fipbench.spec import Data, Variant

PICTURES = Data(repo=tiny_mirror.REPO, config=tiny_mirror.CONFIG, revision="1" * 40, variants={})
TEXTS = msgspec.structs.replace(PICTURES, input="text", kind="text")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    return tiny_mirror.lay_out(tmp_path / "mirror")


def refused(source, cache, *, allow=True):
    with pytest.raises(UserError) as caught:
        data.identify(source, cache, allow_unknown=allow)
    message = str(caught.value)
    assert "\n" not in message
    return message


def shown(split):
    return [png(p) for p in pictures(split)]


def test_a_folder_whose_name_is_a_pattern_for_another(tmp_path, monkeypatch):
    """`data [1]`, read as the hub's library reads names, is `data 1`: the pictures beside it are others."""
    for seed, name in enumerate(("data [1]", "data 1")):
        tiny_mirror.lay_out(tmp_path / name, seed=seed)
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "data [1]"))
    _, digests = data.identify(PICTURES, tmp_path / "cache", allow_unknown=True)
    found = data.load(PICTURES, "train", tmp_path / "cache", digests["train"])
    assert np.array_equal(found.inputs.squeeze(1).numpy(), pictures("train", seed=0))


def of_mode(mode):
    """The pictures of the training split as images of one of Pillow's modes, whose numbers are no bytes of light."""
    return [{"bytes": _encoded(picture, mode), "path": None} for picture in pictures("train")]


def _encoded(picture, mode):
    content = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(content, "PNG")
    return content.getvalue()


# What stands in the training file instead -> the task's field, and what the line says of it.
COLUMNS = {
    "colours of a palette": ({"image": of_mode("P"), "label": LABELS["train"]}, "input", "mode P; convert it to L"),
    "black and white": ({"image": of_mode("1"), "label": LABELS["train"]}, "input", "mode 1; convert it to L or RGB"),
    "more than a byte": ({"image": of_mode("I;16"), "label": LABELS["train"]}, "input", "mode I;16; convert it"),
    "labels as words": ({"image": shown("train"), "label": list("abcdef")}, "label", "whole numbers (row 0 has 'a')"),
    "labels as fractions": (
        {"image": shown("train"), "label": [0.0, 1.5, 2.0, 3.0, 4.0, 5.0]},
        "label",
        "whole numbers (row 0 has '0.0')",
    ),
    "a label that is missing": (
        {"image": shown("train"), "label": [0, 1, 2, 3, 4, None]},
        "label",
        "whole numbers (row ",
    ),
    "words for images": ({"image": ["x"] * 6, "label": LABELS["train"]}, "input", "images of one shape"),
    "numbers for images": ({"image": list(range(6)), "label": LABELS["train"]}, "input", "images of one shape"),
    "images of two shapes": (
        {
            "image": [*shown("train")[:5], png(np.zeros((3, 9), dtype=np.uint8))],
            "label": LABELS["train"],
        },
        "input",
        "images of one shape",
    ),
    "an image that is none": (
        {"image": [*shown("train")[:5], {"bytes": b"no image", "path": None}], "label": LABELS["train"]},
        "input",
        "images of one shape",
    ),
}


@pytest.mark.parametrize("what", COLUMNS)
def test_a_column_of_another_kind(what, folder, tmp_path):
    columns, field, said = COLUMNS[what]
    write(folder, "train", **columns)
    message = refused(PICTURES, tmp_path / "cache")
    assert message.startswith(f"{folder}, train: column '{'label' if field == 'label' else 'image'}'")
    assert f"(field 'data.{field}')" in message and said in message, message
    assert f"lay it out as the hub repository {PICTURES.repo}" in message


@pytest.mark.parametrize("wrong", [None, 7])
def test_a_text_that_is_none(wrong, folder, tmp_path):
    """`None` was read as the word None before."""
    for split, labels in LABELS.items():
        texts = [f"text {n}" for n in range(len(labels))]
        write(folder, split, text=texts, label=labels)
    assert data.identify(TEXTS, tmp_path / "cache", allow_unknown=True)[0] == data.UNKNOWN
    write(folder, "test", text=["a", "b", None] if wrong is None else [7, 8, 9], label=LABELS["test"])
    message = refused(TEXTS, tmp_path / "cache")
    assert message.startswith(f"{folder}, test: column 'text' (field 'data.input'): expected texts (row "), message


def test_a_column_that_is_not_there_is_named_with_file_and_field(folder, tmp_path):
    message = refused(msgspec.structs.replace(PICTURES, label="fine_label"), tmp_path / "cache")
    assert message.startswith(f"{folder}, train: has no column 'fine_label' (field 'data.label'); there are: image, ")
    message = refused(msgspec.structs.replace(PICTURES, input="img"), tmp_path / "cache")
    assert "has no column 'img' (field 'data.input')" in message and "name another column in the task" in message


def test_a_split_that_is_not_there(folder, tmp_path):
    (folder / "test-00000-of-00001.parquet").unlink()
    message = refused(PICTURES, tmp_path / "cache")
    assert message == f"{folder}: holds no test-*.parquet; lay it out as the hub repository {PICTURES.repo}"


def test_a_split_without_examples():
    from datasets import Dataset

    with pytest.raises(UserError, match=r"^here, train: holds no examples; copy it again from where it came$"):
        data.from_table(PICTURES, Dataset.from_dict({"image": [], "label": []}), "here, train")


def test_a_file_that_is_damaged(folder, tmp_path):
    file = folder / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    message = refused(PICTURES, tmp_path / "cache")
    assert message.startswith(f"{folder}: train-*.parquet cannot be loaded (") and "copy them again" in message


def test_another_digest_names_the_folder_the_variants_and_the_remedy(folder, tmp_path):
    known = msgspec.structs.replace(PICTURES, variants={"official": Variant(train="0" * 64, test="1" * 64)})
    message = refused(known, tmp_path / "cache", allow=False)
    assert message.startswith(f"{folder}: content has digests train ")
    assert "(official)" in message and "use the pinned release" in message and "--allow-unknown-data" in message


def test_a_mirror_that_lacks_the_data_set(folder, tmp_path, monkeypatch):
    """The hub is asked then; where it does not answer, both ways are named, and which mirror lacks it."""
    import datasets

    def unreachable(*args, **given):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    other = msgspec.structs.replace(PICTURES, repo="someone/else")
    message = refused(other, tmp_path / "cache")
    assert message == (
        "someone/else: cannot be loaded (no network); connect to the hub, or lay out someone/else/plain in "
        f"FIPBENCH_DATA={tmp_path / 'mirror'}, which lacks it"
    )
