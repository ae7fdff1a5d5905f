"""The lottery ticket against Frankle & Carbin (2019) and the published levels of FIP's comparison."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from fipbench.baselines.lth import next_masks, plan_rounds

from fipbench import pruning, registry

PUBLISHED = (0.20, 0.67, 0.89, 0.96, 0.987, 0.99, 0.991, 0.994)
LENET = {"1": (300, 784), "2": (100, 300), "3": (10, 100)}


def matrices(network):
    return {name: value for name, value in network.named_parameters() if value.ndim == 2}


def zeros(weights):
    return sum(int((value.detach().numpy() == 0).sum()) for value in weights.values() if value.ndim == 2)


# ---------------------------------------------------------------------------------------- the plan of rounds


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.4, 0.6, 0.8, 0.99])
@pytest.mark.parametrize("levels", [PUBLISHED, (0.8, 0.9, 0.95, 0.98, 0.99), (0.5,), (0.001, 0.999)])
def test_rounds_meet_every_level_and_remove_no_more_than_the_fraction(levels, fraction):
    rounds = plan_rounds(levels, fraction)
    assert [r for r in rounds if r in levels] == list(levels)
    left = [1.0, *(1 - r for r in rounds)]
    assert rounds == sorted(set(rounds))
    removed = [1 - b / a for a, b in itertools.pairwise(left)]
    assert max(removed) <= fraction + 1e-5
    assert min(removed) > 0


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.4, 0.8])
def test_no_plan_of_fewer_rounds_would_do(fraction):
    levels, before, count = PUBLISHED, 1.0, 0
    for level in levels:
        needed = 0
        while before * (1 - fraction) ** needed > (1 - level) * (1 + 1e-6):
            needed += 1
        count += max(1, needed)
        before = 1 - level
    assert len(plan_rounds(levels, fraction)) == count


def test_the_levels_of_the_original_take_one_round_each():
    """20 % a round: 1 - 0.8^k, with no rounds between."""
    levels = [1 - 0.8**k for k in range(1, 24)]
    assert plan_rounds(levels, 0.2) == levels


def test_twenty_percent_a_round_leaves_the_original_counts_of_weights():
    """Pruned round by round, a network of 266,200 weights keeps 0.8^k of them, to rounding."""
    rng = np.random.default_rng(0)
    weights = {name: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for name, shape in LENET.items()}
    total, masks, kept = 266_200, None, 266_200
    assert sum(w.numel() for w in weights.values()) == total
    for k, level in enumerate(plan_rounds([1 - 0.8**k for k in range(1, 24)], 0.2), start=1):
        masks = next_masks(weights, level, masks, ())
        left = sum(int(m.sum()) for m in masks.values())
        assert abs(left - total * 0.8**k) <= 0.5
        assert kept - left <= math.ceil(0.2 * kept)  # as open_lth rounds: ceil of a fifth of what is left
        kept = left
    assert kept == round(total * 0.8**23) == 1571


@pytest.mark.parametrize(("level", "k"), [(0.20, 1), (0.67, 5), (0.89, 10), (0.96, 15), (0.991, 21), (0.994, 23)])
def test_published_levels_are_rounds_of_the_original(level, k):
    assert round(1 - 0.8**k, 3 if level > 0.97 else 2) == level


def test_two_published_levels_are_no_rounds_of_the_original():
    """98.7 and 99.0 % lie between 1 - 0.8^k for k = 19, 20, 21 (98.56, 98.85, 99.08), so the plan adds rounds."""
    near = [round(100 * (1 - 0.8**k), 1) for k in range(17, 24)]
    assert 98.7 not in near and 99.0 not in near
    assert len(plan_rounds(PUBLISHED, 0.2)) == 26 > 23


# ------------------------------------------------------------------------------------------------ the masks


def test_masks_are_nested_and_take_the_smallest_of_what_is_left():
    rng = np.random.default_rng(1)
    shapes = {"a": (40, 30), "b": (20, 40), "c": (10, 20)}
    masks, out = None, {name: np.zeros(shape, bool) for name, shape in shapes.items()}
    for level in (0.3, 0.7, 0.95):
        # After each round's training other weights are small.
        weights = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}
        masks = next_masks(weights, level, masks, ())
        sizes = {n: np.where(out[n], -1.0, np.abs(w.numpy())) for n, w in weights.items()}
        flat = np.sort(np.concatenate([s.ravel() for s in sizes.values()]))
        due = int(level * flat.size + 0.5)
        for name, mask in masks.items():
            gone = ~mask.numpy()
            assert (out[name] <= gone).all(), "a weight came back"
            assert np.array_equal(gone, sizes[name] <= flat[due - 1])
            out[name] = gone


@pytest.mark.parametrize("level", [0.5, 0.99, 0.994])
def test_the_output_layer_can_stay_dense(level):
    """99.4 % of 266,200: 1,597 weights remain, 1,000 of them in the output layer (63 %)."""
    rng = np.random.default_rng(2)
    weights = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in LENET.items()}
    masks = next_masks(weights, level, None, ("3",))
    left = {name: int(mask.sum()) for name, mask in masks.items()}
    assert left["3"] == 1000
    assert sum(left.values()) == 266_200 - int(level * 266_200 + 0.5)
    if level == 0.994:
        assert sum(left.values()) == 1597
    free = np.concatenate([weights[name].numpy().ravel() for name in ("1", "2")])
    kept = np.concatenate([masks[name].numpy().ravel() for name in ("1", "2")])
    assert np.abs(free[kept]).min() > np.abs(free[~kept]).max()


def test_a_level_that_the_dense_output_layer_forbids_is_refused():
    weights = {"a": torch.randn(10, 10), "b": torch.randn(10, 10)}
    with pytest.raises(ValueError, match="not even the output layer can stay dense: 120 zeros, 100 weights"):
        next_masks(weights, 0.6, None, ("b",))


# ------------------------------------------------------------------------------------------------ the method


@pytest.mark.parametrize("rewind", [0, 1])
@pytest.mark.parametrize("prune_output", [True, False])
def test_every_round_rewinds_the_survivors_and_trains_them_alone(
    rewind, prune_output, method, new_trial, dense, trained, spied
):
    levels, trial = (0.5, 0.8), new_trial(60)
    lth = method("lth", fraction=0.4, rewind=rewind, prune_output=prune_output)
    networks = dict(lth(dense, levels, trial))
    rounds = plan_rounds(levels, 0.4)
    assert len(spied) == len(rounds) == 4
    snapshot = trained[1][rewind]
    total = sum(w.numel() for w in matrices(dense).values())
    previous, ranked = None, {name: w.detach() for name, w in matrices(dense).items()}
    for call, level in zip(spied, rounds, strict=True):
        masks = call["masks"]
        assert call["steps"] == 60 // 4
        # What training starts from is the snapshot, whole; `fit` then zeroes what the mask leaves out.
        assert all(torch.equal(call["start"][name], snapshot[name]) for name in snapshot)
        assert sum(int((~m).sum()) for m in masks.values()) == int(level * total + 0.5)
        assert masks["6.weight"].all() == (not prune_output)
        # The weights that go are the smallest that the round before left, at the end of its training.
        free = [n for n in masks if prune_output or n != "6.weight"]
        alive = {n: torch.ones_like(masks[n]) if previous is None else previous[n] for n in free}
        stay = torch.cat([ranked[n][masks[n]].abs() for n in free])
        go = torch.cat([ranked[n][alive[n] & ~masks[n]].abs() for n in free])
        assert go.max() <= stay.min()
        assert all((masks[n] <= alive[n]).all() for n in free)
        # Zeros stay zero after every step, and the survivors move.
        for weights in call["path"]:
            assert all((weights[n][~masks[n]] == 0).all() for n in masks)
        assert all((call["end"][n][masks[n]] != snapshot[n][masks[n]]).any() for n in masks)
        previous, ranked = masks, call["end"]
    for level, network in networks.items():
        assert zeros(dict(network.named_parameters())) == int(level * total + 0.5)


def test_the_first_round_prunes_the_shared_dense_network(method, new_trial, dense, spied):
    """Its training is the first round of the original, and is not done a second time."""
    next(method("lth", fraction=0.8)(dense, (0.5,), new_trial(20)))
    mask = {n: m.numpy() for n, m in spied[0]["masks"].items()}
    sizes = np.concatenate([np.abs(w.detach().numpy()).ravel() for w in matrices(dense).values()])
    kept = np.concatenate([mask[n].ravel() for n in matrices(dense)])
    assert np.array_equal(kept, sizes > np.sort(sizes)[sizes.size // 2 - 1])


def test_the_whole_budget_is_spent_in_equal_rounds(method, new_trial, dense, spied):
    trial = new_trial(103)
    list(method("lth", fraction=0.4)(trial.meter.attach(copy.deepcopy(dense)), (0.5, 0.8), trial))
    assert [call["steps"] for call in spied] == [25] * 4
    assert trial.steps == 3


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 1.5])
def test_a_fraction_outside_its_range_is_refused(fraction, method):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        method("lth", fraction=fraction)


def test_an_epoch_without_snapshot_is_refused(method, new_trial, dense):
    with pytest.raises(ValueError, match=r"rewind must be one of the epochs \[0, 1\], got 2"):
        list(method("lth", rewind=2)(dense, (0.5,), new_trial()))


def test_the_published_reading_is_within_reach_of_the_task():
    """Every published level of the real task can be met with the output layer dense and 20 % a round."""
    task = registry.read_task("lenet300-mnist-sparsity")
    assert tuple(task.sparsities) == PUBLISHED
    weights = {name: torch.rand(shape) for name, shape in LENET.items()}
    masks = None
    for level in plan_rounds(PUBLISHED, 0.2):
        masks = next_masks(weights, level, masks, ("3",))
        assert sum(int((~m).sum()) for m in masks.values()) == pruning.zeros_at(level, 266_200)
