"""Figures, files and terminal of the continual track; failed calibrations; hostile records."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from synthetic import continual, continual_suite
from synthetic import continual_runs as runs
from synthetic import continual_small as small

from fipbench import reports
from fipbench.reports import boards, render, sentence
from fipbench.reports.tracks import continual as shows
from fipbench.reports.tracks import continual_figures
from fipbench.spec import sealed


def the_board(records, **more):
    (board,) = boards(records, **more)
    return board


# ----------------------------------------------------------------------------------------------- figures


def course(old, new, steps=(0.0, 1.0, 4.0, 32.0)):
    """While the second of three tasks is learned."""
    series = {"task1": list(old), "task2": list(new), "task3": [0.0] * len(steps)}
    return {"course/class/2": {"step": list(steps), **series}}


def drawings(records, **more):
    board = the_board(records, **more)
    return {drawing.key: drawing for drawing in shows.drawings(board)}


def texts(drawing):
    root = ET.fromstring(drawing.svg)
    return {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")}


def test_averages_have_a_panel_for_each_memory_with_naive_in_each():
    drawing = drawings(small())[""]
    root = ET.fromstring(drawing.svg)
    words = ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")]
    for title in ("stores no data", "stores 4 examples a task", "stores 10 examples a task"):
        assert words.count(title) == 1
    assert words.count("naive") == 3 and words.count("fip") == 2 and words.count("ewc") == 1
    assert words.count("joint (reference) 95.0") == 3
    assert "stores 4 examples a task: replay from 55.0 % to 55.0 %, fip from 51.0 %" in root.find("{*}desc").text


def test_the_course_shows_naive_fip_and_the_best_other_of_each_section():
    down = course([0.9, 0.8, 0.4, 0.0], [0.0, 0.2, 0.6, 0.9])
    # ewc leads without data, and gem with 4 a task, but both were not watched.
    unwatched = [*runs("ewc", [0.9]), *runs("gem", [0.95], 4)]
    watched = [
        *runs("naive", [0.2], course=down),
        *runs("si", [0.3], course=down),
        *runs("fip", [0.5], 4, course=down),
        *runs("fip-kl", [0.7], 4, course=down),
        *runs("replay", [0.6], 4, course=down),
        *runs("der", [0.55], 4, course=down),
    ]
    drawing = drawings(unwatched + watched)["course"]
    assert texts(drawing) >= {"naive", "si", "fip (4 a task)", "replay (4 a task)", "learning task 2"}
    assert not texts(drawing) & {"ewc", "gem (4 a task)", "fip-kl (4 a task)", "der (4 a task)"}


def test_the_course_says_when_half_was_forgotten():
    # Means over two seeds: 0.9, 0.7, 0.4, 0.1; half of 0.9 is passed at step 4.
    falls = [course(old, [0.0, 0.2, 0.6, 0.9]) for old in ([0.9, 0.8, 0.5, 0.0], [0.9, 0.6, 0.3, 0.2])]
    records = [continual("naive", n, 0.2, course=c) for n, c in enumerate(falls)]
    drawing = drawings(records)["course"]
    assert "naive from 90.0 % to 10.0 %, below half by step 4." in ET.fromstring(drawing.svg).find("{*}desc").text


def test_old_tasks_are_those_before_the_one_that_is_learned():
    curve = {"step": (0.0, 8.0), "task1": (0.9, 0.5), "task2": (0.7, 0.1), "task3": (0.0, 0.8)}
    (row,) = the_board(runs("naive", [0.2])).rows
    row = msgspec.structs.replace(row, curves={"course/class/3": curve})
    assert continual_figures.course_of(row, "class", 3) == [
        (0.0, pytest.approx(0.8), 0.0),
        (8.0, pytest.approx(0.3), 0.8),
    ]
    assert continual_figures.course_of(row, "class", 2) == continual_figures.course_of(row, "task", 3) == []


def test_step_30_is_on_the_axis_whatever_its_length():
    for last in (32.0, 300.0, 4000.0, 70000.0):
        down = course([0.9, 0.8, 0.4, 0.0], [0.0, 0.2, 0.6, 0.9], (0.0, 1.0, 4.0, last))
        assert texts(drawings(runs("naive", [0.2], course=down))["course"]) >= {"0", "30"}


def test_a_method_has_one_colour_with_every_memory():
    board = the_board(small())
    styles = continual_figures.styles(board)
    lines = continual_figures.line_styles(board, board.rows)
    assert lines["fip (4 a task)"]["color"] == lines["fip (10 a task)"]["color"] == styles["fip"]["color"]
    assert lines["fip (4 a task)"]["linestyle"] != lines["fip (10 a task)"]["linestyle"] == "-"


def test_no_figure_without_results():
    assert drawings([continual("fip", 0, memory=4, error=("OSError", "no"))]) == {}


# ------------------------------------------------------------------------------------- files and terminal


def test_files(tmp_path):
    files = [path.name for path in reports.write(continual_suite(1), tmp_path, ("md", "csv", "json", "html"))]
    assert files == [
        "split-digits-5.md", "split-digits-5.svg", "split-digits-5.course.svg", "split-digits-5.csv",
        "split-digits-5.json", "quick.html",
    ]  # fmt: skip
    text = (tmp_path / "split-digits-5.md").read_text(encoding="utf-8")
    assert "](split-digits-5.svg)" in text and "](split-digits-5.course.svg)" in text
    page = (tmp_path / "quick.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and page.count('scope="rowgroup"') == 4 * 5 + 2
    assert len(re.findall(r'<tr class="fip">', page)) == 2 * 5


def test_groups_in_markdown_keep_the_columns():
    text = render.markdown(boards(small()))
    (table,) = re.findall(r"(?:^\|.*\n)+", text.partition("Average accuracy and forgetting")[2], re.MULTILINE)[:1]
    lines = table.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    places = [n for n, line in enumerate(lines) if "**" in line]
    assert [lines[n].split("|")[2].strip(" *") for n in places] == [
        "stores no data", "stores 4 examples a task", "stores 10 examples a task", "references",
    ]  # fmt: skip
    assert [n - 2 for n in places] == [0, 3, 6, 9]


def test_the_terminal_is_120_columns_wide_with_the_longest_names():
    long = "a-method-with-a-name-that-goes-on-and-on-for-sixty-letters-x"
    records = continual_suite(2) + runs(long, [0.3, 0.35], 4, params={"strength": 0.123456789})
    records += runs(long, [0.4, 0.45], 4, params={"strength": 0.987654321}, settings="tuned")
    lines = reports.terminal(boards(records)).splitlines()
    assert max(map(len, lines)) <= 120
    place = {line: n for n, line in enumerate(lines)}
    assert place["stores no data:"] < place["stores 4 examples a task:"] < place["stores 10 examples a task:"]
    assert any(line.split()[1:2] == ["der++"] for line in lines[place["stores 4 examples a task:"] :][:3])
    assert any("a-method-w" in line and "…" in line for line in lines)


def test_sections_in_the_terminal_stand_above_their_rows():
    lines = [line.split() for line in reports.terminal(boards(small())).splitlines()]
    start = lines.index(["stores", "no", "data:"])
    assert [line[:2] for line in lines[start - 1 : start + 11]] == [
        [lines[start - 1][0], lines[start - 1][1]],
        ["stores", "no"], ["1", "ewc"], ["2", "naive"],
        ["stores", "4"], ["1–2", "replay"], ["1–2", "fip"],
        ["stores", "10"], ["1–2", "fip"], ["1–2", "replay"],
        ["references:"], ["ref.", "joint"],
    ]  # fmt: skip
    assert set(lines[start - 1][0]) == {"-"}


def test_figures_of_one_page_have_ids_of_their_own(tmp_path):
    reports.write(continual_suite(1), tmp_path, ("html",))
    ids = re.findall(r'\bid="([^"]*)"', (tmp_path / "quick.html").read_text(encoding="utf-8"))
    assert len(ids) > 50 and len(ids) == len(set(ids))


def test_csv_names_the_memory():
    lines = [line.split(",") for line in render.csv(boards(small())).splitlines()]
    columns = {name: n for n, name in enumerate(lines[0])}
    found = {tuple(line[columns[name]] for name in ("method", "rank", "rank_last", "memory")) for line in lines[1:]}
    assert found >= {("fip (4 a task)", "1", "2", "4"), ("fip (10 a task)", "1", "2", "10")}
    assert found >= {("ewc", "1", "1", "0"), ("joint", "", "", "")}


# ------------------------------------------------------------------------------------- failed calibrations


WHY = "split MNIST: 91.8 published, 71.2 here"


def test_a_failed_calibration_is_marked_in_every_table_and_explained():
    board = the_board(small(), failed_calibrations={"replay": WHY})
    for table in shows.tables(board):
        names = [row[table.columns.index(table.head)].removesuffix(" ◆") for row in table.rows]
        if table.head == "method":
            assert names.count("replay †") == 2 and "replay" not in names and "fip" in names
    [matrix] = [table for table in shows.tables(board) if table.head == "network"]
    assert matrix.groups[1][1] == "replay (10 a task) †"
    text = render.markdown([board])
    assert text.count(f"- † replay: failed its calibration: {WHY}") == 1
    assert f"† replay: failed its calibration: {WHY}" in reports.terminal([board])
    assert f",{WHY.split(',')[0]}" in render.csv([board]).replace('"', "")
    assert sentence(board).count("replay (calibration failed)") == 2


def test_a_failed_calibration_is_marked_in_figures_and_files(tmp_path):
    reports.write(small(), tmp_path, ("md", "html"), failed_calibrations={"replay": WHY})
    assert "replay †" in (tmp_path / "split-digits-5.svg").read_text(encoding="utf-8")
    assert "replay †" in (tmp_path / "split-digits-5.md").read_text(encoding="utf-8")
    assert WHY in (tmp_path / "quick.html").read_text(encoding="utf-8")


def test_nothing_is_marked_without_a_failure():
    board = the_board(small(), failed_calibrations={"gem": WHY})
    text = render.markdown([board]) + reports.terminal([board]) + render.csv([board])
    assert "†" not in text and "calibration" not in text


# ---------------------------------------------------------------------------------------- hostile records


def test_no_record_writes_markup(tmp_path):
    evil = '<script>alert("x")</script> | $x$ \x1b[31m'
    (plain,) = runs("naive", [0.5], params={"rule": evil})
    (other,) = runs("naive", [0.4], params={"rule": "=1"})
    stream = {"classes": [[evil], [2]], "score": ["class", evil], "softmax": evil}
    protocol = plain.protocol | {"stream": stream, "memories": [evil]}
    curves = plain.curves | {f"weights/{evil}": {"task": [2.0], "value": [0.1]}}
    curves |= course([0.9, 0.8, 0.4, 0.0], [0.0, 0.2, 0.6, 0.9])
    records = [sealed(msgspec.structs.replace(plain, protocol=protocol, curves=curves)), other]
    for path in reports.write(records, tmp_path, ("md", "html"), failed_calibrations={"naive": evil}):
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text and "\x1b" not in text, path.name
        if path.suffix == ".svg":
            ET.fromstring(text)
    assert "\x1b" not in reports.terminal(boards(records, {"naive": evil}))


def test_curves_that_do_not_fit_break_nothing():
    (plain,) = runs("naive", [0.5])
    odd = {
        "matrix/class/1": {"value": []},
        "matrix/class/2": {"task": [1.0], "value": [0.5, 0.6]},
        "course/class/2": {"step": [0.0, 1.0], "task1": [0.5]},
        "course/class/3": {"step": []},
        "matrix/class/x": {},
    }
    board = the_board([sealed(msgspec.structs.replace(plain, curves=odd))])
    assert "naive" in render.markdown([board]) and not any(drawing.key for drawing in shows.drawings(board))
    assert {name for name in board.rows[0].metrics if name.startswith("average/")} == {"average/class/2"}


def test_an_axis_of_many_tasks_numbers_ten_of_them():
    assert continual_figures.ticked([1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5]
    assert continual_figures.ticked(range(1, 11)) == range(1, 11)
    assert list(continual_figures.ticked(range(1, 21))) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert list(continual_figures.ticked(range(1, 13))) == [2, 4, 6, 8, 10, 12]
