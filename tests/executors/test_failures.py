"""One method's failure is its own: recorded with its reason, tried again, and nobody else's loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench import write_tiny

import fipbench
from fipbench import store
from fipbench.spec import equal

ZOO = Path(__file__).with_name("zoo.py")
GOOD = ["dense", "magnitude", "lean", "hungry", "talks", "by-luck", "asks-what-is-loaded"]

# Method -> type and message (a part) of the recorded error.
BAD = {
    "raises": ("ArithmeticError", "the second level"),
    "raises-at-once": ("ValueError", "rate must be above 1, got 0.5"),
    "makes-nothing": ("TypeError", "not callable"),
    "returns-nothing": ("ProtocolError", "expected an iterator of (sparsity, model), got NoneType"),
    "yields-networks-alone": ("ProtocolError", "expected a tuple (sparsity, model), got Sequential"),
    "yields-states": ("ProtocolError", "expected a tuple (sparsity, model), got tuple"),
    "yields-words": ("ProtocolError", "expected a number as sparsity, got str"),
    "yields-nan": ("ProtocolError", "weights that are not finite"),
    "overflows": ("ProtocolError", "not finite"),
    "one-zero-short": ("ProtocolError", "zeros among"),
    "another-level": ("ProtocolError", "yielded sparsity 0.25 where 0.5 was due"),
    "stops-early": ("ProtocolError", "yielded 1 of 2 sparsities, then stopped"),
    "goes-on": ("ProtocolError", "yielded sparsity 0.99 where nothing more was due"),
    "another-network": ("ProtocolError", "other parameters than the dense one"),
    "spends-too-much": ("BudgetExceeded", "passes"),
    "exits": ("SystemExit", "no more"),
    "exits-hard": ("RuntimeError", "exit code 0 and left no record"),
    "exits-hard-with-a-code": ("RuntimeError", "exit code 7 and left no record"),
    "crashes": ("RuntimeError", "ended by SIGSEGV"),
    "is-interrupted": ("RuntimeError", "left no record"),
    "cannot-be-quoted": ("RuntimeError", "left no record"),
    "speaks-in-surrogates": ("ValueError", "\\udc80 is no character"),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory, cache_dir):
    """A run of all of them, two at a time; the events it told, its result and its folder."""
    folder = tmp_path_factory.mktemp("zoo")
    events = []
    result = fipbench.run(
        str(write_tiny(folder, "zoo")),
        methods=[*GOOD, *BAD],
        plugins=[ZOO],
        seeds=1,
        workers=2,
        results=folder / "results",
        watch=events.append,
    )
    return result, events, folder


@pytest.fixture(scope="module")
def of(everything):
    return {record.job.label: record for record in everything[0].records}


def test_no_job_is_lost(everything):
    result, events, folder = everything
    assert sorted(r.job.label for r in result.records) == sorted([*GOOD, *BAD])
    assert result.computed == len(GOOD) + len(BAD)
    assert sorted(r.id for r in result.records) == sorted(e["id"] for e in events if e["event"] == "record")
    records, problems = store.read(folder / "results")
    assert not problems
    assert sorted(r.id for r in records) == sorted(r.id for r in result.records)
    assert all(r.status in ("ok", "failed") for r in records)


@pytest.mark.parametrize("name", GOOD)
def test_who_behaves_has_a_result(name, of):
    assert (of[name].status, of[name].error) == ("ok", None)
    assert of[name].metrics["area"] > 0


@pytest.mark.parametrize("name", BAD)
def test_who_fails_has_a_record_that_says_why(name, of):
    record = of[name]
    kind, message = BAD[name]
    assert record.status == "failed" and not record.metrics
    assert record.error is not None
    assert record.error.type == kind
    assert message in record.error.message and "\n" not in record.error.message


def test_a_failure_says_where(of):
    where = of["raises"].error.where
    line = next(n for n, text in enumerate(ZOO.read_text().splitlines(), 1) if "raise ArithmeticError" in text)
    assert where[-1] == f"zoo.py:{line} in prune"


def test_what_a_method_prints_goes_to_its_log(of, everything, capfd):
    folder = everything[2] / "results" / "logs"
    text = (folder / f"{of['talks'].id}.log").read_text()
    assert all(part in text for part in ("heard on stdout", "heard on stderr", "heard past Python"))
    assert not (folder / f"{of['lean'].id}.log").exists()
    assert "heard" not in "".join(capfd.readouterr())


def test_peak_memory_is_the_jobs_own(of):
    """Two jobs of one server, either of which may have run first."""
    lean, hungry = (of[name].cost.peak_memory_bytes for name in ("lean", "hungry"))
    assert 290e6 < hungry - lean < 400e6


def test_the_base_network_is_trained_once(everything, of, cache_dir):
    files = list((cache_dir / "shared").glob("zoo-s0-*.safetensors"))
    assert len(files) == 1
    assert len({of[name].provenance["base"] for name in GOOD}) == 1
    assert len({of[name].metrics["dense_accuracy"] for name in GOOD}) == 1


def test_one_worker_or_two_give_the_same_records(of, everything, cache_dir, tmp_path):
    """Also a method that draws from the generators that everybody shares."""
    file = next((cache_dir / "shared").glob("zoo-s0-*.safetensors"))
    built = file.stat().st_mtime_ns
    again = fipbench.run(
        str(everything[2] / "zoo.toml"), methods=GOOD, plugins=[ZOO], seeds=2, workers=1, results=tmp_path
    )
    first = [record for record in again.records if record.job.seed == 0]
    assert [record.job.label for record in first] == [label for label in dict.fromkeys(r.job.label for r in first)]
    for record in first:
        assert equal(record, of[record.job.label]), record.job.label
    assert file.stat().st_mtime_ns == built
    luck = [record.metrics["weights_walked"] for record in again.records if record.job.label == "by-luck"]
    assert luck[0] != luck[1]


def test_the_program_reports_failures(everything, call):
    """From the same store: what is there is kept, what failed runs again."""
    folder = everything[2]
    words = ["run", folder / "zoo.toml", "--plugin", ZOO, "--seeds", 1, "--results", folder / "results"]
    answer = call(*words, "--methods", "magnitude,lean,raises,crashes", "--workers", 2)
    assert answer.code == 1
    assert "2 jobs to compute, 2 in the store" in answer.out
    assert "zoo raises seed 0: FAILED (ArithmeticError: the second level)" in answer.out
    errors = answer.err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["failed", "failed", "error"]
    assert "zoo--raises--s0" in errors[0] and "ArithmeticError: the second level" in errors[0]
    assert "2 of 4 jobs failed" in errors[2] and str(folder / "results" / "logs") in errors[2]
    assert "Traceback" not in answer.out + answer.err


MOODY = """
from pathlib import Path
import copy
from fipbench import pruning
from fipbench.methods import sparsity

@sparsity()
def moody():
    def prune(model, sparsities, trial):
        if not Path({mood!r}).exists():
            raise OSError("no mood for it")
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level)
            yield level, pruning.apply(copy.deepcopy(model), masks)
    return prune
"""


def test_a_failed_job_runs_again_and_a_good_one_does_not(tiny, tmp_path, results):
    mood, plugin = tmp_path / "mood", tmp_path / "moody.py"
    plugin.write_text(MOODY.format(mood=str(mood)))
    ask = {"methods": ["moody", "magnitude"], "plugins": [plugin], "seeds": 1}
    first = fipbench.run(str(tiny()), **ask)
    assert [(r.job.label, r.status) for r in first.records] == [("magnitude", "ok"), ("moody", "failed")]
    kept = (results / f"{first.records[0].id}.json").read_bytes()
    mood.touch()
    second = fipbench.run(str(tiny()), **ask)
    assert second.computed == 1 and not second.failed
    assert [r.id for r in second.records] == [r.id for r in first.records]
    assert (results / f"{first.records[0].id}.json").read_bytes() == kept
    assert fipbench.run(str(tiny()), **ask).computed == 0
