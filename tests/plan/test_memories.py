"""Memories as rows of their own, and method names with pluses, wherever a person may write one."""

from __future__ import annotations

import json
import tomllib

import msgspec
import pytest
from streams import Bench, write_stream

from fipbench import api, plan, registry, store, tune, worker
from fipbench.errors import UserError
from fipbench.executors import local
from fipbench.spec import Budget, id_of

KEEPERS = {
    "replay",
    "der",
    "der++",
    "fip",
    "fip-authors-code",
    "fip-bhattacharyya",
    "fip-kl",
    "fip-logits",
    "fip-paper",
    "fip-task-outputs",
}


@pytest.fixture
def file(tmp_path):
    return write_stream(tmp_path)


def rows(file, **given):
    return plan.task_rows(registry.read_task(str(file)), **given)


def memories(file, label, **given):
    return [row.params.get("memory") for row in rows(file, **given) if row.label == label]


def test_a_method_with_a_memory_has_a_row_for_each_that_the_task_allows(file):
    found = rows(file)
    labels = {row.label for row in found}
    assert labels == set(registry.method_names("continual")) >= KEEPERS | {"naive", "joint", "lora"}
    for label in labels:
        own = [row.params.get("memory") for row in found if row.label == label]
        has = "memory" in next(row for row in found if row.label == label).method.defaults
        assert own == ([4, 10] if has else [None]), label
        assert has or label not in KEEPERS
    assert found[0].label == "joint"  # the reference comes first


def test_rows_of_one_method_differ_in_the_memory_alone(file):
    small, large = (row for row in rows(file) if row.label == "fip")
    assert {**small.params, "memory": 10} == large.params
    assert (small.method, small.settings) == (large.method, large.settings)


def test_each_memory_is_a_job_of_its_own(file):
    tickets = plan.tickets(api.request(str(file), methods=["replay", "naive"], seeds=2))
    assert [(t.job.label, t.job.params.get("memory"), t.job.seed) for t in tickets] == [
        ("naive", None, 0),
        ("naive", None, 1),
        *(("replay", memory, seed) for memory in (4, 10) for seed in (0, 1)),
    ]
    assert len({id_of(t.job) for t in tickets}) == 6


def test_a_memory_that_is_chosen_is_the_only_one(file, tmp_path):
    assert memories(file, "replay", overrides={"replay": {"memory": "4"}}) == [4]
    assert memories(file, "der", overrides={"replay": {"memory": "4"}}) == [4, 10]
    own = write_stream(tmp_path, "own", more="[methods.replay]\nmemory = 10\n")
    assert memories(own, "replay") == [10]
    assert memories(own, "replay", overrides={"replay": {"memory": "4"}}) == [4]


@pytest.mark.parametrize("memory", [5, 0, -4, 11])
def test_a_memory_that_the_task_does_not_allow(memory, file, tmp_path, call):
    words = f"replay.memory={memory}: task 'stream' allows 4, 10"
    with pytest.raises(UserError, match=words):
        rows(file, overrides={"replay": {"memory": str(memory)}})
    assert call("run", file, "--methods", "replay", "--set", f"replay.memory={memory}").error == words
    own = write_stream(tmp_path, more=f"[methods.replay]\nmemory = {memory}\n")
    with pytest.raises(UserError, match=words):
        rows(own)


def test_a_method_without_a_memory_cannot_be_given_one(file):
    with pytest.raises(UserError, match="unknown parameter 'memory' of 'naive' in --set"):
        rows(file, overrides={"naive": {"memory": "4"}})


def test_a_variant_has_its_memories_too(tmp_path):
    own = write_stream(
        tmp_path,
        more='[methods.strong]\nuse = "replay"\nstrength = 9.0\n'
        '[methods.strong-4]\nuse = "replay"\nstrength = 8.0\nmemory = 4\n',
    )
    assert (memories(own, "strong"), memories(own, "strong-4"), memories(own, "replay")) == ([4, 10], [4], [4, 10])


def test_a_variant_that_is_another_rows_twin_is_refused(tmp_path):
    own = write_stream(tmp_path, more='[methods.twin]\nuse = "replay"\nmemory = 10\n')
    with pytest.raises(UserError, match="'replay' and 'twin' have the same parameters"):
        plan.tickets(api.request(str(own), seeds=1))


# ------------------------------------------------------------------------------------------------ names: der++


