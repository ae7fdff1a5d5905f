"""One site of all tracks for all tests here, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from synthetic import continual_suite, record, robustness_suite, suite

from fipbench import claims, site

# No drawing on a GPU that is not there, and no lower priority for what is not in the foreground.
ARGUMENTS = ("--disable-gpu", "--disable-renderer-backgrounding")
LEARNERS = ("naive", "ewc", "lwf", "joint", "fip", "der++", "replay", "gem", "unlucky")
HOSTILE = '<script>alert("x")</script> & =cmd()\n# \x1b[31m {{ 7 * 7 }} {% raw %}'


def records():
    """A board of each track with a method that failed, one that stands on real data, and one with hostile words."""
    title = {"title": HOSTILE, "selection": HOSTILE}
    hostile = [record("fip", s, 0.9, task="hostile", params={"rule": HOSTILE}, notes=(HOSTILE,), protocol_changes=title)
               for s in range(2)]  # fmt: skip
    hostile.append(record("lth", 0, task="hostile", error=("ValueError", HOSTILE), protocol_changes=title))
    real = {"suites": ["standard"]}
    learners = continual_suite(3, memories=(4,), tasks=3, protocol_changes=_stream() | real)
    return [
        *suite(4),
        *[found for found in learners if found.job.label in LEARNERS],
        *robustness_suite(3),
        *hostile,
    ]


def _stream():
    return {"stream": {"classes": [[0, 1], [2, 3], [4, 5]], "score": ["task", "class"], "softmax": "all"},
            "memories": [4]}  # fmt: skip


def ledger():
    """Every eighth published number: a page of all of them takes a browser's auditor many seconds."""
    found = claims.load()
    chosen = list(found.claims.items())[::8]
    return msgspec.structs.replace(found, claims=dict(chosen))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The site of `records`."""
    place = tmp_path_factory.mktemp("site")
    site.write(records(), place, ledger())
    return place


@pytest.fixture(scope="session")
def kinds(folder):
    """A page of every kind by name."""
    of_record = {
        path.name.split("--")[1]: path for path in sorted((folder / "records").glob("digits-sparsity--*.html"))
    }
    return {
        "overview": folder / "index.html",
        "methods": folder / "methods.html",
        "claims": folder / "claims.html",
        "sparsity": folder / "tasks" / "digits-sparsity.html",
        "continual": folder / "tasks" / "split-digits-5.html",
        "robustness": folder / "tasks" / "digits-robustness.html",
        "hostile": folder / "tasks" / "hostile.html",
        "method": folder / "methods" / "fip.html",
        "record": of_record["fip"],
        "failed record": of_record["unlucky"],
    }


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by playwright. CI installs it; without it these tests are skipped, which CI takes for failed."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium or google-chrome on PATH: install one to test the site in a browser")
    from playwright.sync_api import sync_playwright

    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=[*sandbox, *ARGUMENTS], timeout=120_000)
        yield found
        found.close()
