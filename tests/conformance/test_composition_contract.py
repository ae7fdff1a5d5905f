"""Every method of the composition track, whoever brought it, is held to one contract."""

from __future__ import annotations

from pathlib import Path

import bad_operations
import pytest

from fipbench import conformance, registry
from fipbench.conformance import composition as composition_contract

BAD = Path(bad_operations.__file__)
INSTALLED = registry.method_names("composition")


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return conformance.problem("composition", tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def find():
    """Methods by name: what is installed, and those that are bad."""
    targets = registry.find_methods("composition", [str(BAD)])
    return lambda name: registry.load_method("composition", name, targets[name])


def name_of(check):
    return check.__name__.removeprefix("check_")


CHECKS = {name_of(check): check for check in composition_contract.CHECKS}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", INSTALLED)
def test_method_keeps_the_contract(name, check, find, problem):
    CHECKS[check](find(name), problem)


def test_every_method_of_the_suite_is_held_to_it():
    assert {"finetune-magnitude", "fip", "naive", "replay-gradual"} <= set(INSTALLED)


# ------------------------------------------------------------------------------------- the checks can fail

FAILS = [
    ("unseeded", "same_seed_same_record", "two runs with one seed differ in metrics"),
    ("deaf-to-the-seed", "other_seed_other_record", "seeds 0 and 1 give the same networks"),
    ("holds-the-test-split", "test_split_out_of_reach", "the test split is in reach"),
    ("overspends-in-silence", "budget_kept", "it is allowed"),
    ("uncounted", "cost_counted", "went through the matrices"),
    ("not-finite", "weights_finite", "after operation 1 weights are not finite"),
    ("one-zero-short", "sparsity_exact", "at sparsity 0.5, not"),
    ("remembers-the-last", "nothing_held", "by itself gives another network"),
    ("undescribed", "described", "has no docstring"),
]


@pytest.mark.parametrize(("name", "check", "words"), FAILS, ids=lambda value: value if " " not in value else "")
def test_a_bad_method_fails_the_check(name, check, words, find, problem):
    with pytest.raises(AssertionError, match=words):
        CHECKS[check](find(name), problem)


def test_every_check_is_seen_to_fail():
    assert set(CHECKS) == {check for _, check, _ in FAILS}


def test_a_method_that_raises_passes_no_check_of_its_work(find, problem):
    for check, run in CHECKS.items():
        if check != "described":
            with pytest.raises(AssertionError, match="raises failed with seed 0: ArithmeticError: no way"):
                run(find("raises"), problem)
