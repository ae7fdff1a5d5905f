"""Pairs of texts as a pretrained network reads them: the tokenizer's one sequence with its token types."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_mirror import lay_out_bert

from fipbench import api, models
from fipbench.errors import UserError
from fipbench.models import pretrained
from fipbench.spec import Model
from fipbench.tracks import common
from fipbench.training import Examples

NAME = "somebody/tiny-bert"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "soup", "was", "cold", "not", "a", "b", "c"]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror with one BERT, its weights drawn large, and a tokenizer of a few words."""
    return lay_out_bert(
        tmp_path_factory.mktemp("models"), NAME, WORDS, max_position_embeddings=12, initializer_range=0.5
    )


@pytest.fixture(autouse=True)
def here(mirror, monkeypatch):
    monkeypatch.setenv("FIPBENCH_MODELS", str(mirror))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def spec(**fields):
    return Model(**{"name": "transformer", "weights": NAME, "inputs": (9,), "outputs": 3, **fields})


PAIRS = [("the soup was cold", "not cold"), ("the soup", "was cold")]


def test_a_pair_is_one_sequence_with_its_types_behind():
    ids = pretrained.token_ids(spec(), PAIRS, where="here")
    assert ids.shape == (2, 2, 9) and ids.dtype == torch.int64
    assert ids[0].tolist() == [[2, 4, 5, 6, 7, 3, 8, 7, 3], [0, 0, 0, 0, 0, 0, 1, 1, 1]]
    assert ids[1].tolist() == [[2, 4, 5, 3, 6, 7, 3, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0]]


def test_texts_alone_stay_as_they_were():
    assert pretrained.token_ids(spec(), ["the soup"], where="here").tolist() == [[2, 4, 5, 3, 0, 0, 0, 0, 0]]


def test_the_longer_text_is_cut_first():
    long = ("a b c a b c", "not cold")
    [pair] = pretrained.token_ids(spec(truncate=True), [long], where="here")
    assert pair.tolist() == [[2, 9, 10, 11, 9, 3, 8, 7, 3], [0, 0, 0, 0, 0, 0, 1, 1, 1]]
    with pytest.raises(UserError, match=r"here: text 0 has 11 tokens, the model reads 9; raise model\.inputs"):
        pretrained.token_ids(spec(), [long], where="here")


def test_logits_of_pairs_are_the_librarys_own(mirror):
    from transformers import AutoTokenizer, BertModel

    network = models.build(spec(), seed=0).eval()
    bert = BertModel.from_pretrained(mirror / NAME).eval()
    tokenizer = AutoTokenizer.from_pretrained(mirror / NAME)
    ids = pretrained.token_ids(spec(), PAIRS, where="here")
    untyped = network(ids[:, 0])
    for n, (first, second) in enumerate(PAIRS):
        wanted = network.transformer.classifier(bert(**tokenizer(first, second, return_tensors="pt")).pooler_output)[0]
        torch.testing.assert_close(network(ids)[n], wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(untyped[n], wanted, atol=1e-2)  # types count


def test_the_length_of_a_pair_is_that_of_its_sequence():
    ids = pretrained.token_ids(spec(), PAIRS, where="here")
    pairs = SimpleNamespace(model=spec())
    assert common._lengths(pairs, Examples(ids, torch.zeros(2))).tolist() == [9, 7]
    assert common._lengths(pairs, Examples(ids[:, 0], torch.zeros(2))).tolist() == [9, 7]


TASK = f"""\
title   = "Pairs for a pretrained network"
track   = "sparsity"
suites  = ["quick"]
version = 1
model   = {{ name = "transformer", weights = "{NAME}", inputs = [9], outputs = 2, truncate = true }}
base    = {{ epochs = 1, batch_size = 8, optimizer = "adamw", learning_rate = 0.001, snapshots = [0] }}
budget  = {{ epochs = 4, batch_size = 8 }}
validation = 8
headline   = "area"
sparsities = [0.5, 0.8]
score      = "matthews_correlation"

[data]
repo     = "someone/pairs"
input    = "one"
second   = "other"
kind     = "text"
test     = "validation"
variants = {{}}

[methods.fip-paper]
use = "fip"
learning_rate = 2e-5
settle = 0.0
"""


def test_a_job_prunes_it(tmp_path, cache_dir, monkeypatch, in_process):
    import datasets

    folder = tmp_path / "data" / "someone" / "pairs"
    folder.mkdir(parents=True)
    letters = ["a", "b", "c", "the", "soup", "was", "cold", "not"]
    for split, shift in (("train", 0), ("validation", 3)):
        rows = [(letters[n % 8], f"{letters[(n // 8 + shift) % 8]} {split[0]}") for n in range(40)]
        columns = {
            "one": [a for a, _ in rows],
            "other": [b for _, b in rows],
            "label": [n % 2 for n in range(40)],
        }
        datasets.Dataset.from_dict(columns).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "data"))
    file = tmp_path / "pretrained-pairs.toml"
    file.write_text(TASK)
    done = api.run(
        str(file), methods=["fip-paper", "lth"], seeds=1, results=tmp_path / "results", allow_unknown_data=True
    )
    for record in done.records:
        assert record.status == "ok", record.error
        assert {"matthews_correlation@0.8", "accuracy@0.5", "dense_matthews_correlation"} <= set(record.metrics)
        assert set(record.items) == {"0.5", "0.8"} and record.items["0.5"].count == 40
    [paper] = [record for record in done.records if record.job.label == "fip-paper"]
    assert paper.job.method == "fip" and paper.job.settings == "task"
