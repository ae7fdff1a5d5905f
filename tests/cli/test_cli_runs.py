"""Runs of the installed program, to their end and to ends that nobody planned."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import select
import signal
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from workbench import PROGRAM, gone, program, started

from fipbench import store
from fipbench.spec import equal, sealed

# `slow` waits, in its job, for a file; `quick` does not. Each says in `DIR/NAME-SEED` that it was computed.
WAITING = """
import copy, os, time
from pathlib import Path
from fipbench.methods import sparsity

def cut(model, sparsities, name):
    from fipbench import pruning
    with open(Path({folder!r}) / name, "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    for level in sparsities:
        masks = pruning.magnitude_masks(pruning.prunable(model), level)
        yield level, pruning.apply(copy.deepcopy(model), masks)

@sparsity()
def quick():
    return lambda model, sparsities, trial: cut(model, sparsities, "quick")

@sparsity()
def slow():
    def prune(model, sparsities, trial):
        (Path({folder!r}) / "waiting").write_text(str(os.getpid()))
        while not (Path({folder!r}) / "go").exists():
            time.sleep(0.01)
        yield from cut(model, sparsities, "slow")
    return prune
"""


@pytest.fixture
def waiting(tmp_path):
    file = tmp_path / "waiting.py"
    file.write_text(WAITING.format(folder=str(tmp_path)))
    return file


def until(said, *processes):
    """Wait until `said()` is true; fail if it never is, or if a process has ended meanwhile."""
    end = time.monotonic() + 300
    while not said():
        ended = [process.communicate() for process in processes if process.poll() is not None]
        assert not ended and time.monotonic() < end, ended or "waited in vain"
        time.sleep(0.02)


def old_jobs(pid):
    """Jobs of a run that have been there for a while; only those that wait for something grow old."""
    with contextlib.suppress(psutil.NoSuchProcess):
        jobs = [job for child in psutil.Process(pid).children() for job in child.children()]
        return [job for job in jobs if time.time() - job.create_time() > 1]
    return []


def text_of(file):
    return file.read_text() if file.exists() else ""


def records(folder: Path):
    found, problems = store.read(folder)
    assert not problems, problems
    return found


def test_a_run_its_repetition_and_what_it_shows(tiny, results, tmp_path, call):
    words = ["run", tiny(), "--methods", "dense,magnitude", "--seeds", 2]
    planned = call(*words, "--dry-run")
    assert (planned.code, planned.err) == (0, "")
    assert "4 jobs, 4 to compute; nothing was run" in planned.out
    assert not list(results.glob("*.json")) and not (results / ".locks").exists()

    work = tmp_path / "a file here stands in for no library"
    work.mkdir()
    for name in ("torch", "queue", "select", "tasks", "random"):
        (work / f"{name}.py").write_text("raise RuntimeError('this is not the library')\n")
    first = program(*words, cwd=work)
    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    assert lines[0] == "4 jobs to compute, 0 in the store"
    assert [line.partition("]")[0] for line in lines[1:5]] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    assert {" ".join(line.split()[1:5]) for line in lines[1:5]} == {
        f"tiny {method} seed {seed}:" for method in ("dense", "magnitude") for seed in (0, 1)
    }
    assert all(" left" in line for line in lines[1:4]) and " left" not in lines[4]
    assert "\x1b" not in first.out and "\r" not in first.out
    table = first.out.split("tiny: Tiny digits")[1]
    assert "magnitude" in table and "dense" in table
    assert table.count("\ntiny: magnitude") == 1
    assert lines[-1] == f"4 jobs computed, 0 from the store {results}"

    kept = {file.name: file.read_bytes() for file in results.glob("*.json")}
    assert len(kept) == 4
    again = call(*words)
    assert again.code == 0
    assert again.out.splitlines()[0] == "0 jobs to compute, 4 in the store"
    assert again.out.split("tiny: Tiny digits")[1].splitlines()[:-1] == table.splitlines()[:-1]
    assert again.out.splitlines()[-1] == f"0 jobs computed, 4 from the store {results}"
    assert {file.name: file.read_bytes() for file in results.glob("*.json")} == kept

    forced = call(*words[:4], "--seeds", 1, "--force")
    assert forced.out.splitlines()[-1] == f"2 jobs computed, 0 from the store {results}"
    for record in records(results):
        assert equal(record, store.parse(kept[f"{record.id}.json"]))


def test_ctrl_c_on_a_terminal(tiny, results, tmp_path, waiting, call):
    """A bar, then one clear line; what is finished is kept, nothing keeps running, the next run does the rest."""
    words = ["run", str(tiny()), "--plugin", str(waiting), "--methods", "quick,slow", "--seeds", "1", "--workers", "1"]
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started the tests may have had it ignored
        os.execve(PROGRAM, [PROGRAM, *words], {**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    said, code = b"", []

    def heard(text: bytes) -> bool:
        """Whether the program, on its terminal, has said `text` by now."""
        nonlocal said
        while select.select([terminal], [], [], 0)[0]:
            try:
                said += os.read(terminal, 65536)
            except OSError:  # it has closed the terminal
                break
        code.extend(os.waitstatus_to_exitcode(status) for p, status in [os.waitpid(pid, os.WNOHANG)] if p and not code)
        return text in said or bool(code)

    until(lambda: heard(b"slow s0") and heard(b"1/2") and (tmp_path / "waiting").exists())
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(family) == 3
    os.write(terminal, b"\x03")
    until(lambda: heard(b"goes on from there") and code)
    os.close(terminal)
    assert code == [130]
    text = said.decode()
    assert "\x1b[" in text and "━" in text and "0/2" in text and "quick s0" in text
    assert "[1/2]" not in text
    last = "interrupted: what is finished is stored; the same command goes on from there"
    assert text.count("interrupted") == text.count(last) == 1 and text.rstrip().endswith(last)
    assert gone(family, within=100)
    assert [record.job.method for record in records(results)] == ["quick"]

    (tmp_path / "go").touch()
    rest = call(*words)
    assert rest.code == 0 and rest.out.splitlines()[0] == "1 job to compute, 1 in the store"
    assert [record.job.method for record in records(results)] == ["quick", "slow"]
    assert len((tmp_path / "quick").read_text().split()) == 1


def test_the_program_is_killed(tiny, results, tmp_path, waiting):
    """Its jobs die with it, and what is finished is kept."""
    words = ["run", tiny(), "--plugin", waiting, "--methods", "quick,slow", "--seeds", 1, "--workers", 1]
    with started(*words) as process:
        until(lambda: text_of(tmp_path / "waiting"), process)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert int(text_of(tmp_path / "waiting")) in [member.pid for member in family] and len(family) == 3
        process.kill()
        process.wait(timeout=100)
    assert gone(family, within=100)
    assert [record.job.method for record in records(results)] == ["quick"]


def test_the_server_dies_and_its_jobs_run_in_another(tiny, results, tmp_path, waiting):
    words = ["run", tiny(), "--plugin", waiting, "--methods", "slow", "--seeds", 1, "--workers", 1]
    with started(*words) as process:
        until(lambda: text_of(tmp_path / "waiting"), process)
        server, job = psutil.Process(process.pid).children(recursive=True)
        assert job.pid == int((tmp_path / "waiting").read_text())
        server.kill()
        assert gone([job], within=100)
        (tmp_path / "go").touch()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out, err)
    assert [record.status for record in records(results)] == ["ok"]


def test_two_runs_on_one_folder_share_the_work(tiny, results, tmp_path, waiting):
    """Every job is computed once, whoever does it, and both have all the records."""
    words = ["run", tiny(), "--plugin", waiting, "--methods", "quick,slow", "--seeds", 2, "--workers", 2]
    with started(*words) as one, started(*words) as two:
        for process in (one, two):
            until(lambda pid=process.pid: len(old_jobs(pid)) == 2, one, two)
        (tmp_path / "go").touch()
        said = [process.communicate(timeout=300) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], said
    assert all("tiny: " in out and err == "" for out, err in said)
    assert len(records(results)) == 4
    assert len((tmp_path / "quick").read_text().split()) == 2
    assert len((tmp_path / "slow").read_text().split()) == 2
    assert not list(results.rglob("*.tmp"))


def test_the_disk_is_full(tiny, results, call):
    """Files may not grow beyond what the check at the start needs: the first record does not fit."""
    task = tiny(sparsities="[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]")
    assert call("run", task, "--methods", "magnitude", "--seeds", 1).code == 0
    kept = {file.name: file.read_bytes() for file in results.glob("*.json")}
    assert all(len(content) > 4096 for content in kept.values())

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = ["run", task, "--methods", "magnitude", "--seeds", 1, "--set", "magnitude.scope=global"]
    answer = program(*words, preexec_fn=limit)
    assert answer.code == 2
    assert answer.err.count("\n") == 1 and answer.err.startswith("error: ")
    assert str(results) in answer.err and "cannot write here" in answer.err and "--results" in answer.err
    assert {file.name: file.read_bytes() for file in results.glob("*.json")} == kept
    assert not list(results.rglob("*.tmp"))


def test_a_store_with_files_that_are_no_records(tiny, results, call):
    """Reported, moved aside, not counted, computed again; never deleted."""
    words = ["run", tiny(), "--methods", "dense,magnitude", "--seeds", 2]
    assert call(*words).code == 0
    good = {record.id: record for record in records(results)}
    cut, altered, renamed, foreign = sorted(good)
    files = {name: results / f"{name}.json" for name in good}
    bad = {
        cut: files[cut].read_bytes()[:-100],
        altered: files[altered].read_bytes().replace(b'"dense_accuracy":0.', b'"dense_accuracy":0.9'),
        renamed: files[foreign].read_bytes(),
        foreign: store.encode(sealed(msgspec.structs.replace(good[foreign], schema="somebody.else/1"))),
    }
    for name, content in bad.items():
        files[name].write_bytes(content)
    (results / "set-aside").mkdir()
    (results / "set-aside" / f"{cut}.json").write_text("an earlier one")

    planned = call(*words, "--dry-run")
    assert "4 jobs, 4 to compute" in planned.out
    assert all(files[name].read_bytes() == content for name, content in bad.items())

    listed = call("leaderboard", "--out", results / "boards")
    assert listed.code == 2 and listed.err.count("; not counted\n") == 4

    answer = call(*words)
    assert answer.code == 0
    assert answer.out.splitlines()[0] == "4 jobs to compute, 0 in the store"
    warnings = answer.err.splitlines()
    assert len(warnings) == 4 and all(line.startswith("warning: ") for line in warnings)
    for name, reason in {
        cut: "not a record",
        altered: "does not match its digest",
        renamed: "is not that of its job and file",
        foreign: "schema is 'somebody.else/1'",
    }.items():
        (line,) = [line for line in warnings if str(files[name]) in line]
        assert reason in line and str(results / "set-aside") in line
    aside = sorted(file.read_bytes() for file in (results / "set-aside").iterdir())
    assert aside == sorted([*bad.values(), b"an earlier one"])
    assert all(equal(record, good[record.id]) for record in records(results))
    assert len(records(results)) == 4
