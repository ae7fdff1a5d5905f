"""A few steps at true size: what was found is kept as long as the task is what it was, and the page says that alone."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from fipbench import registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def paper_scale(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)
    return importlib.import_module("benchmarks.paper_scale")


def test_the_committed_page_is_of_the_committed_figures(paper_scale):
    found = json.loads(paper_scale.RECORDS.read_text("utf-8"))
    assert paper_scale.PAGE.read_text("utf-8") == paper_scale.page(found)
    assert paper_scale.known() == found, "a task has changed since: run `make paper-scale`"


def test_steps_are_run_kept_and_forgotten_when_the_task_changes(paper_scale, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_scale, "RECORDS", tmp_path / "found.json")
    monkeypatch.setattr(paper_scale, "PAGE", tmp_path / "page.md")
    assert paper_scale.main(["permuted-mnist-2-lenet300"]) == 0
    [(name, one)] = paper_scale.known().items()
    assert name == "permuted-mnist-2-lenet300" and one["finite"] and one["parameters"] == 266_610
    assert len(one["losses"]) == 2 * paper_scale.STEPS and one["peak_bytes"] > 50e6
    assert (tmp_path / "page.md").read_text("utf-8").count("| permuted-mnist-2-lenet300 |") == 1
    other = {name: {**one, "digest": "0" * 12}, "gone": one}
    (tmp_path / "found.json").write_text(json.dumps(other), "utf-8")
    assert paper_scale.known() == {}


@pytest.mark.slow
@pytest.mark.parametrize("task", [n for n in registry.task_files() if "paper" in registry.read_task(n).suites])
def test_a_few_steps_at_true_size(task, paper_scale, tmp_path, monkeypatch):
    """Up to minutes and 20 GB each: `pytest -m slow -k TASK`. What was committed of it is of a network as large."""
    committed = paper_scale.known().get(task)
    monkeypatch.setattr(paper_scale, "RECORDS", tmp_path / "found.json")
    monkeypatch.setattr(paper_scale, "PAGE", tmp_path / "page.md")
    assert paper_scale.main([task]) == 0
    one = paper_scale.known()[task]
    assert one["finite"] and one["peak_bytes"] > 4 * one["parameters"]
    assert committed is None or committed["parameters"] == one["parameters"]
