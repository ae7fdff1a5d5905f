"""Deep ensemble, fast geometric ensembling, snapshots, FIP and the single network: what each does with its trial."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from fipbench import models, registry
from fipbench.fip.ensemble import PRESETS, ensemble
from fipbench.spec import Model, Recipe
from fipbench.tracks.robustness import Trial
from fipbench.training import Meter, cross_entropy, stream

NETWORK = Model(name="mlp", inputs=(1, 8, 8), hidden=(50, 20), outputs=10, mean=0.305, std=0.376)
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)


@pytest.fixture
def vote_trial(digits):
    """Makes trials that are alike in every batch: `vote_trial(steps=60, members=3)`."""

    def make(steps=60, members=3, seed=3):
        meter = Meter(2 * RECIPE.batch_size * steps)
        return Trial(
            train=digits,
            batches=stream(digits, RECIPE.batch_size, torch.Generator().manual_seed(seed)),
            batch_size=RECIPE.batch_size,
            members=members,
            recipe=RECIPE,
            generator=torch.Generator().manual_seed(seed + 1),
            meter=meter,
            fresh=lambda k: meter.attach(models.build(NETWORK, 100 + k)),
        )

    return make


def make(name, **params):
    return registry.load_factory(registry.find_methods("robustness")[name])(**params)


def state(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def same(a, b):
    return torch.equal(state(a), state(b))


def sgd_by_hand(network, batches, rates, momentum=0.9):
    """The network after each step of SGD with momentum at these rates."""
    w = copy.deepcopy(network)
    velocity = [torch.zeros_like(p) for p in w.parameters()]
    for rate in rates:
        gradients = torch.autograd.grad(cross_entropy(w, next(batches)), list(w.parameters()))
        with torch.no_grad():
            for p, v, g in zip(w.parameters(), velocity, gradients, strict=True):
                v.mul_(momentum).add_(g)
                p.sub_(rate * v)
        yield copy.deepcopy(w)


# ---------------------------------------------------------------------------------------- single and deep ensemble


def test_single_is_the_base_network_alone(dense, vote_trial):
    trial = vote_trial()
    [only] = make("single")(dense, trial)
    assert only is dense and trial.meter.passes == 0


def test_a_deep_ensemble_trains_the_fresh_networks_one_after_another(dense, vote_trial):
    found = list(make("deep-ensemble", learning_rate=0.02)(dense, vote_trial(24)))
    assert len(found) == 3 and same(found[0], dense)
    trial = vote_trial(24)
    for k in (0, 1):
        *_, wanted = sgd_by_hand(trial.fresh(k), trial.batches, [0.02] * 12)
        torch.testing.assert_close(state(found[1 + k]), state(wanted), atol=1e-5, rtol=1e-4)


def test_a_deep_ensemble_takes_the_whole_budget(dense, vote_trial):
    trial = vote_trial(25)
    list(make("deep-ensemble")(trial.meter.attach(copy.deepcopy(dense)), trial))
    assert trial.meter.passes == 2 * 32 * 24


# --------------------------------------------------------------------------------------------------------- FGE


def garipov(i, c, high, low):
    """Section 4 of the paper, iteration i from 1: t(i) = (mod(i - 1, c) + 1) / c."""
    t = ((i - 1) % c + 1) / c
    return (1 - 2 * t) * high + 2 * t * low if 0 < t <= 0.5 else (2 - 2 * t) * low + (2 * t - 1) * high


def test_the_rate_of_fge_is_the_papers_triangle():
    from fipbench.baselines.fge import triangle

    got = [0.05 * triangle(step, 10, 0.1) for step in range(30)]
    assert got == pytest.approx([garipov(i, 10, 0.05, 0.005) for i in range(1, 31)])
    assert got[4] == pytest.approx(0.005) and got[9] == pytest.approx(0.05)
    assert np.argmin(got[:10]) == 4 and np.argmax(got[:10]) == 9


def test_fge_keeps_the_network_at_every_minimum(dense, vote_trial):
    """25 steps: two cycles of ten and the first half of a third; members after steps 5, 15 and 25."""
    trial = vote_trial(25)
    found = make("fge", learning_rate=0.05, low=0.2)(trial.meter.attach(copy.deepcopy(dense)), trial)
    assert trial.meter.passes == 2 * 32 * 25
    rates = [garipov(i, 10, 0.05, 0.01) for i in range(1, 26)]
    path = list(sgd_by_hand(dense, vote_trial(25).batches, rates))
    assert len(found) == 3
    for member, place in zip(found, (5, 15, 25), strict=True):
        torch.testing.assert_close(state(member), state(path[place - 1]), atol=1e-5, rtol=1e-4)
    assert not any(same(member, dense) for member in found)


@pytest.mark.parametrize(("steps", "members"), [(25, 3), (26, 3), (29, 3), (30, 3), (100, 5), (9, 5), (10, 5)])
def test_the_longest_even_cycle_that_fits(steps, members):
    from fipbench.baselines.fge import cycle_length

    def needed(cycle):
        return (members - 1) * cycle + cycle // 2

    cycle = cycle_length(steps, members)
    assert cycle % 2 == 0 and needed(cycle) <= steps < needed(cycle + 2)


def test_fge_says_when_there_is_no_room():
    from fipbench.baselines.fge import cycle_length

    with pytest.raises(ValueError, match="8 steps are too few for 5 cycles"):
        cycle_length(8, 5)
    with pytest.raises(ValueError, match="low must lie between 0 and 1"):
        make("fge", low=1.5)


# ---------------------------------------------------------------------------------------------------- snapshots


def test_snapshots_are_the_ends_of_cosine_cycles(dense, vote_trial):
    """Two cycles of 12; alpha(t) = alpha_0 / 2 (cos(pi mod(t - 1, c) / c) + 1), t from 1 (the paper's equation 2)."""
    trial = vote_trial(25)
    found = make("snapshot", learning_rate=0.06)(trial.meter.attach(copy.deepcopy(dense)), trial)
    assert trial.meter.passes == 2 * 32 * 24
    rates = [0.03 * (math.cos(math.pi * ((t - 1) % 12) / 12) + 1) for t in range(1, 25)]
    assert rates[0] == rates[12] == 0.06 and rates[11] < 0.002
    path = list(sgd_by_hand(dense, vote_trial(25).batches, rates))
    assert len(found) == 3 and same(found[0], dense)
    for member, place in zip(found[1:], (12, 24), strict=True):
        torch.testing.assert_close(state(member), state(path[place - 1]), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- FIP


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rule": "sgd", "distance": "kl", "radius": 0.3, "kick": "global", "task_weight": 0.1},
        {"selection": "threshold", "kicks": 2},
        {"selection": "validation", "kicks": 4},
    ],
)
def test_fip_is_the_library_with_the_same_options(options, dense, vote_trial):
    asked = dict(registry.load_factory(registry.find_methods("robustness")["fip"]).fipbench.defaults) | options
    trial = vote_trial(150)
    found = make("fip", **options)(trial.meter.attach(copy.deepcopy(dense)), trial)
    assert 0.9 * trial.meter.limit < trial.meter.passes <= trial.meter.limit
    trial = vote_trial(150)
    wanted = trial.outputs(dense)
    networks = 3 * asked.pop("kicks") - 1
    probing = 0 if asked["selection"] == "spaced" else 3 * 2 * (networks + 1) * 32
    steps = (150 * 64 - 1200 - probing) // 64 // networks
    asked["optimizer"] = asked.pop("rule")
    library = ensemble(
        dense, trial.batches, 3, steps=steps, kicks=networks, probes=2, generator=trial.generator,
        reference=lambda batch: wanted[batch.positions], **asked,
    )  # fmt: skip
    assert len(found) == 3 and all(same(a, b) for a, b in zip(found, library, strict=True))


