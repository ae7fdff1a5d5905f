"""`fipbench submit` packs records into one file that carries no code; `fipbench verify` finds what is wrong with it."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

import msgspec
import pytest
import yaml
from workbench import example_job, example_record, write_tiny

from fipbench import plan, registry, store, submission
from fipbench.errors import UserError
from fipbench.spec import Failure, id_of, sealed, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

ROOT = Path(__file__).parents[2]
SEEDS = 10  # of the quick suite


def records_of(name="digits-sparsity", method="magnitude", seeds=range(SEEDS), task=None, **fields):
    """Records of an installed task and method as a run would write them, with made-up scores."""
    task = task or registry.read_task(name)
    found = registry.load_method(task.track, method, registry.find_methods(task.track)[method])
    source = next(iter(task.sources[0].variants.values()))
    made = []
    for seed in seeds:
        job = example_job(
            task=task.name,
            task_version=task.version,
            task_digest=task_digest(task, PROTOCOL_VERSIONS[task.track]),
            track=task.track,
            method=method,
            label=method,
            method_version=found.version,
            params=found.defaults,
            seed=seed,
            data={"train": source.train, "test": source.test},
        )
        job = msgspec.structs.replace(job, **{key: fields[key] for key in fields if hasattr(job, key)})
        rest = {key: value for key, value in fields.items() if not hasattr(job, key)}
        given = {"protocol": msgspec.to_builtins(task), "metrics": {task.headline: 0.5}, **rest}
        made.append(example_record(job=job, **given))
    return made


@pytest.fixture(scope="module")
def good():
    return [*records_of(), *records_of(method="random")]


def stored(folder, records):
    folder.mkdir(exist_ok=True)
    for record in records:
        store.write(folder, record)
    return folder


def packed(path, records, **fields):
    path.write_bytes(submission.pack(records, **fields))
    return path


def said(records, kind, plugins=()):
    return [finding.text for finding in submission.check(records, plugins) if finding.kind == kind]


# ------------------------------------------------------------------------------------------- as its user sees it


def test_submit_then_verify(call, good, results, tmp_path):
    stored(results, good)
    out = tmp_path / "mine.jsonl.gz"
    answer = call("submit", "--out", out, "--by", "A. Uthor", "--source", "https://example.org/code")
    assert answer.code == 0, (answer.out, answer.err)
    assert f"{out}: {2 * SEEDS} records of 1 tasks" in answer.out
    checked = call("verify", out)
    assert checked.code == 0 and not checked.err
    assert "by: A. Uthor" in checked.out and "source: https://example.org/code" in checked.out
    assert "WRONG" not in checked.out and checked.out.count("kept") == 6
    assert f"{2 * SEEDS} records, 0 checks fail; nothing was run" in checked.out


def test_the_file_is_what_it_says_and_holds_nothing_else(good):
    """Read by gzip and json alone: a manifest, then each record as the store writes it."""
    content = submission.pack(reversed(good))
    assert content == submission.pack(good)  # the order and the time of packing leave no trace
    head, *lines = gzip.decompress(content).splitlines()
    manifest = json.loads(head)
    assert manifest["schema"] == "fipbench.submission/1" and manifest["records"] == len(lines) == 2 * SEEDS
    assert manifest["digest"] == hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
    assert manifest["tasks"] == {"digits-sparsity": good[0].job.task_digest}
    assert manifest["methods"] == {
        "sparsity/magnitude": [good[0].job.method_version],
        "sparsity/random": [good[-1].job.method_version],
    }
    assert sorted(lines) == sorted(store.encode(record) for record in good)
    assert json.loads(lines[0])["provenance"]["commit"] == "0" * 40


def test_tasks_and_methods_are_chosen_by_name(call, good, results, tmp_path):
    stored(results, [*good, example_record()])
    out = tmp_path / "mine.gz"
    assert call("submit", "digits-sparsity", "--methods", "random", "--out", out).code == 0
    assert {(r.job.task, r.job.label) for r in submission.read(out)[1]} == {("digits-sparsity", "random")}
    answer = call("submit", "digits-sparsty", "--out", out)
    assert "unknown task 'digits-sparsty' among the records" in answer.error
    assert "unknown method 'randm' among the records" in call("submit", "--methods", "randm", "--out", out).error


def test_the_author_names_the_file_of_the_method(call, results, tmp_path):
    """Whose version is then compared; and rows that lack seeds come with what to do about them."""
    plugin = tmp_path / "slimmest.py"
    plugin.write_text("from fipbench.methods import sparsity\n\n@sparsity()\ndef slimmest():\n    pass\n")
    version = registry.load_method("sparsity", "slimmest", f"{plugin}:slimmest").version
    mine = {"method": "slimmest", "label": "slimmest", "method_version": version}
    for record in records_of(seeds=range(9)):
        job = msgspec.structs.replace(record.job, **mine)
        stored(results, [example_record(job=job, protocol=record.protocol, metrics=record.metrics)])
    words = ("submit", "--out", tmp_path / "mine.gz")
    assert "method slimmest (sparsity): not installed here" in call(*words).out
    answer = call(*words, "--plugin", plugin)
    assert f"kept     method slimmest (sparsity): its code is the installed one ({version})" in answer.out
    assert answer.code == 1 and "slimmest lacks 9" in answer.out and "run without --seeds" in answer.out


@pytest.mark.usefixtures("in_process")
def test_a_sample_is_run_again(call, tmp_path, results):
    file = write_tiny(tmp_path)
    assert call("run", file, "--methods", "magnitude", "--seeds", 2).code == 0
    (true,) = [r for r in store.read(results)[0] if r.job.seed == 0]
    (other,) = [r for r in store.read(results)[0] if r.job.seed == 1]
    lie = sealed(msgspec.structs.replace(other, metrics={**other.metrics, "area": 0.999}))
    honest, false = packed(tmp_path / "a.gz", [true]), packed(tmp_path / "b.gz", [lie])
    said_of = call("verify", honest, "--sample", 1).out
    assert "1 equal, 0 differ" in said_of
    assert "WRONG    task tiny: suite quick has seeds 0 to 9: magnitude lacks" in said_of
    answer = call("verify", false, "--sample", 1)
    assert answer.code == 1 and "metrics.area: stored 0.999" in answer.out


# ------------------------------------------------------------------------------------------- what is refused


def test_nothing_to_submit(call, results, tmp_path):
    results.mkdir()
    answer = call("submit", "--out", tmp_path / "x.gz")
    assert "nothing to submit: no records of the test split" in answer.error
    searched = example_record(job=example_job(split="validation"))
    with pytest.raises(UserError, match="nothing to submit"):
        submission.pack([searched])
    assert not (tmp_path / "x.gz").exists()


def test_records_of_unlike_protocols_name_the_field(call, good, results, tmp_path):
    task = registry.read_task("digits-sparsity")
    longer = msgspec.structs.replace(task, budget=msgspec.structs.replace(task.budget, epochs=task.budget.epochs + 1))
    stored(results, [*good, *records_of(task=longer)])
    answer = call("submit", "--out", tmp_path / "x.gz")
    assert "records of task 'digits-sparsity' are of unlike protocols: budget.epochs is " in answer.error
    assert f"{task.budget.epochs + 1}" in answer.error and not (tmp_path / "x.gz").exists()
    elsewhere = records_of(seeds=[0], data={"train": "00", "test": "11"})
    with pytest.raises(UserError, match="unlike protocols: data digest of test is "):
        submission.pack([*good, *elsewhere])


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--by", "two\nlines"], "--by: expected one line"),
        (["--note", "\x1b[31mred"], "--note: expected one line"),
        (["--by", "x" * 301], "--by: expected one line"),
        (["--source", "javascript:alert(1)"], "expected an address that begins with https://"),
    ],
)
def test_hostile_words(words, field, call, good, results, tmp_path):
    stored(results, good)
    assert field in call("submit", "--out", tmp_path / "x.gz", *words).error


def test_a_name_that_leads_away_is_no_record(good, tmp_path):
    """A record's task is a name; nothing that a path is made of passes the reader."""
    line = store.encode(good[0]).replace(b'"task":"digits-sparsity"', b'"task":"../../etc/x"')
    forged(tmp_path / "x.gz", good[:1], [line])
    with pytest.raises(UserError, match="line 2: not a record"):
        submission.read(tmp_path / "x.gz")


