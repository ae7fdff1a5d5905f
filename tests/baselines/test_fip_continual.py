"""What FIP's methods of the continual track declare: presets as published, one search for all that share a memory."""

from __future__ import annotations

import optuna
import pytest

from fipbench import fip, registry
from fipbench.fip import distance

TARGETS = registry.find_methods("continual")
MARKS = {name: registry.load_factory(target).fipbench for name, target in TARGETS.items()}
FIP = ("fip", "fip-authors-code", "fip-bhattacharyya", "fip-kl", "fip-logits", "fip-paper", "fip-task-outputs")
REHEARSED = ("replay", "der", "der++", "fip", "fip-bhattacharyya", "fip-kl", "fip-logits", "fip-task-outputs")


def test_published_settings_are_the_presets_and_are_not_searched():
    for name in ("fip-paper", "fip-authors-code"):
        assert MARKS[name].settings == "published" and not MARKS[name].search
        assert set(MARKS[name].defaults) == {"memory"}
    paper, code = fip.CONTINUAL_PRESETS["paper"], fip.CONTINUAL_PRESETS["authors-code"]
    # The two-task list: lambda 1, Adam, eta 0.01, weight decay 2e-4.
    assert (paper["strength"], paper["fitting"]) == (
        1.0,
        {"rule": "adam", "learning_rate": 0.01, "weight_decay": 2e-4},
    )
    assert not paper.get("second_network") and paper["distance"] == "bhattacharyya"
    # The public notebook: a sum with an epsilon, the old network run beside, SGD at 0.001.
    assert (code["reduction"], code["epsilon"], code["second_network"]) == ("sum", 1e-10, True)
    assert (code["fitting"]["rule"], code["fitting"]["learning_rate"]) == ("sgd", 1e-3)


def test_memory_terms_are_searched_alike():
    """The weight of the memory's term over one range for replay, DER and FIP, the rate over another for all."""
    weights = {MARKS[n].search[p] for n in REHEARSED for p in ("strength", "alpha", "beta") if p in MARKS[n].search}
    assert len(weights) == 1
    assert all({"strength", "alpha"} & set(MARKS[name].search) for name in REHEARSED)
    rates = {mark.search["learning_rate"] for mark in MARKS.values() if mark.search}
    assert len(rates) == 1
    assert all("memory" not in mark.search for mark in MARKS.values())


def test_every_distance_that_is_searched_is_there():
    choice = MARKS["fip"].search["distance"]
    assert set(choice.values) <= set(distance.DISTANCES)
    assert {"bhattacharyya", "kl", "jensen_shannon", "squared_euclidean"} == set(choice.values)


@pytest.mark.parametrize("name", FIP)
def test_a_hundred_draws_make_a_method(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(100):
        trial = study.ask()
        drawn = {parameter: law.suggest(parameter, trial) for parameter, law in MARKS[name].search.items()}
        assert callable(registry.load_factory(TARGETS[name])(**drawn))


def test_an_unknown_distance_is_refused_when_the_method_is_made():
    with pytest.raises(ValueError, match="distance must be one of"):
        registry.load_factory(TARGETS["fip"])(distance="hellinger")
