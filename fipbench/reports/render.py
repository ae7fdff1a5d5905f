"""Boards as Markdown, CSV, JSON and plain text, with the escaping of each; a board is printable already."""

from __future__ import annotations

import csv as _csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from tabulate import tabulate

from fipbench.reports import text, words
from fipbench.reports.board import Board, Row, plain
from fipbench.reports.figures import Drawing
from fipbench.reports.views import view
from fipbench.spec import builtins, canonical

CSV_COLUMNS = (
    "task", "variant", "device", "rank", "rank_last", "front", "method", "role", "settings", "params", "failed",
    "error", "metric", "mean", "half", "sd", "n", "difference", "difference_half", "pairs", "p", "p_holm", "detectable",
)  # fmt: skip
WIDTH = 120


# --------------------------------------------------------------------------------------------- Markdown


def markdown(boards: Sequence[Board], figures: Mapping[str, Mapping[str, Drawing]] | None = None) -> str:
    """The boards of one task as one Markdown page (GitHub's dialect).

    Args:
        boards: at least one, all of one task.
        figures: the figures of each board by file name, by the board's name.
    """
    first = boards[0]
    parts = [f"# {escaped(first.task)}", escaped(first.title)]
    for board in boards:
        if len(boards) > 1:
            parts.append(f"## Data {escaped(board.variant)}, device {escaped(board.device)}")
        parts += _section(board, (figures or {}).get(board.name, {}))
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(value: str) -> str:
    """Text for one line or table cell of Markdown: no markup, no HTML, no line break, no column."""
    line = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~$])", r"\\\1", line)


def _section(board: Board, figures: Mapping[str, Drawing]) -> list[str]:
    shows = view(board.track)
    parts = [f"**{escaped(shows.sentence(board))}**", f"*{escaped(words.standing(board.suites))}*"]
    parts += [f"![{escaped(drawing.alt)}]({file})" for file, drawing in figures.items()]
    parts.append("\n".join(f"- {escaped(a)}: {escaped(b)}" for a, b in shows.protocol(board)))
    for table in shows.tables(board):
        parts += [f"{escaped(table.caption)}:", markdown_table(table)]
    notes = [f"- {escaped(note)}" for note in board.notes]
    notes += [f"- {escaped(name)}: {escaped(note)}" for name, note in text.row_notes(board)]
    if notes:
        parts += ["Notes:", "\n".join(notes)]
    parts += ["How to read this:", "\n".join(f"- {escaped(a)}: {escaped(b)}" for a, b in shows.reading(board))]
    return parts


