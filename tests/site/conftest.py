"""One site of all tracks for all tests here, and a browser to look at it."""

from __future__ import annotations

import os
import shutil

import pytest
from site_lab import audits, ledger, records

from fipbench import site

# No drawing on a GPU that is not there, and no lower priority for what is not in the foreground.
ARGUMENTS = ("--disable-gpu", "--disable-renderer-backgrounding")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The site of `records`."""
    place = tmp_path_factory.mktemp("site")
    site.write(records(), place, ledger(), audits())
    return place


@pytest.fixture(scope="session")
def kinds(folder):
    """A page of every kind by name."""
    [attacked, *_] = sorted((folder / "records").glob("digits-robustness--adp--*.html"))
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
        "audited record": attacked,
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
