"""Records, tasks and folders from elsewhere: no name in them is a path, and no text in them is obeyed."""

from __future__ import annotations

import csv
import io
import re

import msgspec
import pytest
from workbench import example_record

from fipbench import registry, reports, store
from fipbench.errors import UserError
from fipbench.spec import Failure, id_of, sealed

PATHS = [
    "../evil",
    "/etc/evil",
    "a/../../evil",
    "a\\evil",
    "..",
    ".",
    "",
    "a b",
    "x\n",
    "\n",
    "x\0",
    "ſ",
    "А",
    "a" * 61,
]
EVIL = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "=cmd()",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "{{ 7 * 7 }}",
    "{% include '/etc/passwd' %}",
    "[a](javascript:alert(1))",
    "\x1b[2J\x07",
    "a\nb,c\"d;e",
    "\u202egnp.exe",
]  # fmt: skip


def of_job(**fields):
    record = example_record(protocol=PROTOCOL)
    job = msgspec.structs.replace(record.job, **fields)
    return sealed(msgspec.structs.replace(record, job=job, id=id_of(job)))


SCORES = {"area": 0.5, "accuracy@0.5": 0.5, "accuracy@0.9": 0.4}
CURVES = {"accuracy": {"sparsity": [0.5, 0.9], "value": [0.5, 0.4]}}
PROTOCOL = {
    "name": "tiny",
    "title": "Tiny digits",
    "track": "sparsity",
    "suites": ["quick"],
    "version": 1,
    "data": {
        "repo": "",
        "embedded": "digits",
        "revision": "",
        "variants": {"sklearn": {"train": "00", "test": "11", "note": ""}},
    },
    "model": {"name": "mlp", "inputs": [1, 8, 8], "hidden": [16], "outputs": 10},
    "base": {
        "epochs": 1,
        "batch_size": 32,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0,
    },
    "budget": {"epochs": 3, "batch_size": 32},
    "validation": 300,
    "headline": "area",
    "selection": "library defaults",
    "sparsities": [0.5, 0.9],
}


@pytest.mark.parametrize("field", ["task", "track", "method", "label"])
@pytest.mark.parametrize("name", PATHS, ids=ascii)
def test_no_record_is_named_so(field, name):
    with pytest.raises(ValueError, match="not a record"):
        store.parse(store.encode(of_job(**{field: name})))


@pytest.mark.parametrize("name", PATHS, ids=ascii)
def test_no_task_or_method_is_named_so(name, tiny, tmp_path):
    with pytest.raises(UserError):
        registry.read_task(str(tiny(more=f"\n[methods.{msgspec.json.encode(name).decode()}]\nuse = 'magnitude'\n")))
    with pytest.raises(UserError):
        registry.read_task(str(tiny(suites=msgspec.json.encode([name]).decode())))


def test_a_plugin_cannot_choose_a_path(tmp_path):
    for name in ("f/../x", "Ünder", "a b"):
        file = tmp_path / "plugin.py"
        file.write_text(
            f"from fipbench.methods import sparsity\ndef f():\n    return None\nglobals()[{name!r}] = sparsity()(f)\n"
        )
        registry._plugin_module.cache_clear()
        with pytest.raises(UserError, match="a method's name may hold"):
            registry.plugin_methods(str(file))


def evil_records():
    """Everything in a record that is free text, and everything in its protocol that is shown."""
    found = []
    for seed, text in enumerate(EVIL):
        protocol = {**PROTOCOL, "title": text, "selection": text}
        record = example_record(protocol=protocol, notes=(text,))
        params = {"rule": text, text: 1}
        job = msgspec.structs.replace(record.job, seed=seed, params=params, settings=text, role="method", label="fip")
        seen = {"metrics": {**SCORES, text: 0.25}, "curves": CURVES}
        found.append(sealed(msgspec.structs.replace(record, job=job, id=id_of(job), **seen)))
        failed = msgspec.structs.replace(job, label="lth", method="lth")
        error = Failure(type=text or "E", message=text)
        found.append(
            sealed(
                msgspec.structs.replace(record, job=failed, id=id_of(failed), status="failed", error=error, metrics={})
            )
        )
    for record in found:
        assert store.parse(store.encode(record)) == record  # whole, so it may come from anywhere
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "boards"
    paths = reports.write(evil_records(), folder, formats=reports.FORMATS)
    assert {path.parent for path in paths} == {folder}
    assert sorted(folder.parent.rglob("*")) == sorted([folder, *paths])
    return {path.suffix: path.read_text("utf-8") for path in paths}


def test_html_is_escaped(pages):
    text = pages[".html"]
    assert "<script" not in text and "onerror=alert(1)>" not in text.replace("&gt;", "") and "&lt;script&gt;" in text
    assert "<img" not in text and "49" not in re.findall(r"<h2[^>]*>[^<]*", text)[0]
    assert 'href="javascript' not in text and "{{ 7 * 7 }}" in text


def test_markdown_and_figures_are_escaped(pages):
    for suffix in (".md", ".svg"):
        assert "<script" not in pages[suffix] and "<img" not in pages[suffix], suffix
    assert not re.search(r"(?<!\\)\]\(javascript", pages[".md"])


def test_no_cell_of_a_csv_is_a_formula(pages):
    rows = list(csv.reader(io.StringIO(pages[".csv"])))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        if re.match(r"[=+\-@\t\r\n]", cell):
            assert float(cell) is not None, cell  # a number below zero is none


def test_no_control_character_reaches_a_terminal():
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", reports.terminal(reports.boards(evil_records())))


# ----------------------------------------------------------------------------------------------- folders


def test_a_results_folder_is_no_way_out_of_it(tmp_path, call, stored, results):
    """What is set aside stays in the folder, by its own last name, and a link is moved, not followed."""
    record = stored()
    outside = tmp_path / "outside.json"
    outside.write_bytes(b"mine")
    link = results / f"{record.id}.json"
    link.unlink()
    link.symlink_to(outside)
    moved = store.set_aside(results, store.Problem(link, "why"))
    assert moved.parent == results / "set-aside" and moved.is_symlink() and outside.read_bytes() == b"mine"
    link.symlink_to(outside)
    store.write(results, record)  # takes the link's place
    assert not link.is_symlink() and outside.read_bytes() == b"mine"
    assert store.get(results, record.id) == record


def test_export_and_leaderboard_write_where_they_are_told(tmp_path, call, results):
    results.mkdir()
    for record in evil_records():
        store.write(results, record)
    for name in ("../x", "/etc/x"):
        bad = of_job(task=name)
        (results / "bad.json").write_bytes(store.encode(bad))
        (results / "bad.jsonl").write_bytes(store.encode(bad))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        before = {path for path in tmp_path.rglob("*") if out not in path.parents}
        assert call("export", "--out", out / "all.jsonl").code == 0
        assert call("leaderboard", "--out", out, "--format", "md,csv,html,json").code == 0
        assert call("leaderboard", name, "--out", out).code == 2
        assert {path for path in tmp_path.rglob("*") if out not in path.parents} == before
        assert {path.parent for path in out.iterdir()} == {out}


def test_a_mirrors_name_stays_in_the_cache(tmp_path):
    """A data set's name from a task file names files in the cache: none of them elsewhere."""
    from fipbench import data
    from fipbench.spec import Data

    for repo in ("../../evil", "/etc/evil", "a/b"):
        key = data._key(Data(repo=repo, variants={}), "train")
        assert "/" not in key and (tmp_path / key).resolve().parent == tmp_path.resolve()
