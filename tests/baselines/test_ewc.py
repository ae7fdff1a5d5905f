"""Elastic weight consolidation against its equation: the Fisher information by hand, the penalty by a walk in numpy."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fipbench.baselines.ewc import fisher
from restated import apart, own_gradient, walk
from streams import CLASSES, Bench, Watched, load
from torch import nn

from fipbench.tracks import avalanche
from fipbench.tracks.continual import Criterion
from fipbench.training import Examples, Meter

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("ewc"), cache_dir)


class Sequences(nn.Module):
    """Layers of which two are no dense ones, and a dense one that is applied at every place of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)
        self.each, self.last = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, ids):
        return self.last(self.each(self.norm(self.words(ids))).relu().mean(1))


class Places(nn.Module):
    """Dense layers only, the first at every place of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.last = nn.Linear(6, 5), nn.Linear(5, 4, bias=False)

    def forward(self, x):
        return self.last(self.each(x).relu().mean(1))


def world(kind: str) -> tuple[nn.Module, Examples]:
    torch.manual_seed(3)
    labels = torch.randint(4, (11,))
    if kind == "sequences":
        return Sequences(), Examples(torch.randint(9, (11, 5)), labels)
    if kind == "places":
        return Places(), Examples(torch.rand(11, 3, 6), labels)
    if kind == "convolutions":
        first = nn.Conv2d(2, 5, 3, stride=2, padding=1)
        model = nn.Sequential(first, nn.ReLU(inplace=True), nn.Conv2d(5, 3, 2, dilation=2, bias=False), nn.Flatten())
        return model.append(nn.Linear(12, 4)), Examples(torch.rand(11, 2, 8, 8), labels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4))
    return model, Examples(torch.rand(11, 1, 6), labels)


KINDS = ("dense", "convolutions", "places", "sequences")


def test_fisher_of_a_linear_model_is_the_mean_square_of_probability_minus_label_times_input():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4), torch.rand(7, 3), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    scores = np.exp(x.double().numpy() @ weight.T + bias)
    off = scores / scores.sum(1, keepdims=True) - np.eye(4)[y]
    found = fisher(model, Examples(x, y), nn.functional.cross_entropy)
    per_example = off[:, :, None] * x.double().numpy()[:, None, :]
    np.testing.assert_allclose(found["weight"].numpy(), (per_example**2).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["bias"].numpy(), (off**2).mean(0), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_is_what_finite_differences_of_single_examples_say(kind):
    model, examples = world(kind)
    found = fisher(model, examples, nn.functional.cross_entropy)
    exact = copy.deepcopy(model).double()
    inputs = examples.inputs.double() if examples.inputs.is_floating_point() else examples.inputs
    step = 1e-5
    for name, weight in exact.named_parameters():
        values = weight.data.view(-1)
        for i in range(0, len(values), max(1, len(values) // 7)):
            losses = []
            for sign in (1, -1):
                values[i] += sign * step
                losses.append(nn.functional.cross_entropy(exact(inputs), examples.labels, reduction="none"))
                values[i] -= sign * step
            slopes = (losses[0] - losses[1]).detach() / (2 * step)
            assert float(found[name].view(-1)[i]) == pytest.approx(float(slopes.square().mean()), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_does_not_depend_on_the_batch_size_and_costs_one_pass_each_way(kind):
    model, examples = world(kind)
    meter = Meter()
    meter.attach(model)
    whole = fisher(model, examples, nn.functional.cross_entropy, batch_size=100)
    assert (meter.forward, meter.backward) == (11, 11)
    for size in (1, 4):
        parts = fisher(model, examples, nn.functional.cross_entropy, batch_size=size)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-9)
    assert (meter.forward, meter.backward) == (33, 33)


def test_fisher_is_of_the_loss_that_the_task_trains_and_leaves_the_model_alone():
    model, examples = world("dense")
    model[2].eval()
    own = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    found = fisher(model, examples, Criterion(own))
    bias = np.zeros(4)
    for i in range(11):
        scores = model(examples.inputs[i : i + 1])[0].detach().double().numpy()
        pair = [0, 1] if examples.labels[i] < 2 else [2, 3]
        odds = np.exp(scores[pair]) / np.exp(scores[pair]).sum()
        bias[pair] += (odds - (np.array(pair) == int(examples.labels[i]))) ** 2 / 11
    np.testing.assert_allclose(found["3.bias"].numpy(), bias, rtol=1e-4)
    assert model.training and not model[2].training
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_fisher_is_of_the_network_in_use_not_in_training():
    model, examples = world("dense")
    wanted = fisher(model, examples, nn.functional.cross_entropy)
    found = fisher(nn.Sequential(*model[:3], nn.Dropout(0.5), model[3]), examples, nn.functional.cross_entropy)
    for a, b in zip(found.values(), wanted.values(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("samples", [50, 0])
def test_fisher_is_of_as_many_training_examples_as_asked_for(bench, monkeypatch, samples):
    asked = []

    def watched(model, examples, criterion):
        asked.append(examples)
        return fisher(model, examples, criterion)

    monkeypatch.setattr("fipbench.baselines.ewc.fisher", watched)
    outcome = bench.run(load("ewc", strength=1.0, samples=samples, learning_rate=RATE))
    sizes = []
    for examples, classes in zip(asked, CLASSES, strict=True):
        x, y = bench.part("train", classes)
        rows = {(row.tobytes(), int(label)) for row, label in zip((255 * x).round().astype("u1"), y, strict=True)}
        found = [(row.numpy().tobytes(), int(label)) for row, label in zip(*examples, strict=True)]
        assert set(found) <= rows and len(set(found)) == (samples or len(rows))
        assert len(found) == (samples or len(y))
        sizes.append(len(found))
    plain = bench.run(load("naive", learning_rate=RATE))
    assert outcome.meter.forward == plain.meter.forward + sum(sizes)
    assert outcome.meter.backward == plain.meter.backward + sum(sizes)


def test_three_tasks_are_what_the_equation_gives_in_numpy(bench):
    """Every step goes down cross-entropy + strength / 2 * sum over earlier tasks of F (w - w_t)^2."""
    strength = 30.0
    seen = Watched(avalanche.learner(load("ewc", strength=strength, learning_rate=RATE)))
    bench.run(seen)
    past = []
    weights = seen.starts[0]
    for number, classes in enumerate(CLASSES):
        if number:

            def change(weights, slope, batch):
                pulls = [{k: strength * f[k] * (weights[k] - anchor[k]) for k in f} for f, anchor in past]
                return {k: slope[k] + sum(pull[k] for pull in pulls) for k in slope}

            path = walk(weights, seen.batches[number], change, RATE)
            plain = walk(weights, seen.batches[number], lambda weights, slope, batch: slope, RATE)
            assert apart(seen.ends[number], path[-1], weights) < 0.02 * apart(plain[-1], path[-1], weights)
            weights = path[-1]
        x, y = bench.part("train", classes)
        rows = [Examples(torch.tensor(x[i : i + 1]), torch.tensor(y[i : i + 1])) for i in range(len(y))]
        squares = [{k: v**2 for k, v in own_gradient(weights, row).items()} for row in rows]
        past.append(({k: sum(s[k] for s in squares) / len(rows) for k in weights}, weights))


def test_without_strength_it_is_fine_tuning_to_the_bit(bench):
    ends = []
    for method in (avalanche.learner(load("ewc", strength=0.0, learning_rate=RATE)), load("naive", learning_rate=RATE)):
        seen = Watched(method)
        bench.run(seen)
        ends.append(seen.ends)
    for ours, plain in zip(*ends, strict=True):
        assert all(np.array_equal(ours[name], plain[name]) for name in plain)


def test_several_quadratics_are_one_around_their_weighted_mean():
    torch.manual_seed(1)
    plugin = load("ewc", strength=3.0)
    points = torch.randn(3, 5, dtype=torch.float64)
    weights = torch.rand(3, 5, dtype=torch.float64)
    weights[:, 0] = 0
    for point, new in zip(points, weights, strict=True):
        plugin.add("w", new, point)
    model = nn.Module()
    model.w = nn.Parameter(torch.randn(5, dtype=torch.float64))
    model.w.grad = torch.zeros(5, dtype=torch.float64)
    plugin.after_backward(SimpleNamespace(model=model))
    wanted = 3.0 * (weights * (model.w.detach() - points)).sum(0)
    torch.testing.assert_close(model.w.grad, wanted)
