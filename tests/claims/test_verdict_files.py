"""What `fipbench compare` writes: every row once, ours beside the published value, sums that add up, all escaped."""

from __future__ import annotations

import csv
import io
import json
import re

import claims_lab as lab
import pytest

from fipbench import claims, store
from fipbench.claims import VERDICTS
from fipbench.errors import UserError
from fipbench.reports import verdicts

GOOD = [0.895, 0.900, 0.905, 0.900, 0.898]
LOW = [x - 0.05 for x in GOOD]
ROWS = (
    lab.row(spread="1.1", spread_is='"sd"', n="3", conflicts='["lth"]')
    + lab.row(method='"LTH"', to="93", conflicts='["row"]', note='"5 < 6 | *bold* & <b>x</b>"').replace(
        "[row]", "[lth]"
    )
    + lab.row(kind='"order"', value=None, better=None, relation='"above"', than='"LTH"').replace("[row]", "[order]")
    + lab.row(method='"random"').replace("[row]", "[missing]")
    + lab.row(kind='"fact"', metric='"=1+1"', ours=None, better=None, untestable='"gap"').replace("[row]", "[fact]")
)


@pytest.fixture
def judged(tmp_path):
    return claims.judge(lab.ledger(tmp_path, ROWS), lab.runs(GOOD) + lab.runs(LOW, "lth"))


def test_the_counts_add_up(judged):
    table = verdicts.summary(judged)
    assert table.columns[1:9] == VERDICTS
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    told = {name: int(cells[name]) for name in VERDICTS if cells[name] != "0"}
    assert told == {"confirmed": 2, "worse": 1, "not-run": 1, "not-testable": 1}
    assert cells["rows"] == "5"
    assert table.rows[0][1:] == table.rows[1][1:]  # one paper is all
    said = verdicts.sentence(judged)
    assert said == "Of 5 rows: 2 confirmed; 1 worse; 1 not-run; 1 not-testable."


def test_rows_that_state_no_result_are_told_from_results_that_none_can_test(tmp_path):
    named = {"size": "size", "protocol": "setting", "gap": "gap"}
    rows = "".join(
        lab.row(kind='"fact"', ours=None, better=None, untestable=f'"{reason}"').replace("[row]", f"[{name}]")
        for reason, name in named.items()
    )
    judged = claims.judge(lab.ledger(tmp_path, rows), [])
    said = verdicts.sentence(judged)
    assert said.startswith("Of 3 rows: 3 not-testable (2 of these state no result"), said
    assert {f"not-testable: {reason} (1)" for reason in named} <= {term for term, _ in verdicts.reading(judged)}


def test_a_smaller_scale_is_counted_apart(tmp_path):
    records = lab.runs(GOOD, described=lab.protocol(suites=["standard"]))
    judged = claims.judge(lab.ledger(tmp_path, ROWS), records)
    table = verdicts.summary(judged)
    full, everything, less = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (full["confirmed"], full["smaller scale only"], full["rows"]) == ("0", "1", "5")
    assert everything["confirmed"] == "0"
    assert (less["confirmed"], less["rows"]) == ("1", "1")
    assert "at a smaller scale 1 confirmed" in verdicts.sentence(judged)
    for text in (verdicts.markdown(judged), verdicts.html(judged)):
        assert "confirmed (smaller scale)" in text


def test_published_and_ours_stand_side_by_side(judged):
    by_id = {j.claim.id: (verdicts.published(j.claim), verdicts.ours(j)) for j in judged}
    # the t of 4 degrees, 2.131847, times the SD 0.3647 of the five over √5
    assert by_id["row"] == ("90 ± 1.1 % (n = 3)", "89.96 ± 0.35 % (n = 5)")
    assert by_id["lth"] == ("90 to 93 %", "84.96 ± 0.35 % (n = 5)")
    assert by_id["order"] == ("FIP > LTH", "+5.00 ± 0.00 % (n = 5)")
    assert by_id["missing"][1] == by_id["fact"][1] == ""


def test_every_row_of_the_ledger_stands_once(tmp_path):
    judged = claims.judge(claims.load(), [])
    text = verdicts.markdown(judged)
    rows = list(csv.DictReader(io.StringIO(verdicts.csv(judged))))
    assert [row["id"] for row in rows] == [j.claim.id for j in judged]
    assert {row["verdict"] for row in rows} == {"not-run", "not-testable"}
    for judgement in judged:
        assert len(re.findall(rf"^\| {judgement.claim.id} +\|", text, flags=re.M)) == 1, judgement.claim.id
        assert judgement.why
        assert bool(judgement.command) == (judgement.verdict == "not-run"), judgement.claim.id
    assert json.loads(verdicts.json(judged))["sentence"] == verdicts.sentence(judged)


