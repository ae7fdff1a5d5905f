"""Averaged GEM against its closed form, step by step, and its memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from restated import apart, flat, own_gradient, shaped, walk
from streams import CLASSES, Bench, Watched, load
from torch import nn

from fipbench.tracks import avalanche
from fipbench.training import Examples

RATE = 0.01


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(tmp_path_factory.mktemp("agem"), cache_dir)


def recorded(plugin) -> list[Examples]:
    """The batches that the plugin draws from memory, in order."""
    drawn, draw = [], plugin.sample_from_memory

    def sample():
        inputs, labels, tasks = draw()
        drawn.append(Examples(inputs, labels))
        return inputs, labels, tasks

    plugin.sample_from_memory = sample
    return drawn


@pytest.mark.parametrize("memory", [4, 10])
def test_three_tasks_are_what_the_closed_form_gives_in_numpy(bench, memory):
    """g - (g . r / r . r) r where g . r < 0, for the gradient r of the batch from memory; else g."""
    plugin = load("a-gem", learning_rate=RATE, memory=memory)
    drawn = recorded(plugin)
    seen = Watched(avalanche.learner(plugin))
    bench.run(seen, memory=memory)
    steps = [len(batches) for batches in seen.batches]
    assert len(drawn) == sum(steps[1:])
    for task in (1, 2):
        batches = iter(drawn[sum(steps[1:task]) :])
        turned = []

        def change(weights, slope, batch, batches=batches, turned=turned):
            g, r = flat(slope), flat(own_gradient(weights, next(batches)))
            turned.append(g @ r < 0)
            return shaped(g - (g @ r) / (r @ r) * r, slope) if turned[-1] else slope

        start = seen.starts[task]
        path = walk(start, seen.batches[task], change, RATE)
        plain = walk(start, seen.batches[task], lambda weights, slope, batch: slope, RATE)
        assert any(turned)
        assert apart(plain[-1], path[-1], start) > 0.01
        assert apart(seen.ends[task], path[-1], start) < 0.02 * apart(plain[-1], path[-1], start)


@pytest.mark.parametrize("memory", [4, 20])
def test_batches_are_random_draws_of_all_that_is_kept(bench, memory):
    """A batch's worth, or all there is; training items of earlier tasks only, exactly the memory of each."""
    plugin = load("a-gem", learning_rate=RATE, memory=memory)
    drawn = recorded(plugin)
    outcome = bench.run(plugin, memory=memory)
    assert outcome.examples_stored == 3 * memory
    assert [len(kept.labels) for kept in plugin.buffers] == [memory] * 3
    x, y = bench.part("train", sum(CLASSES, ()))
    rows = {(row.round(4).tobytes(), int(label)) for row, label in zip(x.astype("f4"), y, strict=True)}
    sizes, contents = [], set()
    for part in drawn:
        sizes.append(len(part.labels))
        own = {(r.round(4).tobytes(), int(c)) for r, c in zip(part.inputs.flatten(1).numpy(), part.labels, strict=True)}
        assert own <= rows
        contents |= own
    half = len(drawn) // 2
    tasks = [{int(label) // 2 for part in some for label in part.labels} for some in (drawn[:half], drawn[half + 2 :])]
    assert tasks == [{0}, {0, 1}]
    assert sizes[0] == min(16, memory) and sizes[-1] == min(16, 2 * memory)
    assert len(contents) == 2 * memory


def test_more_tasks_than_a_batch_has_examples(tmp_path, cache_dir):
    """The library's own sampling comes to nothing here."""
    stream = '{ classes = [[0], [1], [2], [3], [4]], score = ["class"] }'
    batch = "{ epochs = 1, batch_size = 2, learning_rate = 0.01 }"
    bench = Bench(tmp_path, cache_dir, stream=stream, base=batch, budget="{ epochs = 1, batch_size = 2, factor = 5 }")
    plugin = load("a-gem", memory=4)
    drawn = recorded(plugin)
    bench.run(plugin, memory=4)
    assert {len(part.labels) for part in drawn} == {2}
    assert np.unique(torch.cat([part.labels for part in drawn])).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("margin", "first", "second"), [(2.0, 0.0, 0.0), (60.0, 1.0, 0.0), (95.0, 1.0, 0.0), (200.0, 1.0, -1.0)]
)
def test_a_memory_that_is_all_but_learned_does_no_harm(margin, first, second):
    """One memory x = (1, 0) of class 0, with this margin. Its gradient r is (-p, 0) and (p, 0), p = 1 / (1 + e^margin);
    in float32 (0, 0) and (p, 0) from a margin of 17 on, and 0 beyond 104. What g has along r goes, as g . r < 0."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[margin, 0.0], [0.0, 0.0]])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    strategy = SimpleNamespace(model=model, optimizer=optimizer, device="cpu", _criterion=nn.functional.cross_entropy)
    plugin = load("a-gem", learning_rate=RATE, memory=1)
    plugin.buffers = ["one"]
    plugin.sample_from_memory = lambda: (torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([0]))
    plugin.before_training_iteration(strategy)
    model.weight.grad = torch.tensor([[1.0, 2.0], [-1.0, 3.0]])
    plugin.after_backward(strategy)
    assert torch.allclose(model.weight.grad, torch.tensor([[first, 2.0], [second, 3.0]]), atol=1e-3)
