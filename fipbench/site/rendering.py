"""Templates: how they are filled, and the shapes that they take a table in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fipbench.reports import text
from fipbench.reports.text import Table


@cache
def environment() -> Any:
    """The templates; jinja2 escapes all that comes from records."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(str(files("fipbench.site"))) / "templates"
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["address"] = quote
    found.filters["whole"] = whole
    found.filters["terms"] = terms
    return found


def rendered(template: str, **shown: Any) -> bytes:
    """A page as UTF-8."""
    return environment().get_template(template).render(**shown).encode()


def whole(title: str) -> Any:
    """A title as HTML whose short words are not broken at their hyphens, as in 300-100."""
    from markupsafe import Markup, escape

    words = (
        Markup('<span class="whole">{}</span>').format(w) if "-" in w and len(w) <= 16 else escape(w)
        for w in title.split()
    )
    return Markup(" ").join(words)


def terms(pairs: Iterable[tuple[str, str]], kind: str = "") -> Any:
    """Lines of a term and what it is as a `dl` of that class. All are escaped in one call: a record has a hundred."""
    from markupsafe import Markup, escape

    flat = [part.replace("\0", "") for pair in pairs for part in pair]
    escaped = iter(str(escape("\0".join(flat))).split("\0") if flat else ())
    lines = (f"<div><dt>{term}</dt><dd>{words}</dd></div>\n" for term, words in zip(escaped, escaped, strict=True))
    return Markup(f'<dl class="{kind}">\n' if kind else "<dl>\n") + Markup("".join(lines) + "</dl>")


def parts(table: Table | None, links: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """A table for the template: its rows by group, and where the name of a row leads."""
    if table is None:
        return None
    headings = dict(table.groups)
    groups: list[dict[str, Any]] = []
    for n, cells in enumerate(table.rows):
        if n in headings or not groups:
            groups.append({"heading": headings.get(n, ""), "rows": []})
        name = cells[table.columns.index(table.head)] if table.head in table.columns else ""
        bare = name.removesuffix(f" {text.FRONT}").removesuffix(text.MARK)
        groups[-1]["rows"].append({"cells": cells, "fip": n in table.fip, "link": (links or {}).get(bare, "")})
    return {
        "caption": table.caption,
        "columns": table.columns,
        "head": table.head,
        "text": table.text,
        "groups": groups,
    }


def method_page(name: str) -> str:
    """Where a method's page is, from the root."""
    return f"methods/{quote(name)}.html"
