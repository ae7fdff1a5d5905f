"""A masked language model that is asked for one word at a time: the library's own numbers, and text as it reads it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_mirror import lay_out_bert

from fipbench import api, models, pruning, registry
from fipbench.errors import UserError
from fipbench.models import masked
from fipbench.spec import Model

NAME = "somebody/tiny-mlm"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
MASK = 4


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror with one BERT with its head, weights drawn large, and a tokenizer that knows letters."""
    return lay_out_bert(
        tmp_path_factory.mktemp("models"),
        NAME,
        WORDS,
        "BertForMaskedLM",
        max_position_embeddings=24,
        initializer_range=0.5,
    )


@pytest.fixture(autouse=True)
def here(mirror, monkeypatch):
    monkeypatch.setenv("FIPBENCH_MODELS", str(mirror))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def spec(**fields):
    return Model(**{"name": "masked-lm", "weights": NAME, "inputs": (22,), "outputs": len(WORDS), **fields})


def text(n, seed=0):
    """So many letters, drawn, in lines of ten."""
    drawn = torch.randint(5, len(WORDS), (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [" ".join(WORDS[i] for i in drawn[k : k + 10]) for k in range(0, n, 10)], drawn


# ----------------------------------------------------------------------------------------------------- text


def test_windows_are_the_text_with_three_of_twenty_masked_and_one_asked_for():
    lines, drawn = text(207)
    ids, labels = masked.windows(spec(), lines, where="here")
    assert ids.shape == (10, 22) and ids.dtype == labels.dtype == torch.int64
    assert (ids[:, 0] == WORDS.index("[CLS]")).all() and (ids[:, -1] == WORDS.index("[SEP]")).all()
    inner = ids[:, 1:-1]
    asked, hidden = inner == masked.ASKED, inner == MASK
    assert asked.sum(1).tolist() == [1] * 10 and hidden.sum(1).tolist() == [2] * 10  # 15 % of 20
    there = torch.tensor(drawn[:200]).view(10, 20)  # seven are left over
    assert torch.equal(inner[~asked & ~hidden], there[~asked & ~hidden])
    assert torch.equal(labels, there[asked])


def test_every_place_is_asked_for_alike():
    """Of 4,000 windows of 20 places: 200 each, and no more than five deviations of a binomial off."""
    lines, _ = text(80_000)
    ids, _ = masked.windows(spec(), lines, where="here")
    counts = (ids[:, 1:-1] == masked.ASKED).sum(0)
    assert counts.sum() == 4000 and (counts - 200).abs().max() < 5 * (4000 * 0.05 * 0.95) ** 0.5


def test_the_draw_depends_on_the_text_alone():
    torch.manual_seed(1)
    first = masked.windows(spec(), text(200)[0], where="here")
    torch.manual_seed(2)
    again = masked.windows(spec(), text(200)[0], where="there")
    other = masked.windows(spec(), text(200, seed=1)[0], where="here")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0] < 0, other[0] < 0)


def test_unknown_words_are_never_asked_for():
    """WikiText's own mark and what the tokenizer does not know are one token, and stay visible."""
    lines = ["a <unk> b Ω c <unk> d e <unk> f"] * 200
    ids, labels = masked.windows(spec(), lines, where="here")
    assert len(ids) == 100 and not (labels == WORDS.index("[UNK]")).any()
    assert ((ids == WORDS.index("[UNK]")).sum(1) == 8).all()


def test_windows_without_enough_known_words_are_left_out_and_too_little_text_is_said():
    known, _ = text(20)
    ids, _ = masked.windows(spec(), [*known, "Ω " * 18 + "a b"], where="here")
    assert len(ids) == 1
    with pytest.raises(UserError, match=r"^here, test: no window has 3 words that somebody/tiny-mlm knows"):
        masked.windows(spec(), ["Ω " * 40], where="here, test")
    with pytest.raises(UserError, match=r"^here, test: 19 tokens make no window of 22 \(field 'model\.inputs'\)$"):
        masked.windows(spec(), ["a " * 19], where="here, test")


# -------------------------------------------------------------------------------------------------- network


def test_logits_are_the_librarys_own_at_the_place_asked_for(mirror):
    from transformers import BertForMaskedLM

    ids, _ = masked.windows(spec(), text(200)[0], where="here")
    network = models.build(spec(), seed=0).eval()
    library = BertForMaskedLM.from_pretrained(mirror / NAME).eval()
    asked = ids == masked.ASKED
    wanted = library(input_ids=ids.masked_fill(asked, MASK)).logits[asked]
    found = network(ids)
    assert found.shape == (10, len(WORDS)) and found.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_other_place_has_logits_made():
    """What is wide as the vocabulary is one row an example."""
    network = models.build(spec(), seed=0)
    shapes = []
    network.transformer.cls.predictions.decoder.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape)))
    network(masked.windows(spec(), text(200)[0], where="here")[0])
    assert shapes == [(10, len(WORDS))]


def test_the_loss_is_that_of_one_masked_word_a_window_backward_too(mirror):
    from transformers import BertForMaskedLM

    ids, labels = masked.windows(spec(), text(100)[0], where="here")
    network = models.build(spec(), seed=0)
    torch.nn.functional.cross_entropy(network(ids), labels).backward()
    library = BertForMaskedLM.from_pretrained(mirror / NAME).eval()
    asked = ids == masked.ASKED
    targets = torch.full_like(ids, -100).masked_scatter(asked, labels)
    library(input_ids=ids.masked_fill(asked, MASK), labels=targets).loss.backward()
    own, theirs = dict(network.transformer.named_parameters()), dict(library.named_parameters())
    assert own.keys() == theirs.keys()
    for name, parameter in own.items():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5)


