"""Every method of the continual track, whoever brought it, is held to one contract."""

from __future__ import annotations

from pathlib import Path

import bad_learners
import numpy as np
import pytest
import torch

from fipbench import conformance, registry
from fipbench.conformance import continual as contract
from fipbench.tracks import continual, parts
from fipbench.training import Examples

BAD = Path(bad_learners.__file__)
INSTALLED = registry.method_names("continual")
# Third parties' methods: a function in a file, and a plugin of Avalanche's, which FIP's own is.
PLUGINS = {
    "a-function": """from fipbench.methods import continual
@continual()
def a_function(*, learning_rate: float = 0.01):
    'Fine-tuning by hand.'
    def learn(model, experience, trial):
        trial.fit(model, experience, learning_rate=learning_rate)
    return learn
""",
    "fip-by-avalanche": """from fipbench.methods import continual
@continual()
def fip_by_avalanche(*, memory: int = 10):
    'FIP as a plugin.'
    from fipbench.fip import FIPPlugin
    return FIPPlugin(memory)
""",
}
UNDESCRIBED = """from fipbench.methods import continual
@continual()
def undescribed():
    return lambda model, experience, trial: None
"""


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return conformance.problem("continual", tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    """Methods by name: what is installed, what is in files, and those that are bad."""
    folder = tmp_path_factory.mktemp("plugin")
    files = [BAD]
    for name, text in {**PLUGINS, "undescribed": UNDESCRIBED}.items():
        files.append(folder / f"{name.replace('-', '_')}.py")
        files[-1].write_text(text)
    targets = registry.find_methods("continual", [str(file) for file in files])
    return lambda name: registry.load_method("continual", name, targets[name])


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", [*INSTALLED, *PLUGINS])
def test_method_keeps_the_contract(name, check, find, problem):
    check(find(name), problem)


def test_every_method_of_the_suite_is_held_to_it():
    fips = ["fip", "fip-authors-code", "fip-bhattacharyya", "fip-kl", "fip-logits", "fip-paper", "fip-task-outputs"]
    assert {*fips, "der", "der++", "joint", "lora", "naive", "replay"} <= set(INSTALLED)


# ------------------------------------------------------------------------------------- the checks can fail

FAILS = [
    ("unseeded", "same_seed_same_record", "two runs with one seed differ in metrics"),
    ("deaf-to-the-seed", "other_seed_other_record", "seeds 0 and 1 give the same networks"),
    ("holds-the-test-split", "test_split_out_of_reach", "rows of the test inputs"),
    ("knows-the-future", "later_tasks_out_of_reach", r"at task 1 \d{3} examples of later tasks are in reach"),
    ("hoards", "memory_kept", r"after task 1 it holds \d{3} examples of task 1; the memory is 0"),
    ("hoards-one-more", "memory_kept", r"after task 1 it holds 7 examples of task 1; the memory is 6"),
    ("hoards-what-it-is-not-asked", "memory_kept", r"after task 1 it holds 16 examples of task 1; the memory is 0"),
    ("begins-early", "first_network_kept", "has been learned already, but its network was changed"),
    ("overspends", "budget_kept", "overspends failed with seed 0: BudgetExceeded: more than the task's 11508 passes"),
    ("overspends-in-silence", "budget_kept", "the task allows"),
    ("swallows-the-limit", "budget_kept", "the task allows"),
    ("uncounted-forward", "cost_counted", "examples forward, but"),
    ("uncounted-in-a-pause", "cost_counted", "went through the matrices"),
    ("not-finite", "weights_finite", r"after task 2 weights are not finite: 6.bias"),
    ("swaps-the-labels", "data_untouched", "the labels of task 2"),
    ("changes-the-start", "data_untouched", "the initial 6.bias of task 1"),
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


def test_a_leak_of_the_harness_is_found(monkeypatch, find, problem):
    """Experiences that hold their part of the stream, test examples and all."""

    def leak(task, job, number, part):
        found = honest(task, job, number, part)
        object.__setattr__(found, "batches", kept(found.batches, part))
        return found

    def kept(batches, part):
        for batch in batches:
            yield batch
            assert part

    honest = continual._experience
    leaky = contract.Problem(problem.task, problem.folder)
    with monkeypatch.context() as patch:
        patch.setattr(continual, "_experience", leak)
        with pytest.raises(AssertionError, match="the test split is in reach"):
            contract.check_test_split_out_of_reach(find("naive"), leaky)


def test_a_leak_of_later_tasks_is_found(monkeypatch, find, problem):
    """The tasks as views of one tensor: a view leads to all of it."""

    def views(examples, classes):
        order = torch.argsort(examples.labels, stable=True)
        inputs, labels = examples.inputs[order], examples.labels[order]
        rows = torch.isin(labels, torch.tensor(classes)).nonzero().squeeze(1)
        return Examples(inputs[rows[0] : rows[-1] + 1], labels[rows[0] : rows[-1] + 1])

    leaky = contract.Problem(problem.task, problem.folder)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_only", views)
        with pytest.raises(AssertionError, match="examples of later tasks are in reach"):
            contract.check_later_tasks_out_of_reach(find("naive"), leaky)


def test_what_is_kept_is_counted_in_whatever_form():
    rng = np.random.default_rng(0)
    tasks = [rng.integers(0, 256, (20, 64)).astype(np.uint8) for _ in range(2)]
    test = rng.integers(0, 256, (3, 64)).astype(np.uint8)
    witness = contract.Witness(test, np.array([3, 1, 4]), tasks)
    pixels = torch.from_numpy(tasks[0])
    found = []
    for form, count in (
        (pixels[:7], 20),  # a view of all
        (pixels[:7].clone(), 7),
        (pixels[:7].float() / 255, 7),
        (pixels[:7].float(), 7),
        (torch.cat([pixels[:3], pixels[:3]]).reshape(6, 1, 8, 8), 3),
        (tasks[0][4:6].copy(), 2),
        (torch.zeros(5, 64), 0),
        (torch.from_numpy(tasks[0][:, :63].copy()), 0),
    ):
        assert witness.in_reach({"root": [{"a": (lambda kept=form: kept)}]}, found) == [count, 0], form.shape
    both = {"root": [torch.from_numpy(tasks[1][:4].copy()), pixels[:1].clone()]}
    assert witness.in_reach(both, found) == [1, 4] and not found
    assert witness.in_reach({"root": [torch.from_numpy(test[:2])]}, found) == [0, 0] and "rows of the test" in found[0]


def test_the_count_is_of_examples(problem):
    """The counter against a hand-written loop whose examples are known, a batch as large as the input among them."""
    from fipbench import models

    model = models.build(problem.task.model, 0)
    with contract.Products(model) as products:
        for n in (64, 5):
            model(torch.rand(n, 1, 8, 8)).sum().backward()
        with torch.no_grad():
            model(torch.rand(100, 1, 8, 8))
    assert (products.forward, products.backward) == (169, 69)


def test_a_problem_counts_as_the_task_says(problem):
    sizes = [len(part.train.labels) for part in problem.parts()]
    assert problem.base_cost() == (2 * (sizes[0] // 16) * 16,) * 2
    assert problem.limit() == 6 * 2 * (2 * sizes[0] + sizes[1] + sizes[2])
