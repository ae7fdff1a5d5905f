"""A suite as one HTML page that needs nothing else: tables, figures and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from fipbench.reports import figures, text
from fipbench.reports.board import Board


def html(boards: Sequence[Board], suite: str) -> str:
    """The page of these boards; jinja2 escapes all that comes from records, the figures are ours."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (files("fipbench.reports") / "page.html").read_text(encoding="utf-8")
    sections = [_section(board, f"board{n}") for n, board in enumerate(boards, 1)]
    return environment.from_string(source).render(suite=suite, standing=text.standing([suite]), sections=sections)


def _section(board: Board, anchor: str) -> dict[str, Any]:
    from markupsafe import Markup

    drawing = figures.svg(board)
    return {
        "anchor": anchor,
        "board": board,
        "sentence": text.sentence(board),
        "figure": Markup(figures.inline(drawing, anchor)) if drawing else "",
        "tables": text.tables(board),
        "notes": [*(("", note) for note in board.notes), *text.row_notes(board)],
        "protocol": text.protocol(board),
        "reading": text.reading(board),
    }
