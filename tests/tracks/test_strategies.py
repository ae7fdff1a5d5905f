"""Avalanche's strategies and plugins by name: they do what they do there, on the harness's terms, or say why not."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from streams import Bench, Watched, load, write_stream
from workbench import write_tiny

from fipbench import conformance, plan, registry, store
from fipbench.conformance import continual as contract
from fipbench.errors import UserError
from fipbench.spec import Method, id_of
from fipbench.tracks import avalanche, strategies

RATE = 0.01
# Of those that have no default: values with which something happens.
NEEDED = {
    "alpha": 2.0,
    "batch_size_mem": 8,
    "ewc_lambda": 3.0,
    "memory_strength": 0.5,
    "sample_size": 8,
    "si_lambda": 1.0,
    "subsample": 20,
    "temperature": 2.0,
}
# Their defaults blow up at the rates of this small stream, or cost more than it allows.
OWN = {"MAS": {"lambda_reg": 0.01}, "MASPlugin": {"lambda_reg": 0.01}, "ER_ACE": {"batch_size_mem": 8}}
TWINS = ("EWC", "GEM", "LwF", "MAS", "Replay", "SynapticIntelligence")
RUN = sorted(strategies.exported().keys() - strategies.REFUSED.keys())
OTHERS = ("AGEM", "AGEMPlugin", "MER", "MIRPlugin", "Naive")
LEFT_OUT = ("decay_factor", "learning_rate")
DOCS = Path(__file__).parents[2] / "docs" / "avalanche.md"


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir) -> Bench:
    return Bench(
        tmp_path_factory.mktemp("strategies"), cache_dir, budget="{ epochs = 2, batch_size = 16, factor = 60 }"
    )


def made(name: str, **params: Any) -> Any:
    """The learner of that name, with a value for whatever needs one."""
    factory = strategies.factory(name)
    needed = {key: NEEDED[key] for key in factory.fipbench.required}
    return factory(**{**needed, **OWN.get(name, {}), "learning_rate": RATE, **params})


def method(name: str, **params: Any) -> Method:
    plain = registry.plain_name(f"avalanche:{name}")
    found = registry.load_method("continual", plain, registry.find_methods("continual", (), [plain])[plain])
    needed = {key: NEEDED[key] for key in found.required}
    return msgspec.structs.replace(found, defaults={**found.defaults, **needed, **OWN.get(name, {}), **params})


def same(a: Watched, b: Watched) -> bool:
    return all(np.array_equal(x[n], y[n]) for x, y in zip(a.ends, b.ends, strict=True) for n in x | y)


def test_all_that_the_library_exports_is_there_and_no_two_have_one_name():
    from avalanche.core import BasePlugin
    from avalanche.training import plugins, supervised

    listed = strategies.exported()
    assert {"Naive", "MAS", "ER_ACE", "ReplayPlugin", "EWCPlugin"} <= listed.keys()
    for module in (supervised, plugins):
        for name, value in vars(module).items():
            trains = inspect.isclass(value) and hasattr(value, "train") and hasattr(value, "training_epoch")
            own = trains or (inspect.isclass(value) and issubclass(value, BasePlugin) and module is plugins)
            if own and value.__module__.startswith(module.__name__):
                assert listed[name] is value
    assert len({strategies.method_name(name) for name in listed}) == len(listed)
    assert strategies.REFUSED.keys() <= listed.keys()


def test_the_page_lists_what_runs_and_what_does_not_with_the_very_reason():
    text = DOCS.read_text(encoding="utf-8")
    assert f"avalanche-lib {version('avalanche-lib')}" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    runs = {name.strip("`") for row in rows if len(row) == 3 for name in row[0].split(", ")}
    refused = {name.strip("`"): row[1] for row in rows if len(row) == 2 for name in row[0].split(", ")}
    assert runs == set(RUN)
    assert refused == strategies.REFUSED


# One of each kind of loop and memory; every class passed once (docs/avalanche.md), and twins are compared below.
KINDS = ("DER", "ER_ACE", "EWC", "MAS", "MIR", "RWalkPlugin", "Replay", "SynapticIntelligence")


@pytest.mark.parametrize("name", KINDS)
def test_it_runs_and_keeps_the_harness_s_terms(name, bench, tmp_path):
    """Its record says what an independent count of matrix products finds; the shared first network stays as it is."""
    text = conformance.TASKS["continual"].replace("hidden = [25, 14]", "hidden = [27, 33]")
    file = tmp_path / "tiny.toml"
    file.write_text(text.replace("factor = 6 ", "factor = 60 "))
    problem, tried = contract.Problem(registry.read_task(str(file)), tmp_path), method(name)
    record = problem.good_record(tried)
    contract.check_first_network_kept(tried, problem)
    contract.check_cost_counted(tried, problem)
    contract.check_later_tasks_out_of_reach(tried, problem)
    contract.check_test_split_out_of_reach(tried, problem)
    memory = 6 if "memory" in tried.defaults else 0
    assert record.cost.examples_stored == 3 * memory
    assert record.job.method == registry.plain_name(f"avalanche:{name}")


@pytest.mark.parametrize("more", ["", 'optimizer = "adam"', "clip = 0.2, momentum = 0"])
def test_naive_is_our_own_fine_tuning_to_the_bit(more, tmp_path, cache_dir):
    base = f"{{ epochs = 2, batch_size = 16, learning_rate = 0.02, snapshots = [0]{more and ', '}{more} }}"
    bench = Bench(tmp_path, cache_dir, base=base)
    theirs, ours = Watched(made("Naive")), Watched(load("naive", learning_rate=RATE))
    found, wanted = bench.run(theirs), bench.run(ours)
    assert same(theirs, ours) and found.items == wanted.items and found.curves == wanted.curves
    assert (found.meter.forward, found.meter.backward) == (wanted.meter.forward, wanted.meter.backward)


def test_without_a_learning_rate_it_is_the_recipe_s(bench):
    theirs = Watched(made("Naive", learning_rate=0.0))
    ours = Watched(load("naive", learning_rate=bench.task.base.learning_rate))
    bench.run(theirs)
    bench.run(ours)
    assert same(theirs, ours)


def test_learning_without_forgetting_is_our_own_but_for_rounding(bench):
    """Ours records the old outputs once a task, in large batches; the library computes them anew in every step."""
    theirs = Watched(made("LwF", alpha=3.0, temperature=2.0))
    ours = Watched(avalanche.learner(load("lwf", alpha=3.0, temperature=2.0, learning_rate=RATE)))
    other = Watched(made("Naive"))
    for learner in (theirs, ours, other):
        bench.run(learner)
    for name, value in ours.ends[-1].items():
        np.testing.assert_allclose(theirs.ends[-1][name], value, atol=1e-5)
    assert any(np.abs(other.ends[-1][n] - value).max() > 1e-3 for n, value in ours.ends[-1].items())


@pytest.mark.parametrize("name", TWINS)
def test_a_strategy_is_the_plain_one_with_its_plugin_to_the_bit(name, bench):
    params = {key: value for key, value in method(name).defaults.items() if key not in LEFT_OUT}
    strategy, plugin = Watched(made(name, **params)), Watched(made(f"{name}Plugin", **params))
    runs = []
    for learner in (strategy, plugin):
        torch.manual_seed(0)  # as the worker does: some of the library draws from everybody's generator
        runs.append(bench.run(learner, method=method(name), memory=4))
    plain = Watched(made("Naive"))
    bench.run(plain)
    # On a CPU the library's synaptic intelligence finds no weight important.
    assert same(strategy, plugin) and same(strategy, plain) == (name == "SynapticIntelligence")
    assert runs[0].meter.passes == runs[1].meter.passes


def test_it_is_what_an_author_s_file_with_the_same_plugin_gives(bench, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from fipbench.methods import continual\n"
        "@continual()\n"
        "def mine():\n"
        "    'MAS.'\n"
        "    from avalanche.training.plugins import MASPlugin\n"
        "    return MASPlugin(lambda_reg=0.01, alpha=0.25)\n"
    )
    own = bench.method("mine", file)
    named = method("MAS", alpha=0.25)
    records = [bench.record(bench.job(m), m.target) for m in (own, named)]
    assert [r.status for r in records] == ["ok", "ok"]
    assert records[0].items == records[1].items and records[0].curves == records[1].curves
    other = method("MAS", alpha=0.75)
    assert bench.record(bench.job(other), other.target).curves != records[0].curves


def test_weights_are_held_by_what_mas_finds_important(bench):
    """By hand: the penalty is lambda * sum of omega (w - w*)^2, omega the mean |gradient| of the squared outputs."""
    strong, none = Watched(made("MAS", lambda_reg=0.05)), Watched(made("MAS", lambda_reg=0.0))
    plain = Watched(made("Naive"))
    for learner in (strong, none, plain):
        bench.run(learner)
    assert same(none, plain)

    def moved(seen: Watched) -> float:
        return sum(float(np.abs(seen.ends[1][n] - seen.starts[1][n]).sum()) for n in seen.ends[1])

    assert moved(strong) < 0.9 * moved(none)


@pytest.mark.parametrize(("name", "field"), [("Replay", "mem_size"), ("ER_ACE", "mem_size"), ("GEM", "patterns")])
def test_the_task_says_how_much_is_stored(name, field, bench, monkeypatch):
    """A buffer of all tasks has memory x tasks places and fills no more; one of each task has as many as the memory."""
    built: list[Any] = []
    honest = avalanche.silent
    monkeypatch.setattr(avalanche, "silent", lambda *a, **k: built.append(honest(*a, **k)) or built[-1])
    found = method(name)
    outcome = bench.run(strategies.factory(name)(memory=4), method=found, memory=4)
    assert outcome.examples_stored == 12
    strategy = built[0]
    holder = next((p for p in strategy.plugins if hasattr(p, "storage_policy") or hasattr(p, "memory_x")), strategy)
    if field == "mem_size":
        assert holder.mem_size == 12 and len(holder.storage_policy.buffer) == 12
    else:
        assert [len(x) for x in holder.memory_x.values()] == [4, 4, 4]


def test_identity_is_name_parameters_and_release(bench, monkeypatch):
    found = method("MAS")
    assert found.version.startswith(f"{version('avalanche-lib')}+") and found.name == "avalanche-mas"
    assert found.version.split("+")[1] != method("Naive").target  # the adapter's code, as of any method
    job = bench.job(found)
    assert id_of(job).startswith("stream--avalanche-mas--s0--")
    assert id_of(job) != id_of(bench.job(method("MAS", alpha=0.1)))
    assert id_of(job) != id_of(bench.job(method("MASPlugin")))
    monkeypatch.setattr(strategies, "version", lambda name: "9.9.9")
    assert id_of(bench.job(method("MAS"))) != id_of(job)


def test_whole_numbers_without_a_type_that_are_real_ones_take_any(bench):
    defaults = strategies.factory("LwFPlugin").fipbench.defaults
    assert {key: type(value) for key, value in defaults.items()} == dict.fromkeys(
        ("alpha", "learning_rate", "temperature"), float
    )
    assert strategies.factory("MER").fipbench.defaults["n_inner_steps"] == 5


# ------------------------------------------------------------------------------------------- as its user sees it


@pytest.mark.usefixtures("in_process")
def test_run_set_and_verify(call, tmp_path, results):
    file = write_stream(tmp_path, more='\n[methods.gentle]\nuse = "avalanche:MAS"\nlambda_reg = 0.001\n')
    words = ["run", file, "--methods", "avalanche:MAS,avalanche:Replay,gentle,naive", "--seeds", 1]
    answer = call(*words, "--set", "avalanche:MAS.lambda_reg=0.01", "--set", "avalanche-replay.memory=4")
    assert answer.code == 0, answer.err
    records = {record.job.label: record for record in store.read(results)[0]}
    assert records.keys() == {"avalanche-mas", "avalanche-replay", "gentle", "naive"}
    assert records["avalanche-mas"].job.params == {
        "alpha": 0.5,
        "lambda_reg": 0.01,
        "learning_rate": 0.0,
    }
    assert records["gentle"].job.method == "avalanche-mas" and records["gentle"].job.params["lambda_reg"] == 0.001
    assert records["avalanche-replay"].job.params["memory"] == 4
    assert "avalanche-mas" in answer.out
    again = call(*words, "--set", "avalanche:mas.lambda_reg=0.01", "--set", "avalanche-replay.memory=4")
    assert "0 jobs computed, 4 from the store" in again.out
    checked = call("verify", results)
    assert checked.code == 0 and "4 equal, 0 differ, 0 cannot" in checked.out, checked.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["avalanche:MAZ"], "has no strategy or plugin 'maz': did you mean MAS"),
        (["avalanche:nothing-of-the-kind"], "has no strategy or plugin 'nothing-of-the-kind': it has AETraining, "),
        (["avalanche:../../etc"], "unknown method 'avalanche-../../etc'"),
        (["avalanche:"], "has no strategy or plugin ''"),
        (["avalanche:a:b"], "unknown method 'avalanche-a:b'"),
        (["avalanche:ICaRL"], "avalanche:ICaRL cannot be run here: it needs a network with a named part for features"),
        (
            ["avalanche:EWC"],
            "method 'avalanche-ewc' has no default for ewc_lambda (float): give --set avalanche-ewc.ewc_lambda=VALUE",
        ),
        (["avalanche:EWC", "--set", "avalanche:EWC.lambda=1"], "unknown parameter 'lambda' of 'avalanche-ewc'"),
        (["avalanche:EWC", "--set", "avalanche:EWC.ewc_lambda=much"], "expected float"),
        (["avalanche:Replay", "--set", "avalanche:Replay.mem_size=9"], "unknown parameter 'mem_size'"),
        (["avalanche:Replay", "--set", "avalanche:Replay.memory=7"], "allows 4, 10"),
    ],
)
def test_mistakes_are_one_line(words, said, call, tmp_path):
    answer = call("run", write_stream(tmp_path), "--seeds", 1, "--dry-run", "--methods", *words)
    assert said in answer.error


@pytest.mark.parametrize("name", ["AGEM", "AGEMPlugin", "MIRPlugin"])
def test_the_others_run(name, bench):
    found = method(name)
    record = bench.record(bench.job(found, memory=10), found.target)
    assert record.status == "ok" and record.cost.examples_stored == 30, record.error


def test_one_that_learns_example_by_example_runs_where_the_budget_allows_it(bench):
    found = method("MER", n_inner_steps=1)
    record = bench.record(bench.job(found, memory=4), found.target)
    assert record.status == "ok", record.error
    assert set(RUN) == {*KINDS, *TWINS, *(f"{name}Plugin" for name in TWINS), *OTHERS}


def test_a_number_that_may_be_left_out(bench):
    found = method("EWC", mode="online", decay_factor="0.5")
    record = bench.record(bench.job(found), found.target)
    assert record.status == "ok", record.error
    wrong = method("EWC", mode="online", decay_factor="half")
    failed = bench.record(bench.job(wrong), wrong.target)
    assert failed.error is not None and failed.error.type == "UserError"
    assert failed.error.message == "avalanche:EWC: decay_factor=half: expected a number or none"


def test_they_are_of_the_continual_track(call, tmp_path):
    answer = call("run", write_tiny(tmp_path), "--methods", "avalanche:MAS", "--dry-run")
    assert "method 'avalanche-mas' is of track continual, which none of the tasks tiny is" in answer.error


def test_boards_without_them_have_no_rows_of_them(tmp_path):
    task = registry.read_task(str(write_stream(tmp_path)))
    assert not [row.label for row in plan.task_rows(task) if row.label.startswith("avalanche")]
    with pytest.raises(UserError, match="no strategy or plugin 'xyz'"):
        plan.task_rows(task, ["avalanche:XYZ"])