def forged(path, these, lines, **manifest):
    """A file whose manifest has a digest that matches, and what else is given."""
    head = json.loads(gzip.decompress(submission.pack(these)).splitlines()[0])
    body = b"".join(line + b"\n" for line in lines)
    head |= {"digest": hashlib.sha256(body).hexdigest(), **manifest}
    path.write_bytes(gzip.compress(json.dumps(head).encode() + b"\n" + body))
    return path


def test_damage_is_found(good, tmp_path, monkeypatch):
    whole = submission.pack(good)
    lines = [store.encode(record) for record in good]
    one = good[:1]
    altered = lines[0].replace(b'"area":0.5', b'"area":0.9', 1)
    assert altered != lines[0]
    cases = {
        "cut": (whole[: len(whole) // 2], "not a whole submission"),
        "turned": (whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], "not a whole submission|digest|manifest"),
        "empty": (gzip.compress(b""), "its first line is no manifest"),
        "no manifest": (gzip.compress(lines[0] + b"\n"), "its first line is no manifest"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / "x.gz").write_bytes(content)
        with pytest.raises(UserError, match=reason):
            submission.read(tmp_path / "x.gz")
            pytest.fail(name)
    for given, reason in (
        ((one, lines[:1], {"digest": "0" * 64}), "do not match the manifest's digest"),
        ((one, [altered], {}), "line 2: content does not match its digest"),
        ((one, lines[:1] * 2, {"records": 2}), "2 different records"),
        ((one, lines[:1], {"records": 2}), "2 different records; it has 1"),
        ((one, lines[:1], {"schema": "fipbench.submission/9"}), "expected 'fipbench.submission/1'"),
        ((one, lines[:1], {"tasks": {"digits-sparsity": "0"}}), "names other tasks or methods"),
        ((one, lines[:1], {"code": "import os"}), "its first line is no manifest .*unknown field `code`"),
    ):
        records, body, fields = given
        forged(tmp_path / "x.gz", records, body, **fields)
        with pytest.raises(UserError, match=reason):
            submission.read(tmp_path / "x.gz")
    monkeypatch.setattr(submission, "LARGEST", 1000)
    packed(tmp_path / "x.gz", good)
    with pytest.raises(UserError, match="unpacks to more than"):
        submission.read(tmp_path / "x.gz")


# ------------------------------------------------------------------------------------------- what is found


def test_all_seeds_of_a_row_have_to_be_there(good):
    assert not said(good, "wrong")
    assert said(good[:9] + good[10:], "wrong") == [
        "task digits-sparsity: suite quick has seeds 0 to 9: magnitude lacks 9"
    ]
    assert "magnitude lacks 3, 7" in said([r for r in good if r.job.seed not in (3, 7)], "wrong")[0]
    more = records_of(seeds=[*range(10), 12])
    assert "magnitude lacks 10, 11" in said(more, "wrong")[0]  # also beyond: none is left out by choice


def test_a_protocol_of_one_s_own_making(good):
    protocol = {**good[0].protocol, "title": "Digits", "budget": {**good[0].protocol["budget"], "epochs": 999}}
    forged_protocol = [sealed(msgspec.structs.replace(r, protocol=protocol)) for r in good]
    assert said(forged_protocol, "wrong")[0] == (
        "task digits-sparsity: the protocol in the records is not that of their digest"
    )
    task = registry.read_task("digits-sparsity")
    easier = msgspec.structs.replace(task, budget=msgspec.structs.replace(task.budget, epochs=999))
    (found,) = said(records_of(task=easier), "wrong")
    ours = task.budget.epochs
    assert found == f"task digits-sparsity: budget.epochs is 999 in the records and {ours} in the installed"
    unheard = msgspec.structs.replace(task, name="my-task")
    assert said(records_of(task=unheard), "note") == [
        "task my-task: is none of the installed ones; its protocol stands in the records"
    ]


def test_other_data_other_code_and_missing_scores():
    assert said(records_of(data={"train": "00", "test": "11"}), "wrong") == [
        "task digits-sparsity: the digests of its data are none that the task knows"
    ]
    (found,) = said(records_of(method_version="1+0123456789ab"), "wrong")
    assert found.startswith("method magnitude (sparsity): of version 1+0123456789ab in the records, 1+")
    (found,) = said(records_of(metrics={}), "wrong")
    assert found == "task digits-sparsity: magnitude has records without the score 'area'"
    failed = records_of(status="failed", metrics={}, error=Failure(type="ValueError", message="no"))
    assert not said(failed, "wrong") and said(failed, "note")[0].startswith("10 of the jobs failed")


def test_a_method_that_is_not_here_or_does_not_import_is_said(tmp_path):
    unknown = [
        sealed(msgspec.structs.replace(r, job=job, id=id_of(job)))
        for r in records_of()
        for job in [msgspec.structs.replace(r.job, method="never-heard-of", label="never-heard-of")]
    ]
    assert said(unknown, "note") == [
        "method never-heard-of (sparsity): not installed here; nothing but its author's word"
    ]
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_the_kind\n")
    with pytest.raises(UserError, match=r"broken.py: does not import: ModuleNotFoundError.* \(line 1\)"):
        said(unknown, "note", [str(broken)])


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"protocol": {}}, "its protocol is none of track sparsity"),
        ({"protocol": {"suites": 5, "headline": ["area"]}}, "its protocol is none of track sparsity"),
        ({"track": "robustness"}, "its records are of several tracks"),
    ],
)
def test_a_record_behind_a_sound_one_is_looked_at_too(second, reason, good):
    """Of one task's records the first is no better than the others: none may stop the check."""
    (other,) = records_of(seeds=[1], **second)
    sound = [record for record in good if record.id != other.id]
    assert any(reason in text for text in said([sound[0], other], "wrong"))
    assert any("protocol is none of track" in text for text in said([other, sound[0]], "wrong"))


