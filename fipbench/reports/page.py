"""A suite as one HTML page that needs nothing else: tables, figures and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from fipbench.reports import figures, text, words
from fipbench.reports.board import Board
from fipbench.reports.views import view


def html(boards: Sequence[Board], suite: str) -> str:
    """The page of these boards."""
    return filled(suite, words.standing([suite]), [_section(board, f"board{n}") for n, board in enumerate(boards, 1)])


def filled(name: str, standing: str, sections: Sequence[dict[str, Any]]) -> str:
    """The page with these sections; jinja2 escapes all that comes from records, the figures are ours."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (files("fipbench.reports") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(suite=name, standing=standing, sections=sections)


def _section(board: Board, anchor: str) -> dict[str, Any]:
    from markupsafe import Markup

    shows = view(board.track)
    drawn = [
        {
            "svg": Markup(figures.inline(drawing.svg, f"{anchor}{drawing.key}")),
            "width": figures.width(drawing.svg),
            "caption": drawing.caption,
        }
        for drawing in shows.drawings(board)
    ]
    return {
        "anchor": anchor,
        "board": board,
        "sentence": shows.sentence(board),
        "figures": drawn,
        "tables": shows.tables(board),
        "notes": [*(("", note) for note in board.notes), *text.row_notes(board)],
        "protocol": shows.protocol(board),
        "reading": shows.reading(board),
    }
