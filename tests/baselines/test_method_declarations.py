"""What every method of the suite says of itself: its search, its defaults, its source."""

from __future__ import annotations

import inspect
import re

import optuna
import pytest

from fipbench import registry
from fipbench.methods import LogUniform

TARGETS = registry.find_methods("sparsity")
OURS = {name: target for name, target in TARGETS.items() if registry.entry_origin("sparsity", name) == "fipbench"}
MARKS = {name: registry.load_factory(target).fipbench for name, target in OURS.items()}
# The suite's own controls: what they are taken from is another method of the suite, which they must name.
CONTROLS = {"dense": "dense network", "gradual-distill": "`gradual`", "random": "`magnitude-finetune`"}


@pytest.mark.parametrize("name", MARKS)
def test_defaults_lie_within_their_laws(name):
    mark = MARKS[name]
    for parameter, law in mark.search.items():
        assert law.admits(mark.defaults[parameter]), parameter


@pytest.mark.parametrize("name", MARKS)
def test_a_hundred_draws_lie_within_their_laws_and_make_a_method(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    factory = registry.load_factory(OURS[name])
    for _ in range(100):
        trial = study.ask()
        drawn = {parameter: law.suggest(parameter, trial) for parameter, law in MARKS[name].search.items()}
        assert all(MARKS[name].search[p].admits(value) for p, value in drawn.items())
        assert all(type(value) is type(MARKS[name].defaults[p]) for p, value in drawn.items())
        assert callable(factory(**drawn))


def test_all_that_train_search_the_same_learning_rates_and_rules():
    laws = {n: (m.search.get("learning_rate"), m.search.get("rule")) for n, m in MARKS.items()}
    trained = {n: pair for n, pair in laws.items() if pair != (None, None)}
    assert set(trained) == {"fip", "gradual", "gradual-distill", "lth", "magnitude-finetune", "random"}
    assert len(set(trained.values())) == 1
    assert isinstance(trained["fip"][0], LogUniform)


def test_published_settings_are_searched_for_by_nobody():
    assert not MARKS["fip-paper"].search and not MARKS["fip-authors-code"].search
    assert not MARKS["fip-paper"].defaults and not MARKS["fip-authors-code"].defaults


def test_only_the_dense_network_is_a_reference():
    assert [name for name, mark in MARKS.items() if mark.role != "method"] == ["dense"]


def docs(name):
    factory = registry.load_factory(OURS[name])
    return f"{inspect.getdoc(inspect.getmodule(factory))}\n{factory.__doc__ or ''}"


@pytest.mark.parametrize("name", MARKS)
def test_the_docstring_names_the_source(name):
    if name in CONTROLS:
        assert CONTROLS[name] in docs(name)
    else:
        assert re.search(r"\b(19|20)\d\d\b", docs(name)), docs(name)


@pytest.mark.parametrize("name", MARKS)
def test_a_method_is_one_small_file(name):
    module = inspect.getmodule(registry.load_factory(OURS[name]))
    assert len(inspect.getsource(module).splitlines()) <= 100
