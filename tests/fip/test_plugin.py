"""FIP as a plugin of Avalanche's, in Avalanche's own strategy on its own benchmark; importing it takes seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from streams import cross_entropy_slope, gradient, logits, softmax, total, weights_of
from torch import nn

from fipbench import fip, models
from fipbench.spec import Model

PER_CLASS, BATCH, EPOCHS = 12, 8, 2  # two classes an experience: three batches an epoch
NETWORK = Model(name="mlp", inputs=(6,), hidden=(9,), outputs=6, mean=0.305, std=0.376)


class Points(torch.utils.data.Dataset):
    """Six classes of points in six dimensions, all different."""

    def __init__(self, seed):
        noise = torch.Generator().manual_seed(seed)
        self.targets = torch.arange(6).repeat(PER_CLASS).tolist()
        self.x = torch.eye(6).repeat(PER_CLASS, 1) + 0.3 * torch.randn(6 * PER_CLASS, 6, generator=noise)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.x[index], self.targets[index]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def benchmark():
    """`benchmark(task_labels=False)`: three experiences of two classes, in order."""
    assert fip.FIPPlugin  # which makes torchvision importable first
    from avalanche.benchmarks import nc_benchmark

    def make(task_labels=False):
        order = list(range(6))
        return nc_benchmark(Points(0), Points(1), 3, task_labels, shuffle=False, fixed_class_order=order)

    return make


def train(benchmark, plugin, model=None, rate=0.05, watch=None, tasks=False):
    """Avalanche's plain strategy with the plugin; `watch(strategy, when)` is called around each experience."""
    from avalanche.training import Naive

    model = model or models.build(NETWORK, 5)
    rule = torch.optim.SGD(model.parameters(), lr=rate)
    strategy = Naive(
        model=model,
        optimizer=rule,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=EPOCHS,
        plugins=[plugin],
        evaluator=None,
    )
    for experience in benchmark(tasks).train_stream:
        if watch:
            watch(strategy, "before")
        strategy.train(experience, shuffle=False)
        if watch:
            watch(strategy, "after")
    return strategy


def data_of(number):
    """What experience `number` holds, in Avalanche's order: one class after the other."""
    points = Points(0)
    rows = [i for label in (2 * number, 2 * number + 1) for i, y in enumerate(points.targets) if y == label]
    return points.x[rows].double().numpy(), np.array(points.targets)[rows]


def bhattacharyya_slope(z, noted):
    p, q = softmax(noted), softmax(z)
    root = np.sqrt(p * q)
    return 0.5 * (q - root / root.sum(1, keepdims=True)) / len(z)


def kl_sum_slope(z, noted):
    return softmax(z) - softmax(noted)


@pytest.mark.parametrize(
    ("settings", "slope"),
    [
        ({"strength": 5.0}, lambda z, noted: 5.0 * bhattacharyya_slope(z, noted)),
        ({"strength": 0.4, "distance": "kl", "reduction": "sum"}, lambda z, noted: 0.4 * kl_sum_slope(z, noted)),
        ({"strength": 0.0}, lambda z, noted: 0.0 * z),
    ],
)
def test_the_weights_are_those_of_fip_cf(settings, slope, benchmark):
    """The memory fits into a batch, so every draw is all of it; the loop is Algorithm 1's in numpy."""
    starts, ends, memories = [], [], []

    def watch(strategy, when):
        (starts if when == "before" else ends).append(weights_of(strategy.model))
        if when == "after":
            memories.append(plugin.inputs.double().numpy().copy())

    plugin = fip.FIPPlugin(3, **settings)
    train(benchmark, plugin, watch=watch)
    weights = dict(starts[0])
    for number in range(3):
        x, y = data_of(number)
        kept = memories[number - 1] if number else None
        noted = logits(weights, kept) if number else None
        for _ in range(EPOCHS):
            for start in range(0, len(y), BATCH):
                new, own = x[start : start + BATCH], y[start : start + BATCH]
                step = gradient(weights, new, cross_entropy_slope(logits(weights, new), own))
                if number:
                    step = total(step, gradient(weights, kept, slope(logits(weights, kept), noted)))
                weights = {name: weights[name] - 0.05 * step[name] for name in weights}
        for name, value in weights.items():
            assert ends[number][name] == pytest.approx(value, rel=1e-4, abs=1e-6), (number, name)


