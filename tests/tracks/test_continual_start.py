"""What all methods of (task, seed) share: the network that has learned the first task, and every task's batches."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import numpy as np
import pytest
import torch
from streams import CLASSES, Bench, images, weights_of

from fipbench import data, models, registry
from fipbench.errors import UserError
from fipbench.tracks import parts
from fipbench.tracks.common import seed_for

METHODS = registry.method_names("continual")


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir)


def given(bench, **job):
    """The weights and the first batches that a method gets with each task; it learns nothing."""
    seen = []

    def look(model, experience, trial):
        batches = list(itertools.islice(experience.batches, 20))  # more than an epoch
        seen.append((weights_of(model), batches, experience, trial))

    bench.run(look, **job)
    return seen


def alike(a, b):
    return all(torch.equal(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))


def same_weights(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def by_hand(bench, job, keep=None):
    """The first task learned by a loop written out: the initial weights, the data and the order are all it needs."""
    x, y = bench.part("train", CLASSES[0])
    if keep is not None:
        x, y = x[keep], y[keep]
    network = models.build(bench.task.model, seed_for(job, "weights"))
    initial = weights_of(network)
    order = torch.Generator().manual_seed(seed_for(job, "base batches"))
    rule = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    inputs = torch.from_numpy(x.reshape(-1, 1, 8, 8)).float()
    for _ in range(2):
        shuffled = torch.randperm(len(y), generator=order)
        for start in range(0, len(y) - 15, 16):
            index = shuffled[start : start + 16]
            rule.zero_grad()
            loss = -network(inputs[index]).log_softmax(1)[range(16), torch.from_numpy(y)[index]].mean()
            loss.backward()
            rule.step()
    return initial, weights_of(network), 2 * (len(y) // 16)


# ------------------------------------------------------------------------------------- the first task's network


@pytest.mark.parametrize("seed", [0, 3])
def test_the_first_network_has_learned_the_first_task_and_nothing_else(seed, bench):
    initial, learned, steps = by_hand(bench, bench.job(seed=seed))
    weights, _, experience, trial = given(bench, seed=seed)[0]
    assert all(np.allclose(weights[name], learned[name], rtol=1e-4, atol=1e-5) for name in learned)
    assert same_weights({name: value.double().numpy() for name, value in trial.first.initial.items()}, initial)
    assert trial.first.steps == steps and experience.steps == 0 and experience.number == 0


def test_a_tuning_job_has_a_first_network_of_its_own_without_the_held_out_examples(bench):
    job = bench.job(split="validation")
    seed = int.from_bytes(hashlib.sha256(b"stream/validation").digest()[:7], "big")
    held = torch.randperm(1200, generator=torch.Generator().manual_seed(seed))[:300].numpy()
    whole = bench.split("train").labels.numpy()
    # In the order of the shuffle, as the harness keeps them.
    rows = torch.randperm(1200, generator=torch.Generator().manual_seed(seed))[300:].numpy()
    own = rows[np.isin(whole[rows], CLASSES[0])]
    position = {row: n for n, row in enumerate(np.flatnonzero(np.isin(whole, CLASSES[0])))}
    assert not set(own) & set(held)
    _, learned, _ = by_hand(bench, job, [position[row] for row in own])
    weights, _, experience, _ = given(bench, split="validation")[0]
    assert len(experience.train.labels) == len(own)
    assert all(np.allclose(weights[name], learned[name], rtol=1e-4, atol=1e-5) for name in learned)
    assert not same_weights(weights, given(bench)[0][0])


def test_every_method_starts_from_the_same_network_and_gets_the_same_batches(bench):
    first = given(bench)
    for name in METHODS:
        for mine, theirs in zip(first, given(bench, method=name), strict=True):
            assert same_weights(mine[0], theirs[0]), name
            assert alike(mine[1], theirs[1]), name


def test_settings_and_memories_change_neither(bench):
    first = given(bench)
    other = given(bench, method="replay", learning_rate=0.1, memory=4)
    assert all(same_weights(a[0], b[0]) and alike(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_another_seed_is_another_network_and_other_batches(bench):
    for mine, other in zip(given(bench), given(bench, seed=1), strict=True):
        assert not same_weights(mine[0], other[0])
        assert not alike(mine[1], other[1])


def test_the_tasks_draw_apart(bench):
    """Not one shuffle for all tasks: the order of positions differs where the counts allow to compare."""
    orders = [torch.cat([batch.positions for batch in batches])[:200].tolist() for _, batches, _, _ in given(bench)]
    assert len({tuple(order) for order in orders}) == 3


def test_the_first_tasks_own_batches_are_those_that_it_was_learned_with(bench):
    order = torch.Generator().manual_seed(seed_for(bench.job(), "base batches"))
    got = []

    def look(model, experience, trial):
        if experience.number == 0:
            for _ in range(2):  # they begin anew each time
                got.append([batch.positions for batch in itertools.islice(trial.first.batches(), 30)])

    bench.run(look)
    wanted = []
    n = len(bench.part("train", CLASSES[0])[1])
    while len(wanted) < 30:
        shuffled = torch.randperm(n, generator=order)
        wanted += [shuffled[start : start + 16] for start in range(0, n - 15, 16)]
    for batches in got:
        assert all(torch.equal(a, b) for a, b in zip(batches, wanted[:30], strict=True))


def test_once_it_has_been_learned_the_first_tasks_data_are_past(bench):
    """A method without a memory could otherwise rehearse the first task with all of its data."""
    drawn = []

    def look(model, experience, trial):
        if experience.number:
            with pytest.raises(RuntimeError, match="first task"):
                next(iter(trial.first.batches()))
            drawn.append(experience.number)

    bench.run(look)
    assert drawn == [1, 2]


# ----------------------------------------------------------------------------------------------- the experiences


def test_an_experience_is_its_tasks_training_data_all_of_it_and_once_an_epoch(bench):
    for number, (_, batches, experience, trial) in enumerate(given(bench)):
        x, y = bench.part("train", CLASSES[number])
        assert (experience.number, experience.classes) == (number, CLASSES[number])
        assert np.array_equal(images(experience.train.inputs), x) and experience.train.labels.tolist() == y.tolist()
        assert experience.steps == (2 * (len(y) // 16) if number else 0)
        assert trial.batch_size == 16 and trial.recipe == bench.task.base
        epoch = torch.cat([batch.positions for batch in batches[: len(y) // 16]])
        assert len(epoch) == len(set(epoch.tolist())) == len(y) // 16 * 16
        for batch in batches:
            assert np.allclose(images(batch.inputs), x[batch.positions.numpy()], atol=1e-7)
            assert batch.labels.tolist() == y[batch.positions.numpy()].tolist()


def test_permutations_are_of_the_pixels_alike_in_both_splits_and_for_every_seed(tmp_path, cache_dir):
    bench = Bench(
        tmp_path,
        cache_dir,
        stream='{ permutations = 3, score = ["domain"] }',
        headline='"average_accuracy/domain"',
        budget="{ epochs = 1, batch_size = 16, factor = 6 }",
    )
    plain = bench.split("train").inputs.flatten(1)
    found = [e.train.inputs.flatten(1) for _, _, e, _ in given(bench)]
    orders = []
    for number in (1, 2):
        seed = hashlib.sha256(f"stream/permutation {number}".encode()).digest()[:7]
        orders.append(torch.randperm(64, generator=torch.Generator().manual_seed(int.from_bytes(seed, "big"))))
    assert torch.equal(found[0], plain)
    assert torch.equal(found[1], plain[:, orders[0]]) and torch.equal(found[2], plain[:, orders[1]])
    assert sorted(orders[0].tolist()) == sorted(orders[1].tolist()) == list(range(64))
    assert not torch.equal(orders[0], orders[1])
    for other in (given(bench, seed=1), given(bench, method="replay")):
        assert all(torch.equal(e.train.inputs.flatten(1), x) for (_, _, e, _), x in zip(other, found, strict=True))
    for _, _, experience, _ in given(bench):
        assert experience.classes == tuple(range(10))
        assert experience.train.labels.tolist() == bench.split("train").labels.tolist()


def test_examples_of_both_splits_are_dropped_and_said(bench, monkeypatch):
    honest = data.load

    def planted(source, split, cache, expected):
        found = honest(source, split, cache, expected)
        if split == "train":
            test = honest(source, "test", cache, bench.digests["test"])
            found = type(found)(
                torch.cat([test.inputs[:5], found.inputs]), torch.cat([9 - test.labels[:5], found.labels])
            )
        return found

    wanted = [len(bench.part("train", classes)[1]) for classes in CLASSES]
    monkeypatch.setattr(data, "load", planted)
    outcome = bench.run(lambda model, experience, trial: None)
    assert "5 training examples dropped because they stand in the test split" in outcome.notes
    assert outcome.provenance["train_examples"] == wanted


def test_a_subset_is_drawn_once_for_all_methods_and_seeds(bench):
    """A task may say that it uses a part of the training data; validation examples are cut off before."""
    task = msgspec.structs.replace(bench.task, subset=700)

    def rows(**job):
        found = []
        bench.run(lambda model, experience, trial: found.append(images(experience.train.inputs)) or None, task, **job)
        return [row.tobytes() for part in found for row in part]

    first = rows()
    whole = [row.tobytes() for own in CLASSES for row in bench.part("train", own)[0]]
    assert set(first) < set(whole) and 350 < len(first) < 490  # six digits of ten, of 700
    assert rows(seed=1) == first == rows(method="replay")
    tuning = rows(split="validation")
    held = []
    for part in parts.stream_of(bench.task, bench.job(split="validation"), bench.cache)[0]:
        held += [row.tobytes() for row in images(part.scoring.inputs)]
    assert not set(tuning) & set(held) and 350 < len(tuning) < 490
    task = msgspec.structs.replace(bench.task, subset=1201)
    with pytest.raises(UserError, match=r"field 'subset': 1201, but there are 1200 training examples; lower"):
        rows()
