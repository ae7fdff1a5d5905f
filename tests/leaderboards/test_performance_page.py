"""docs/performance.md: of the committed figures alone, and plain about what was missed. Nothing is timed here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def module(monkeypatch):
    """`module(name)` imports `benchmarks.name`."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_the_committed_page_is_of_the_committed_figures(module):
    performance = module("performance")
    assert performance.PAGE.read_text("utf-8") == performance.page(performance.load()), "run `make bench`"
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in performance.BENCHMARKS)


def run_of(module, *findings, load=0.0):
    provenance = {
        "commit": "a" * 40,
        "hardware": {"cpu": "some | cpu", "cores": 2, "memory_bytes": 2**34},
        "versions": {"python": "3.11", "torch": "2", "numpy": "2"},
    }
    made = {"time": "2026-01-02T03:04:05+00:00", "seconds": 12.3, "load": load, "cores": 2, "provenance": provenance}
    return module("performance").Run(findings=list(findings), **made)


def test_a_missed_target_is_named_first_and_marked_in_its_row(module):
    performance, finding = module("performance"), module("timing").Finding
    fast = finding(what="one", against="another", value=2.0, low=1.5, high=2.5, least=1.8)
    slow = finding(what="a slow one", value=21.0, low=20.5, high=22.0, unit="s", most=20, details={"files": 12345.0})
    page = performance.page({"avalanche_loop": run_of(module, fast), "site": run_of(module, slow, load=1.0)})
    assert "\n1 targets met, 1 MISSED: a slow one.\n" in page
    [row] = [line for line in page.splitlines() if line.startswith("| a slow one")]
    assert "**MISSED**" in row and "21 s" in row and "20.5 to 22" in row and "≤ 20 s" in row
    [row] = [line for line in page.splitlines() if line.startswith("| one")]
    assert "| met" in row and "2 ×" in row and "≥ 1.8 ×" in row
    assert "files 12,345." in page and "some \\| cpu" in page and "`aaaaaaaaaa`" in page
    # The one that wants the machine for itself, and had it not.
    assert "1.0 of 2 †" in page and "0.0 of 2 " in page and "† Absolute seconds" in page
    assert "Not measured yet: continual_step, " in page and "for want of a GPU" in page


def test_what_is_no_number_meets_no_target(module):
    finding = module("timing").Finding
    assert finding(what="", value=float("nan"), low=0, high=0, least=1).met is False
    assert finding(what="", value=float("nan"), low=0, high=0, most=1).met is False
    assert finding(what="", value=1, low=0, high=0).met is None


def test_both_ways_are_run_in_turn_and_the_first_round_is_not_counted(module):
    said, now = [], [0.0]

    def way(name, seconds):
        def run():
            said.append(name)
            now[0] += seconds * (100 if len(said) <= 2 else len(said))

        return run

    found = module("timing").interleaved(way("ours", 1.0), way("theirs", 2.0), 3, clock=lambda: now[0])
    assert said == ["ours", "theirs"] * 4
    assert found.ours == [3, 5, 7] and found.theirs == [8, 12, 16]
    assert found.times_as_fast() == {"value": 12 / 5, "low": 16 / 7, "high": 8 / 3}
    assert found.ratio()["value"] == 5 / 12