def test_the_words_matrix_is_an_embedding_and_is_not_pruned():
    network = models.build(spec(), seed=0)
    bert = network.transformer
    assert bert.cls.predictions.decoder.weight is bert.bert.embeddings.word_embeddings.weight
    found = pruning.prunable(network)
    assert not any("embeddings" in name or "decoder" in name for name in found)
    assert "transformer.cls.predictions.transform.dense.weight" in found and len(found) == 2 * 6 + 1


def test_all_of_it_comes_from_the_file_and_there_is_no_dropout():
    first, other = models.build(spec(), seed=1), models.build(spec(), seed=2).train()
    for (name, a), b in zip(first.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
    ids, _ = masked.windows(spec(), text(60)[0], where="here")
    assert torch.equal(other(ids), other(ids))


def test_an_estimate_counts_one_row_of_logits_and_the_shared_matrix_once():
    from fipbench.estimate.counts import count, skeleton

    network = models.build(spec(), seed=0)
    assert count(spec()).parameters == sum(p.numel() for p in network.parameters())
    assert skeleton(spec())(torch.zeros((2, 22), dtype=torch.int64, device="meta")).shape == (2, len(WORDS))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outputs": 30}, r"field 'model\.outputs': somebody/tiny-mlm has a vocabulary of 31, got 30"),
        ({"inputs": (25,)}, r"field 'model\.inputs': somebody/tiny-mlm reads at most 24 tokens, got 25"),
        (
            {"weights": "somebody/else"},
            r"connect to the hub, or set FIPBENCH_MODELS to a folder that holds somebody/el",
        ),
        ({"sha256": "0" * 64}, r"is not the expected 000000000000 \(field 'model\.sha256'\)"),
    ],
)
def test_what_does_not_fit(fields, said):
    with pytest.raises(UserError, match=said) as caught:
        models.build(spec(**fields), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("without", ["head", "bert"])
def test_weights_that_are_no_masked_language_model(without, mirror, tmp_path, monkeypatch):
    shutil.copytree(mirror, tmp_path / "models")
    folder = tmp_path / "models" / NAME
    if without == "head":
        from transformers import BertModel

        BertModel.from_pretrained(folder).save_pretrained(folder)
        said = r"its weights are not those of a masked language model \(no cls\.predictions\.bias\)"
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))
        said = r"field 'model\.weights': masked-lm is a BERT, somebody/tiny-mlm is roberta"
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path / "models"))
    with pytest.raises(UserError, match=said):
        models.build(spec(), seed=0)


# ---------------------------------------------------------------------------------------------------- a job

TASK = f"""\
title   = "Letters for a masked language model"
track   = "sparsity"
suites  = ["quick"]
version = 1
model   = {{ name = "masked-lm", weights = "{NAME}", inputs = [22], outputs = {len(WORDS)} }}
base    = {{ epochs = 2, batch_size = 8, optimizer = "adamw", learning_rate = 0.01, snapshots = [0] }}
budget  = {{ epochs = 4, batch_size = 8 }}
validation = 8
headline   = "area"
sparsities = [0.5, 0.8]
score      = "inverse_perplexity"

[data]
repo     = "someone/letters"
input    = "text"
kind     = "corpus"
train    = "validation"
variants = {{}}

[methods.fip-paper]
use = "fip"
learning_rate = 2e-5
settle = 0.0
"""


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """Mostly the letter a: a network that learns that has a perplexity far below the vocabulary's 31."""
    import datasets

    folder = tmp_path / "data" / "someone" / "letters"
    folder.mkdir(parents=True)
    for split, shift in (("validation", 0), ("test", 1)):
        lines = [f"a a a {WORDS[5 + (n + shift) % 26]} a a a" for n in range(300)]
        datasets.Dataset.from_dict({"text": lines}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "data"))
    file = tmp_path / "letters.toml"
    file.write_text(TASK)
    return file


def test_a_job_prunes_it_and_ranks_by_what_is_better_when_more(letters, tmp_path, cache_dir, in_process):
    from fipbench import reports
    from fipbench.reports import render

    methods = ["dense", "fip-paper", "lth", "magnitude"]
    done = api.run(str(letters), methods=methods, seeds=1, results=tmp_path / "results", allow_unknown_data=True)
    by_label = {record.job.label: record for record in done.records}
    for record in done.records:
        assert record.status == "ok", record.error
        for place in ("@0.5", "@0.8") if record.job.label != "dense" else ():
            value = record.metrics[f"perplexity{place}"]
            assert record.metrics[f"inverse_perplexity{place}"] == pytest.approx(1 / value)
            assert record.items[place[1:]].count == 105  # 2,100 letters in windows of 20
    dense = by_label["dense"].metrics["dense_perplexity"]
    assert 1 < dense < 8 and by_label["dense"].metrics["dense_accuracy"] > 0.7
    assert not any("tfidf" in name for name in by_label["dense"].metrics)
    (board,) = reports.boards(done.records)
    best = max(board.ranked, key=lambda row: row.metrics["area"].mean)
    assert board.ranked[0].name == best.name
    said = render.markdown([board])
    assert "Perplexity at each sparsity" in said and "Inverse perplexity in % at each sparsity" in said


def test_nobody_is_ranked_by_perplexity(letters):
    task = registry.read_task(str(letters))
    assert task.scores == ["inverse_perplexity", "perplexity", "accuracy"]
    assert "inverse_perplexity@0.8" in task.headlines and "accuracy@0.5" in task.headlines
    letters.write_text(TASK.replace('"area"', '"perplexity@0.5"'))
    with pytest.raises(UserError, match=r"unknown metric 'perplexity@0\.5'"):
        registry.read_task(str(letters))
