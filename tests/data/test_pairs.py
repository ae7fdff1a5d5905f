"""Pairs of texts: as they are kept, as a model reads them, and from a mirror whose test labels are hidden."""

from __future__ import annotations

import msgspec
import pytest

from fipbench import api, data
from fipbench.data import text
from fipbench.data.bag_of_words import tfidf_accuracy
from fipbench.errors import UserError
from fipbench.spec import Data, Variant

PAIRS = [("It rains.", "It is wet."), ("", "naïve — café"), ("日本語", ""), ("a\x00b", "a\x00b")]


def test_pairs_come_back_as_they_were():
    tensors = text.packed(PAIRS, [1, 0, 1, 0])
    assert text.unpacked(tensors) == PAIRS
    assert len(tensors["offsets"]) == 2 * len(PAIRS) + 1 and tensors["labels"].tolist() == [1, 0, 1, 0]


def test_a_pair_has_another_digest_than_its_two_texts():
    from fipbench.cache import tensor_digest

    pair, single = text.packed([("a", "b")], [0]), text.packed(["ab"], [0])
    swapped = text.packed([("b", "a")], [0])
    assert len({tensor_digest(t) for t in (pair, single, swapped)}) == 3


def test_both_texts_are_in_the_vocabulary():
    assert set(text.vocabulary([("the cat", "sat"), ("on", "the mat")], 10)) == {"the", "cat", "sat", "on", "mat"}


def test_ids_of_a_pair_are_each_texts_with_its_start():
    known = {"it": 3, "rains": 4, "wet": 5}
    ids = text.encode([("It rains", "wet"), ("", "it")], known, 6, truncate=False, where="here")
    assert ids.tolist() == [[2, 3, 4, 2, 5, 0], [2, 2, 3, 0, 0, 0]]


def popped(a, b, length):
    """The rule of BERT's own code: pop from the longer, of two alike from the second."""
    a, b = list(a), list(b)
    while len(a) + len(b) > length:
        (a if len(a) > len(b) else b).pop()
    return a + b


@pytest.mark.parametrize("length", [4, 5, 8, 9])
def test_a_pair_is_cut_as_bert_cuts(length):
    words = [f"w{n}" for n in range(12)]
    known = {word: n for n, word in enumerate(words, start=3)}
    for first in range(10):
        for second in range(10):
            pair = " ".join(words[:first]), " ".join(words[:second])
            [ids] = text.encode([pair], known, length, truncate=True, where="here").tolist()
            expected = popped([2, *range(3, 3 + first)], [2, *range(3, 3 + second)], length)
            assert ids == expected + [0] * (length - len(expected)), (first, second)


def test_a_pair_too_long_is_an_error_unless_it_may_be_cut():
    with pytest.raises(UserError, match=r"here: text 1 has 6 tokens, the model reads 5; raise model\.inputs"):
        text.encode([("a", "b"), ("a b", "c d")], {}, 5, truncate=False, where="here")


def test_words_of_a_pair_are_in_one_bag():
    pairs = [("good", "film"), ("film", "good"), ("bad", "film"), ("film", "bad")] * 5
    labels = [1, 1, 0, 0] * 5
    assert tfidf_accuracy(pairs, labels, [("so", "good"), ("bad", "so")], [1, 0]) == 1.0
    as_one = [" ".join(pair) for pair in pairs]
    assert tfidf_accuracy(as_one, labels, as_one, labels) == tfidf_accuracy(pairs, labels, pairs, labels)


# ----------------------------------------------------------------------------------------------- a mirror

GLUE = Data(
    repo="someone/glue",
    config="rte",
    revision="1" * 40,
    input="sentence1",
    second="sentence2",
    kind="text",
    test="validation",
    variants={},
)
TRAIN = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "label": [0, 1, 0]}
VALIDATION = {"sentence1": ["g", "h"], "sentence2": ["i", "j"], "label": [1, 0]}
HIDDEN = {"sentence1": ["k"], "sentence2": ["l"], "label": [-1]}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    import datasets

    folder = tmp_path / "mirror" / "someone" / "glue" / "rte"
    folder.mkdir(parents=True)
    for split, columns in {"train": TRAIN, "validation": VALIDATION, "test": HIDDEN}.items():
        datasets.Dataset.from_dict(columns).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    return folder


def read(source, cache, split):
    _, digests = data.identify(source, cache, allow_unknown=True)
    texts, labels = data.load_texts(source, split, cache, digests[split])
    return texts, labels.tolist()


def test_pairs_and_the_split_that_is_tested_on(mirror, tmp_path):
    cache = tmp_path / "cache"
    assert read(GLUE, cache, "train") == ([("a", "d"), ("b", "e"), ("c", "f")], [0, 1, 0])
    assert read(GLUE, cache, "test") == ([("g", "i"), ("h", "j")], [1, 0])


