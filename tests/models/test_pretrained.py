"""Pretrained transformers from a local mirror: the library's own outputs, and what is refused."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from tiny_mirror import lay_out_bert

from fipbench import models, plan, registry
from fipbench.errors import UserError
from fipbench.models import pretrained
from fipbench.spec import Model

NAME = "somebody/tiny-bert"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "soup", "was", "superb", "cold", "not", "but", "and", ".", ","]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror with one BERT and a tokenizer of a few words."""
    return lay_out_bert(tmp_path_factory.mktemp("models"), NAME, WORDS, max_position_embeddings=12)


@pytest.fixture(autouse=True)
def here(mirror, monkeypatch):
    monkeypatch.setenv("FIPBENCH_MODELS", str(mirror))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def spec(**fields):
    return Model(**{"name": "transformer", "weights": NAME, "inputs": (8,), "outputs": 3, **fields})


def sha(mirror):
    return hashlib.sha256((mirror / NAME / "model.safetensors").read_bytes()).hexdigest()


def copied(mirror, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(mirror, tmp_path / "models")
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / NAME


def test_ids_are_the_tokenizers_with_padding_behind():
    ids = pretrained.token_ids(spec(), ["The soup was superb.", "cold"], where="here")
    assert ids.tolist() == [[2, 4, 5, 6, 7, 12, 3, 0], [2, 8, 3, 0, 0, 0, 0, 0]] and ids.dtype == torch.int64


def test_logits_are_the_librarys_own(mirror):
    from transformers import BertModel

    network = models.build(spec(), seed=0).eval()
    bert = BertModel.from_pretrained(mirror / NAME).eval()
    ids = pretrained.token_ids(spec(), ["the soup was superb", "not cold"], where="here")
    head = network.transformer.classifier
    for row in ids:
        alone = row[row != 0][None]
        wanted = head(bert(alone).pooler_output)
        torch.testing.assert_close(network(row[None]), wanted, rtol=1e-5, atol=1e-6)
    # What is padding for one text only is masked.
    torch.testing.assert_close(network(ids)[1], network(ids[1:])[0], rtol=1e-5, atol=1e-6)


def test_the_head_comes_from_the_seed_and_the_rest_from_the_file():
    first, again, other = (models.build(spec(), seed) for seed in (1, 1, 2))
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (name != "transformer.classifier.weight"), name
    assert first.transformer.classifier.out_features == 3


def test_there_is_no_dropout():
    network = models.build(spec(), seed=0).train()
    ids = torch.tensor([[2, 4, 5, 3]])
    assert torch.equal(network(ids), network(ids))


def test_padding_is_what_the_network_takes_for_it(mirror, tmp_path, monkeypatch):
    assert pretrained.padding(spec()) == models.build(spec(), 0).pad == 0
    folder = copied(mirror, tmp_path, monkeypatch)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 5}))
    assert pretrained.padding(spec()) == models.build(spec(), 0).pad == 5


def test_longer_texts_are_an_error_or_cut():
    text = "the soup was superb and the soup was cold"
    with pytest.raises(UserError, match=r"yelp, train: text 1 has 11 tokens, the model reads 8; raise model\.inputs"):
        pretrained.token_ids(spec(), ["the", text], where="yelp, train")
    ids = pretrained.token_ids(spec(truncate=True), [text], where="here")
    assert ids.tolist() == [[2, 4, 5, 6, 7, 11, 4, 3]]


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(UserError, match=r"field 'model\.inputs': somebody/tiny-bert reads at most 12 tokens, got 13"):
        models.build(spec(inputs=(13,)), seed=0)


def test_other_weights_than_the_pinned_ones_are_refused(mirror):
    assert models.build(spec(sha256=sha(mirror)), seed=0)
    with pytest.raises(UserError, match=r"model\.safetensors: digest .{12} is not the expected 000000000000"):
        models.build(spec(sha256="0" * 64), seed=0)


def test_a_pickle_is_not_read(mirror, tmp_path, monkeypatch):
    folder = copied(mirror, tmp_path, monkeypatch)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors$"):
        models.build(spec(), seed=0)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin may run code when it is read and is not taken"):
        models.build(spec(), seed=0)


@pytest.mark.parametrize("damage", ["config", "weights", "architecture"])
def test_a_folder_that_is_no_network_is_said_in_a_line(damage, mirror, tmp_path, monkeypatch):
    folder = copied(mirror, tmp_path, monkeypatch)
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "weights":
        (folder / "model.safetensors").write_bytes(b"no safetensors")
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "their-own"}))
    with pytest.raises(UserError, match="no network can be made of it") as caught:
        models.build(spec(), seed=0)
    assert "\n" not in str(caught.value)


def test_without_hub_and_mirror_both_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path))
    with pytest.raises(UserError, match=r"connect to the hub, or set FIPBENCH_MODELS to a folder that holds somebody/"):
        models.build(spec(), seed=0)
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"FIPBENCH_MODELS=.*none is no folder"):
        models.build(spec(), seed=0)


TASK = f"""\
title   = "A pretrained network on generated reviews"
track   = "sparsity"
suites  = ["quick"]
version = 1
data    = "star-reviews"
model   = {{ name = "transformer", weights = "{NAME}", inputs = [8], outputs = 5, truncate = true }}
base    = {{ epochs = 1, batch_size = 32, learning_rate = 0.01, snapshots = [0] }}
budget  = {{ epochs = 3, batch_size = 32 }}
validation = 300
headline   = "area"
sparsities = [0.5]
"""


def test_a_jobs_identity_holds_the_weights(mirror, tmp_path, monkeypatch):
    file = tmp_path / "pretrained.toml"
    file.write_text(TASK)
    task = registry.read_task(str(file))
    _, before = plan.contents(task, tmp_path)
    assert before["weights"] == sha(mirror)
    assert plan.contents(task, tmp_path, dry=True)[1]["weights"] == "not looked at"
    folder = copied(mirror, tmp_path, monkeypatch)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert plan.contents(task, tmp_path)[1] != before


def test_it_runs(tmp_path, cache_dir, in_process):
    import fipbench

    file = tmp_path / "pretrained.toml"
    file.write_text(TASK)
    [record] = fipbench.run(str(file), methods=["magnitude"], seeds=1, results=tmp_path / "results").records
    assert record.status == "ok", record.error
    assert set(record.job.data) == {"train", "test", "weights"}
