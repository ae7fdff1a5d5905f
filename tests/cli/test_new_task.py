"""`fipbench new task` writes a file that runs as it is, says what its lines mean, and overwrites nothing."""

from __future__ import annotations

import pytest

from fipbench import registry, store
from fipbench.spec import TASK_TYPES, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

CHEAPEST = {
    "composition": "naive",
    "connectivity": "linear",
    "continual": "naive",
    "robustness": "single",
    "sparsity": "magnitude",
}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("track", TASK_TYPES)
def test_it_runs_as_it_is(track, call, tmp_path, results):
    answer = call("new", "task", "my-task", "--track", track, "--out", tmp_path)
    file = tmp_path / "my-task.toml"
    assert answer.code == 0 and answer.out.startswith(f"{file} ") and f"fipbench run {file}" in answer.out
    task = registry.read_task(str(file))
    assert (task.track, task.name, task.suites, task.validation) == (track, "my-task", ("quick",), 300)
    run = call("run", file, "--methods", CHEAPEST[track], "--seeds", 1)
    assert run.code == 0, run.err
    (record,) = store.read(results)[0]
    assert record.status == "ok" and task.headline in record.metrics


@pytest.mark.parametrize("track", TASK_TYPES)
def test_every_line_is_explained_and_the_examples_below_are_right(track, call, tmp_path):
    assert call("new", "task", "my-task", "--track", track, "--out", tmp_path).code == 0
    file = tmp_path / "my-task.toml"
    head, _, examples = file.read_text().partition("\n# Settings of a method")
    lines = head.splitlines()
    assert sum(line.startswith("#") for line in lines) >= 8
    # What the comments offer can be taken as it is.
    offered = "\n".join(line.removeprefix("# ") for line in examples.splitlines()[1:])
    file.write_text(head + "\n" + offered + "\n")
    assert call("run", file, "--seeds", 1, "--dry-run").code == 0


def test_one_that_extends_another_is_that_one_until_a_line_is_changed(call, tmp_path):
    assert call("new", "task", "mine", "--extends", "split-digits-5", "--out", tmp_path).code == 0
    file = tmp_path / "mine.toml"
    mine, parent = registry.read_task(str(file)), registry.read_task("split-digits-5")
    version = PROTOCOL_VERSIONS["continual"]
    assert task_digest(mine, version) == task_digest(parent, version) and mine.name == "mine" and not mine.tuned
    lines = file.read_text().splitlines()
    (budget,) = [n for n, line in enumerate(lines) if line.startswith("# budget ")]
    lines[budget] = "budget = { epochs = 3 }"
    file.write_text("\n".join(lines))
    changed = registry.read_task(str(file))
    assert (changed.budget.epochs, changed.budget.batch_size) == (3, parent.budget.batch_size)


@pytest.mark.parametrize("parent", ["digits-sparsity", "vgg16-cifar10-robustness-3", "bert-cola-sparsity"])
def test_all_that_can_be_changed_stands_there_commented(parent, call, tmp_path):
    """Every line that is offered may be taken back: the task is then the same still."""
    assert call("new", "task", "mine", "--extends", parent, "--out", tmp_path).code == 0
    file = tmp_path / "mine.toml"
    head, _, offered = file.read_text().partition("nor are published numbers.\n")
    assert "# budget " in offered and "# model " in offered
    taken = [line.removeprefix("# ") for line in offered.splitlines()]
    file.write_text(head + "nor are published numbers.\n" + "\n".join(taken) + "\n")
    version = PROTOCOL_VERSIONS[registry.read_task(parent).track]
    assert task_digest(registry.read_task(str(file)), version) == task_digest(registry.read_task(parent), version)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["my-task"], "name a track or a task to begin with: --track composition|connectivity|"),
        (["my-task", "--track", "speed"], "--track speed: expected composition, connectivity"),
        (["digits-sparsity", "--track", "sparsity"], "task 'digits-sparsity' is there already"),
        (["../x", "--track", "sparsity"], "task '../x': a name begins with a letter"),
        (["5x", "--track", "sparsity"], "a name begins with a letter"),
        (["x\ny", "--track", "sparsity"], "a name begins with a letter"),
        (["my-task", "--extends", "digits-sparsty"], "unknown task 'digits-sparsty': did you mean digits-sparsity"),
        (["my-task", "--extends", "digits-sparsity", "--track", "robustness"], "is of track sparsity; leave one"),
        (["taken", "--track", "sparsity"], "taken.toml: is there already"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_lost(words, said, call, tmp_path):
    (tmp_path / "taken.toml").write_text("kept")
    assert said in call("new", "task", *words, "--out", tmp_path).error
    assert (tmp_path / "taken.toml").read_text() == "kept" and len(list(tmp_path.iterdir())) <= 2


def test_a_folder_that_cannot_be_written(call):
    assert "cannot be written" in call("new", "task", "mine", "--track", "sparsity", "--out", "/dev/null").error
