"""Networks that are masked by construction are found to be, and one whose worst case is known is told no lie about."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from audit_lab import SMALL, Two, all_of, bout

from fipbench.audit import own, searches
from fipbench.audit.findings import findings
from fipbench.audit.rounds import Compared

NEAR, FAR = 0.05, 0.12


def told(fight, beyond=None):
    return findings(fight.compared, fight.radii, beyond or {}, fight.flat(), fight.tried)


def fought(network, size=None, epsilons=(NEAR, FAR)):
    """A bout against the network from what it says unattacked, with attacks transferred from an unlike one."""
    fight = bout(network)
    found = all_of(fight, Two(seed=5), *([size] if size else []))
    for epsilon in epsilons:
        fight.at(epsilon, fight.right, found)
    return fight, found


def test_a_linear_network_is_lowered_to_its_closed_form_and_nothing_else_is_said():
    network = Two()
    fight, found = fought(network)
    for radius in fight.radii:
        truth = network.stands(fight.inputs, fight.labels, radius.epsilon).double().mean()
        assert 0.05 < truth < 0.95
        assert radius.found == radius.alone["gradient"] == pytest.approx(float(truth)) and radius.recorded == 1.0
        here = [one for one in fight.tried if one.epsilon == radius.epsilon]
        # What fell at the smaller radius is not found for the first time again.
        before = 1.0 if radius is fight.radii[0] else fight.radii[0].found
        assert sum(one.first for one in here) == round(60 * (before - radius.found))
        assert all(radius.alone[kind] >= radius.found for kind in ("noise", "query", "transfer"))
        # A kind alone is not given what others have found.
        assert radius.alone["noise"] > radius.alone["gradient"] + 0.1
    assert fight.flat() == {"cross-entropy": 0.0, "margin": 0.0}
    assert [fight.beyond(epsilon, found[:2]) for epsilon in (2 * FAR, 1.0)] == [
        float(network.stands(fight.inputs, fight.labels, epsilon).double().mean()) for epsilon in (2 * FAR, 1.0)
    ]
    assert told(fight, {"1": 0.0}) == []


def test_what_is_counted_is_what_the_network_was_asked():
    fight, _ = fought(Two(), epsilons=(NEAR,))
    [ascent] = [one for one in fight.tried if one.attack == "PGD, cross-entropy"]
    # Seven points are looked at and six slopes taken, of sixty images: 60 * 7, 60 * 6; the judge's look is the seventh.
    assert (ascent.given, ascent.backward) == (60, 360)
    assert ascent.forward == 60 * 7 + 60
    [noise] = [one for one in fight.tried if one.kind == "noise"]
    assert noise.backward == 0 and 60 < noise.forward <= 60 * 3


def test_recorded_falls_count_as_fallen():
    network = Two()
    fight = bout(network)
    recorded = fight.right.clone()
    recorded[:30] = False
    fight.at(NEAR, recorded, all_of(fight, Two(seed=5)))
    [radius] = fight.radii
    both = recorded & network.stands(fight.inputs, fight.labels, NEAR)
    assert radius.recorded == 0.5 and radius.found == float(both.double().mean()) < 0.5
    assert sum(one.first for one in fight.tried) == 30 - int(both.sum())
    assert max(one.given for one in fight.tried if one.kind == "gradient") == 30
    assert {one.given for one in fight.tried if one.kind != "gradient"} == {60}


def test_logits_times_a_million_leave_cross_entropy_without_a_gradient_and_margins_not():
    scaled = Two(scale=1e6)
    fight, _ = fought(scaled)
    assert fight.flat()["cross-entropy"] > 0.9 and fight.flat()["margin"] == 0.0
    assert any("cross-entropy has no gradient at" in text for text in told(fight))
    assert not any("no loss has a gradient" in text for text in told(fight))
    for radius in fight.radii:  # a factor changes no decision: the worst case is that of the network without it
        truth = Two().stands(fight.inputs, fight.labels, radius.epsilon).double().mean()
        assert radius.found == pytest.approx(float(truth))
    first = {one.attack: one.first for one in fight.tried if one.epsilon == NEAR}
    assert first["PGD, margin"] > first["PGD, cross-entropy"]


def test_a_quantised_input_masks_every_gradient_and_black_box_beats_white_box():
    stairs = Two(seed=1, stairs=4)
    fight, found = fought(stairs, replace(SMALL, guesses=200), epsilons=(0.25,))
    [radius] = fight.radii
    truth = float(stairs.stands(fight.inputs, fight.labels, 0.25).double().mean())
    assert truth <= radius.found <= radius.alone["query"] < radius.alone["gradient"]
    assert fight.flat() == {"cross-entropy": 1.0, "margin": 1.0}
    beyond = {"1": fight.beyond(1.0, found[:2])}
    said = told(fight, beyond)
    assert said[0].startswith("black box (Square) beats white box at ε 0.25: it fools ")
    assert said[0].endswith("gradients are masked")
    assert any(text.startswith("no loss has a gradient at 100% of the items") for text in said)
    assert any(text.startswith("at ε 1, where any image is allowed, gradient attacks leave") for text in said)


@pytest.mark.parametrize(("only", "other", "masked"), [(5, 0, True), (4, 0, False), (9, 3, False), (10, 2, True)])
def test_black_box_is_told_to_beat_white_box_by_an_exact_sign_test(only, other, masked):
    """P(5 of 5) = 1/32, P(4 of 4) = 1/16; P(>= 9 of 12) = 299/4096, P(>= 10 of 12) = 79/4096."""
    [said] = findings([Compared(0.1, "query", only, other)], [], {}, {}, [])
    assert ("gradients are masked" in said) is masked
    assert masked or said == f"black box (Square) fools {only} items at ε 0.1 that no gradient attack does"
    assert findings([Compared(0.1, "query", 0, 7)], [], {}, {}, []) == []


# ---------------------------------------------------------------------------------- attacks of a method's own


def with_own(network, attack, epsilon=0.25):
    fight = bout(network)
    fight.at(epsilon, fight.right, [own.search("mine", attack, fight.vote)])
    return fight, fight.tried[0]


def test_an_attack_that_knows_the_network_is_counted():
    stairs = Two(seed=1, stairs=4)

    def attack(vote, inputs, labels, epsilon, generator):
        return vote.members[0].corner(inputs, labels, epsilon)

    fight, tried = with_own(stairs, attack)
    truth = stairs.stands(fight.inputs, fight.labels, 0.25)
    assert tried.first == int((~truth).sum()) > 5 and not tried.refused and tried.kind == "own"
    assert fight.radii[0].found == pytest.approx(float(truth.double().mean()))
    assert told(fight)[-1].startswith(f"the method's own attack fools {tried.first} items at ε 0.25")
    assert not any("masked" in text for text in told(fight))


def leaves(vote, inputs, labels, epsilon, generator):
    return vote.members[0].corner(inputs, labels, 2 * epsilon)


def breaks(vote, inputs, labels, epsilon, generator):
    vote.members[0].weight.mul_(-1)
    return inputs


def raises(vote, inputs, labels, epsilon, generator):
    raise ArithmeticError("no idea\nat all")


@pytest.mark.parametrize(
    ("attack", "why"),
    [(leaves, "left the ball"), (breaks, "changed the weights"), (raises, "ArithmeticError: no idea")],
)
def test_one_that_cheats_or_fails_is_refused_and_costs_the_others_nothing(attack, why):
    network = Two()
    weights = network.weight.clone()
    fight, tried = with_own(network, attack, NEAR)
    assert why in tried.refused and "\n" not in tried.refused
    assert (tried.fooled, tried.first) == (0, 0) and fight.radii[0].found == 1.0
    assert torch.equal(network.weight, weights)
    assert told(fight) == [f"own: mine was refused at ε {NEAR:g}: {tried.refused}"]


def test_what_is_refused_in_a_later_start_counts_for_nothing():
    network, starts = Two(), []

    def find(inputs, labels, epsilon, seed):
        starts.append(seed)
        return network.corner(inputs, labels, epsilon * len(starts))

    fight = bout(network)
    fight.at(NEAR, fight.right, [searches.Search("twice", "own", find, restarts=2)])
    assert len(set(starts)) == 2 and fight.tried[0].fooled == 0 and fight.radii[0].found == 1.0
    starts.clear()
    fight = bout(network)
    fight.at(NEAR, fight.right, [searches.Search("once", "own", find)])
    assert fight.tried[0].fooled == int((~network.stands(fight.inputs, fight.labels, NEAR)).sum()) > 0


def test_what_an_attack_writes_into_its_arguments_spoils_nothing():
    def attack(vote, inputs, labels, epsilon, generator):
        labels.zero_()
        return inputs.zero_()

    network = Two()
    fight = bout(network)
    before = fight.inputs.clone(), fight.labels.clone()
    fight.at(NEAR, fight.right, [own.search("mine", attack, fight.vote)])
    assert torch.equal(fight.inputs, before[0]) and torch.equal(fight.labels, before[1])
    assert "left the ball" in fight.tried[0].refused
