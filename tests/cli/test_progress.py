"""What a run says of itself while it runs."""

from __future__ import annotations

import io

import pytest
from workbench import example_record

from fipbench import progress
from fipbench.spec import Failure

FAILED = {"status": "failed", "error": Failure(type="ValueError", message="x" * 500)}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines(clock, capsys):
    out = io.StringIO()
    with progress.watching(out) as watch:
        watch({"event": "plan", "todo": 3, "done": 2, "set_aside": ["a.json: cut; moved to b"]})
        watch({"event": "start", "id": "a--b--s0--0"})
        watch({"event": "progress", "id": "a--b--s0--0", "text": "method", "share": 0.5})
        for seed, more in ((0, {}), (1, FAILED), (2, {})):
            clock[0] += 60
            watch({"event": "record", "id": "", "record": example_record(seed, **more)})
    lines = out.getvalue().splitlines()
    assert lines[0] == "3 jobs to compute, 2 in the store"
    assert lines[1] == "[1/3] tiny magnitude seed 0: ok, 0.2 s  about 2 min left"
    assert lines[2].startswith("[2/3] tiny magnitude seed 1: FAILED (ValueError: xxx") and len(lines[2]) < 220
    assert lines[2].endswith("about 60 s left")
    assert lines[3] == "[3/3] tiny magnitude seed 2: ok, 0.2 s"
    assert capsys.readouterr().err == "warning: no valid record: a.json: cut; moved to b\n"


def test_a_bar_where_there_is_a_terminal(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    with progress.watching(out) as watch:
        watch({"event": "plan", "todo": 2, "done": 0, "set_aside": []})
        watch({"event": "start", "id": "tiny--fip--s3--0"})
        watch({"event": "progress", "id": "tiny--fip--s3--0", "text": "[b]method", "share": 0.5})
        watch({"event": "record", "id": "tiny--fip--s3--0", "record": example_record(3, **FAILED)})
    text = out.getvalue()
    assert "\x1b[" in text
    assert "FAILED (ValueError" in text


def test_names_of_jobs_are_short():
    assert progress._short("digits-sparsity--fip--s3--0123") == "fip s3"
    assert progress._short("anything") == "anything"
