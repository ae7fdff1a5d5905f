"""The page of searches: what they cost, what they found, and how soon."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path

import pytest
from synthetic import record

from fipbench import registry
from fipbench.reports import boards, searches, words
from fipbench.spec import Found, Search, Tuned


def found(scores, best=None, **fields):
    given = {"params": {"rule": "adam", "learning_rate": 0.012345}, "version": "1+a", "trial": 0, "failed": 0}
    given |= {"score": max(scores), "default_score": scores[0], "trials": len(scores), "examples_spent": 1_500_000}
    given |= {"best_of": tuple(max(scores[: k + 1]) for k in range(len(scores)))}
    return Found(**{**given, **fields})


@pytest.fixture
def tuned():
    head = Search(
        task="mine", task_digest="0" * 12, split="validation", objective="area", trials=6, seeds=2, budget_epochs=9,
        law="TPE",
    )  # fmt: skip
    few = found([0.5, 0.75], examples_spent=20_000)
    return Tuned(search=head, methods={"fip": found([0.5, 0.6, 0.55, 0.8, 0.7, 0.9], failed=1), "few": few})


def test_a_row_says_what_a_search_took_and_how_soon_it_found(tuned):
    table = searches.table(tuned)
    assert table.columns == (
        "method", "trials", "failed", "examples, 10^6", "best of 1, %", "best of 2, %", "best of 4, %", "best of 6, %",
        "settings found",
    )  # fmt: skip
    settings = "learning_rate 0.0123, rule adam"
    assert table.rows == (
        ("few", "2", "0", "0.02", "50.00", "75.00", "75.00", "75.00", settings),
        ("fip", "6", "1", "1.50", "50.00", "60.00", "80.00", "90.00", settings),
    )


def test_trials_before_the_first_that_worked_have_no_score(tuned):
    late = found([-0.25, 0.5], best_of=(math.nan, -0.25, 0.5, 0.5, 0.5, 0.5), trials=6, failed=1)
    again = Tuned(search=tuned.search, methods={"late": late})
    assert searches.table(again).rows[0][4:8] == ("–", "-25.00", "50.00", "50.00")
    assert "late from -25.0 to 50.0" in searches.best_so_far("mine", again).svg


def test_finalists_have_a_column(tuned):
    head = Search(**{f: getattr(tuned.search, f) for f in tuned.search.__struct_fields__} | {"finalists": 2})
    methods = {"fip": found([0.5, 0.9], finals=(0.4, 0.625)), "few": found([0.5])}
    again = Tuned(search=head, methods=methods)
    table = searches.table(again)
    place = table.columns.index("finalists, %")
    assert [row[place] for row in table.rows] == ["–", "40.00, 62.50"]
    assert "The best 2 of each, tried again at the task's own budget." in searches.pages({"mine": again})["searches.md"]


def test_the_page_has_a_section_and_a_figure_a_task(tuned):
    pages = searches.pages({"mine": tuned, "another": tuned})
    assert set(pages) == {"searches.md", "searches.mine.svg", "searches.another.svg"}
    page = pages["searches.md"]
    assert page.index("## another") < page.index("## mine")
    assert "6 TPE trials, 2 seeds each, at 9 epochs; objective: area" in page
    assert "few from 50.0 to 75.0; fip from 50.0 to 90.0" in pages["searches.mine.svg"]
    assert pages == searches.pages({"another": tuned, "mine": tuned})
    assert len(re.findall(r"!\[[^]]+\]\(searches\.(mine|another)\.svg\)", page)) == 2


def stated(tuned, monkeypatch, **of_fip):
    """What a board with these rows says of the search behind them."""
    monkeypatch.setattr(registry, "search_of", {"digits-sparsity": tuned}.get)
    right = {"params": {"learning_rate": 0.012345, "rule": "adam", "seen": 3}, "settings": "tuned"}
    [board] = boards([record("fip", **{**right, **of_fip}), record("few", **right), record("other", **right)])
    return words.searched(board)


def test_a_board_says_what_the_search_of_its_rows_took(tuned, monkeypatch):
    assert stated(tuned, monkeypatch).endswith("in all trials of a method: few 0.02 M, fip 1.50 M")


@pytest.mark.parametrize("of_fip", [{"params": {"rule": "sgd"}}, {"settings": "default"}])
def test_no_search_is_claimed_for_settings_that_it_did_not_find(tuned, monkeypatch, of_fip):
    assert stated(tuned, monkeypatch, **of_fip).endswith("in all trials of a method: few 0.02 M")


def test_a_task_without_a_search_says_nothing_of_one(monkeypatch):
    assert stated(None, monkeypatch) == ""


def test_committed_boards_say_it():
    """The sum of a row's trials stands in the task's file of settings, as the search wrote it."""
    folder = Path(__file__).parents[2]
    written = tomllib.loads((folder / "tasks/tuned/digits-sparsity.toml").read_text())
    spent = written["methods"]["lth"]["examples_spent"]
    page = (folder / "leaderboards/digits-sparsity.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith("- Search:")]
    assert f"lth {spent / 1e6:.2f} M" in line