def test_columns_and_splits_are_not_mixed_up_in_the_cache(mirror, tmp_path):
    cache = tmp_path / "cache"
    assert read(GLUE, cache, "train")[0][0] == ("a", "d")
    swapped = msgspec.structs.replace(GLUE, input="sentence2", second="sentence1")
    assert read(swapped, cache, "train")[0][0] == ("d", "a")
    alone = msgspec.structs.replace(GLUE, second=msgspec.UNSET)
    assert read(alone, cache, "train")[0] == ["a", "b", "c"]
    other = msgspec.structs.replace(GLUE, test="train")
    assert read(other, cache, "test")[0][0] == ("a", "d")


def test_hidden_labels_are_no_labels(mirror, tmp_path):
    plain = msgspec.structs.replace(GLUE, test=msgspec.UNSET)
    with pytest.raises(UserError) as caught:
        data.identify(plain, tmp_path / "cache", allow_unknown=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "someone/glue/rte, test: its labels are hidden" in message and "'data.test'" in message


def test_a_missing_second_column_is_named_with_those_there_are(mirror, tmp_path):
    with pytest.raises(
        UserError, match=r"has no column 'hypothesis' \(field 'data.second'\); there are: sentence1, sentence2, label"
    ):
        data.identify(msgspec.structs.replace(GLUE, second="hypothesis"), tmp_path, allow_unknown=True)


def test_a_missing_split_is_named_as_the_repository_calls_it(mirror, tmp_path):
    other = msgspec.structs.replace(GLUE, test="validation_matched")
    with pytest.raises(UserError, match=r"holds no validation_matched-\*\.parquet"):
        data.identify(other, tmp_path / "cache", allow_unknown=True)


def test_content_of_which_nothing_is_known_is_said_to_be_so(mirror, tmp_path):
    with pytest.raises(UserError, match=r"someone/glue: no digest of its content is known yet .*--allow-unknown-data"):
        data.identify(GLUE, tmp_path / "cache")
    assert data.identify(GLUE, tmp_path / "cache", allow_unknown=True)[0] == data.UNKNOWN


def test_a_dry_run_looks_at_no_data_of_which_nothing_is_known(tmp_path, monkeypatch):
    """Though its folder is there without a file in it: a suite can be listed where a part of it is missing."""
    (tmp_path / "someone" / "glue" / "rte").mkdir(parents=True)
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path))
    assert data.identify_all([GLUE], tmp_path / "cache", dry=True) == (
        data.UNKNOWN,
        {"train": "not looked at", "test": "not looked at"},
    )
    known = msgspec.structs.replace(GLUE, variants={"mine": Variant(train="0", test="1")})
    with pytest.raises(UserError, match=r"holds no train-\*\.parquet"):
        data.identify_all([known], tmp_path / "cache", dry=True)


# ------------------------------------------------------------------------------------------------- a job

TASK = """\
title   = "Pairs"
track   = "sparsity"
suites  = ["quick"]
version = 1
model   = { name = "bert", inputs = [12], outputs = 2, vocabulary = 20, width = 8, depth = 1, heads = 2 }
base    = { epochs = 1, batch_size = 8, optimizer = "adam", learning_rate = 0.01, snapshots = [0] }
budget  = { epochs = 3, batch_size = 8 }
validation = 8
headline   = "area"
sparsities = [0.5]
score      = "f1"

[data]
repo     = "someone/glue"
config   = "rte"
input    = "sentence1"
second   = "sentence2"
kind     = "text"
test     = "validation"
variants = {}
"""


def test_a_job_reads_pairs_by_words(mirror, tmp_path, cache_dir, in_process):
    import datasets

    words = ["rain", "sun", "wet", "dry"]
    for split, shift in (("train", 0), ("validation", 1)):
        rows = [(words[n % 4], words[(n // 4 + shift) % 4], f"n{n} {split}") for n in range(32)]
        columns = {
            "sentence1": [f"{a} {tail}" for a, _, tail in rows],
            "sentence2": [b for _, b, _ in rows],
            "label": [int(a == b) for a, b, _ in rows],
        }
        datasets.Dataset.from_dict(columns).to_parquet(mirror / f"{split}-00000-of-00001.parquet")
    file = tmp_path / "pairs.toml"
    file.write_text(TASK)
    done = api.run(
        str(file), methods=["dense", "magnitude"], seeds=1, results=tmp_path / "results", allow_unknown_data=True
    )
    assert [record.status for record in done.records] == ["ok", "ok"], [record.error for record in done.records]
    by_label = {record.job.label: record for record in done.records}
    assert {"f1@0.5", "accuracy@0.5", "dense_f1", "dense_accuracy"} <= set(by_label["magnitude"].metrics)
    assert by_label["magnitude"].items["0.5"].count == 32 and "tfidf/1" in by_label["dense"].metrics
