"""PackNet: a task's answers to the bit after every later task, training and pruning against numpy, who owns what."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from restated import apart, walk
from streams import CLASSES, Bench, Watched, load, weights_of

from fipbench.tracks.continual import Trial

SETTINGS = {"learning_rate": 0.02, "prune": 0.6, "retrain": 0.5, "cooling": 0.25}
MLP = '{ name = "mlp", inputs = [1, 8, 8], hidden = [24, 18], outputs = 10, mean = 0.305, std = 0.376 }'
RESNET = (
    '{ name = "resnet", inputs = [1, 8, 8], channels = [4, 6], depth = 1, outputs = 10, mean = 0.305, std = 0.376 }'
)
# The first task's settings are everybody's: what moves weights beside gradients, and what looks at gradients of all.
DECAYED = "{ epochs = 2, batch_size = 16, learning_rate = 0.05, weight_decay = 0.01, clip = 0.5, snapshots = [0] }"
CLIP = 0.5
CLIPPED = f"{{ epochs = 2, batch_size = 16, learning_rate = 0.05, clip = {CLIP}, snapshots = [0] }}"
HEAD, SHARED = ("6.weight", "6.bias"), ("2.weight", "4.weight")


class Seen(Watched):
    """Beside the rest, after each task the network of every task learned so far."""

    def __init__(self, learn):
        super().__init__(learn)
        self.told = []

    def __call__(self, model, experience, trial):
        returned = super().__call__(model, experience, trial)
        networks = [self.network_for(model, number) for number in range(experience.number + 1)]
        self.told.append([copy.deepcopy(network).eval() for network in networks])
        return returned


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("mlp"), cache_dir, model=MLP, base=CLIPPED)


@pytest.fixture(scope="module", params=["plain", "decay and clipping", "batch norm", "the state kept"])
def found(request, tmp_path_factory, cache_dir):
    """What the track found out, and the learner that was watched."""
    fields = {
        "plain": {"model": MLP},
        "decay and clipping": {"model": MLP, "base": DECAYED},
        "batch norm": {"model": RESNET},
        "the state kept": {
            "model": MLP,
            "stream": '{ classes = [[0, 1], [2, 3], [4, 5]], score = ["class", "task"], optimizer = "kept" }',
        },
    }[request.param]
    world = Bench(tmp_path_factory.mktemp("found"), cache_dir, **fields)
    seen = Seen(load("packnet", **SETTINGS))
    return world, world.run(seen, method="packnet"), seen


@pytest.fixture(scope="module")
def fits(bench):
    """A run on the plain network with every call of `trial.fit` (task, rate, batches, weights at both ends), and the
    task that each weight belongs to."""
    calls = []
    honest = Trial.fit

    def fit(self, model, experience, *, learning_rate, **others):
        drawn = []

        def record():
            for batch in experience.batches:
                drawn.append(batch)
                yield batch

        given = type(experience)(**{**vars(experience), "batches": record()})
        start = weights_of(model)
        honest(self, model, given, learning_rate=learning_rate, **others)
        calls.append((experience.number, learning_rate, drawn, start, weights_of(model)))
        return model

    learn = load("packnet", **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trial, "fit", fit)
        outcome = bench.run(learn, method="packnet")
    return outcome, calls, {name: learn.state_dict()[f"owner/{name}"].numpy() for name in SHARED}


def images_of(world, classes):
    """Test images of some classes, as networks get them."""
    return torch.tensor(world.part("test", classes)[0], dtype=torch.float32).view(-1, 1, 8, 8)


def test_what_a_task_is_answered_never_changes(found):
    world, _, seen = found
    for number, classes in enumerate(CLASSES):
        x = images_of(world, classes)
        with torch.no_grad():
            first, *later = [told[number](x) for told in seen.told[number:]]
        assert len(later) == 2 - number and len(x) > 50
        for outputs in later:
            assert torch.equal(outputs, first)


def test_forgetting_is_zero_and_the_matrix_says_so(found):
    _, outcome, _ = found
    rows = np.array([outcome.curves[f"matrix/task/{i}"]["value"] for i in range(4)])
    for task in range(3):
        assert (rows[task + 1 :, task] == rows[task + 1, task]).all()
    assert np.diag(rows[1:]).mean() > 0.75
    assert outcome.metrics["forgetting/task"] == 0.0 and outcome.metrics["backward_transfer/task"] == 0.0
    # Where the task is not told it forgets as fine-tuning does.
    assert outcome.metrics["forgetting/class"] > 0.5


def test_scores_are_of_the_tasks_own_networks(found):
    world, outcome, seen = found
    for number, classes in enumerate(CLASSES):
        with torch.no_grad():
            outputs = seen.told[2][number](images_of(world, classes))[:, list(classes)]
        own = (np.array(classes)[outputs.argmax(1).numpy()] == world.part("test", classes)[1]).mean()
        assert outcome.metrics[f"final/task/{number + 1}"] == pytest.approx(own, abs=1e-9)


def test_every_task_owns_its_share_of_what_was_free(fits, bench):
    """Of n free weights of a layer a task keeps 40 %, those that were the largest; the others are zero."""
    _, calls, owner = fits
    assert [number for number, *_ in calls] == [0, 1, 1, 2, 2]
    ends = [(bench_first(bench), calls[0][3]), (calls[1][4], calls[2][3]), (calls[3][4], calls[4][3])]
    for name in SHARED:
        free = np.ones(owner[name].shape, bool)
        for number, (before, after) in enumerate(ends):
            kept, given_up = owner[name] == number, free & (owner[name] != number)
            assert not (kept & ~free).any() and abs(kept.sum() - 0.4 * free.sum()) <= 0.5
            assert np.abs(before[name][kept]).min() >= np.abs(before[name][given_up]).max()
            assert (after[name][given_up] == 0).all()
            assert np.array_equal(after[name][~given_up], before[name][~given_up])
            free &= ~kept
        assert free.mean() == pytest.approx(0.6**3, abs=0.01) and (owner[name][free] == -1).all()


def bench_first(bench):
    """The network that has learned the first task, as every method gets it."""
    seen = Watched(load("naive", learning_rate=0.02))
    bench.run(seen)
    return seen.starts[0]


@pytest.mark.parametrize("call", range(5), ids=["first, again", "second", "second, again", "third", "third, again"])
def test_training_is_masked_descent_in_numpy(call, fits):
    """On a new task what is free moves, after pruning what was kept; hidden biases with the first task alone. Gradients
    are clipped by the norm of what moves."""
    _, calls, owner = fits
    number, rate, batches, start, end = calls[call]
    again = call in (0, 2, 4)
    assert rate == pytest.approx(SETTINGS["learning_rate"] * (SETTINGS["cooling"] if again else 1.0))
    masks = {name: owner[name] == number if again else (owner[name] == -1) | (owner[name] >= number) for name in SHARED}
    masks |= {name: np.ones(start[name].shape, bool) for name in HEAD}

    def change(weights, slope, batch):
        slope = {name: slope[name] * masks.get(name, float(number == 0)) for name in slope}
        norm = np.sqrt(sum(float((value**2).sum()) for value in slope.values()))
        return {name: slope[name] * min(1.0, CLIP / norm) for name in slope}

    path = walk(start, batches, change, rate)
    free = walk(start, batches, lambda weights, slope, batch: slope, rate)
    assert apart(free[-1], path[-1], start) > 0.05
    assert apart(end, path[-1], start) < 2e-3
    for name in start:
        still = ~np.broadcast_to(masks.get(name, np.array(number == 0)), start[name].shape)
        assert np.array_equal(end[name][still], start[name][still]), name


def test_steps_and_cost(fits, bench):
    """Per task its own steps and half as many again, each of the batch's size."""
    outcome, calls, _ = fits
    lengths = [len(bench.part("train", classes)[1]) for classes in CLASSES]
    steps = [2 * (n // 16) for n in lengths]
    drawn = [len(batches) for _, _, batches, _, _ in calls]
    assert drawn == [round(steps[0] / 2), steps[1], round(steps[1] / 2), steps[2], round(steps[2] / 2)]
    assert outcome.meter.forward == outcome.meter.backward == 16 * (steps[0] + sum(drawn))
    assert outcome.examples_stored == 0


def test_what_is_stored_is_counted_by_the_harness(found):
    """Each shared weight once, and of what a task has for itself a copy each."""
    _, outcome, seen = found
    ends = [weights_of(network) for network in seen.told[2]]
    assert outcome.parameters_stored == sum(
        len({float(values[i]) for values in flat} - {0.0})
        for name in ends[0]
        for flat in [[end[name].ravel() for end in ends]]
        for i in range(flat[0].size)
    )
    total = sum(value.size for value in ends[0].values())
    heads = sum(value.size for name, value in list(ends[0].items())[-2:])
    assert outcome.parameters_stored < total + 2 * heads
