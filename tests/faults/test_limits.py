"""Jobs of the suite that want more time or memory than there is; `test_stand_ins` has every way to hang."""

from __future__ import annotations

import re
import time

import pytest
from ordeal import whole
from workbench import write_tiny

import fipbench
from fipbench.errors import UserError

PLUGIN = """
import copy, os, resource, time
from pathlib import Path
from fipbench import pruning
from fipbench.methods import sparsity

def limited():
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 28), resource.getrlimit(resource.RLIMIT_AS)[1]))

def as_it_should(model, sparsities, trial):
    for level in sparsities:
        masks = pruning.magnitude_masks(pruning.prunable(model), level)
        yield level, pruning.apply(copy.deepcopy(model), masks)

@sparsity()
def good():
    return as_it_should

@sparsity()
def slow():
    def prune(model, sparsities, trial):
        time.sleep(3600)
        yield
    return prune

@sparsity()
def too_large_for_torch():
    def prune(model, sparsities, trial):
        import torch
        limited()
        yield 0.5, torch.ones(1 << 31)
    return prune

@sparsity()
def too_large_for_python():
    def prune(model, sparsities, trial):
        limited()
        kept = []
        while True:
            kept.append(bytearray(1 << 26))
        yield
    return prune
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory, nursery):
    """All of them in one run, with a limit of time that is far above what the good one needs on this machine."""
    folder = tmp_path_factory.mktemp("limits")
    plugin = folder / "plugin.py"
    plugin.write_text(PLUGIN)
    words: list[object] = ["run", write_tiny(folder), "--plugin", plugin, "--seeds", 1, "--workers", 4]
    words += ["--results", folder / "results"]
    began = time.monotonic()
    first = nursery.start(folder, *words, "--methods", "magnitude")  # makes the base network, too
    assert first.wait() == 0, first.said
    limit = round(max(3.0, 3 * (time.monotonic() - began)), 1)
    methods = "good,slow,too-large-for-torch,too-large-for-python"
    run = nursery.start(folder, *words, "--methods", methods, "--timeout", limit)
    assert run.wait() == 1, run.said
    return limit, run.said, {record.job.label: record for record in whole(folder / "results")}


def test_who_takes_too_long_is_recorded_as_failed(ran):
    limit, said, of = ran
    assert (of["slow"].status, of["slow"].error.type) == ("failed", "TimeoutError")
    assert f"no end within {limit:g} s (--timeout)" in of["slow"].error.message
    assert "tiny slow seed 0: FAILED (TimeoutError: no end within" in said


def test_who_wants_too_much_memory_is_recorded_as_failed(ran):
    torch, python = (ran[2][name].error for name in ("too-large-for-torch", "too-large-for-python"))
    assert torch.type == "RuntimeError" and "memory" in torch.message
    assert python.type == "MemoryError"


def test_the_end_says_where_it_was(ran):
    [line] = re.findall(r"^failed: tiny--too-large-for-python--.*: MemoryError.*$", ran[1], re.MULTILINE)
    assert re.search(r" \(plugin\.py:\d+ in \w+\)$", line)


def test_the_others_go_on(ran):
    assert ran[2]["good"].status == "ok" and ran[2]["good"].metrics["area"] > 0
    assert "3 of 4 jobs failed; they run again next time" in ran[1]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_is_no_time(limit, tiny, call):
    with pytest.raises(UserError, match="--timeout: expected a positive number of seconds"):
        fipbench.run(str(tiny()), methods=["dense"], timeout=limit)
    assert "--timeout: expected a positive number" in call("run", tiny(), "--timeout", limit).error
