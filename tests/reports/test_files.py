"""What is written: safe against hostile records, the same bytes from the same records, whole."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import msgspec
import pytest
from synthetic import continual_suite, protocol, record, robustness_suite, suite

from fipbench import reports
from fipbench.errors import UserError
from fipbench.reports import figures, render
from fipbench.reports.tracks import sparsity, sparsity_figures
from fipbench.spec import sealed

HOSTILE = '<script>alert("x")</script> | =cmd()\n# top [a](javascript:b) $x$ \x1b[31m'
ALL = ("md", "csv", "json", "html")


def hostile_records():
    changes = {"title": HOSTILE, "selection": HOSTILE}
    bad = [record("fip", s, 0.9, notes=(HOSTILE,), params={"rule": v}, protocol_changes=changes)
           for s in range(2) for v in (HOSTILE, "=1+1")]  # fmt: skip
    return [*bad, record("lth", 0, error=("ValueError", HOSTILE), protocol_changes=changes)]


def written(records, folder, formats=ALL, **more):
    return {path.name: path.read_text("utf-8") for path in reports.write(records, folder, formats, **more)}


def test_files_and_names(tmp_path):
    assert sorted(written(suite(2), tmp_path / "new" / "folder")) == [
        "digits-sparsity.csv", "digits-sparsity.json", "digits-sparsity.md", "digits-sparsity.svg", "quick.html",
    ]  # fmt: skip
    assert list(written(suite(2), tmp_path / "b", ("csv",))) == ["digits-sparsity.csv"]


def test_a_page_for_each_suite(tmp_path):
    records = suite(1) + suite(1, task="nextdoor")
    both = {"suites": ["quick", "paper"]}
    records += [record("fip", 0, 0.9, task="third", protocol_changes=both)]
    files = written(records, tmp_path, ("html",))
    assert sorted(files) == ["paper.html", "quick.html"]
    assert "third" in files["paper.html"] and "nextdoor" not in files["paper.html"]
    assert files["quick.html"].count("<h2") == 3


def test_who_reads_a_board_while_it_is_written_again_reads_the_old_one(tmp_path):
    before = written(suite(1), tmp_path)
    readers = {path.name: path.open(encoding="utf-8") for path in tmp_path.iterdir()}
    after = written(suite(2), tmp_path)
    for name, reader in readers.items():
        with reader:
            assert reader.read() == before[name] != after[name]
    assert {path.name for path in tmp_path.iterdir()} == set(after)  # nothing left over


def test_only_the_tasks_asked_for(tmp_path):
    records = suite(1) + suite(1, task="other")
    assert list(written(records, tmp_path, ("csv",), tasks=["other"])) == ["other.csv"]


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="no records"):
        reports.write([], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="unknown format 'mb': did you mean md"):
        reports.write(suite(1), tmp_path, ("mb",))
    with pytest.raises(UserError, match=r"unknown task 'digits-sparsty'.*did you mean digits-sparsity"):
        reports.write(suite(1), tmp_path, tasks=["digits-sparsty"])


@pytest.mark.parametrize("name", ["../evil", "a/b", "/etc/x", ""])
def test_no_record_chooses_a_path(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a file"):
        reports.write([record("fip", 0, 0.9, protocol_changes={"suites": [name]})], tmp_path / "a", ("html",))
    with pytest.raises(UserError, match="cannot name a file"):
        reports.write([_with_task(name)], tmp_path / "a", ("md",))
    assert not (tmp_path / "a").exists()


def _with_task(name):
    plain = record("fip", 0, 0.9)
    return sealed(msgspec.structs.replace(plain, job=msgspec.structs.replace(plain.job, task=name)))


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path):
    records = suite(3) + suite(2, device="cuda") + hostile_records()
    records += continual_suite(2, memories=(4,), tasks=3) + robustness_suite(2)
    files = written(records, tmp_path / "a")
    assert files == written(records[::-1], tmp_path / "b") == written(records[9:] + records[:9], tmp_path / "c")


def test_another_process_gives_the_same_bytes(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from synthetic import *; from fipbench import reports;"
        "records = suite(1) + continual_suite(1, memories=(4,), tasks=3) + robustness_suite(1);"
        "reports.write(records, sys.argv[2], ('md', 'html', 'json'))"
    )
    here = __file__.rpartition("/")[0]
    for seed in ("1", "2"):
        folder = str(tmp_path / seed)
        subprocess.run(
            [sys.executable, "-c", code, here, folder], check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


# --------------------------------------------------------------------------------------------- Markdown


def test_markdown_holds_the_numbers_and_the_figure(tmp_path):
    text = written([record("fip", s, 0.9 + s / 100) for s in range(2)], tmp_path, ("md",))["digits-sparsity.md"]
    assert "| fip " in text and "90.50 ± 6.35" in text  # t(0.975, 1) = 12.706; 12.706 · 0.7071 / √2 = 6.35
    assert "](digits-sparsity.svg)" in text
    assert "a smoke test, not evidence" in text


def test_markdown_of_hostile_records(tmp_path):
    files = written(hostile_records(), tmp_path, ("md",))
    text = files["digits-sparsity.md"]
    assert "<script" not in text and "\x1b" not in text and not re.search(r"(?<!\\)\]\(javascript", text)
    assert not re.search(r"^#+ top", text, re.MULTILINE)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_several_boards_of_a_task_are_headings_of_one_file(tmp_path):
    files = written(suite(1) + suite(1, device="cuda"), tmp_path, ("md",))
    assert sorted(files) == [
        "digits-sparsity--sklearn-cpu.svg", "digits-sparsity--sklearn-cuda.svg", "digits-sparsity.md",
    ]  # fmt: skip
    text = files["digits-sparsity.md"]
    assert "## Data sklearn, device cpu" in text and "## Data sklearn, device cuda" in text
    assert "](digits-sparsity--sklearn-cuda.svg)" in text


# ------------------------------------------------------------------------------------------ CSV and JSON


def csv_rows(records):
    return list(csv.DictReader(io.StringIO(render.csv(reports.boards(records)))))


def test_csv_has_a_row_for_each_method_and_metric():
    records = [record(m, s, v) for m, v in (("fip", 0.8), ("lth", 0.9)) for s in range(2)]
    rows = {(row["method"], row["metric"]): row for row in csv_rows(records)}
    area = rows["lth", "area"]
    assert (float(area["mean"]), area["n"], area["pairs"]) == (0.9, "2", "2")
    assert float(area["difference"]) == pytest.approx(0.1) and area["p"] == area["p_holm"] == "0.0"
    assert rows["fip", "area"]["difference"] == "" and rows["lth", "accuracy@0.8"]["p_holm"] == ""
    assert float(rows["fip", "cost/wall_s"]["mean"]) == 10.5


def test_csv_lists_a_method_without_result():
    (row,) = csv_rows([record("broken", 0, error=("OSError", "no"))])
    assert (row["method"], row["failed"], row["error"], row["metric"]) == ("broken", "1", "OSError: no", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r@"])
def test_csv_cells_are_no_formulas(start):
    rows = csv_rows([record("fip", 0, error=(f"{start}cmd()", "x"))])
    assert rows[0]["error"] == f"'{start.strip()}cmd(): x"


def test_csv_keeps_negative_numbers_as_numbers():
    rows = csv_rows([record(m, s, v) for m, v in (("fip", 0.9), ("lth", 0.8)) for s in range(2)])
    (found,) = [row["difference"] for row in rows if row["method"] == "lth" and row["metric"] == "area"]
    assert float(found) == pytest.approx(-0.1)


def test_json_is_the_whole_board():
    (board,) = reports.boards(suite(2))
    content = json.loads(render.json([board]))["boards"][0]
    assert msgspec.convert(content, reports.Board, strict=False) == board
    assert content["sections"][0]["rows"][0]["values"]["area"].keys() == {"0", "1"}


# ------------------------------------------------------------------------------------------------- HTML


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.depth = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in ("meta", "link", "br"):
            self.depth.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag


def parsed(text):
    page = Page()
    page.feed(text)
    assert page.depth == []
    return page


def test_page_is_whole_and_needs_nothing_else(tmp_path):
    text = written(suite(2) + suite(1, device="cuda"), tmp_path, ("html",))["quick.html"]
    page = parsed(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for _, name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")]
    targets += re.findall(r"url\(#([^)]*)\)", text)
    targets += [i for _, name, value in page.attributes if name == "aria-labelledby" for i in value.split()]
    assert set(targets) <= set(ids)


def test_page_is_accessible(tmp_path):
    page = parsed(written(suite(2), tmp_path, ("html",))["quick.html"])
    assert page.tags.count("caption") == page.tags.count("table") == 2
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == page.tags.count("th") and scopes.count("row") == 20
    assert page.tags.count("svg") == 1 and {"title", "desc"} <= set(page.tags)
    assert ("html", "lang", "en") in page.attributes


def test_page_of_hostile_records(tmp_path):
    text = written(hostile_records(), tmp_path, ("html",))["quick.html"]
    page = parsed(text)
    assert "script" not in page.tags and "&lt;script&gt;" in text


def test_page_says_what_the_suite_is_worth(tmp_path):
    assert "quick suite: a smoke test, not evidence" in written(suite(1), tmp_path, ("html",))["quick.html"]


# ----------------------------------------------------------------------------------------------- figures


def drawn(board):
    (drawing,) = sparsity.drawings(board)
    return drawing.svg


def test_figure_is_svg_with_text_and_alternatives():
    (board,) = reports.boards(suite(3))
    root = ET.fromstring(drawn(board))
    texts = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text")]
    assert {row.name for row in board.ranked} <= {t.strip() for t in texts}
    assert any("dense (reference)" in t for t in texts)
    assert "gradual-distill:" in root.find("{*}desc").text and root.get("role") == "img"
    assert not re.search(r"\d{4}-\d\d-\d\dT", drawn(board))


def test_figure_of_hostile_names_is_still_xml():
    (board,) = reports.boards(hostile_records())
    root = ET.fromstring(drawn(board))
    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_figure_of_a_hostile_device_is_still_xml():
    found = reports.boards([record("fip", 0, 0.9), record("fip", 0, 0.9, device="<script>&")])
    roots = [ET.fromstring(drawn(board)) for board in found]
    assert roots[0].find("{*}title").text.endswith("(sklearn, <script>&)")


@pytest.mark.parametrize("area", [0.0, 1.0, 0.5])
def test_figure_of_extreme_scores(area):
    (board,) = reports.boards([record("fip", s, area) for s in range(2)])
    assert "<svg" in drawn(board)


def test_figure_of_one_level():
    changes = {"sparsities": [0.9], "headline": "accuracy@0.9"}
    (board,) = reports.boards([record("fip", 0, 0.9, levels={0.9: 0.9}, protocol_changes=changes)])
    assert "<svg" in drawn(board)


@pytest.mark.parametrize(("best", "named", "evenly"), [(0.95, "both axes", False), (0.85, "axis", True)])
def test_errors_are_drawn_where_scores_are_high_and_scores_where_none_is(best, named, evenly):
    asked = {"sparsities": [0.5, 0.9]}
    (board,) = reports.boards([record("fip", 0, 0.5, levels={0.5: best, 0.9: 0.6}, protocol_changes=asked)])
    texts = ["".join(e.itertext()).strip() for e in ET.fromstring(drawn(board)).iter() if e.tag.endswith("}text")]
    assert f"sparsity, %   ({named}: −log10(1 − value))" in texts
    ticks = [
        float(t) for t in texts[texts.index(f"sparsity, %   ({named}: −log10(1 − value))") + 1 :] if t[:1].isdigit()
    ]
    steps = {round(b - a, 6) for a, b in itertools.pairwise(ticks)}
    assert len(ticks) >= 3 and (len(steps) == 1) == evenly


def test_long_intervals_are_cut_off():
    """Two methods 10 points apart, the intervals of one beyond 0 and 100 %."""
    means = [(0.0, 0.5, 0.45, 0.55), (1.0, 0.4, -0.6, 1.4)]
    low, high = sparsity_figures._limits([means], [])
    assert 0.33 < low < 0.35 and 0.55 < high < 0.58
    whole = sparsity_figures._limits([[(0.0, 0.5, 0.45, 0.55), (1.0, 0.4, 0.38, 0.42)]], [])
    assert whole[0] < 0.38 and whole[1] > 0.55
    alone = sparsity_figures._limits([[(0.0, 0.5, 0.1, 0.9)]], [])
    assert alone[0] < 0.1 and alone[1] > 0.9


def test_no_figure_without_results():
    (board,) = reports.boards([record("fip", 0, error=("OSError", "no"))])
    assert sparsity.drawings(board) == []


def test_labels_are_spread_as_little_as_may_be():
    assert figures.spread([0.9, 0.5, 0.1], 0.1) == [0.9, 0.5, 0.1]
    assert figures.spread([0.5, 0.5], 0.1) == pytest.approx([0.55, 0.45])
    found = figures.spread([0.9, 0.89, 0.88, 0.2], 0.1)
    assert found == pytest.approx([0.99, 0.89, 0.79, 0.2])


def test_ticks_that_would_collide_are_left_out():
    assert sparsity_figures._apart([0.2, 0.67, 0.89, 0.96, 0.987, 0.99, 0.991, 0.994])[-4:] == ["98.7", "", "", "99.4"]


# ----------------------------------------------------------------------------------------------- terminal


def test_terminal_shows_ranks_failures_and_the_sentence():
    text = reports.terminal(reports.boards(suite(2)))
    assert "10 of" not in text and "unlucky: 2 of 2 seeds failed: BudgetExceeded" in text
    assert " ".join(text.split()).endswith(reports.sentence(reports.boards(suite(2))[0]))
    assert max(map(len, text.splitlines())) <= 120
    assert text.index("gradual-distill") < text.index("random")


def test_terminal_obeys_no_record():
    assert "\x1b" not in reports.terminal(reports.boards(hostile_records()))


def test_terminal_of_nothing():
    assert reports.terminal([]) == ""


def test_end_of_a_run_is_light():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from synthetic import suite; from fipbench import reports;"
        "reports.terminal(reports.boards(suite(2)));"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib', 'jinja2', 'scipy.stats')))"
    )
    assert subprocess.run([sys.executable, "-c", code, __file__.rpartition("/")[0]], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ header


def test_header_says_what_a_reader_needs():
    text = render.markdown(reports.boards(suite(2)))
    for needed in (
        "digits, variant sklearn (test bbbbbbbbbbbb, train aaaaaaaaaaaa)",
        "mlp (300-100-10)", "40 epochs of sgd", "240 epochs, that is 480 passes", "batches of 32", "ddof 1",
        "80 %, 90 %, 95 %, 98 %, 99 %", "library defaults; settings of these rows: default",
        "Holm over the 8 comparisons", "trapezoid", "Seeds: 2 a method",
    ):  # fmt: skip
        assert needed in text


def test_protocol_may_lack_what_the_header_tells():
    bare = {key: value for key, value in protocol().items() if key in ("headline", "sparsities")}
    plain = record("fip", 0, 0.9)
    (board,) = reports.boards([sealed(msgspec.structs.replace(plain, protocol=bare))])
    assert "fip" in render.markdown([board])
