"""Magnitude pruning on a ramp, with labels or with FIP's own distance, against Zhu & Gupta (2017)."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from fipbench import fip
from fipbench.training import cross_entropy

LEVELS = (0.5, 0.9)
BOTH = pytest.mark.parametrize("name", ["gradual", "gradual-distill"])


def zeros(weights):
    return sum(int((w.detach().numpy() == 0).sum()) for w in weights.values() if w.ndim == 2)


def total(network):
    return sum(p.numel() for p in network.parameters() if p.ndim == 2)


@BOTH
def test_sparsity_follows_the_cubic_ramp_within_each_level(name, method, new_trial, dense, spied):
    list(method(name, ramp=0.5, scope="global")(dense, LEVELS, new_trial(82)))
    assert [call["steps"] for call in spied] == [20, 21, 20, 21]
    n, start = total(dense), 0.0
    for ramp, level in zip(spied[::2], LEVELS, strict=True):
        for step, weights in enumerate(ramp["path"], start=1):
            # Equation 1: s_f + (s_i - s_f) (1 - t / T)^3, here with T half of the level's 41 steps.
            target = level + (start - level) * max(0.0, 1 - step / 20.5) ** 3
            assert abs(zeros(weights) - target * n) <= 0.5 + 1e-6
        start = level


@BOTH
def test_after_the_ramp_the_mask_is_final(name, method, new_trial, dense, spied):
    found = dict(method(name, ramp=0.5)(dense, LEVELS, new_trial(80)))
    for settle, level in zip(spied[1::2], LEVELS, strict=True):
        masks = settle["masks"]
        for weights in (*settle["path"], dict(found[level].named_parameters())):
            for key, mask in masks.items():
                assert (weights[key][~mask] == 0).all() and (weights[key][mask] != 0).all()
        assert zeros(settle["end"]) == round(level * total(dense))


@BOTH
def test_a_level_goes_on_where_the_last_one_ended(name, method, new_trial, dense, spied):
    list(method(name)(dense, LEVELS, new_trial(80)))
    for before, after in itertools.pairwise(spied):
        assert all(torch.equal(before["end"][key], after["start"][key]) for key in before["end"])
    assert all(torch.equal(spied[0]["start"][key], value) for key, value in dense.named_parameters())


@BOTH
def test_a_weight_may_come_back_on_the_ramp_but_not_after_it(name, method, new_trial, dense, spied):
    list(method(name, ramp=0.8, learning_rate=0.03)(dense, (0.5,), new_trial(60)))
    ramp, settle = spied
    gone = [torch.cat([(w == 0).flatten() for k, w in point.items() if w.ndim == 2]) for point in ramp["path"]]
    assert any(bool((a & ~b).any()) for a, b in itertools.pairwise(gone))
    held = [torch.cat([(w == 0).flatten() for k, w in point.items() if w.ndim == 2]) for point in settle["path"]]
    assert all(torch.equal(held[0], h) for h in held)


@BOTH
def test_without_a_ramp_each_level_is_cut_at_once(name, method, new_trial, dense, spied):
    list(method(name, ramp=0.0)(dense, LEVELS, new_trial(40)))
    assert [call["steps"] for call in spied] == [0, 20, 0, 20]
    assert zeros(spied[1]["path"][0]) == round(0.5 * total(dense))


@BOTH
def test_what_is_yielded_does_not_change_afterwards(name, method, new_trial, dense):
    walk = method(name)(dense, LEVELS, new_trial(40))
    _, first = next(walk)
    before = {key: value.detach().clone() for key, value in first.named_parameters()}
    next(walk)
    assert all(torch.equal(before[key], value) for key, value in first.named_parameters())


def test_gradual_learns_from_labels(method, new_trial, dense, spied):
    list(method("gradual")(dense, LEVELS, new_trial(20)))
    assert all(call["loss"] is cross_entropy for call in spied)


@pytest.mark.parametrize("distance", sorted(fip.distance.DISTANCES))
def test_the_loss_of_gradual_distill_is_fips_own_distance(distance, method, new_trial, dense, spied):
    trial = new_trial(20)
    list(method("gradual-distill", distance=distance)(dense, LEVELS, trial))
    batch = next(trial.batches)
    other = copy.deepcopy(dense)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.8)
        wanted = fip.distance.DISTANCES[distance](other(batch.inputs), dense(batch.inputs))
        relabelled = batch._replace(labels=batch.labels.flip(0))
    for call in spied:
        loss = call["loss"]
        assert float(loss(other, batch)) == pytest.approx(float(wanted), rel=1e-5)
        assert float(loss(dense, batch)) == pytest.approx(0, abs=1e-4)
        assert float(loss(other, relabelled)) == float(loss(other, batch)), "labels must not count"


def test_the_two_differ_in_their_loss_alone(method, new_trial, dense, spied):
    same = {"learning_rate": 0.01, "rule": "adam", "ramp": 0.5, "scope": "global"}
    list(method("gradual", **same)(dense, LEVELS, new_trial(40)))
    list(method("gradual-distill", **same)(dense, LEVELS, new_trial(40)))
    half = len(spied) // 2
    for a, b in zip(spied[:half], spied[half:], strict=True):
        assert {k: a[k] for k in ("steps", "learning_rate", "rule")} == {
            k: b[k] for k in ("steps", "learning_rate", "rule")
        }
        assert (a["masks"] is None) == (b["masks"] is None)
    assert not torch.equal(spied[0]["end"]["2.weight"], spied[half]["end"]["2.weight"])
