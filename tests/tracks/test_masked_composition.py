"""Learning and compression in both orders for a masked language model, and a set of such networks that is asked."""

from __future__ import annotations

import math

import pytest
import torch
from streams import one_thread
from tiny_mirror import lay_out_bert

from fipbench import data, models, plan, pruning, registry
from fipbench.errors import UserError
from fipbench.fip import atlas
from fipbench.models import masked
from fipbench.spec import Method
from fipbench.tracks import composition

NAME = "somebody/tiny-mlm"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
MASK = 4
TASK = f"""\
title   = "Letters of two alphabets"
track   = "composition"
suites  = ["quick"]
version = 1
model   = {{ name = "masked-lm", weights = "{NAME}", inputs = [22], outputs = {len(WORDS)} }}
base    = {{ epochs = 1, batch_size = 8, optimizer = "adamw", learning_rate = 0.01, snapshots = [0] }}
budget  = {{ epochs = 1, batch_size = 8 }}
memory     = 10
sparsities = [0.4, 0.6]
repeat     = 0.6
validation = 8
headline   = "average_accuracy"

[[data]]
repo     = "someone/early"
input    = "text"
kind     = "corpus"
variants = {{}}

[[data]]
repo     = "someone/late"
input    = "text"
kind     = "corpus"
variants = {{}}
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return lay_out_bert(
        tmp_path_factory.mktemp("models"),
        NAME,
        WORDS,
        "BertForMaskedLM",
        max_position_embeddings=24,
        initializer_range=0.5,
    )


@pytest.fixture(autouse=True)
def _here(mirror, monkeypatch):
    monkeypatch.setenv("FIPBENCH_MODELS", str(mirror))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with one_thread():
        yield


def lines(letters, seed):
    draws = torch.Generator().manual_seed(seed)
    return [" ".join(letters[i] for i in torch.randint(len(letters), (10,), generator=draws)) for _ in range(90)]


# Text of the first ten letters, and of the last six.
TEXTS = {
    (name, split): lines(letters, seed)
    for name, letters in (("early", "abcdefghij"), ("late", "uvwxyz"))
    for split, seed in (("train", 0), ("test", 1))
}


@pytest.fixture
def task(tmp_path, monkeypatch):
    import datasets

    for (name, split), found in TEXTS.items():
        folder = tmp_path / "data" / "someone" / name
        folder.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict({"text": found}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "letters.toml").write_text(TASK)
    return registry.read_task(str(tmp_path / "letters.toml"))


def windows(task, name, split):
    return masked.windows(task.model, TEXTS[name, split], where="here")


def job_of(task, cache):
    variant, digests = data.identify_all(task.sources, cache, allow_unknown=True)
    method = Method(name="none", track="composition", target="none:none", version="1", defaults={})
    row = plan.Row(label="none", method=method, params={}, settings="default")
    return plan.make_job(task, row, 0, "quick", "cpu", variant, digests, "test")


class Moves:
    """CL moves every weight a little, Co cuts the smallest; notes what it was given and what it gave."""

    def __init__(self):
        self.given, self.networks = [], []

    def __call__(self, network, operation, trial):
        if operation.kind == "co":
            masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
            pruning.apply(network, masks)
        else:
            with torch.no_grad():
                for value in network.parameters():
                    value.add_(0.02 * torch.randn(value.shape, generator=trial.generator))
        self.given.append((operation.kind, operation.train, operation.memory))
        self.networks.append({name: value.detach().clone() for name, value in network.state_dict().items()})
        return network


def perplexity(mirror, weights, ids, labels):
    """By transformers: exp of its own loss, with one label a window."""
    from transformers import BertForMaskedLM

    library = BertForMaskedLM.from_pretrained(mirror / NAME).eval()
    library.load_state_dict({k.removeprefix("transformer."): v for k, v in weights.items()}, strict=False)
    asked = ids == masked.ASKED
    targets = torch.full_like(ids, -100).masked_scatter(asked, labels)
    with torch.no_grad():
        return math.exp(library(input_ids=ids.masked_fill(asked, MASK), labels=targets).loss)


@pytest.fixture
def moved(task, cache_dir):
    method = Moves()
    outcome = composition.run(task, job_of(task, cache_dir), method, cache_dir, lambda text, share: None)
    return method, outcome


def test_words_are_the_same_in_both_data_sets(task, moved):
    method, _ = moved
    for (kind, train, _), name in zip(method.given, ("late", "late", "early"), strict=False):  # CL, its Co, Co alone
        ids, labels = windows(task, name, "train")
        assert torch.equal(train.inputs, ids) and torch.equal(train.labels, labels), kind
    kept = method.given[0][2]
    ids, labels = windows(task, "early", "train")
    there = {(*row, label) for row, label in zip(ids.tolist(), labels.tolist(), strict=True)}
    assert len(kept.labels) == 10
    assert all((*row, label) in there for row, label in zip(kept.inputs.tolist(), kept.labels.tolist(), strict=True))


def test_both_texts_are_asked_of_both_orders_as_the_library_answers(task, mirror, moved):
    method, outcome = moved
    order = ["cl", "cl-co@0.4", "co@0.4", "co-cl@0.4", "cl-co@0.6", "co@0.6", "co-cl@0.6"]
    networks = dict(zip(order, method.networks, strict=False))
    for number, name in ((1, "early"), (2, "late")):
        asked = windows(task, name, "test")
        for kind in ("cl-co", "co-cl"):
            wanted = [perplexity(mirror, networks[f"{kind}@{s}"], *asked) for s in (0.4, 0.6)]
            assert outcome.curves[f"perplexity/{kind}/{number}"]["value"] == pytest.approx(wanted, rel=1e-4)
            assert outcome.metrics[f"perplexity/{kind}/{number}"] == pytest.approx(min(wanted), rel=1e-4)
    assert outcome.metrics["commutator/outputs@0.6"] > 0


def test_a_set_of_them_is_asked_with_running_text(task, mirror, tmp_path):
    base = models.build(task.model, 0)
    place = tmp_path / "set"
    atlas.create(place, base)
    weights = {"base": dict(base.state_dict())}
    for number, size in enumerate((0.3, 0.01, 0.1)):
        network = models.build(task.model, 0)
        draws = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for value in network.parameters():
                value.add_(size * torch.randn(value.shape, generator=draws))
        atlas.add(place, f"m{number}", network, parent="base", operation="noise")
        weights[f"m{number}"] = dict(network.state_dict())
    ids, labels = windows(task, "late", "test")
    batches = list(zip(ids.split(16), labels.split(16), strict=True))
    answers = atlas.query(place, models.build(task.model, 0), batches)
    wanted = {name: perplexity(mirror, found, ids, labels) for name, found in weights.items()}
    assert [one.name for one in answers] == sorted(wanted, key=wanted.get)
    assert [one.perplexity for one in answers] == pytest.approx(sorted(wanted.values()), rel=1e-4)


@pytest.mark.parametrize("kind", ["text", "corpus"])
def test_a_corpus_is_for_a_masked_language_model_and_it_for_a_corpus(kind, task, tmp_path):
    text = TASK if kind == "text" else TASK.replace('name = "masked-lm"', 'name = "transformer"')
    (tmp_path / "letters.toml").write_text(text.replace('"corpus"', f'"{kind}"'))
    with pytest.raises(UserError, match=r"field 'data\.kind'"):
        registry.read_task(str(tmp_path / "letters.toml"))
