"""Splits, seeds and the base network: what all methods share, and what none of them decides."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import numpy as np
import pytest
import torch

from fipbench import data, models, pruning, registry
from fipbench.tracks import common
from fipbench.tracks.common import base_network, only_split, seed_for, training_data
from fipbench.training import Examples, predict

METHODS = ("dense", "fip", "lth", "magnitude", "random")


def rows(examples):
    return [row.tobytes() for row in examples.inputs.flatten(1).numpy()]


# ------------------------------------------------------------------------------------------------ splits


def test_validation_examples_are_held_out_of_training_and_are_training_examples(lab):
    job = lab.job(split="validation")
    train, _ = training_data(lab.task, job, lab.cache)
    held = only_split(lab.task, job, lab.cache).scoring
    whole = lab.split("train")
    assert (len(train.labels), len(held.labels)) == (900, 300)
    assert not set(rows(train)) & set(rows(held))
    assert sorted(rows(train) + rows(held)) == sorted(rows(whole))
    labels = dict(zip(rows(whole), whole.labels.tolist(), strict=True))
    for part in (train, held):
        assert [labels[row] for row in rows(part)] == part.labels.tolist()


def test_the_held_out_part_is_the_same_for_every_seed_and_method(lab):
    first = rows(only_split(lab.task, lab.job(split="validation"), lab.cache).scoring)
    for method, seed in itertools.product(METHODS, (0, 3)):
        job = lab.job(method, seed, split="validation")
        assert rows(only_split(lab.task, job, lab.cache).scoring) == first


def test_the_held_out_part_is_drawn_and_not_the_head_of_the_file(lab):
    held = set(rows(only_split(lab.task, lab.job(split="validation"), lab.cache).scoring))
    positions = np.array([n for n, row in enumerate(rows(lab.split("train"))) if row in held])
    assert len(positions) == 300 and 500 < positions.mean() < 700 and positions.max() > 1100


def test_no_test_example_is_loaded_for_scoring_while_tuning(lab):
    test = set(rows(lab.split("test")))
    job = lab.job(split="validation")
    assert not test & set(rows(only_split(lab.task, job, lab.cache).scoring))
    assert not test & set(rows(training_data(lab.task, job, lab.cache)[0]))
    assert test == set(rows(only_split(lab.task, lab.job(), lab.cache).scoring))
    assert not test & set(rows(training_data(lab.task, lab.job(), lab.cache)[0]))


def test_examples_that_stand_in_both_splits_are_dropped_from_training_and_said(lab, monkeypatch):
    honest = data.load

    def planted(source, split, cache, expected):
        found = honest(source, split, cache, expected)
        if split == "train":
            test = honest(source, "test", cache, lab.digests["test"])
            # Seven test images, under other labels, and one of them twice.
            index = torch.tensor([0, 1, 2, 3, 4, 5, 5])
            found = Examples(
                torch.cat([test.inputs[index], found.inputs]), torch.cat([9 - test.labels[index], found.labels])
            )
        return found

    monkeypatch.setattr(data, "load", planted)
    train, dropped = training_data(lab.task, lab.job(), lab.cache)
    assert dropped == 7 and rows(train) == rows(lab.split("train"))[7:]

    def cut(model, sparsities, trial):
        assert len(trial.train.labels) == 1200
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level)
            network = models.build(lab.task.model, 0)
            network.load_state_dict(model.state_dict())
            yield level, pruning.apply(network, masks)

    assert "7 training examples dropped because they stand in the test split" in lab.run(cut).notes


def test_nothing_is_dropped_where_nothing_is_repeated(lab):
    assert training_data(lab.task, lab.job(), lab.cache)[1] == 0


# ------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("purpose", ["weights", "base batches", "batches", "choices"])
def test_seeds_do_not_know_the_method(purpose, lab):
    jobs = [lab.job(name) for name in METHODS] + [lab.job("lth", fraction=0.2), lab.job("random", finetune=False)]
    assert len({seed_for(job, purpose) for job in jobs}) == 1


def test_seeds_know_the_seed_the_split_the_task_and_the_purpose(lab):
    job = lab.job()
    others = [
        lab.job(seed=1),
        lab.job(split="validation"),
        msgspec.structs.replace(job, task="other"),
        msgspec.structs.replace(job, task_version=2),
    ]
    seeds = [seed_for(j, "batches") for j in (job, *others)] + [seed_for(job, "choices")]
    assert len(set(seeds)) == 6 and all(0 <= s < 2**63 for s in seeds)


def test_a_seed_is_the_same_for_ever(lab):
    """Golden: a change here changes every number that was ever measured."""
    wanted = int.from_bytes(hashlib.sha256(b"tiny/1/0/test/weights").digest()[:8], "big") >> 1
    assert seed_for(lab.job(), "weights") == wanted == 4570718365816235660


def test_all_methods_are_given_the_same_batches_and_draws(lab):
    seen = []

    def look(model, sparsities, trial):
        batches = [next(trial.batches) for _ in range(80)]  # more than two epochs
        noise = torch.rand(5, generator=trial.generator)
        seen.append((torch.stack([b.positions for b in batches]), noise, model.state_dict()["2.weight"].clone()))
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level)
            yield level, pruning.apply(model, masks)

    for name in ("fip", "lth", "magnitude"):
        lab.run(look, method=name)
    lab.run(look, method="fip", seed=1)
    first, *same, other = seen
    assert all(torch.equal(a, b) for entry in same for a, b in zip(first, entry, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    positions = first[0].flatten()
    epoch = 37 * 32
    assert len(set(positions[:epoch].tolist())) == epoch, "an example twice in one epoch"
    assert not torch.equal(positions[:epoch], positions[epoch : 2 * epoch])


# ----------------------------------------------------------------------------------------- base network


def by_hand(lab, task, seed):
    """The recipe written out: snapshots by epoch."""
    job = lab.job(seed=seed)
    network = models.build(task.model, seed_for(job, "weights"))
    train = lab.split("train")
    generator = torch.Generator().manual_seed(seed_for(job, "base batches"))
    velocity = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    snapshots = [{n: p.detach().clone() for n, p in network.named_parameters()}]
    for _ in range(task.base.epochs):
        order = torch.randperm(1200, generator=generator)
        for start in range(0, 1200 - 31, 32):
            index = order[start : start + 32]
            loss = torch.nn.functional.cross_entropy(network(train.inputs[index].float() / 255), train.labels[index])
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for (n, p), g in zip(network.named_parameters(), gradients, strict=True):
                    velocity[n].mul_(0.9).add_(g)
                    p.sub_(0.05 * velocity[n])
        snapshots.append({n: p.detach().clone() for n, p in network.named_parameters()})
    return snapshots


@pytest.mark.parametrize("seed", [0, 1])
def test_the_base_network_is_the_recipe_written_out(seed, lab):
    recipe = msgspec.structs.replace(lab.task.base, epochs=4, snapshots=(0, 1, 3))
    task, job = msgspec.structs.replace(lab.task, base=recipe), lab.job(seed=seed)
    train, _ = training_data(task, job, lab.cache)
    base = base_network(task, job, train, lab.cache)
    wanted = by_hand(lab, task, seed)
    assert set(base.snapshots) == {0, 1, 3}
    for epoch, snapshot in base.snapshots.items():
        assert set(snapshot) == set(wanted[epoch])
        assert all(torch.allclose(snapshot[n], wanted[epoch][n], atol=1e-5) for n in snapshot)
    assert all(torch.equal(base.snapshots[0][n], wanted[0][n]) for n in wanted[0]), "epoch 0 is before any step"
    assert all(torch.allclose(p, wanted[4][n], atol=1e-5) for n, p in base.network.named_parameters())
    assert (base.forward_examples, base.backward_examples) == (4 * 37 * 32, 4 * 37 * 32)
    ends = [snapshot["2.weight"] for snapshot in wanted]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in itertools.combinations(ends, 2))


def test_all_methods_start_from_one_base_network(lab):
    train, _ = training_data(lab.task, lab.job(), lab.cache)
    digests = {name: base_network(lab.task, lab.job(name), train, lab.cache).digest for name in METHODS}
    assert len(set(digests.values())) == 1
    assert base_network(lab.task, lab.job(seed=1), train, lab.cache).digest not in digests.values()


def test_it_is_trained_once_and_handed_out_anew_each_time(lab, monkeypatch):
    train, _ = training_data(lab.task, lab.job(), lab.cache)
    first = base_network(lab.task, lab.job(), train, lab.cache)
    monkeypatch.setattr(common, "fit", lambda *args, **options: pytest.fail("trained a second time"))
    second = base_network(lab.task, lab.job("fip"), train, lab.cache)
    assert first.network is not second.network
    with torch.no_grad():
        first.network[2].weight.fill_(0)
    assert second.network[2].weight.abs().sum() > 0
    assert (second.forward_examples, second.wall_s) == (first.forward_examples, first.wall_s)


def test_a_tuning_jobs_base_network_has_not_seen_the_validation_examples(lab):
    job = lab.job(split="validation")
    train, _ = training_data(lab.task, job, lab.cache)
    base = base_network(lab.task, job, train, lab.cache)
    assert base.forward_examples == 2 * (900 // 32 * 32)
    whole, _ = training_data(lab.task, lab.job(), lab.cache)
    assert base.digest != base_network(lab.task, lab.job(), whole, lab.cache).digest


def test_the_base_network_of_the_digits_task_is_right_in_97_of_100(lab):
    """On the real task, as the issue asks: the mean over three seeds."""
    task = registry.read_task("digits-sparsity")
    right = []
    for seed in range(3):
        job = msgspec.structs.replace(lab.job(seed=seed), task=task.name)
        train, dropped = training_data(task, job, lab.cache)
        assert dropped == 0
        base = base_network(task, job, train, lab.cache)
        test = only_split(task, job, lab.cache).scoring
        assert len(test.labels) == 597
        right.append((predict(base.network, test).argmax(1).numpy() == test.labels.numpy()).mean())
    assert np.mean(right) >= 0.97, right


def test_the_initial_weights_are_kaiming_normal(lab):
    """As in the published lottery-ticket runs."""
    network = models.build(registry.read_task("lenet300-mnist-sparsity").model, 0)
    layers = {n: p.detach().numpy() for n, p in network.named_parameters() if p.ndim == 2}
    assert [w.shape for w in layers.values()] == [(300, 784), (100, 300), (10, 100)]
    for weight in layers.values():
        assert weight.std() == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.1)
        assert abs((weight**4).mean() / weight.var() ** 2 - 3) < 0.5  # a normal's kurtosis, a uniform has 1.8