def markdown_table(table: text.Table) -> str:
    """The table in GitHub's dialect, every cell escaped."""
    headings = dict(table.groups)
    rows = []
    for n, row in enumerate(table.rows):
        if n in headings:
            rows.append([f"**{escaped(headings[n])}**" if c == table.head else "" for c in table.columns])
        rows.append([escaped(cell) for cell in row])
    return tabulate(
        rows,
        headers=[escaped(column) for column in table.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=_alignment(table),
    )


def _alignment(table: text.Table) -> list[str]:
    return ["left" if column in table.text else "right" for column in table.columns]


# ------------------------------------------------------------------------------------------ CSV and JSON


def csv(boards: Sequence[Board]) -> str:
    """A row for each method and metric, cost included (`cost/…`); values as in the records, not rounded.

    Fractions stay fractions. `difference` is the method minus the reference of its section, `p_holm` its adjusted p
    (headline metric only), `detectable` the true difference that is found with 80 % power before Holm. A method
    without any result has one row with its error. Two columns stand only where they say something: `memory`, the
    examples a task that the rows of a section store, and `calibration`. Curves are in the JSON.
    """
    lines: list[dict[str, Any]] = []
    for board in boards:
        for key, row in _keyed(board):
            head = _cells(_csv_head(board, row) | {"memory": key, "calibration": row.calibration})
            lines += [head | _cells(metric) for metric in _csv_rows(row)]
    columns = [*CSV_COLUMNS, *(c for c in ("memory", "calibration") if any(line[c] for line in lines))]
    out = io.StringIO()
    writer = _csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([line.get(column, "") for column in columns] for line in lines)
    return out.getvalue()


def _keyed(board: Board) -> list[tuple[int | None, Row]]:
    """Rows with the key of their section; references are in none."""
    ranked: list[tuple[int | None, Row]] = [(section.key, row) for section in board.sections for row in section.rows]
    return [*ranked, *((None, row) for row in board.references)]


def json(boards: Sequence[Board]) -> str:
    """The boards whole, as JSON: `{"boards": [...]}`."""
    content = canonical(builtins({"boards": boards}))
    return msgspec.json.format(content, indent=1).decode() + "\n"


def _csv_head(board: Board, row: Row) -> dict[str, Any]:
    return {
        "task": board.task,
        "variant": board.variant,
        "device": board.device,
        "rank": row.rank,
        "rank_last": row.rank_last,
        "front": "yes" if row.front else "",
        "method": row.name,
        "role": row.role,
        "settings": " ".join(row.settings),
        "params": msgspec.json.encode(row.params, order="deterministic").decode(),
        "failed": row.failed,
        "error": "; ".join(row.errors),
    }


def _csv_rows(row: Row) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for metric, values in row.metrics.items():
        cells: dict[str, Any] = {"metric": metric, **msgspec.structs.asdict(values)}
        if (pair := row.comparisons.get(metric)) is not None:
            cells |= {"difference": pair.mean, "difference_half": pair.half, "pairs": pair.n}
            cells |= {"p": pair.p, "p_holm": pair.adjusted, "detectable": pair.detectable}
        found.append(cells)
    found += [{"metric": f"cost/{k}", "mean": v, "n": len(row.seeds)} for k, v in sorted(row.cost.items())]
    return found or [{}]


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    return {column: cell(value) for column, value in values.items()}


def cell(value: Any) -> Any:
    """A number as it is; text in one line, with an apostrophe before what a spreadsheet would run as a formula."""
    if not isinstance(value, str):
        return value
    line = plain(value)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


# ----------------------------------------------------------------------------------------------- terminal


def terminal(boards: Sequence[Board]) -> str:
    """The end of a run: for each board a small table, what is odd, and the sentence. Plain text of 120 columns."""
    return "\n\n".join(_block(board) for board in boards)


def _block(board: Board) -> str:
    shows = view(board.track)
    tables = shows.tables(board)
    labels = {label for row in (*board.rows, *board.references) for label in [text.settings(row)]}
    worth = words.standing(board.suites) + (f"; settings: {min(labels)}" if len(labels) == 1 else "")
    body = _narrow(tables[0], {"settings"} if len(labels) == 1 else set()) if tables else ""
    odd = [f"{a}: {b}" for a, b in text.row_notes(board) if " seeds failed: " in b or a.startswith("† ")]
    above, below = [f"{board.name}: {board.title}", worth], [*odd, *board.notes, "", shows.sentence(board)]
    return "\n".join([*map(_wrapped, above), "", body, *map(_wrapped, below)])


def _wrapped(line: str) -> str:
    return "\n".join(textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False))


def _narrow(table: text.Table, without: set[str]) -> str:
    """The table in 120 columns: what it can spare is left out first, then names are cut."""
    left_out = set(without)
    spare = [column for column in table.spare if column not in left_out]
    while (wide := max(map(len, _plain_table(table, left_out).splitlines()))) > WIDTH and spare:
        left_out.add(spare.pop(0))
    most = max(len(row[table.columns.index(table.head)]) for row in table.rows)
    return _plain_table(table, left_out, most - max(0, wide - WIDTH))


def _plain_table(table: text.Table, left_out: set[str], longest: int = 1000) -> str:
    kept = [i for i, column in enumerate(table.columns) if column not in left_out]
    name = table.columns.index(table.head)
    lines = tabulate(
        [[_cut(row[i], longest) if i == name else row[i] for i in kept] for row in table.rows],
        headers=[table.columns[i] for i in kept],
        tablefmt="simple",
        disable_numparse=True,
        colalign=[align for i, align in enumerate(_alignment(table)) if i in kept],
    ).splitlines()
    for n, heading in reversed(table.groups):
        lines.insert(n + 2, f"{heading}:")  # behind the two lines of the head
    return "\n".join(lines)


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: max(1, longest - 1)]}…"
