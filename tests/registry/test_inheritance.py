"""A variant of a task is a few lines over another's."""

from __future__ import annotations

import pytest
from streams import TINY

from fipbench import registry
from fipbench.errors import UserError

FOUND = """\
[search]
task = "parent"
task_digest = "0"
split = "validation"
objective = "average_accuracy/class"
trials = 2
seeds = 1
budget_epochs = 2
law = "TPE"
[methods.naive]
params = { learning_rate = 0.5 }
version = "1"
score = 0.5
default_score = 0.5
trial = 0
trials = 2
failed = 0
examples_spent = 10
best_of = [0.5, 0.5]
"""


def write(folder, name, text):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def parent(tmp_path):
    write(tmp_path, "parent", TINY + "\n[methods.replay]\nstrength = 2.0\n")
    return tmp_path


def test_a_variant_has_what_it_says_and_the_rest_from_its_parent(parent):
    text = 'extends = "parent"\nsuites = ["standard"]\nbudget = { epochs = 7 }\n[methods.replay]\nlearning_rate = 0.1\n'
    variant = registry.read_task(write(parent, "variant", text))
    task = registry.read_task(str(parent / "parent.toml"))
    assert (variant.name, variant.suites, task.suites) == ("variant", ("standard",), ("quick",))
    assert (variant.budget.epochs, variant.budget.batch_size) == (7, task.budget.batch_size)
    assert (variant.stream, variant.model, variant.title) == (task.stream, task.model, task.title)
    assert variant.methods["replay"] == {"learning_rate": 0.1}


def test_results_of_another_protocol_are_not_inherited(parent):
    (parent / "found.toml").write_text(FOUND)
    published = (
        '\n[published.naive]\nmetric = "average_accuracy/class"\nvalue = 0.2\nmargin = 0.1\nsource = "a paper"\n'
    )
    write(parent, "parent", 'tuned = "found.toml"\nclaims = ["c"]\n' + TINY + published)
    task = registry.read_task(str(parent / "parent.toml"))
    assert task.tuned and task.published and task.claims
    variant = registry.read_task(write(parent, "variant", 'extends = "parent"\nsuites = ["quick"]\n'))
    assert not variant.tuned and not variant.published and not variant.claims and not variant.methods


def test_of_data_nothing_is_mixed(parent):
    text = 'extends = "parent"\nsuites = ["quick"]\ndata = { embedded = "digits", variants = {} }\n'
    assert registry.read_task(write(parent, "variant", text)).data.variants == {}


def test_a_variant_of_a_variant(parent):
    write(parent, "child", 'extends = "parent"\nsuites = ["quick"]\nprobes = 5\n')
    task = registry.read_task(write(parent, "grandchild", 'extends = "child"\nsuites = ["quick"]\nvalidation = 100\n'))
    assert (task.probes, task.validation) == (5, 100)


def test_an_installed_task_may_be_extended(tmp_path):
    task = registry.read_task(write(tmp_path, "mine", 'extends = "split-digits-5"\nsuites = ["quick"]\nprobes = 7\n'))
    assert task.probes == 7 and task.stream == registry.read_task("split-digits-5").stream


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "none"}, r"unknown task 'none'.*a\.toml, field 'extends'"),
        ({"a": "a"}, r"a\.toml: field 'extends': 'a' extends this task in turn"),
        ({"b": "a", "a": "b"}, r"extends this task in turn"),
        ({"a": "../parent"}, r"unknown task '\.\./parent'"),
    ],
)
def test_a_parent_that_cannot_be(files, words, parent):
    for name, other in files.items():
        path = write(parent, name, f'extends = "{other}"\nsuites = ["quick"]\n')
    with pytest.raises(UserError, match=words):
        registry.read_task(path)


def test_classes_a_task_in_numeric_order(tmp_path):
    text = TINY.replace("classes = [[0, 1], [2, 3], [4, 5]]", "classes_per_task = 4")
    task = registry.read_task(write(tmp_path, "cut", text))
    assert task.stream.classes == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9))
    long = TINY.replace("classes = [[0, 1], [2, 3], [4, 5]]", "classes = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]")
    assert registry.read_task(write(tmp_path, "long", long)).stream == task.stream


def test_both_ways_at_once_are_refused(tmp_path):
    text = TINY.replace("stream  = { classes", "stream  = { classes_per_task = 4, classes")
    with pytest.raises(UserError, match=r"field 'stream': .*classes_per_task"):
        registry.read_task(write(tmp_path, "both", text))
