"""Continual tasks as files: what they may say, what is refused with file and field, and what is in their digests."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET
from streams import write_stream

from fipbench import reading, registry, store
from fipbench.errors import UserError
from fipbench.spec import ContinualTask, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

PERMUTED = {"stream": '{ permutations = 3, score = ["domain"] }', "headline": '"average_accuracy/domain"'}
MODEL = 'model = { name = "mlp", inputs = [1, 8, 8], hidden = [20], outputs = 10, mean = 0.305, std = 0.376 }'


def read(folder, **fields) -> ContinualTask:
    return registry.read_task(str(write_stream(folder, **fields)))


def test_a_stream_is_read(tmp_path):
    task = read(tmp_path)
    assert isinstance(task, ContinualTask)
    assert task.stream.classes == ((0, 1), (2, 3), (4, 5)) and task.stream.length == 3
    assert task.headlines == ["average_accuracy/class", "average_accuracy/task"]
    assert (task.memories, task.probes, task.budget.factor) == ((4, 10), 40, 5.0)
    permuted = read(tmp_path, **PERMUTED)
    assert permuted.stream.length == 3 and permuted.headlines == ["average_accuracy/domain"]


def test_the_installed_streams_are_read():
    found = {name: registry.read_task(name) for name in registry.task_files()}
    streams = {name: task for name, task in found.items() if isinstance(task, ContinualTask)}
    assert {"split-digits-5", "mnist-fashion-10k", "split-mnist-5", "permuted-mnist-5"} <= set(streams)
    for task in streams.values():
        labels = [label for classes in task.stream.classes for label in classes]
        assert len(labels) == len(set(labels)) and task.stream.length >= 2
        # A method with a memory must be able to pay for it.
        assert task.budget.factor is not UNSET and task.budget.factor >= 2
    assert streams["mnist-fashion-10k"].stream.length == len(streams["mnist-fashion-10k"].sources) == 2
    # Pinned, so that a task of another version cannot take their names.
    assert streams["split-digits-5"].stream.classes == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))


def test_published_experiments_are_of_all_their_data():
    """A task that extends a smaller one takes the part of the data from it that the smaller one is of."""
    for name, file in registry.task_files().items():
        task = registry.read_task(name)
        if "paper" in task.suites:
            said = {key for key in ("subset", "test_subset") if getattr(task, key) is not UNSET}
            assert said <= {"test_subset"} & reading.read_toml(file).keys(), name


def stream(classes="[[0, 1], [2, 3], [4, 5]]", score='["class"]', more=""):
    return {"stream": f"{{ classes = {classes}, score = {score}{more} }}"}


EMPTY = "stream: expected one of 'classes' and 'permutations'"
SCORE = "stream.score: expected 'class', 'task' or both with classes, 'domain' with permutations"
WRONG = [
    (stream("[[0, 1], [1, 2]]"), "stream.classes: class 1 is in task 1 and in task 2; drop one"),
    (stream("[[0, 1], [2, 3], [4, 0]]"), "stream.classes: class 0 is in task 1 and in task 3; drop one"),
    (stream("[[0, 0], [1, 2]]"), "stream.classes: class 0 is in task 1 and in task 1; drop one"),
    (stream("[[0, 1], [2, 10]]"), "stream.classes: class 10 has no output; the model has 10"),
    (stream("[[0, 1], []]"), "stream.classes: a task without classes"),
    (stream("[[], [0, 1]]"), "stream.classes: a task without classes"),
    (stream("[[0, 1]]"), "stream: expected two tasks or more, got 1"),
    ({**PERMUTED, "stream": '{ permutations = 1, score = ["domain"] }'}, "stream: expected two tasks or more, got 1"),
    ({"stream": '{ score = ["class"] }'}, EMPTY),
    (stream(more=", permutations = 3"), EMPTY),
    ({**stream(score='["domain"]'), "headline": '"average_accuracy/domain"'}, SCORE),
    (stream(score='["class", "domain"]'), SCORE),
    (stream(score='["class", "class"]'), SCORE),
    ({**PERMUTED, "stream": '{ permutations = 3, score = ["domain", "task"] }'}, SCORE),
    ({**PERMUTED, "stream": '{ permutations = 3, score = ["domain", "class"] }'}, SCORE),
    ({"stream": '{ permutations = 3, score = ["class"] }'}, SCORE),
    ({"memories": "[10, 4]"}, "memories: expected strictly increasing numbers of examples"),
    ({"memories": "[4, 4]"}, "memories: expected strictly increasing numbers of examples"),
    ({"memories": "[]"}, "memories: expected strictly increasing numbers of examples"),
    (
        {"base": "{ epochs = 2, batch_size = 16, learning_rate = 0.05, snapshots = [1] }"},
        "base.snapshots: expected 0 among them",
    ),
    (
        {**PERMUTED, "stream": '{ permutations = 3, score = ["domain"], softmax = "task" }'},
        "stream.permutations: expected one data set and softmax 'all'",
    ),
    ({**PERMUTED, "data": '["digits", "digits"]'}, "stream.permutations: expected one data set and softmax 'all'"),
    # What the types say.
    (stream(score='["classes"]'), "stream.score[0]: Invalid enum value 'classes'"),
    (stream("[[0, -1], [2, 3]]"), "stream.classes[0][1]: Expected `int` >= 0"),
    (stream(more=', softmax = "own"'), "stream.softmax: Invalid enum value 'own'"),
    (stream(more=", order = 3"), "stream: Object contains unknown field `order`; did you mean score?"),
    ({"memories": "[0, 4]"}, "memories[0]: Expected `int` >= 1"),
    ({"probes": "0"}, "probes: Expected `int` >= 1"),
    ({"budget": "{ epochs = 2, batch_size = 16, factor = 0.5 }"}, "budget.factor: Expected `float` >= 1.0"),
    ({"budget": "{ epochs = 2, batch_size = 16, factor = nan }"}, "budget.factor: expected a finite number"),
]


@pytest.mark.parametrize(("fields", "problem"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_stream_is_refused_with_file_and_field(fields, problem, tmp_path):
    file = write_stream(tmp_path, **fields)
    field, _, words = problem.partition(": ")
    with pytest.raises(UserError, match=f"^{re.escape(f'{file}: field {field!r}: {words}')}$"):
        registry.read_task(str(file))


def test_a_headline_that_is_not_scored(tmp_path):
    file = write_stream(tmp_path, **stream(score='["task"]'))
    with pytest.raises(UserError, match=r"unknown metric 'average_accuracy/class' in .*, field 'headline': did you "):
        registry.read_task(str(file))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (stream("[[0, 1], [1, 2]]"), "field 'stream.classes': class 1 is in task 1 and in task 2; drop one"),
        ({"memories": "[10, 4]"}, "field 'memories': expected strictly increasing"),
        (stream("[[0, 1], [2, 30]]"), "class 30 has no output"),
    ],
)
def test_at_the_command_line_it_is_one_line_and_code_2(fields, words, tmp_path, call, results):
    file = write_stream(tmp_path, **fields)
    for command in (("run", file, "--dry-run"), ("run", file, "--methods", "naive", "--seeds", "1"), ("show", file)):
        error = call(*command).error
        assert str(file) in error and words in error
    assert not results.exists() or not list(results.glob("*.json"))


def test_a_field_that_is_missing_is_named(tmp_path):
    file = write_stream(tmp_path, memories="")
    with pytest.raises(UserError) as caught:
        registry.read_task(str(file))
    assert str(caught.value) == f"{file}: Object missing required field `memories`"


def test_a_stream_in_another_track_is_refused(tmp_path):
    file = write_stream(tmp_path, track='"sparsity"')
    with pytest.raises(UserError, match="Object contains unknown field `stream`"):
        registry.read_task(str(file))
    sparse = re.sub(r"^(stream|memories|probes|headline) .*\n", "", file.read_text(), flags=re.M)
    file.write_text(
        sparse.replace('data    = "digits"', 'data = ["digits", "digits"]') + "headline = 'area'\nsparsities = [0.5]\n"
    )
    with pytest.raises(UserError, match=r"field 'data': a sparsity task has one data set"):
        registry.read_task(str(file))


# ------------------------------------------------------------------------------------------------- digests

DECIDES = {
    "stream": '{ classes = [[0, 1], [4, 5], [2, 3]], score = ["class", "task"] }',
    "memories": "[4, 11]",
    "probes": "41",
    "budget": "{ epochs = 2, batch_size = 16, factor = 6 }",
    "base": "{ epochs = 2, batch_size = 16, learning_rate = 0.05, snapshots = [0], clip = 1.0 }",
    "data": '["digits", "digits"]',
    "validation": "301",
}


def digest(task):
    return task_digest(task, PROTOCOL_VERSIONS[task.track])


@pytest.mark.parametrize("field", DECIDES)
def test_the_protocol_is_in_the_digest(field, tmp_path):
    assert digest(read(tmp_path)) != digest(read(tmp_path, **{field: DECIDES[field]}))


def test_softmax_and_score_are_in_it(tmp_path):
    plain = read(tmp_path)
    others = [stream(score='["class", "task"]', more=', softmax = "task"'), stream(score='["class"]')]
    assert len({digest(plain), *(digest(read(tmp_path, **other)) for other in others)}) == 3


def test_one_data_set_in_a_list_is_not_what_it_is_alone(tmp_path):
    """It is another field's value, so it must not take the other's records."""
    assert digest(read(tmp_path)) != digest(read(tmp_path, data='["digits"]'))


def test_fields_that_are_not_set_are_in_no_digest():
    """So that a new one voids no older result."""

    def keys(value):
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list | tuple) else set()

    optional = {"clip", "factor", "kind", "channels", "vocabulary", "width", "depth", "heads", "truncate", "subset"}
    optional |= {"test_subset"}
    for name in ("digits-sparsity", "lenet300-mnist-sparsity"):
        assert not keys(msgspec.to_builtins(registry.read_task(name))) & optional
    assert keys(msgspec.to_builtins(registry.read_task("split-digits-5"))) & optional == {"clip", "factor"}


def test_the_committed_boards_digests_are_todays():
    """The seams for the other tracks voided no record of the first."""
    records, problems = store.read(Path(__file__).parents[2] / "leaderboards")
    assert not problems
    for name in ("digits-sparsity", "reviews-sparsity"):
        found = {record.job.task_digest for record in records if record.job.task == name}
        assert found == {digest(registry.read_task(name))}
