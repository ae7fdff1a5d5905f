"""Every method of the robustness track, whoever brought it, is held to one contract."""

from __future__ import annotations

from pathlib import Path

import bad_ensembles
import pytest
import torch

from fipbench import conformance, registry
from fipbench.conformance import robustness as robustness_contract
from fipbench.conformance.sparsity import check_described, check_test_split_out_of_reach
from fipbench.tracks import robustness

BAD = Path(bad_ensembles.__file__)
INSTALLED = registry.method_names("robustness")
UNDESCRIBED = """from fipbench.methods import robustness
@robustness()
def undescribed():
    return lambda model, trial: []
"""


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return conformance.problem("robustness", tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    """Methods by name: what is installed, and those that are bad."""
    undescribed = tmp_path_factory.mktemp("plugin") / "undescribed.py"
    undescribed.write_text(UNDESCRIBED)
    targets = registry.find_methods("robustness", [str(BAD), str(undescribed)])
    return lambda name: registry.load_method("robustness", name, targets[name])


def name_of(check):
    return check.__name__.removeprefix("check_")


CHECKS = {name_of(check): check for check in robustness_contract.CHECKS}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", INSTALLED)
def test_method_keeps_the_contract(name, check, find, problem):
    CHECKS[check](find(name), problem)


def test_every_method_of_the_suite_is_held_to_it():
    assert {"adp", "deep-ensemble", "fge", "fip", "fip-paper", "single", "snapshot"} <= set(INSTALLED)


# ------------------------------------------------------------------------------------- the checks can fail

FAILS = [
    ("unseeded", "same_seed_same_record", "two runs with one seed differ in metrics"),
    ("deaf-to-the-seed", "other_seed_other_record", "seeds 0 and 1 give the same networks"),
    ("holds-the-test-split", "test_split_out_of_reach", "rows of the test inputs"),
    ("overspends", "budget_kept", "the task allows"),
    ("overspends-in-silence", "budget_kept", "the task allows"),
    ("swallows-the-limit", "budget_kept", "the task allows"),
    ("uncounted-forward", "cost_counted", "examples forward, but"),
    ("uncounted-attack", "cost_counted", "went through the matrices"),
    ("not-finite", "weights_finite", "weights of network 1 are not finite: 6.bias"),
    ("votes-twice", "members_differ", "networks 0 and 2 are one and the same"),
    ("one-short", "members_differ", "2 networks, 3 due"),
    ("trains-what-it-was-given", "input_untouched", "tensor 2.bias"),
    ("leaves-it-in-eval", "input_untouched", "training"),
    ("undescribed", "described", "has no docstring"),
]


@pytest.mark.parametrize(("name", "check", "words"), FAILS, ids=lambda value: value if " " not in value else "")
def test_a_bad_method_fails_the_check(name, check, words, find, problem):
    with pytest.raises(AssertionError, match=words):
        CHECKS[check](find(name), problem)


def test_every_check_is_seen_to_fail():
    assert set(CHECKS) == {check for _, check, _ in FAILS}


@pytest.mark.parametrize("check", CHECKS)
def test_a_method_that_raises_passes_no_check_of_its_work(check, find, problem):
    if CHECKS[check] is check_described:
        return
    if check == "members_differ":
        with pytest.raises(AssertionError, match="0 networks, 3 due"):
            CHECKS[check](find("raises"), problem)
        return
    with pytest.raises(AssertionError, match="raises failed with seed 0: ArithmeticError: no way"):
        CHECKS[check](find("raises"), problem)


# ----------------------------------------------------------------------------- the instruments see what is there


def test_the_harness_shows_test_items_to_networks_of_its_own_only(find, problem):
    """One that listens at the networks it gave back hears nothing."""
    problem.good_record(find("listens-at-its-networks"))
    assert not bad_ensembles.HEARD and not registry.load_factory(f"{BAD}:listens-at-its-networks").__globals__["HEARD"]
    check_test_split_out_of_reach(find("listens-at-its-networks"), problem)


def test_a_leak_of_the_harness_is_found(monkeypatch, find, problem):
    """Networks of the harness's own that carry the method's hooks."""

    networks, given = robustness._networks, []

    def noted(found):
        for network in networks(found):
            given.append(network)
            yield network

    def shown(base, weights, number):
        return given[number].eval().requires_grad_(False)

    leaky = robustness_contract.Problem(problem.task, problem.folder)
    with monkeypatch.context() as patch:
        patch.setattr(robustness, "_networks", noted)
        patch.setattr(robustness, "_own", shown)
        with pytest.raises(AssertionError, match="the test split is in reach"):
            check_test_split_out_of_reach(find("listens-at-its-networks"), leaky)


def test_the_count_is_of_examples(problem):
    """Training, a perturbation's gradient and a plain look, whose examples are known."""
    from fipbench import models

    model = models.build(problem.task.model, 0)
    with robustness_contract.Products(model) as products:
        model(torch.rand(7, 1, 8, 8)).sum().backward()
        x = torch.rand(5, 1, 8, 8, requires_grad=True)
        torch.autograd.grad(model(x).sum(), x)
        with torch.no_grad():
            model(torch.rand(100, 1, 8, 8))
    assert (products.forward, products.backward) == (112, 12)