def test_it_remembers_so_many_inputs_of_each_experience_and_no_label(benchmark):
    sizes = []

    def watch(strategy, when):
        if when == "after":
            sizes.append(len(plugin.inputs))

    plugin = fip.FIPPlugin(5)
    train(benchmark, plugin, watch=watch)
    assert sizes == [5, 10, 15]
    for number in range(3):
        x, y = data_of(number)
        kept = plugin.inputs[5 * number : 5 * number + 5].double().numpy()
        rows = [int(np.flatnonzero((x == row).all(1))[0]) for row in kept]
        assert len(set(rows)) == 5
        counts = np.bincount(y[rows] - 2 * number, minlength=2)
        assert sorted(counts) == [2, 3]
    tensors = {name for name, value in vars(plugin).items() if isinstance(value, torch.Tensor)}
    assert tensors == {"inputs", "tasks", "reference"} and not plugin.tasks.any()


def test_a_memory_larger_than_an_experience_is_all_of_it(benchmark):
    plugin = fip.FIPPlugin(1000)
    train(benchmark, plugin)
    assert len(plugin.inputs) == 6 * PER_CLASS


def test_the_reference_is_computed_once_an_experience(benchmark):
    calls = []
    model = models.build(NETWORK, 5)
    model.register_forward_hook(lambda module, args, output: calls.append((len(output), output.requires_grad)))
    marks = []
    train(benchmark, fip.FIPPlugin(20), model, watch=lambda strategy, when: marks.append(len(calls)))
    steps = EPOCHS * 3
    first, second, third = (calls[a:b] for a, b in zip(marks[::2], marks[1::2], strict=True))
    assert first == [(BATCH, True)] * steps
    # The memory once, then in every step the batch and as many remembered inputs.
    assert second == [(20, False)] + [(BATCH, True)] * 2 * steps
    assert third == [(40, False)] + [(BATCH, True)] * 2 * steps


def test_draws_are_the_seeds(benchmark):
    def end(seed):
        return weights_of(train(benchmark, fip.FIPPlugin(20, strength=5.0, seed=seed)).model)

    first, again, other = end(0), end(0), end(1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_the_reference_is_of_evaluation_mode_and_modes_are_put_back(benchmark):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.Dropout(0.5), nn.Linear(30, 6))
    plugin = fip.FIPPlugin(20)
    seen = []

    def watch(strategy, when):
        if when == "before" and plugin.inputs is not None:
            strategy.model.eval()
            seen.append(strategy.model(plugin.inputs).detach().clone())
            strategy.model.train()

    class Check(type(plugin).__mro__[1]):
        def before_training_epoch(self, strategy, **kwargs):
            if seen:
                assert torch.equal(plugin.reference, seen[-1]) and strategy.model.training

    from avalanche.training import Naive

    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        plugins=[plugin, Check()],
        evaluator=None,
    )
    for experience in benchmark().train_stream:
        watch(strategy, "before")
        strategy.train(experience)
    assert len(seen) == 2


def test_remembered_inputs_go_through_the_head_of_their_own_task(benchmark):
    """With task labels, as of Avalanche's multi-head models."""
    from avalanche.models import MultiTaskModule

    class Heads(MultiTaskModule):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

        def forward(self, x, task_labels):
            asked.append(task_labels.tolist())
            return torch.stack([self.heads[task](row) for row, task in zip(x, task_labels.tolist(), strict=True)])

    asked, marks = [], []
    plugin = fip.FIPPlugin(3)
    train(benchmark, plugin, Heads(), watch=lambda strategy, when: marks.append(len(asked)), tasks=True)
    assert plugin.tasks.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    second, third = asked[marks[2] : marks[3]], asked[marks[4] : marks[5]]
    assert second == [[0] * 3] + [[1] * BATCH, [0] * 3] * 3 * EPOCHS
    assert sorted(third[0]) == [0] * 3 + [1] * 3
    assert all(sorted(tasks) in ([2] * BATCH, [0] * 3 + [1] * 3) for tasks in third[1:])


def test_it_keeps_what_is_lost_without_it(benchmark):
    def first_task(plugin):
        model = train(benchmark, plugin, rate=0.1).model
        x, y = data_of(0)
        return float((logits(weights_of(model), x).argmax(1) == y).mean())

    assert first_task(fip.FIPPlugin(24, strength=20.0)) > first_task(fip.FIPPlugin(24, strength=0.0)) + 0.2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, {}), "memory_per_experience must be positive and strength not negative, got 0 and 1.0"),
        ((-3, {}), "got -3 and"),
        ((5, {"strength": -0.5}), "got 5 and -0.5"),
        ((5, {"distance": "hellinger"}), "distance must be one of"),
        ((5, {"reduction": "none"}), "reduction must be mean or sum"),
        ((5, {"distance": "kl", "epsilon": 1e-10}), "epsilon belongs to the Bhattacharyya distance"),
    ],
)
def test_what_it_is_not_made_for(given, words):
    with pytest.raises(ValueError, match=words):
        fip.FIPPlugin(given[0], **given[1])