def test_nothing_is_unescaped(judged):
    assert "<b>x</b>" not in verdicts.html(judged)
    assert "&lt;b&gt;x&lt;/b&gt;" in verdicts.html(judged)
    text = verdicts.markdown(judged)
    assert "<b>" not in text
    assert r"5 &lt; 6 \| \*bold\* &amp;" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for table in (lines[:4], lines[4:]):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_a_spreadsheet_runs_no_formula(judged):
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(verdicts.csv(judged)))}
    assert rows["fact"]["metric"] == "'=1+1"
    assert (rows["row"]["mean"][:5], rows["row"]["seeds"], rows["row"]["scale"]) == ("89.96", "5", "paper")
    assert rows["row"]["conflicts"] == '["lth"]'
    assert float(rows["lth"]["high"]) < -2


def test_the_json_holds_what_decided(judged):
    rows = {row["claim"]["id"]: row for row in json.loads(verdicts.json(judged))["rows"]}
    assert rows["row"]["finding"]["ours"]["n"] == 5
    assert rows["row"]["verdict"] == "confirmed"
    assert rows["missing"]["finding"] is None


def test_the_same_records_give_the_same_bytes(judged, tmp_path):
    first = [path.read_bytes() for path in verdicts.write(judged, tmp_path / "one", verdicts.FORMATS)]
    again = [path.read_bytes() for path in verdicts.write(judged, tmp_path / "two", verdicts.FORMATS)]
    assert first == again
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "claims.csv", "claims.html", "claims.json", "claims.md",
    ]  # fmt: skip


def test_rows_are_chosen_by_name(tmp_path):
    ledger = lab.ledger(tmp_path, ROWS)
    names = lambda *asked: [claim.id for claim in verdicts.chosen(ledger, asked)]  # noqa: E731
    everything = ["row", "lth", "order", "missing", "fact"]
    assert names() == names("a-paper") == names("study") == names("digits-sparsity") == everything
    assert names("*o*") == ["row", "order"]
    assert names("lth", "row") == ["row", "lth"]
    with pytest.raises(UserError, match=r"'lht': did you mean lth"):
        names("lht")


# ------------------------------------------------------------------------------------------- the command


def test_the_command(call, tmp_path):
    place = lab.folder(tmp_path / "ledger", ROWS)
    kept = tmp_path / "kept"
    kept.mkdir()
    lines = [store.encode(record) + b"\n" for record in lab.runs(GOOD)]
    (kept / "all.jsonl").write_bytes(b"".join(lines))
    out = tmp_path / "out"
    answer = call("compare", "row", "lth", "--ledger", place, "--results", kept, "--out", out, "--format", "md,json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        str(out / "claims.md"),
        str(out / "claims.json"),
        "Of 2 rows: 1 confirmed; 1 not-run.",
    ]


def test_without_records_every_row_is_there(call, tmp_path):
    place = lab.folder(tmp_path / "ledger", ROWS)
    answer = call("compare", "--ledger", place, "--out", tmp_path / "out")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "Of 5 rows: 4 not-run; 1 not-testable."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--format pdf", ("--format pdf", "md, csv, html, json")),
        ("v1-lenet-params-derivd", ("'v1-lenet-params-derivd'", "did you mean v1-lenet-params-derived")),
        ("--results nowhere", ("nowhere", "no such results folder")),
        ("--ledger nowhere", ("nowhere", "no studies.toml")),
        ("--out /dev/null/x", ("/dev/null/x", "cannot write here", "--out")),
    ],
)
def test_a_wrong_call_of_compare(words, said, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call("compare", *words.split())
    for part in said:
        assert part in answer.error, (part, answer.error)
    assert answer.out == ""


def test_a_broken_row_is_the_users_mistake(call, tmp_path):
    place = lab.folder(tmp_path / "ledger", lab.row(value="nan"))
    answer = call("compare", "--ledger", place, "--out", tmp_path / "out")
    assert "a-paper.toml: row 'row': field 'value': expected a finite number" in answer.error
    assert not (tmp_path / "out").exists()
