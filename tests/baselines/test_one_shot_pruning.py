"""Pruning in one go, with and without training after it: magnitude, magnitude-finetune, random, dense."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

LEVELS = (0.5, 0.9)


def matrices(network):
    return {n: p.detach().numpy().copy() for n, p in network.named_parameters() if p.ndim == 2}


def test_magnitude_is_a_global_sort(method, new_trial, dense):
    before = matrices(dense)
    flat = np.concatenate([w.ravel() for w in before.values()])
    order = np.argsort(np.abs(flat), kind="stable")
    for level, network in method("magnitude", scope="global")(dense, LEVELS, new_trial()):
        wanted = flat.copy()
        wanted[order[: round(level * flat.size)]] = 0
        assert np.array_equal(np.concatenate([w.ravel() for w in matrices(network).values()]), wanted)


def test_magnitude_by_layer_is_a_sort_of_each(method, new_trial, dense):
    for level, network in method("magnitude", scope="layer")(dense, LEVELS, new_trial()):
        for name, weights in matrices(dense).items():
            wanted = weights.copy()
            wanted.flat[np.argsort(np.abs(weights).ravel(), kind="stable")[: round(level * weights.size)]] = 0
            assert np.array_equal(matrices(network)[name], wanted)


def test_magnitude_trains_nothing_and_keeps_the_biases(method, new_trial, dense, spied):
    trial = new_trial()
    for _, network in method("magnitude")(trial.meter.attach(copy.deepcopy(dense)), LEVELS, trial):
        for name, value in network.named_parameters():
            if value.ndim == 1:
                assert torch.equal(value, dict(dense.named_parameters())[name])
    assert not spied and trial.meter.passes == 0


@pytest.mark.parametrize("hidden", [(24, 12), (33, 17)])
def test_by_layer_the_zeros_of_the_whole_are_exact_too(hidden):
    """Each layer's own count, rounded by itself, would miss round(s N) of layers that do not divide."""
    from fipbench import models, pruning
    from fipbench.spec import Model

    network = models.build(Model(name="mlp", inputs=(1, 8, 8), hidden=hidden, outputs=10), 0)
    weights = pruning.prunable(network)
    for level in (0.5, 0.9, 0.987, 0.991):
        masks = pruning.magnitude_masks(weights, level, scope="layer")
        due = int(level * sum(w.numel() for w in weights.values()) + 0.5)
        assert sum(int((~m).sum()) for m in masks.values()) == due


def test_magnitude_finetune_starts_each_level_from_the_dense_network(method, new_trial, dense, spied):
    names = dict(dense.named_parameters())
    found = dict(method("magnitude-finetune", scope="global")(dense, LEVELS, new_trial(40)))
    assert [call["steps"] for call in spied] == [20, 20]
    once = dict(method("magnitude", scope="global")(dense, LEVELS, new_trial()))
    for call, level in zip(spied, LEVELS, strict=True):
        assert all(torch.equal(call["start"][n], names[n]) for n in names)
        # One shot: its mask is that of magnitude pruning, from the first step to the last.
        for n, weights in matrices(once[level]).items():
            assert np.array_equal(call["masks"][n].numpy(), weights != 0)
            for point in call["path"]:
                assert not point[n].numpy()[weights == 0].any()
            assert (found[level].get_parameter(n).detach().numpy() != weights).any()


def test_random_takes_other_weights_than_magnitude_and_as_many(method, new_trial, dense):
    by_size = {level: matrices(n) for level, n in method("magnitude", scope="global")(dense, LEVELS, new_trial())}
    drawn = {level: matrices(n) for level, n in method("random", finetune=False)(dense, LEVELS, new_trial())}
    total = sum(w.size for w in matrices(dense).values())
    for level in LEVELS:
        gone = np.concatenate([(w == 0).ravel() for w in drawn[level].values()])
        small = np.concatenate([(w == 0).ravel() for w in by_size[level].values()])
        assert gone.sum() == small.sum() == round(level * total)
        # Independent choices agree on level^2 + (1 - level)^2 of the weights.
        chance = level**2 + (1 - level) ** 2
        assert abs((gone == small).mean() - chance) < 5 * (chance * (1 - chance) / total) ** 0.5
        for weights in drawn[level].values():
            assert abs((weights == 0).mean() - level) < 5 * (level * (1 - level) / weights.size) ** 0.5


def test_random_without_finetuning_leaves_the_survivors_as_they_were(method, new_trial, dense, spied):
    before = matrices(dense)
    for _, network in method("random", finetune=False)(dense, LEVELS, new_trial()):
        for name, weights in matrices(network).items():
            assert np.array_equal(weights, np.where(weights == 0, 0, before[name]))
        assert torch.equal(network[-1].bias, dense[-1].bias)
    assert [call["steps"] for call in spied] == [0, 0]


def test_random_draws_from_the_trials_generator_alone(method, new_trial, dense):
    def zeros(seed):
        return [
            np.concatenate([(w == 0).ravel() for w in matrices(network).values()])
            for _, network in method("random", finetune=False)(dense, LEVELS, new_trial(seed=seed))
        ]

    first = zeros(1)
    torch.manual_seed(99)
    assert all(np.array_equal(a, b) for a, b in zip(first, zeros(1), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, zeros(2), strict=True))


def test_random_finetunes_for_the_whole_budget(method, new_trial, dense, spied):
    for level, network in method("random")(dense, LEVELS, new_trial(41)):
        gone = sum((w == 0).sum() for w in matrices(network).values())
        assert gone == round(level * sum(w.size for w in matrices(dense).values()))
    assert [call["steps"] for call in spied] == [20, 20]
    assert all(torch.equal(call["start"]["2.weight"], dense[2].weight) for call in spied)


def test_dense_is_the_network_itself(method, new_trial, dense, spied):
    trial = new_trial()
    given = trial.meter.attach(copy.deepcopy(dense))
    [(level, network)] = list(method("dense")(given, (0.0,), trial))
    assert level == 0.0 and not spied and trial.meter.passes == 0
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), dense.parameters(), strict=True))
