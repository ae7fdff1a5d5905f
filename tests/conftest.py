"""What every test has: folders of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import Answer, example_record, jobs_in_process, write_tiny

from fipbench import cli, store
from fipbench.spec import Record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a test that is skipped has failed, unless it needs a GPU: a machine that lacks something must say so."""
    report: Any = yield
    unwanted = report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("gpu") is None
    if unwanted and os.environ.get("CI"):
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of the whole session, and a home that is nobody's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIPBENCH_CACHE", str(folder))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in [name for name in os.environ if name.startswith("XDG_")]:
            patch.delenv(name)
        yield folder


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of one test; not there until somebody makes it."""
    folder = tmp_path / "results"
    monkeypatch.setenv("FIPBENCH_RESULTS", str(folder))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """`tiny(name="tiny", more="", **fields)` writes a small task and returns its file; see `write_tiny`."""
    return lambda name="tiny", more="", **fields: write_tiny(tmp_path, name, more, **fields)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """`call("run", task, ...)`: what the program answers, asked in this process."""

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["fipbench", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Answer(code, *capfd.readouterr())

    return run


@pytest.fixture
def in_process() -> Iterator[None]:
    """Jobs run in this process, one after the other, instead of in forked ones of a server that imports all anew."""
    with jobs_in_process():
        yield


@pytest.fixture
def stored(tiny: Callable[..., Path], results: Path) -> Callable[..., Record]:
    """`stored(seed=0)` puts a valid record of the tiny task into the results folder; nothing is computed."""

    def put(seed: int = 0) -> Record:
        record = example_record(seed=seed)
        results.mkdir(exist_ok=True)
        store.write(results, record)
        return record

    return put
