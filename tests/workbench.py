"""Helpers of the harness's tests: a task that takes a fraction of a second, and the program as its user sees it."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fipbench.spec import Cost, Items, Job, Record, id_of, sealed

TINY = """\
title   = "Tiny digits"
track   = "sparsity"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [16], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 1, batch_size = 32, learning_rate = 0.05, snapshots = [0] }
budget  = { epochs = 3, batch_size = 32 }
validation = 300
headline   = "area"
sparsities = [0.5, 0.9]
"""


def write_tiny(folder: Path, name: str = "tiny", more: str = "", **fields: str) -> Path:
    """A small task as a TOML file; `fields` replace or add top-level lines (TOML text; empty: left out)."""
    text = TINY
    for field, value in fields.items():
        line = f"{field} = {value}\n" if value else ""
        text, count = re.subn(rf"^{field} *=.*\n", lambda _, line=line: line, text, flags=re.M)
        text += "" if count else line
    path = folder / f"{name}.toml"
    path.write_text(text + more)
    return path


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a user's mistake; anything else on standard error fails the test."""
        assert self.code == 2, self
        assert re.fullmatch(r"error: [^\n]+\n", self.err), self.err
        return self.err.removeprefix("error: ").rstrip()


PROGRAM = str(Path(sysconfig.get_path("scripts")) / "fipbench")


@contextmanager
def started(*words: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The installed program, running; it does not outlive the block."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen([PROGRAM, *map(str, words)], **{**pipes, **options})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def program(*words: object, **options: Any) -> Answer:
    """The installed program in a process of its own."""
    with started(*words, **options) as process:
        out, err = process.communicate(timeout=300)
    return Answer(process.returncode, out, err)


def mentions(text: str, *parts: str) -> None:
    """Fails with all parts that the text lacks."""
    missing = [part for part in parts if part not in text]
    assert not missing, (missing, text)


def example_job(**fields: Any) -> Job:
    """A job built by hand, the same for ever."""
    given: dict[str, Any] = {
        "task": "tiny",
        "task_version": 1,
        "task_digest": "0123456789ab",
        "track": "sparsity",
        "method": "magnitude",
        "method_version": "1+0123456789ab",
        "params": {"scope": "layer", "learning_rate": 0.1, "rounds": 3, "rewind": True},
        "seed": 0,
        "suite": "quick",
        "device": "cpu",
        "data_variant": "sklearn",
        "data": {"train": "00", "test": "11"},
        "label": "magnitude",
    }
    return Job(**{**given, **fields})


def example_record(seed: int = 0, **fields: Any) -> Record:
    """A valid record built by hand, of `example_job`."""
    job = fields.pop("job", example_job(seed=seed))
    given: dict[str, Any] = {
        "id": id_of(job),
        "job": job,
        "protocol": {"name": "tiny", "title": "Tiny digits", "suites": ["quick"], "headline": "area"},
        "status": "ok",
        "metrics": {"area": 0.5, "dense_accuracy": 0.875},
        "curves": {"accuracy": {"sparsity": [0.5, 0.9], "value": [0.75, 0.25]}},
        "items": {"0.5": Items(count=8, bits="/w=="), "0.9": Items(count=8, bits="Dw==")},
        "notes": ("stopped at 33% of the budget",),
        "cost": Cost(
            wall_s=0.25, forward_examples=1184, backward_examples=1184, peak_memory_bytes=1 << 28, parameters_stored=144
        ),
        "provenance": {"commit": "0" * 40, "threads": 1, "time": "2026-01-01T00:00:00.000+00:00"},
    }
    return sealed(Record(**{**given, **fields}))


@contextmanager
def jobs_in_process() -> Iterator[None]:
    """Jobs run in this process, one after the other; what they set for torch is put back."""
    import pytest
    import torch

    from fipbench import store, worker
    from fipbench.executors import local

    def execute(tickets: Any, workers: int, watch: Any, timeout: float | None = None) -> Iterator[Any]:
        for ticket in tickets:
            Path(ticket.results).mkdir(parents=True, exist_ok=True)
            assert worker.run_and_store(ticket, watch) == 0
            yield store.get(Path(ticket.results), id_of(ticket.job))

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "execute", execute)
        yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


def gone(processes: list[psutil.Process], within: float = 120) -> bool:
    """Whether all of them end within so many seconds; a zombie has ended."""
    end = time.monotonic() + within
    while any(alive(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(process: psutil.Process) -> bool:
    """Whether it runs still."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
