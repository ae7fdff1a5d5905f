"""A package that pip installed and a plugin file, by the command line: found, listed, run, ranked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fipbench import store
from fipbench.spec import equal

PACKAGE = "magnitude-by-row"
PLUGIN = '''"""A plugin file: everything that is largest goes, the smallest stays."""

import copy

from fipbench import pruning
from fipbench.methods import sparsity


@sparsity()
def upside_down():
    def prune(model, sparsities, trial):
        sizes = {name: 1 / (1 + w.abs()) for name, w in pruning.prunable(model).items()}
        for level in sparsities:
            yield level, pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(sizes, level))

    return prune
'''


@pytest.fixture(scope="module")
def fipbench(package, tmp_path_factory):
    """The command line as the package's user has it: its own interpreter, folders and path."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "FIPBENCH_CACHE": str(home / "cache"),
        "FIPBENCH_RESULTS": str(home / "results"),
        "HOME": str(home),
        "COLUMNS": "200",
    }

    def call(*arguments, expected=0):
        command = [sys.executable, "-m", "fipbench.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=home)
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout + done.stderr

    call.home = home
    return call


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def ran(fipbench, plugin, tiny_file):
    """One run of an in-tree method, the package's and the file's; what it printed, and its records."""
    names = f"magnitude,{PACKAGE},upside-down"
    text = fipbench("run", tiny_file, "--methods", names, "--seeds", 2, "--plugin", plugin, "--device", "cpu")
    records, problems = store.read(fipbench.home / "results")
    assert not problems
    return text, {(r.job.method, r.job.seed): r for r in records}


def test_the_package_is_listed_among_the_others(fipbench):
    lines = fipbench("list", "methods").splitlines()
    assert [line.split()[0] for line in lines].count(PACKAGE) == 1
    assert any(re.match(rf"{PACKAGE} +sparsity +fipbench_magnitude_by_row:magnitude_by_row", line) for line in lines)
    assert any(line.startswith("fip ") for line in lines)


def test_the_file_is_listed_when_it_is_named(fipbench, plugin):
    assert f"{plugin}:upside-down" in fipbench("list", "methods", "--plugin", plugin)
    assert "upside-down" not in fipbench("list", "methods")


def test_both_ran_for_every_seed(ran):
    _, records = ran
    assert set(records) == {(m, s) for m in ("magnitude", PACKAGE, "upside-down") for s in (0, 1)}
    assert all(r.status == "ok" for r in records.values())
    assert {r.protocol["name"] for r in records.values()} == {"tiny"}


def test_both_are_ranked(ran):
    """A row each, best first, with the ranks it may have: the largest weights are worth more than the smallest."""
    text, records = ran
    ranks = re.findall(r"^ *([\d–]+)  +([a-z-]+)(?: ◆)?  +2  ", text, flags=re.MULTILINE)
    assert len(ranks) == 3 and ranks[0][0].startswith("1"), text
    mean = {
        name: sum(records[name, seed].metrics["area"] for seed in (0, 1)) / 2
        for name in ("magnitude", PACKAGE, "upside-down")
    }
    ranked = sorted(mean, key=mean.get, reverse=True)
    assert [name for _, name in ranks] == ranked
    assert ranked[-1] == "upside-down"


def test_they_start_from_the_same_networks_as_ours(ran):
    _, records = ran
    for seed in (0, 1):
        bases = {r.provenance["base"] for (_, s), r in records.items() if s == seed}
        assert len(bases) == 1
        assert len({r.metrics["dense_accuracy"] for (_, s), r in records.items() if s == seed}) == 1


def test_the_records_say_which_code_made_them(ran):
    _, records = ran
    versions = {r.job.method: r.job.method_version for r in records.values()}
    assert all(re.fullmatch(r"1\+[0-9a-f]{12}", version) for version in versions.values())
    assert len(set(versions.values())) == 3


def test_a_second_run_computes_nothing_and_an_edited_file_is_another_method(ran, fipbench, plugin, tiny_file):
    names = f"magnitude,{PACKAGE},upside-down"
    arguments = ("run", tiny_file, "--methods", names, "--seeds", 2, "--plugin", plugin, "--device", "cpu", "--dry-run")
    assert "6 jobs, 0 to compute" in fipbench(*arguments)
    original = plugin.read_text()
    try:
        plugin.write_text(original.replace("1 / (1 + w.abs())", "-w.abs() + w.abs().max()"))
        assert "6 jobs, 2 to compute" in fipbench(*arguments)
        plugin.write_text(original.replace("everything that is largest goes", "all that is largest goes"))
        assert "6 jobs, 0 to compute" in fipbench(*arguments)
    finally:
        plugin.write_text(original)


def test_the_command_line_gives_the_records_that_python_gives(ran, fipbench, package, tiny_file, tmp_path, monkeypatch):
    """A job's own process, forked by a server, against the same job in this one."""
    from fipbench import registry
    from fipbench.conformance.sparsity import Problem

    _, records = ran
    problem = Problem(registry.read_task(str(tiny_file)), tmp_path)
    method = registry.load_method("sparsity", "magnitude", registry.find_methods("sparsity")["magnitude"])
    ours = problem.record(method, seed=1)
    theirs = records["magnitude", 1]
    assert equal(ours, theirs)


def test_a_name_that_is_taken_is_refused(fipbench, tmp_path):
    clash = tmp_path / "clash.py"
    clash.write_text(PLUGIN.replace("upside_down", "magnitude_by_row"))
    text = fipbench("list", "methods", "--plugin", clash, expected=2)
    assert f"a method called '{PACKAGE}' exists already" in text and len(text.splitlines()) == 1