def test_a_seed_beyond_all_reason_takes_no_memory():
    far = records_of(seeds=[*range(SEEDS), 10**15])
    (text,) = said(far, "wrong")
    assert "magnitude lacks 10, 11, 12, 13, 14, 15, 16, 17, 18, 19" in text


def test_what_a_record_says_steers_no_terminal(call, tmp_path):
    file = packed(tmp_path / "x.gz", records_of(method_version="1+\x1b[2J"))
    answer = call("verify", file)
    assert answer.code == 1 and "\x1b" not in answer.out and "1+�[2J" in answer.out


def test_suites_have_the_seeds_that_a_run_gives_them():
    assert plan.SEEDS["quick"] == SEEDS


# ------------------------------------------------------------------------------------------- form and workflow


def test_the_form_asks_for_what_submit_writes():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/submission.yml").read_text())
    assert form["labels"] == ["submission"] and form["name"] and form["description"]
    kinds = {"markdown", "input", "textarea", "dropdown", "checkboxes"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in form["body"]} <= kinds and len(set(ids)) == len(ids)
    assert {"file", "source"} <= {part["id"] for part in form["body"] if part.get("validations", {}).get("required")}


def test_the_workflow_runs_no_stranger_s_code_near_a_secret():
    text = (ROOT / ".github/workflows/submission.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {} and list(workflow[True]) == ["issues"]  # YAML reads `on` as true
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"contents": "read"} and "submission-check" in job["if"]
    assert "secrets" not in text and "pull_request_target" not in text and "GITHUB_TOKEN" not in text
    for step in job["steps"]:
        assert "${{" not in step.get("run", "")  # nothing of the issue becomes part of a command
        assert "ref" not in step.get("with", {})  # this repository's own branch
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    assert "--sample 0" in text and "--plugin" not in text


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("### File\n[mine.jsonl.gz](https://github.com/user-attachments/files/123/mine.jsonl.gz)\n", True),
        ("nothing", False),
        ("https://example.org/user-attachments/files/123/mine.jsonl.gz", False),
        ("https://github.com/user-attachments/files/123/../../x.gz", False),
        ("https://github.com/user-attachments/files/123/mine.gz?x=$(id)", False),
        ("https://github.com/user-attachments/files/123/mine.gz@example.org/x", False),
        ("https://github.com/user-attachments/files/1/a.gz https://github.com/user-attachments/files/2/b.gz", False),
    ],
)
def test_only_one_attachment_of_github_s_is_fetched(body, found):
    spec = importlib.util.spec_from_file_location("fetch_submission", ROOT / ".github/fetch_submission.py")
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    if found:
        assert fetch.address(body) == "https://github.com/user-attachments/files/123/mine.jsonl.gz"
    else:
        with pytest.raises(ValueError, match="expected one"):
            fetch.address(body)
