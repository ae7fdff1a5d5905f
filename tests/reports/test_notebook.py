"""What a notebook shows of records and boards: whole tables, and nothing that a record says is markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from workbench import example_job, example_record

import fipbench
from fipbench import notebook, store
from fipbench.errors import UserError
from fipbench.spec import Failure

EVIL = "<script>alert(1)</script> & | `x`"


class Reader(HTMLParser):
    """Cells row by row, and every tag that occurs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def written(folder, *records):
    folder.mkdir(exist_ok=True)
    for record in records:
        store.write(folder, record)
    return fipbench.load(folder)


def test_records_are_a_table_with_a_row_each(results):
    failed = example_record(
        job=example_job(seed=1), status="failed", metrics={}, error=Failure(type="ValueError", message=EVIL)
    )
    loaded = written(results, example_record(), failed)
    (results / "damaged.json").write_text("{}")
    loaded = fipbench.load(results)
    assert len(loaded) == 2 and len(loaded[:1]) == 1 and str(loaded) == "2 records, 1 files or lines that are none"
    seen = Reader(loaded._repr_html_())
    assert seen.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert seen.rows[0] == ["task", "method", "seed", "status", "headline", "score", "passes", "seconds"]
    by_seed = {row[2]: row for row in seen.rows[1:]}
    assert by_seed["0"] == ["tiny", "magnitude", "0", "ok", "area, %", "50.00", "2,368", "0.2"]
    assert by_seed["1"][3] == f"failed: {EVIL}" and by_seed["1"][5] == "–"
    assert "<script>" not in loaded._repr_html_() and "<script>" not in loaded._repr_markdown_()


def test_boards_say_what_the_leaderboards_say(results):
    loaded = written(results, *(example_record(seed=seed) for seed in range(3)))
    boards = loaded.boards()
    assert len(boards) == len(boards[:]) == 1 and boards[0].task == "tiny"
    seen = Reader(boards._repr_html_())
    assert any("magnitude" in cell for row in seen.rows for cell in row)
    assert any("50.00" in cell for row in seen.rows for cell in row)
    assert "| magnitude" in boards._repr_markdown_() and "magnitude" in str(boards)
    assert len(loaded.boards("tiny")) == 1
    with pytest.raises(UserError, match="unknown task 'tinny' among the records: did you mean tiny"):
        loaded.boards("tinny")


def test_hostile_words_stay_words(results):
    protocol = {"name": "tiny", "title": EVIL, "suites": ["quick"], "headline": EVIL}
    record = example_record(protocol=protocol, metrics={EVIL: 0.5}, notes=(EVIL,))
    loaded = written(results, record)
    for shown in (loaded, loaded.boards()):
        assert Reader(shown._repr_html_()).tags <= {
            "table", "caption", "thead", "tbody", "tr", "th", "td", "h4", "p",
        }  # fmt: skip
        assert "<script" not in shown._repr_markdown_()


def test_no_records_is_said_and_not_an_error(results):
    loaded = written(results)
    assert len(loaded) == 0 and "0 records" in loaded._repr_html_() and loaded.frame().empty
    assert str(loaded.boards()) == "no boards: no record of the test split"
    assert loaded.boards()._repr_html_().startswith("<p>no boards") and loaded.boards()._repr_markdown_()


def test_of_many_records_the_first_are_shown(results, monkeypatch):
    monkeypatch.setattr(notebook, "SHOWN", 2)
    loaded = written(results, *(example_record(seed=seed) for seed in range(3)))
    seen = Reader(loaded._repr_html_())
    assert len(seen.rows) == 1 + 2 and "3 records, the first 2 of them here" in loaded._repr_html_()
    assert len(loaded.frame()) == 3


def test_a_run_shows_its_boards():
    from fipbench.api import Result

    result = Result(records=[example_record()], computed=1, set_aside=[])
    assert "magnitude" in result._repr_html_() and "magnitude" in result._repr_markdown_()
