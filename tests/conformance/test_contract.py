"""Every method of the sparsity track, whoever brought it, is held to one contract."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import bad_methods
import numpy as np
import pytest
import torch

from fipbench import registry
from fipbench.conformance import sparsity as contract
from fipbench.spec import Method
from fipbench.tracks import common, sparsity

BAD = Path(bad_methods.__file__)
UNDESCRIBED = """from fipbench.methods import sparsity
@sparsity()
def undescribed():
    return lambda model, sparsities, trial: iter(())
"""
PACKAGE = "magnitude-by-row"
INSTALLED = registry.method_names("sparsity")


@pytest.fixture(scope="module")
def problem(tiny_file, tmp_path_factory):
    return contract.Problem(registry.read_task(str(tiny_file)), tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def find(package, tmp_path_factory):
    """Methods by name: what is installed, and for as long as these tests run also the package."""
    sys.path.insert(0, str(package))
    importlib.invalidate_caches()
    registry._entries.cache_clear()
    undescribed = tmp_path_factory.mktemp("plugin") / "undescribed.py"
    undescribed.write_text(UNDESCRIBED)
    targets = registry.find_methods("sparsity", [str(BAD), str(undescribed)])
    yield lambda name: registry.load_method("sparsity", name, targets[name])
    sys.path.remove(str(package))
    sys.modules.pop("fipbench_magnitude_by_row", None)
    registry._entries.cache_clear()


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", [*INSTALLED, PACKAGE])
def test_method_keeps_the_contract(name, check, find, problem):
    check(find(name), problem)


def test_every_method_of_the_suite_is_held_to_it():
    ours = ["dense", "fip", "fip-authors-code", "fip-paper", "gradual", "gradual-distill", "lth", "magnitude"]
    assert {*ours, "magnitude-finetune", "random"} <= set(INSTALLED)


def test_the_package_comes_from_where_pip_put_it(find, package):
    method = find(PACKAGE)
    assert method.origin == "fipbench-magnitude-by-row"
    assert Path(sys.modules["fipbench_magnitude_by_row"].__file__).parent == package


# ------------------------------------------------------------------------------------- the checks can fail

FAILS = [
    ("unseeded", "same_seed_same_record", "two runs with one seed differ in metrics"),
    ("deaf-to-the-seed", "other_seed_other_record", "seeds 0 and 1 give the same networks"),
    ("holds-the-test-split", "test_split_out_of_reach", "rows of the test inputs"),
    ("overspends", "budget_kept", "the task allows"),
    ("overspends-in-silence", "budget_kept", "the task allows"),
    ("swallows-the-limit", "budget_kept", "the task allows"),
    ("uncounted-forward", "cost_counted", "examples forward, but"),
    ("uncounted-copy", "cost_counted", "went through the matrices"),
    ("not-finite", "weights_finite", r"at sparsity 0.5 weights are not finite: 6.bias"),
    ("one-zero-short", "sparsity_exact", "1044 zeros of 2090 at sparsity 0.5, not 1045"),
    ("one-level-short", "sparsity_exact", "yielded 1 of 2 sparsities"),
    ("prunes-in-place", "input_untouched", "tensor 2.weight"),
    ("leaves-it-in-eval", "input_untouched", "training"),
    ("freezes-it", "input_untouched", "requires_grad 6.bias"),
    ("undescribed", "described", "has no docstring"),
]


@pytest.mark.parametrize(("name", "check", "words"), FAILS, ids=lambda value: value if " " not in value else "")
def test_a_bad_method_fails_the_check(name, check, words, find, problem):
    with pytest.raises(AssertionError, match=words):
        getattr(contract, f"check_{check}")(find(name), problem)


def test_every_check_is_seen_to_fail():
    assert {check.__name__.removeprefix("check_") for check in contract.CHECKS} == {check for _, check, _ in FAILS}


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
def test_a_method_that_raises_passes_no_check_of_its_work(check, find, problem):
    if check is contract.check_described:
        return
    with pytest.raises(AssertionError, match="raises failed with seed 0: ArithmeticError: no way"):
        check(find("raises"), problem)


# ----------------------------------------------------------------------------- the instruments see what is there


def plant_in_train(monkeypatch, problem):
    def handed(task, job, cache):
        split = honest(task, job, cache)
        both = torch.cat([split.train.inputs, split.scoring.inputs])
        train = type(split.train)(both[: len(split.train.labels)], split.train.labels)  # a view of it all
        return dataclasses.replace(split, train=train)

    honest = common.only_split
    monkeypatch.setattr(sparsity, "only_split", handed)


def plant_in_the_stream(monkeypatch, problem):
    def batches(task, train, batch_size, generator):
        extra = torch.from_numpy(problem.test_split()[0][:3]).float() / 255
        for batch in honest(task, train, batch_size, generator):
            yield batch
            assert len(extra)

    honest = sparsity.batches
    monkeypatch.setattr(sparsity, "batches", batches)


def plant_in_the_meter(monkeypatch, problem):
    class Meter(sparsity.Meter):
        def __init__(self, *args):
            super().__init__(*args)
            self.when_done = lambda: labels

    labels = torch.from_numpy(problem.test_split()[1])
    monkeypatch.setattr(sparsity, "Meter", Meter)


def plant_in_a_module(monkeypatch, problem):
    monkeypatch.setattr(common, "_LAST", {"test": problem.test_split()[0]}, raising=False)


def plant_in_the_network(monkeypatch, problem):
    """The harness shows the test inputs to the very module that the method yielded."""

    def score(self, level, network, exact):
        sparsity.predict(network, self.examples)
        return honest(self, level, network, exact)

    honest = sparsity._Scorer.__call__
    monkeypatch.setattr(sparsity._Scorer, "__call__", score)


@pytest.mark.parametrize("plant", [plant_in_train, plant_in_the_stream, plant_in_the_meter, plant_in_a_module])
def test_a_leak_of_the_harness_is_found(plant, monkeypatch, find, problem):
    # A method that draws batches: what a stream has in its hands shows once it has begun.
    check_the_leak(plant, monkeypatch, find("random"), problem)
    contract.check_test_split_out_of_reach(find("random"), contract.Problem(problem.task, problem.folder))


def test_a_method_that_listens_at_its_network_is_found(monkeypatch, find, problem):
    check_the_leak(plant_in_the_network, monkeypatch, find("listens-at-the-network"), problem)


def check_the_leak(plant, monkeypatch, method, problem):
    leaky = contract.Problem(problem.task, problem.folder)
    with monkeypatch.context() as patch:
        plant(patch, problem)
        with pytest.raises(AssertionError, match="the test split is in reach"):
            contract.check_test_split_out_of_reach(method, leaky)


def test_the_witness_recognises_what_stands_for_the_test_split():
    inputs, labels = np.arange(5 * 64, dtype=np.uint8).reshape(5, 64) % 251, np.array([3, 1, 4, 1, 5])
    witness = contract.Witness(inputs, labels)
    pixels = torch.from_numpy(inputs)
    for planted in (
        pixels,
        pixels.reshape(5, 1, 8, 8),
        pixels[2:3],
        pixels.float() / 255,
        pixels.double(),
        torch.cat([torch.zeros(7, 64, dtype=torch.uint8), pixels])[:7],
        inputs,
        inputs.tobytes(),
        torch.from_numpy(labels),
    ):
        box = {"a": [(lambda kept=planted: kept)]}
        assert witness.search({"root": box}), type(planted)
    for innocent in (torch.zeros(4, 64), torch.ones(7, 64, dtype=torch.uint8), torch.arange(5), torch.rand(25, 64)):
        assert not witness.search({"root": [innocent]})


def test_the_count_is_of_examples(find, problem):
    """The counter against a hand-written loop whose examples are known."""
    from fipbench import models

    model = models.build(problem.task.model, 0)
    with contract.Products(model) as products:
        for n in (7, 5):
            model(torch.rand(n, 1, 8, 8)).sum().backward()
        with torch.no_grad():
            model(torch.rand(100, 1, 8, 8))
    assert (products.forward, products.backward) == (112, 12)


def test_a_problem_remembers_but_not_across_methods(find, problem):
    first, second = find("magnitude"), find("random")
    assert problem.record(first) is problem.record(first)
    assert problem.record(first).metrics != problem.record(second).metrics
    assert isinstance(first, Method)
