"""Texts as long as they are: a pretrained network cuts each batch to its longest, and an estimate knows of that."""

from __future__ import annotations

import itertools
import statistics

import msgspec
import pytest
import torch
from torch import nn

from fipbench import plan, registry, stock
from fipbench.estimate import total
from fipbench.estimate.counts import count
from fipbench.estimate.work import as_trained
from fipbench.models.pretrained import TextClassifier
from fipbench.spec import About

SIZES = {"model_type": "bert", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 16}  # fmt: skip
TOKENS = (4, 5, 6, 7, 9, 11, 14, 18, 23, 33)


@pytest.fixture
def task(monkeypatch):
    """Two classes of made-up texts of which the lengths are known, at most 20 of their tokens read."""
    monkeypatch.setattr(stock, "sizes_of", lambda weights: SIZES)
    found = registry.read_task("minilm-sst2-4k-sparsity")
    about = About(examples={"train": 5000, "test": 900}, tokens=TOKENS)
    data = msgspec.structs.replace(found.data, repo="nobody/texts", about=about)
    model = msgspec.structs.replace(found.model, inputs=(20,), weights="nobody/known")
    return msgspec.structs.replace(found, data=data, model=model)


def reading(task, **changed):
    return msgspec.structs.replace(task, **changed)


def test_batches_of_like_lengths_have_the_mean_of_what_is_read(task):
    assert task.group_by_length
    assert as_trained(task).model.inputs == (round(statistics.mean(min(n, 20) for n in TOKENS)),)
    assert as_trained(task).budget == task.budget


def test_others_are_as_long_as_the_longest_of_their_texts(task):
    """Against all batches that there are, of three texts."""
    mixed = reading(task, group_by_length=False, budget=msgspec.structs.replace(task.budget, batch_size=3))
    read = [min(n, 20) for n in TOKENS]
    longest = statistics.mean(max(drawn) for drawn in itertools.product(read, repeat=3))
    assert as_trained(mixed).model.inputs == (round(longest),)
    assert round(longest) > as_trained(task).model.inputs[0]


def test_two_data_sets_count_alike():
    """Yelp's reviews and IMDb's, at most 128 tokens of each."""
    task = registry.read_task("yelp-imdb-minilm-2k")
    means = [statistics.mean(min(n, 128) for n in stock.about(source).tokens) for source in task.sources]
    assert means[0] < means[1] < 128 and as_trained(task).model.inputs == (round(statistics.mean(means)),)


def test_unknown_lengths_and_other_networks_are_as_the_task_says(task):
    unsaid = reading(task, data=msgspec.structs.replace(task.data, about=About(examples={"train": 5000, "test": 900})))
    assert as_trained(unsaid) is unsaid
    for name in ("digits-sparsity", "reviews-sparsity", "bert-wikitext-sparsity"):
        found = registry.read_task(name)
        assert as_trained(found) is found


def test_the_network_does_cut_its_batch(task):
    """What the estimate supposes of it."""
    seen = []

    class Watched(nn.Module):
        def forward(self, input_ids, attention_mask):
            seen.append(tuple(input_ids.shape))
            return self

    network = TextClassifier(Watched(), pad=0)
    Watched.logits = torch.zeros(2, 2)
    network(torch.tensor([[5, 6, 7, 0, 0, 0], [5, 0, 0, 0, 0, 0]]))
    assert seen == [(2, 3)]


def test_an_estimate_counts_the_tokens_that_are_read(task, cache_dir):
    """FLOPs of training by the mean length; memory by the longest text; evaluation, in the data's order, too."""
    rows = plan.task_rows(task, ["gradual"])
    found = total.estimate(task, rows, seeds=1, cache=cache_dir, device="h100-80", calibrated=False)
    unsaid = reading(task, data=msgspec.structs.replace(task.data, about=About(examples={"train": 5000, "test": 900})))
    whole = total.estimate(unsaid, rows, seeds=1, cache=cache_dir, device="h100-80", calibrated=False)
    tokens = as_trained(task).model.inputs[0]
    short = count(as_trained(task).model)
    assert (found.tokens, whole.tokens) == (tokens, 0)
    (line,), (longer,) = found.lines, whole.lines
    examples = line.forward_examples, line.backward_examples
    assert examples == (longer.forward_examples, longer.backward_examples)
    assert line.flops == pytest.approx(short.forward_flops * examples[0] + short.backward_flops * examples[1])
    assert line.flops < 0.8 * longer.flops and line.memory_bytes == longer.memory_bytes


def test_seconds_are_those_of_the_lengths(task, cache_dir, monkeypatch):
    """A step that is timed as long as its tokens: training by the mean length, evaluation by the longest text."""
    from fipbench.estimate.calibrate import Calibration

    def calibrate(question):
        tokens = question.task["model"]["inputs"][0]
        return Calibration(step_s=tokens, forward_s=tokens, resident_bytes=0, spent=(None,))

    monkeypatch.setattr(total, "calibrate", calibrate)
    found = total.estimate(task, plan.task_rows(task, ["gradual"]), seeds=1, cache=cache_dir)
    read = as_trained(task)
    tokens, steps = read.model.inputs[0], found.work.base / task.budget.batch_size
    assert found.base_s == pytest.approx(tokens * steps)
    ratio = count(task.model).forward_flops / count(read.model).forward_flops
    trained = found.work.cap / 2 / task.budget.batch_size * tokens
    evaluated = found.work.harness_forward * tokens * ratio
    assert found.lines[0].seconds == pytest.approx(trained + evaluated, rel=1e-3)
    assert 20 / tokens < ratio < (20 / tokens) ** 2  # linear layers, and attention


@pytest.mark.parametrize("size", ["cola", "mrpc", "rte", "sst2-4k", "stsb", "wnli"])
def test_stated_lengths_rise_and_are_read_whole_or_cut_as_the_task_says(size):
    task = registry.read_task(f"minilm-{size}-sparsity")
    tokens = stock.about(task.data).tokens
    assert len(tokens) == 10 and list(tokens) == sorted(tokens)
    assert task.model.truncate or tokens[-1] <= task.model.inputs[0]
