"""Every method of the connectivity track, whoever brought it, is held to one contract."""

from __future__ import annotations

from pathlib import Path

import bad_paths
import pytest
import torch

from fipbench import conformance, registry
from fipbench.conformance import connectivity as connectivity_contract
from fipbench.conformance.sparsity import check_described

BAD = Path(bad_paths.__file__)
INSTALLED = registry.method_names("connectivity")
UNDESCRIBED = """from fipbench.methods import connectivity
@connectivity()
def undescribed():
    return lambda first, second, trial: [second]
"""


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return conformance.problem("connectivity", tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    """Methods by name: what is installed, and those that are bad."""
    undescribed = tmp_path_factory.mktemp("plugin") / "undescribed.py"
    undescribed.write_text(UNDESCRIBED)
    targets = registry.find_methods("connectivity", [str(BAD), str(undescribed)])
    return lambda name: registry.load_method("connectivity", name, targets[name])


CHECKS = {check.__name__.removeprefix("check_"): check for check in connectivity_contract.CHECKS}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", INSTALLED)
def test_method_keeps_the_contract(name, check, find, problem):
    CHECKS[check](find(name), problem)


def test_every_method_of_the_suite_is_held_to_it():
    assert {"bezier", "fip", "fusion", "linear", "rebasin"} <= set(INSTALLED)


FAILS = [
    ("unseeded", "same_seed_same_record", "two runs with one seed differ in metrics"),
    ("holds-the-test-split", "test_split_out_of_reach", "rows of the test inputs"),
    ("overspends", "budget_kept", "the task allows"),
    ("products-for-nothing", "cost_counted", "says 0 examples forward of its own, but 32 went through"),
    ("not-finite", "weights_finite", r"weights of network 1 are not finite: 2\.weight"),
    ("goes-round", "leads_somewhere", "begins and ends at the same network"),
    ("trains-what-it-was-given", "input_untouched", r"tensor 2\.bias"),
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
    if CHECKS[check] is not check_described:
        with pytest.raises(AssertionError, match="raises failed with seed 0: ArithmeticError: no way"):
            CHECKS[check](find("raises"), problem)


def test_the_count_is_of_examples(problem):
    """Training, a product with the Jacobian each way, and the Jacobian itself, whose passes are known."""
    from fipbench import models
    from fipbench.fip import metric

    model, x = models.build(problem.task.model, 0), torch.rand(7, 1, 8, 8)
    with connectivity_contract.Products(model) as products:
        model(x).sum().backward()
    assert (products.forward, products.backward) == (7, 7)
    g = metric.metric_of(model, x)
    for work, passes in (
        (lambda: g.push(g.weights), 7),
        (lambda: g.pull(torch.ones(70)), 7),
        (lambda: metric.gram(g), 70),
    ):
        with connectivity_contract.Products(model) as products:
            work()
        assert (products.forward, products.backward) == (passes, passes)
