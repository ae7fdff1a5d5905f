"""Attack audits on a robustness board, beside it as CSV, and on the site."""

from __future__ import annotations

import csv
import io

import pytest
from synthetic import audited, robustness

from fipbench import audit_store, site
from fipbench.reports import boards, render, write
from fipbench.reports.tracks import robustness as shows


def records():
    worst = {"fip": [0.30, 0.31, 0.32], "fge": [0.40, 0.43, 0.43]}
    found = [robustness(method, seed, value) for method, values in worst.items() for seed, value in enumerate(values)]
    return [*found, robustness("single", 0, 0.1, role="reference")]


def audits(found):
    """Of fip three seeds, lowered by 1, 2 and 3 points; of fge one, confirmed, with findings."""
    fip, fge = ([r for r in found if r.job.method == name] for name in ("fip", "fge"))
    made = [audited(record, 0.01 * (n + 1), (f"{n + 3} items",)) for n, record in enumerate(fip)]
    return {audit.id: audit for audit in [*made, audited(fge[1], 0.0, ("gradients are masked",), "hard")]}


def test_a_board_without_audits_says_nothing_of_them():
    (board,) = boards(records())
    assert "audit" not in render.markdown([board]).lower() and "audit" not in render.csv([board])
    (other,) = boards(records(), audits={})
    assert render.markdown([other]) == render.markdown([board])


def test_the_worst_case_found_and_how_hard_it_was_tried():
    """Lowered by 1, 2, 3 points: mean 2, half 4.3027 · 1 / √3 = 2.48; found 29, 29, 29."""
    found = records()
    (board,) = boards(found, audits=audits(found))
    scores, table = shows.tables(board)[:2]
    assert table.caption.startswith("Attack audit")
    fge, fip = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (fip["seeds"], fip["found, ε 0.1"], fip["− recorded, ε 0.1"]) == ("3", "29.00 ± 0.00", "−2.00 ± 2.48")
    assert (fge["seeds"], fge["found, ε 0.1"], fge["− recorded, ε 0.1"]) == ("1", "43.00", "0.00")
    assert (fip["Square alone, ε 0.1"], fip["noise alone, ε 0.1"], fip["PGD, ε 1"]) == (
        "60.00 ± 0.00", "90.00 ± 0.00", "0.00 ± 0.00",
    )  # fmt: skip
    # Two attacks at three radii: 2 * 40 / 10 gradients and 2 * 20 / 10 looks beside, whatever was tried beyond.
    assert (fip["gradients"], fip["queries"], fip["attacks"]) == ("8", "4", "2")
    column = scores.columns.index("audit, ε 0.1")
    assert [row[column] for row in scores.rows] == ["0.00", "−2.00 ± 2.48", "–"]
    assert scores.columns[column - 1] == "worst, ε 0.1"
    # The ranking is by what is recorded.
    assert [row[1].removesuffix(" ◆") for row in scores.rows] == ["fge", "fip", "single"]


def test_findings_are_notes_of_their_row_and_the_reader_is_told_what_was_not_audited():
    found = records()
    (board,) = boards(found, audits=audits(found))
    text = render.markdown([board])
    assert "- fip: attack audit (default): 3–5 items\n" in text
    assert "- fge: attack audit (hard): gradients are masked\n" in text
    assert "on all seeds. Not audited: single" in text


def test_the_csv_has_what_the_table_has():
    found = records()
    lines = csv.DictReader(io.StringIO(render.csv(boards(found, audits=audits(found)))))
    means = {(line["method"], line["metric"]): float(line["mean"]) for line in lines if line["metric"]}
    assert means["fip", "audit_lowered@0.1"] == pytest.approx(-0.02)
    assert means["fip", "audited@0.15"] == pytest.approx(0.155 - 0.02)
    assert means["fge", "audit_unbounded"] == 0.0


def test_the_site_shows_an_audit_on_the_page_of_its_record(tmp_path):
    found = records()
    made = audits(found)
    site.write(found, tmp_path, audits=made)
    mine = next(record for record in found if record.job.method == "fge" and record.job.seed == 1)
    page = (tmp_path / "records" / f"{mine.id}.html").read_text("utf-8")
    assert "Attack audit" in page and "strength hard (steps 40)" in page and "gradients are masked" in page
    assert "&lt;b&gt;APGD&lt;/b&gt;" in page and "<b>APGD" not in page
    other = next(record for record in found if record.job.method == "single")
    assert "Attack audit" not in (tmp_path / "records" / f"{other.id}.html").read_text("utf-8")
    assert "Attack audit" in (tmp_path / "tasks" / "digits-robustness.html").read_text("utf-8")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "tasks" / "digits-robustness.csv").read_text("utf-8"))))
    lowered = [float(line["audit_lowered@0.1"]) for line in lines if line["method"] == "fip"]
    assert lowered == pytest.approx([-0.01, -0.02, -0.03])
    # Beside its records the site has their audits: a results folder as any.
    again, problems = audit_store.read(tmp_path / "records")
    assert again == made and not problems


def test_files_are_written_with_audits(tmp_path):
    found = records()
    write(found, tmp_path, formats=("md", "html", "tex"), audits=audits(found))
    for path in tmp_path.glob("*.*"):
        assert path.suffix == ".svg" or "Attack audit" in path.read_text("utf-8"), path.name