def test_a_name_with_pluses_at_the_command_line(file, call, results):
    answer = call("run", file, "--methods", "der++", "--set", "der++.beta=1", "--set", "der++.memory=4", "--seeds", "1")
    assert answer.code == 0, answer.err
    (path,) = results.glob("*.json")
    assert path.name.startswith("stream--der++--s0--")
    record = json.loads(path.read_text())
    assert record["status"] == "ok" and record["job"]["settings"] == "user"
    params = record["job"]["params"]
    assert (params["beta"], params["alpha"], params["memory"]) == (1.0, 0.5, 4)
    assert store.read(results)[0][0].job.method == "der++"


@pytest.mark.parametrize("head", ['[methods."der++"]', "methods.'der++'"])
def test_a_name_with_pluses_in_a_task(head, tmp_path):
    text = f"{head}\nbeta = 2\n" if head.startswith("[") else f"{head} = {{ beta = 2 }}\n"
    own = write_stream(tmp_path, more=text)
    (small, large) = (row for row in rows(own) if row.label == "der++")
    assert small.params["beta"] == large.params["beta"] == 2.0 and type(small.params["beta"]) is float
    assert small.settings == "task"
    variant = write_stream(tmp_path, "variant", more='[methods.mine]\nuse = "der++"\nbeta = 2.0\n')
    assert memories(variant, "mine") == [4, 10]


def test_der_and_its_successor_are_two_methods(file):
    first, second = (next(row.method for row in rows(file) if row.label == name) for name in ("der", "der++"))
    assert first.target != second.target and set(second.defaults) - set(first.defaults) == {"beta"}
    with pytest.raises(UserError, match=r"unknown method 'der\+': did you mean der"):
        plan.tickets(api.request(str(file), methods=["der+"], seeds=1))


# ------------------------------------------------------------------------------------------ the common search


@pytest.fixture
def in_process(monkeypatch):
    def execute(tickets, workers, watch, timeout=None):
        for ticket in tickets:
            yield worker.run(ticket, lambda event: None)

    monkeypatch.setattr(local, "execute", execute)


@pytest.fixture
def bench(tmp_path, cache_dir):
    return Bench(tmp_path, cache_dir, base="{ epochs = 1, batch_size = 16, learning_rate = 0.05, snapshots = [0] }")


def request_of(bench, *methods, seeds=1):
    return plan.Request(
        tasks=(str(bench.file),),
        results=bench.folder / "results",
        cache=bench.cache,
        methods=methods,
        seeds=seeds,
        device="cpu",
    )


def test_the_search_is_at_the_largest_memory_and_its_settings_are_for_all(bench, in_process, monkeypatch):
    planned = []
    honest = api.execute
    monkeypatch.setattr(api, "execute", lambda tickets, **how: planned.extend(tickets) or honest(tickets, **how))
    out = bench.folder / "found.toml"
    tune.search(request_of(bench, "replay", "naive", "der++"), trials=2, budget_epochs=1, out=out, workers=1)
    assert {(t.job.method, t.job.params.get("memory")) for t in planned} == {
        ("replay", 10),
        ("der++", 10),
        ("naive", None),
    }
    assert len(planned) == 6 and all(t.job.split == "validation" for t in planned)
    found = tomllib.loads(out.read_text())["methods"]
    assert set(found) == {"replay", "naive", "der++"}
    assert all("memory" not in entry["params"] for entry in found.values())
    bench.file.write_text(bench.file.read_text() + 'tuned = "found.toml"\n')
    tuned = [row for row in rows(bench.file) if row.label == "replay"]
    assert [row.params["memory"] for row in tuned] == [4, 10] and {row.settings for row in tuned} == {"tuned"}
    for row in tuned:
        assert {k: v for k, v in row.params.items() if k != "memory"} == found["replay"]["params"]


def test_a_shorter_search_keeps_the_tasks_cap(bench, in_process, monkeypatch):
    """Without its factor no method with a memory could pay for one."""
    planned = []

    class Enough(Exception):
        pass

    def stop(tickets, **how):
        planned.extend(tickets)
        raise Enough

    monkeypatch.setattr(api, "execute", stop)
    with pytest.raises(Enough):
        tune.search(request_of(bench, "replay"), trials=2, budget_epochs=1, out=bench.folder / "found.toml")
    budgets = {json.dumps(t.task["budget"], sort_keys=True) for t in planned}
    assert budgets == {json.dumps(msgspec.to_builtins(Budget(epochs=1, batch_size=16, factor=5.0)), sort_keys=True)}


@pytest.mark.parametrize("epochs", [0, -1])
def test_a_search_of_no_epochs_is_refused(epochs, bench):
    with pytest.raises(UserError, match="--budget-epochs: expected"):
        tune.search(request_of(bench, "naive"), trials=1, budget_epochs=epochs, out=bench.folder / "found.toml")
