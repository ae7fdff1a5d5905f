"""The committed boards come from the committed records, those from the code as it stands, and the README from both."""

import importlib.util
from pathlib import Path

import pytest

import fipbench
from fipbench import plan, registry, reports, store
from fipbench.spec import task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "leaderboards"
SEEDS = {"digits-sparsity": 10, "lenet300-mnist-sparsity": 5}


@pytest.fixture(scope="module")
def records():
    found, problems = store.read(BOARDS)
    assert not problems
    return found


@pytest.mark.parametrize("task", SEEDS)
def test_records_are_whole_and_of_todays_code(records, task):
    # An edited method, task or protocol must be run again before its numbers may stand here.
    found = registry.read_task(task)
    mine = [r for r in records if r.job.task == task]
    assert {r.job.task_digest for r in mine} == {task_digest(found, PROTOCOL_VERSIONS[found.track])}
    assert {r.status for r in mine} == {"ok"}
    known = {label for source in found.sources for label in source.variants}
    assert {label for r in mine for label in r.job.data_variant.split("+")} <= known
    for row in plan.task_rows(found):
        seeds = {r.job.seed for r in mine if r.job.label == row.label and r.job.params == row.params}
        versions = {r.job.method_version for r in mine if r.job.label == row.label}
        assert seeds >= set(range(SEEDS[task])), row.label
        assert versions == {row.method.version}, f"{row.label}: run it again, its code has changed"


def test_records_come_from_committed_code(records):
    assert not [r.id for r in records if "+" in r.provenance["commit"] or len(r.provenance["commit"]) != 40]


def test_boards_render_again_to_the_byte(records, tmp_path):
    written = reports.write(records, tmp_path, formats=("md", "csv"))
    assert written
    for path in written:
        if path.suffix in (".md", ".csv"):
            assert path.read_bytes() == (BOARDS / path.name).read_bytes(), f"{path.name}: run `make leaderboards`"


def test_readme_says_what_the_records_say(records):
    spec = importlib.util.spec_from_file_location("refresh", BOARDS / "refresh.py")
    refresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(refresh)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(refresh.sentences(records)) == len(SEEDS)
    assert refresh.with_results(readme, refresh.sentences(records)) == readme, "run `make leaderboards`"


def test_base_network_is_worth_the_name(records):
    quick = [r.metrics["dense_accuracy"] for r in records if r.job.task == "digits-sparsity"]
    assert sum(quick) / len(quick) >= 0.97


def test_a_committed_job_gives_its_number_again(records, tmp_path):
    # To the bit on the machine that made it; another processor may round otherwise, but counts alike.
    [again] = fipbench.run("digits-sparsity", methods=["lth"], seeds=1, results=tmp_path, workers=1).records
    [kept] = [r for r in records if r.id == again.id]
    assert abs(again.metrics["area"] - kept.metrics["area"]) < 0.01
    assert again.metrics.keys() == kept.metrics.keys() and again.curves.keys() == kept.curves.keys()
    for field in ("forward_examples", "backward_examples", "parameters_stored", "examples_stored"):
        assert getattr(again.cost, field) == getattr(kept.cost, field)
