"""The site on disk: whole, linked, safe against hostile records, and every statistic follows from the CSV beside it."""

from __future__ import annotations

import contextlib
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pandas as pd
import pytest
from scipy import stats
from site_lab import records
from synthetic import continual_runs, record, suite

from fipbench import reports, site, store
from fipbench.errors import UserError
from fipbench.reports import overview
from fipbench.spec import sealed

EMPTY = ("meta", "link", "br", "input", "img", "path", "use", "rect")


class Page(HTMLParser):
    """Ids, links, tags, and the tables as (anchor, columns, rows); a row is (heading of its group, cells)."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.tags, self.tables, self.open = [], [], [], [], []
        self.cell = None
        self.feed(path.read_text("utf-8"))
        assert self.open == [], path

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src", "xlink:href") if name in found]
        if tag == "table":
            self.tables.append((found.get("id"), [], []))
            self.group = ""
        if tag == "tr":
            self.row = []
        if tag in ("td", "th"):
            self.cell = ""
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag in EMPTY:
            return
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.row.append(self.cell.strip())
            self.cell = None
        if tag == "tr":
            _, columns, rows = self.tables[-1]
            if "thead" in self.open:
                columns += self.row
            elif len(self.row) == 1 and len(columns) > 1:
                self.group = self.row[0]
            else:
                rows.append((self.group, self.row))

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


@pytest.fixture(scope="module")
def pages(folder):
    return {path: Page(path) for path in sorted(folder.rglob("*.html"))}


def test_all_links_lead_somewhere_and_none_out(pages):
    assert len(pages) > 100
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), path
        for link in page.links:
            if link == "data:,":
                continue
            assert not re.match(r"[a-z]+:|//", link), (path, link)
            file, _, anchor = link.partition("#")
            target = (path.parent / unquote(file)).resolve() if file else path
            assert target.is_file(), (path, link)
            assert not anchor or anchor in pages[target].ids, (path, link)


def test_every_page_can_be_reached(pages, folder):
    seen, todo = set(), [folder / "index.html"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        links = (unquote(link.partition("#")[0]) for link in pages[path].links)
        todo += [found for link in links if (found := (path.parent / link).resolve()).suffix == ".html"]
    assert seen == set(pages)


def test_tables_and_figures_are_named_for_who_cannot_see_them(pages):
    for path, page in pages.items():
        count = [tag for tag, _ in page.tags].count
        assert count("caption") == count("table") and count("h1") == count("main") == 1, path
        assert all("scope" in found for tag, found in page.tags if tag == "th")
        assert count("title") == 1 + count("svg") and count("desc") == count("svg")
    task = next(page for path, page in pages.items() if path.name == "split-digits-5.html")
    assert [tag for tag, _ in task.tags].count("figure") == 5


def test_a_figure_has_a_table_that_says_the_same(folder):
    for path in (folder / "tasks").glob("*.html"):
        for figure in re.findall(r"<figure.*?</figure>", path.read_text("utf-8"), flags=re.DOTALL):
            assert "The same as a table" in figure or "<table" in figure


def test_every_track_of_the_committed_boards_has_its_figures(tmp_path):
    boards = Path(__file__).parents[2] / "leaderboards"
    for name in ("digits-connectivity", "reviews-sparsity"):
        (tmp_path / f"{name}.jsonl").write_bytes((boards / f"{name}.jsonl").read_bytes())
    found, _ = store.read(tmp_path)
    site.write(found, tmp_path / "site")
    page = (tmp_path / "site" / "tasks" / "digits-connectivity.html").read_text()
    assert "Accuracy along the path" in page and "The plane through the two networks" in page
    curves = [r.curves["accuracy"] for r in found if r.job.label == "bezier"]
    mean = sum(100 * curve["value"][curve["distance"].index(0.5)] for curve in curves) / len(curves)
    row = re.search(r"bezier.*?</tr>", page.split("at shares of the path")[1], flags=re.DOTALL)[0]
    cells = [float(found) for found in re.findall(r">\s*([0-9.]+) ± [0-9.]+\s*<", row)]
    assert len(cells) == 9 and cells[4] == pytest.approx(mean, abs=0.006)


def test_real_data_comes_first_and_the_quick_suite_is_no_evidence(folder):
    text = (folder / "index.html").read_text("utf-8")
    real, smoke = text.index("Real data"), text.index("a smoke test, not evidence")
    assert (
        real < text.index('href="tasks/split-digits-5.html"') < smoke < text.index('href="tasks/digits-sparsity.html"')
    )
    assert "Smoke test, not evidence." in (folder / "tasks" / "digits-sparsity.html").read_text("utf-8")
    assert "Smoke test, not evidence." not in (folder / "tasks" / "split-digits-5.html").read_text("utf-8")


def test_the_verdict_stands_in_a_sentence(folder):
    text = html.unescape((folder / "index.html").read_text("utf-8"))
    for board in reports.boards(records()):
        said = reports.sentence(board).removeprefix(board.name).lstrip(":, ")
        assert said[1:] in text
    found = [board for board in reports.boards(records()) if "quick" not in board.suites]
    assert overview.tally(found).startswith("In 1 comparison with ") and text.count(overview.tally(found)) == 1


# ------------------------------------------------------------------------------------------- recomputed


def recomputed(frame):
    """(method, text) of every mean, mean ± half-width and paired difference, by scipy, as pages write numbers."""
    found = set()
    numeric = frame.select_dtypes("number").columns.difference(["seed", "memory"])
    for metric in numeric:
        table = frame.pivot(index="seed", columns="method", values=metric)
        references = frame.drop_duplicates("method").set_index("method").reference.dropna()
        for method in table:
            pairs = [(table[method].dropna(), "")]
            if method in references and references[method] in table:
                pairs.append(((table[method] - table[references[method]]).dropna(), "+"))
            for values, sign in pairs:
                if len(values) == 0:
                    continue
                half = stats.t.ppf(0.975, len(values) - 1) * values.sem() if len(values) > 1 else None
                for factor, form in ((100, ".2f"), (1, ".3f"), (1, ".4g"), (1, ".3g"), (1, ".0f")):
                    mean = f"{factor * values.mean():{sign}{form}}"
                    zero = not mean.strip("+-0.")
                    mean = mean.lstrip("+-") if zero else mean.replace("-", "−")
                    found.add((method, mean))
                    if half is not None:
                        found.add((method, f"{mean} ± {factor * half:{form}}"))
    return found


@pytest.mark.parametrize("task", ["digits-sparsity", "split-digits-5", "digits-robustness"])
def test_every_statistic_follows_from_the_csv(pages, folder, task):
    frame = pd.read_csv(folder / "tasks" / f"{task}.csv")
    known = recomputed(frame[frame.status == "ok"])
    methods = set(frame.method)
    checked = 0
    for _, columns, rows in pages[folder / "tasks" / f"{task}.html"].tables:
        if "method" not in columns:
            continue
        for group, row in rows:
            name = row[columns.index("method")].removesuffix(" ◆")
            names = {name, f"{name} (4 a task)"} if "stores 4" in group else {name}
            assert names & methods
            for cell in row:
                if "±" in cell:
                    checked += 1
                    assert any((own, cell) in known for own in names), (task, name, cell)
    assert checked > 50
    matrix = [t for t in pages[folder / "tasks" / f"{task}.html"].tables if t[1][:1] == ["network"]]
    for _, _, rows in matrix:
        for group, row in rows:
            if row[0] != "untrained":
                assert all((group, cell) in known for cell in row[1:])


def test_a_number_that_does_not_follow_would_be_found(folder):
    frame = pd.read_csv(folder / "tasks" / "digits-sparsity.csv")
    own = {text for method, text in recomputed(frame[frame.status == "ok"]) if method == "fip"}
    mean = frame[frame.method == "fip"]["area"].mean()
    assert f"{100 * mean:.2f}" in own and f"{100 * mean + 0.01:.2f} ± 0.50" not in own


@pytest.mark.parametrize("task", ["digits-sparsity", "split-digits-5", "digits-robustness"])
def test_the_recipe_on_the_page_gives_the_board(folder, task, monkeypatch):
    text = (folder / "tasks" / f"{task}.html").read_text("utf-8")
    [code] = re.findall(r'class="recipe"><code>(.*?)</code>', text, flags=re.DOTALL)
    monkeypatch.chdir(folder / "tasks")
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(html.unescape(code), names)
    [board] = [board for board in reports.boards(records()) if board.task == task]
    for row in (*board.rows, *board.references):
        if board.headline not in row.metrics:
            assert row.name not in names["table"].index
            continue
        found, own = names["table"].loc[row.name], row.metrics[board.headline]
        assert (found["mean"], found["half"]) == pytest.approx((own.mean, own.half))
        pair = row.comparisons.get(board.headline)
        if pair is None:
            assert pd.isna(found["p_holm"])
        else:
            wanted = (pair.mean, pair.half, pair.p, pair.adjusted)
            assert tuple(found[["difference", "difference_half", "p", "p_holm"]]) == pytest.approx(wanted)


# ----------------------------------------------------------------------------------------------- records


def test_the_records_are_a_results_folder(folder):
    found, problems = store.read(folder / "records")
    assert not problems
    assert {r.id for r in found} == {r.id for r in records()}


def test_a_record_says_how_to_repeat_it(tmp_path):
    commit = "a" * 40
    mine = record("fip", 3, 0.9, label="fip-mine", settings="user", params={"rate": 0.1, "on": True, "why": "a b"})
    mine = sealed(msgspec.structs.replace(mine, provenance={"commit": commit, "hardware": {"cpu": "Old"}}))
    site.write([mine], tmp_path)
    text = html.unescape((tmp_path / "records" / f"{mine.id}.html").read_text("utf-8"))
    assert f"git checkout {commit}" in text and f"fipbench verify {mine.id}.json" in text
    assert (
        "fipbench run digits-sparsity --methods fip-mine --seeds 4 --device cpu --set fip-mine.on=true "
        "--set fip-mine.rate=0.1 --set 'fip-mine.why=a b'"
    ) in text
    assert "--plugin" not in text
    assert "cpu Old" in text and mine.job.data["train"] in text and '"sparsities"' in text


def test_a_record_of_somebodys_own_method_asks_for_its_file(tmp_path):
    mine = record("slimmest", 0, 0.9)
    site.write([mine], tmp_path)
    text = html.unescape((tmp_path / "records" / f"{mine.id}.html").read_text("utf-8"))
    assert f"fipbench verify {mine.id}.json --plugin FILE.py" in text and "does not come with fipbench" in text
    assert "--methods slimmest --seeds 1 --device cpu --plugin FILE.py" in text


# ---------------------------------------------------------------------------------------------- bad input


def test_hostile_words_are_words(pages, folder):
    for path, page in pages.items():
        scripts = [found for tag, found in page.tags if tag == "script"]
        assert len(scripts) == 1 and scripts[0]["src"].endswith("assets/site.js")
        text = path.read_text("utf-8")
        assert "\x1b" not in text
    text = (folder / "tasks" / "hostile.html").read_text("utf-8")
    assert "&lt;script&gt;alert" in text and "{{ 7 * 7 }}" in text
    for line in (folder / "tasks" / "hostile.csv").read_text("utf-8").splitlines():
        assert not re.search(r"(^|,)[=+@]", line) and "\x1b" not in line


def test_no_records_make_no_site(tmp_path, call, results):
    with pytest.raises(UserError, match="no records of the test split"):
        site.write([record("fip", 0, 0.9, split="validation")], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    results.mkdir()
    answer = call("site", "--out", tmp_path / "none")
    assert answer.error.startswith("site: no records")


def test_the_command_says_where_to_look(tmp_path, call, stored):
    stored()
    answer = call("site", "--out", tmp_path / "out")
    assert answer.code == 0 and answer.out.endswith(f"open {tmp_path / 'out' / 'index.html'}\n")
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize("change", [{"task": "../evil"}, {"method": "a/b"}])
def test_no_record_chooses_a_path(tmp_path, change):
    plain = record("fip", 0, 0.9)
    bad = msgspec.structs.replace(plain, job=msgspec.structs.replace(plain.job, **change))
    with pytest.raises(UserError, match="cannot name a file"):
        site.write([sealed(bad)], tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_all_methods_failed(tmp_path):
    site.write([record(m, s, error=("OSError", "no disk")) for m in ("fip", "lth") for s in range(2)], tmp_path)
    text = (tmp_path / "tasks" / "digits-sparsity.html").read_text("utf-8")
    assert "o method has a result" in text and text.count("failed") > 4 and "<figure" not in text
    assert "o method has a result" in (tmp_path / "index.html").read_text("utf-8")
    assert "no disk" in next((tmp_path / "records").glob("*lth*.html")).read_text("utf-8")


def test_one_seed_has_no_interval(tmp_path):
    site.write([record("fip", 0, 0.9), record("lth", 0, 0.8)], tmp_path)
    page = Page(tmp_path / "tasks" / "digits-sparsity.html")
    cells = [cell for _, _, rows in page.tables for _, row in rows for cell in row]
    assert "90.00" in cells and "−10.00" not in "".join(c for c in cells if "±" in c)
    assert not [cell for cell in cells if "±" in cell]


def test_several_boards_of_a_task_share_a_page(tmp_path):
    site.write([*suite(2), *suite(2, device="cuda"), *continual_runs("naive", [0.2, 0.3])], tmp_path)
    page = Page(tmp_path / "tasks" / "digits-sparsity.html")
    assert {"b1-score", "b2-score"} <= set(page.ids) and len(page.ids) == len(set(page.ids))
    frame = pd.read_csv(tmp_path / "tasks" / "digits-sparsity.csv")
    assert set(frame.board) == {"digits-sparsity (sklearn, cpu)", "digits-sparsity (sklearn, cuda)"}


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path):
    found = [*suite(2), *continual_runs("naive", [0.2, 0.3]), *continual_runs("fip", [0.4, 0.3], 4)]
    written = [site.write(order, tmp_path / str(n)) for n, order in enumerate((found, found[::-1]))]
    assert len(written[0]) == len(written[1])
    for a, b in zip(*written, strict=True):
        assert Path(a).relative_to(tmp_path / "0") == Path(b).relative_to(tmp_path / "1")
        assert a.read_bytes() == b.read_bytes(), a
