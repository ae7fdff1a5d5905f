"""Leaderboards from records alone: tables, pages and figures. The same records give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fipbench.cache import write_atomic
from fipbench.errors import UserError, unknown
from fipbench.reports.board import Board, Row, Section
from fipbench.reports.build import boards
from fipbench.reports.render import terminal
from fipbench.reports.views import view
from fipbench.spec import Record, valid_name
from fipbench.spec.audits import Audit

__all__ = ["FORMATS", "Board", "Row", "Section", "boards", "sentence", "terminal", "write"]

FORMATS = ("md", "csv", "json", "html", "tex")


def sentence(board: Board) -> str:
    """What the board shows, in one sentence: who leads, and where fip stands, also where it loses."""
    return view(board.track).sentence(board)


def write(
    records: Iterable[Record],
    out_dir: str | Path,
    formats: Sequence[str] = ("md",),
    tasks: Sequence[str] | None = None,
    failed_calibrations: Mapping[str, str] | None = None,
    audits: Mapping[str, Audit] | None = None,
) -> list[Path]:
    """Write the leaderboards of these records: a file per task and format, and a page per suite.

    Files: `TASK.md` with its figure `TASK.svg`, `TASK.csv`, `TASK.json`, `TASK.tex`, and `SUITE.html`, which is
    self-contained. Several boards of one task share a file; their figures are `TASK--VARIANT-DEVICE.svg`. A second
    figure of a board has its key in the name, as in `TASK.course.svg`.

    Args:
        formats: some of md, csv, json, html, tex.
        tasks: only these; default all that have records.
        failed_calibrations: method -> how it failed against a published setting; see `boards`.
        audits: attack audits by the identity of their record; see `boards`.

    Returns:
        The files written, in order.

    Raises:
        UserError: no records on the test split, an unknown format, or a task without records.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    found = boards(records, failed_calibrations, audits)
    if not found:
        raise UserError(
            "no records of the test split in the results: run something first (`fipbench run TASK`), or name others "
            "by --results"
        )
    known = sorted({board.task for board in found})
    for task in tasks or ():
        if task not in known:
            raise unknown("task", task, known, where="among the records")
    found = [board for board in found if not tasks or board.task in tasks]
    for name in {name for board in found for name in (board.task, *board.suites)}:
        if not valid_name(name):
            raise UserError(f"report: a record names a task or suite {name!r}, which cannot name a file")
    files: dict[str, str] = {}
    for task in dict.fromkeys(board.task for board in found):
        files |= _task_files(task, [board for board in found if board.task == task], formats)
    if "html" in formats:
        files |= _pages(found)
    return _written(files, Path(out_dir))


def _task_files(task: str, group: Sequence[Board], formats: Sequence[str]) -> dict[str, str]:
    """File name -> content, for all formats that are per task."""
    from fipbench.reports import render

    files: dict[str, str] = {}
    if "md" in formats:
        drawn = {
            board.name: {_figure_file(board, drawing.key): drawing for drawing in view(board.track).drawings(board)}
            for board in group
        }
        files[f"{task}.md"] = render.markdown(group, drawn)
        files |= {file: drawing.svg for figures in drawn.values() for file, drawing in figures.items()}
    if "csv" in formats:
        files[f"{task}.csv"] = render.csv(group)
    if "json" in formats:
        files[f"{task}.json"] = render.json(group)
    if "tex" in formats:
        from fipbench.reports.latex import latex

        files[f"{task}.tex"] = latex(group)
    return files


def _pages(found: Sequence[Board]) -> dict[str, str]:
    """A page for each suite; a task in no suite has a page of its own."""
    from fipbench.reports.page import html

    homes = {board.name: board.suites or (board.task,) for board in found}
    suites = sorted({suite for home in homes.values() for suite in home})
    return {f"{s}.html": html([b for b in found if s in homes[b.name]], s) for s in suites}


def _figure_file(board: Board, key: str) -> str:
    place = re.sub("[^a-z0-9]+", "-", board.name.removeprefix(board.task).lower()).strip("-")
    name = f"{board.task}--{place}" if place else board.task
    return f"{name}.{key}.svg" if key else f"{name}.svg"


def _written(files: dict[str, str], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in files.items():
        path = folder / name
        write_atomic(path, content.encode())
        paths.append(path)
    return paths
