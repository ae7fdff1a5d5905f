"""Labels that are numbers on a scale: as a mirror has them, as they are kept, and what is refused."""

from __future__ import annotations

import math

import msgspec
import pytest
import tiny_mirror
import torch
from tiny_mirror import write

from fipbench import data
from fipbench.data import text
from fipbench.data.bag_of_words import tfidf_similarity
from fipbench.data.sizes import size_of
from fipbench.errors import UserError
from fipbench.spec import Data

ALIKE = Data(
    repo=tiny_mirror.REPO,
    config=tiny_mirror.CONFIG,
    revision="1" * 40,
    input="one",
    second="other",
    kind="text",
    scale=5,
    variants={},
)
VALUES = {"train": [0.0, 3.6, 5.0], "test": [2.5, 4.25]}


def lay_out(folder, **changed):
    for split, values in VALUES.items():
        given = changed.get(split, values)
        n = len(given)
        write(folder, split, one=[f"a {k}" for k in range(n)], other=[f"b {k}" for k in range(n)], label=given)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    found = tmp_path / "mirror" / tiny_mirror.REPO / tiny_mirror.CONFIG
    lay_out(found)
    return found


def labels_of(source, split, cache):
    _, digests = data.identify(source, cache, allow_unknown=True)
    return data.load_texts(source, split, cache, digests[split])[1]


def test_values_are_kept_as_they_are(folder, tmp_path):
    cache = tmp_path / "cache"
    found = labels_of(ALIKE, "train", cache)
    assert found.dtype == torch.float32 and found.tolist() == pytest.approx(VALUES["train"])
    assert labels_of(ALIKE, "test", cache).tolist() == pytest.approx(VALUES["test"])


def test_whole_numbers_are_values_too_and_of_another_content_than_classes(folder, tmp_path):
    lay_out(folder, train=[0, 3, 5], test=[2, 4])
    cache = tmp_path / "cache"
    classes = msgspec.structs.replace(ALIKE, scale=msgspec.UNSET)
    assert labels_of(ALIKE, "train", cache).dtype == torch.float32
    assert labels_of(classes, "train", cache).dtype == torch.int64
    assert data.identify(ALIKE, cache, allow_unknown=True) != data.identify(classes, cache, allow_unknown=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0, 5.5, 1.0], "expected numbers from 0 to 5 (row 1 has '5.5')"),
        ([0.0, 1.0, math.inf], "expected numbers from 0 to 5 (row 2 has 'inf')"),
        ([0.0, 1.0, math.nan], "expected numbers from 0 to 5 (row 2 has '"),
        (["much", "little", "none"], "expected numbers from 0 to 5 (row 0 has 'much')"),
        ([0.0, -1.0, -1.0], "its labels are hidden; name a split that has them in field 'data.test'"),
    ],
)
def test_what_is_on_no_such_scale(values, said, folder, tmp_path):
    lay_out(folder, train=values)
    with pytest.raises(UserError) as caught:
        data.identify(ALIKE, tmp_path / "cache", allow_unknown=True)
    message = str(caught.value)
    assert said in message and message.startswith(f"{folder}, train: ") and "\n" not in message


def test_packed_values_come_back():
    tensors = text.packed([("a", "b")], [3.25])
    assert tensors["labels"].dtype == torch.float32 and tensors["labels"].tolist() == [3.25]
    assert text.unpacked(tensors) == [("a", "b")]
    assert text.packed(["a"], [3])["labels"].dtype == torch.int64


def test_the_size_is_known_with_and_without_having_decoded_it(folder, tmp_path):
    cache = tmp_path / "cache"
    before = size_of(ALIKE, cache)
    data.identify(ALIKE, cache, allow_unknown=True)
    after = size_of(ALIKE, cache)
    assert (before.train, before.test) == (after.train, after.test) == (3, 2)
    assert after.kept_bytes > 0 and after.train_labels == {}


def test_words_in_common_by_hand():
    """Two documents of two words each: every word is in one of two, so all weigh alike; half in common is 1 / 2."""
    pairs = [("rain wet", "sun dry")]
    found = tfidf_similarity(
        pairs, [("rain wet", "wet rain"), ("rain wet", "rain sun"), ("rain", "sun"), ("rain", "?")]
    )
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_the_mirrors_set_is_the_one_that_is_known(tmp_path, monkeypatch):
    """Rows as GLUE prints them: 5,749 and 1,500."""
    from fipbench import registry

    tiny_mirror.real("nyu-mll/glue/stsb", monkeypatch)
    [source] = registry.read_task("bert-stsb-sparsity").sources
    variant, digests = data.identify(source, tmp_path)
    pairs, labels = data.load_texts(source, "train", tmp_path, digests["train"])
    assert (variant, len(pairs)) == ("mirror", 5749) and all(isinstance(pair, tuple) for pair in pairs)
    assert 0 == labels.min() < labels.max() == 5
    assert len(data.load_texts(source, "test", tmp_path, digests["test"])[0]) == 1500
