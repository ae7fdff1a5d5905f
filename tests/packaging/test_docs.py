"""The documentation builds without a warning, loads nothing from elsewhere, and its navigation has every page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def pages(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [page for value in values for page in pages(value)]


def test_it_builds_strictly_and_every_page_is_there(site):
    sources = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    for name in sources:
        where = site / name.removesuffix(".md") / "index.html" if name != "index.md" else site / "index.html"
        assert where.is_file(), name
    assert not list(site.rglob("hooks.py"))


def test_nothing_is_loaded_from_elsewhere(site):
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]* rel=\"(?:stylesheet|preconnect|icon)\"[^>]* href=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]* href=\"([^\"]+)\"[^>]* rel=\"(?:stylesheet|preconnect|icon)\"", text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], file


def test_the_reference_shows_signatures_and_docstrings(site):
    text = (site / "api" / "python" / "index.html").read_text(encoding="utf-8")
    assert 'id="fipbench.api.run"' in text and "jobs at a time" in text and "allow_unknown_data" in text
    trials = (site / "api" / "trials" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="fipbench.tracks.{t}.Trial"' in trials for t in ("continual", "sparsity", "robustness"))


def test_a_link_into_the_repository_names_the_file(site):
    text = (site / "claims" / "index.html").read_text(encoding="utf-8")
    assert "<code>fipbench/claims/ledger.py</code>" in text and "../fipbench/claims" not in text


def test_the_navigation_has_every_page_once():
    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_a_link_that_leads_nowhere_is_an_error(tmp_path):
    import importlib.util
    from types import SimpleNamespace

    from mkdocs.exceptions import PluginError

    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    (tmp_path / "docs").mkdir()
    (tmp_path / "code.py").write_text("")
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(tmp_path / "docs/a.md"), src_uri="a.md"))
    config = {"docs_dir": str(tmp_path / "docs")}

    def render(text: str) -> str:
        return hooks.on_page_markdown(text, page=page, config=config)

    assert render("[code.py](../code.py), [it](../code.py#L3)") == "`code.py`, it (`code.py`)"
    kept = "[b](b.md#x), [c](#y), [d](https://example.org/e)"
    assert render(kept) == kept
    with pytest.raises(PluginError, match=r"a.md: links to \.\./nothing.py"):
        render("[it](../nothing.py)")