def test_the_published_reading_is_the_librarys_preset(dense, vote_trial):
    trial = vote_trial(150)
    found = make("fip-paper")(trial.meter.attach(copy.deepcopy(dense)), trial)
    trial = vote_trial(150)
    wanted = trial.outputs(dense)
    steps = (150 * 64 - 1200 - 3 * 2 * 6 * 32) // 64 // 5
    library = ensemble(
        dense, trial.batches, 3, steps=steps, kicks=5, probes=2, generator=trial.generator,
        reference=lambda batch: wanted[batch.positions], **PRESETS["paper"],
    )  # fmt: skip
    assert all(same(a, b) for a, b in zip(found, library, strict=True))


def test_the_defaults_of_the_method_and_of_the_library_are_one():
    import inspect

    library = {n: p.default for n, p in inspect.signature(ensemble).parameters.items()}
    ours = dict(registry.load_factory(registry.find_methods("robustness")["fip"]).fipbench.defaults)
    ours["optimizer"] = ours.pop("rule")
    ours.pop("kicks")  # counted for each member here, in all there
    assert {n: library[n] for n in ours} == ours


# ------------------------------------------------------------------------------------------------- fair searches


def test_all_that_train_search_the_same_rates_and_rules():
    marks = {n: registry.load_factory(t).fipbench for n, t in registry.find_methods("robustness").items()}
    laws = {n: (m.search.get("learning_rate"), m.search.get("rule")) for n, m in marks.items()}
    trained = {n: pair for n, pair in laws.items() if pair != (None, None)}
    assert set(trained) == {"adp", "deep-ensemble", "fge", "fip", "snapshot"} and len(set(trained.values())) == 1
    assert [n for n, m in marks.items() if m.role != "method"] == ["single"]
    assert not marks["fip-paper"].search and marks["fip-paper"].settings == "published"
