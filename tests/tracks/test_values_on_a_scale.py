"""A regression on the sparsity track, from a mirror to a board: labels of STS-B's kind, a network that reads words."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from fipbench import api, plan, registry, reports, worker
from fipbench.errors import UserError
from fipbench.reports import render
from fipbench.tracks import common

TASK = """\
title   = "How alike two texts are"
track   = "sparsity"
suites  = ["quick"]
version = 1
model   = { name = "bert", inputs = [12], outputs = 6, vocabulary = 20, width = 16, depth = 1, heads = 2 }
base    = { epochs = 8, batch_size = 16, optimizer = "adam", learning_rate = 0.01, snapshots = [0] }
budget  = { epochs = 12, batch_size = 16 }
validation = 32
headline   = "area"
sparsities = [0.5, 0.8]
score      = "pearson_spearman"

[data]
repo     = "someone/alike"
input    = "one"
second   = "other"
kind     = "text"
scale    = 5
test     = "validation"
variants = {}
"""
WORDS = ["rain", "sun", "cold", "dry", "snow", "wind", "storm", "fog"]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """The first text speaks of wet, the second some of five times: that is the value, give or take a fraction."""
    import datasets

    root = tmp_path_factory.mktemp("data")
    folder = root / "someone" / "alike"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 320), ("validation", 150)):
        times = rng.integers(0, 6, n)
        rows = {
            "one": [f"wet {rng.choice(WORDS)}" for _ in times],
            "other": [" ".join(rng.permutation(["wet"] * k + list(rng.choice(WORDS, 5 - k)))) for k in times],
            "label": [float(np.clip(k + rng.choice([-0.4, 0, 0.4]), 0, 5)) for k in times],
        }
        datasets.Dataset.from_dict(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return root


@pytest.fixture
def alike(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(mirror))
    file = tmp_path / "alike.toml"
    file.write_text(TASK)
    return file


def job_of(file, method="dense"):
    request = api.request(str(file), methods=[method], seeds=1, allow_unknown_data=True)
    return registry.read_task(str(file)), plan.tickets(request)[0]


def test_methods_and_harness_see_probabilities_whose_mean_is_the_value(alike, cache_dir):
    task, ticket = job_of(alike)
    train, dropped = common.training_data(task, ticket.job, cache_dir)
    test = common.only_split(task, ticket.job, cache_dir).scoring
    raw = common.texts_of(task, ticket.job, cache_dir)[0]
    assert test.labels.shape == (150, 6) and train.labels.shape == (320 - dropped, 6)
    mean = test.labels.double() @ torch.arange(6.0, dtype=torch.float64)
    torch.testing.assert_close(mean.float(), raw["test"][1], rtol=0, atol=1e-5)
    assert (test.labels.sum(1) - 1).abs().max() < 1e-6 and ((test.labels > 0).sum(1) <= 2).all()


def test_a_job_from_start_to_board(alike, tmp_path, in_process):
    methods = ["dense", "magnitude", "fip", "gradual-distill", "lth"]
    done = api.run(str(alike), methods=methods, seeds=1, results=tmp_path / "results", allow_unknown_data=True)
    for record in done.records:
        assert record.status == "ok", record.error
        assert record.items == {}  # a prediction on a scale is not right or wrong
        assert not any("accuracy" in name for name in (*record.metrics, *record.curves))
        values = record.metrics
        for at in ["dense_{}"] + ["{}@0.5", "{}@0.8"] * (record.job.label != "dense"):
            both = values[at.format("pearson")] + values[at.format("spearman")]
            assert values[at.format("pearson_spearman")] == pytest.approx(both / 2)
    by_label = {record.job.label: record.metrics for record in done.records}
    assert by_label["dense"]["dense_pearson_spearman"] > 0.6  # it learns what the labels say
    assert 0.2 < by_label["dense"]["tfidf/1"] < 1
    assert by_label["fip"]["outputs_walked"] > 0  # the distance of softmax outputs tells networks apart
    (board,) = reports.boards(done.records)
    said = render.markdown([board])
    assert "Pearson-Spearman correlation in % at each sparsity" in said and "Spearman correlation in %" in said
    assert "Accuracy" not in said


def test_the_score_is_scipys_of_the_networks_expectations(alike, cache_dir):
    from fipbench.tracks import sparsity

    task, ticket = job_of(alike)
    kept = []

    def keep(model, sparsities, trial):
        for level in sparsities:
            kept.append(model)
            yield level, model

    outcome = sparsity.run(task, ticket.job, keep, cache_dir, lambda text, share: None)
    raw = common.texts_of(task, ticket.job, cache_dir)[0]["test"][1].numpy()
    with torch.no_grad():
        shares = kept[0].eval()(common.only_split(task, ticket.job, cache_dir).scoring.inputs).double().softmax(1)
    predicted = shares.numpy() @ np.arange(6)
    assert outcome.metrics["dense_pearson"] == pytest.approx(scipy.stats.pearsonr(predicted, raw).statistic, abs=1e-5)
    assert outcome.metrics["dense_spearman"] == pytest.approx(scipy.stats.spearmanr(predicted, raw).statistic, abs=1e-5)


def test_a_search_has_validation_examples_with_values(alike, cache_dir):
    import msgspec

    task, ticket = job_of(alike, "magnitude")
    ticket = msgspec.structs.replace(ticket, job=msgspec.structs.replace(ticket.job, split="validation"))
    record = worker.run(ticket, lambda event: None)
    assert record.status == "ok", record.error
    assert common.only_split(task, ticket.job, cache_dir).scoring.labels.shape == (32, 6)


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"pearson_spearman"', '"accuracy"', r"field 'score': labels that are real numbers .* 'pearson_spearman'"),
        ("outputs = 6", "outputs = 5", r"field 'model\.outputs': a scale from 0 to 5 has 6 whole numbers"),
        ("scale    = 5\n", "", r"field 'score': correlations are with labels that are real numbers; set data\.scale"),
        ("scale    = 5", "scale    = 0", r"field 'data\.scale'"),
        ("scale    = 5", "scale    = 2.5", r"field 'data\.scale'"),
        ('kind     = "text"', 'kind     = "corpus"', r"field 'data\.(second|kind)'"),
        ('"validation"\n', '"train"\n', r"field 'data\.test': 'train' is what is trained on"),
        ('name = "bert"', 'name = "masked-lm"', r"field 'data\.kind': words are masked in running text"),
        ('"pearson_spearman"', '"inverse_perplexity"', r"field 'score': labels that are real numbers"),
    ],
)
def test_what_does_not_go_together(old, new, said, tmp_path):
    assert old in TASK
    file = tmp_path / "alike.toml"
    file.write_text(
        TASK.replace(old, new, 1) if old != '"validation"\n' else TASK.replace(f"test     = {old}", f"test = {new}")
    )
    with pytest.raises(UserError, match=said) as caught:
        registry.read_task(str(file))
    assert "\n" not in str(caught.value)
