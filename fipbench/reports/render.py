"""Boards as Markdown, CSV, JSON and plain text, with the escaping of each; a board is printable already."""

from __future__ import annotations

import csv as _csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from tabulate import tabulate

from fipbench.reports import text
from fipbench.reports.board import Board, Row

CSV_COLUMNS = (
    "task", "variant", "device", "rank", "method", "role", "settings", "params", "failed", "error",
    "metric", "mean", "half", "sd", "n", "difference", "difference_half", "pairs", "p", "p_holm",
)  # fmt: skip


# --------------------------------------------------------------------------------------------- Markdown


def markdown(boards: Sequence[Board], figures: Mapping[str, str] | None = None) -> str:
    """The boards of one task as one Markdown page (GitHub's dialect).

    Args:
        boards: at least one, all of one task.
        figures: file name of the figure of each board, by the board's name.
    """
    first = boards[0]
    parts = [f"# {escaped(first.task)}", escaped(first.title)]
    for board in boards:
        if len(boards) > 1:
            parts.append(f"## Data {escaped(board.variant)}, device {escaped(board.device)}")
        parts += _section(board, (figures or {}).get(board.name))
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(value: str) -> str:
    """Text for one line or table cell of Markdown: no markup, no HTML, no line break, no column."""
    line = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~$])", r"\\\1", line)


def _section(board: Board, figure: str | None) -> list[str]:
    parts = [f"**{escaped(text.sentence(board))}**", f"*{escaped(text.standing(board.suites))}*"]
    if figure:
        parts.append(f"![Accuracy against sparsity of every method on {escaped(board.name)}]({figure})")
    parts.append("\n".join(f"- {escaped(a)}: {escaped(b)}" for a, b in text.protocol(board)))
    for table in text.tables(board):
        parts += [f"{escaped(table.caption)}:", _markdown_table(table)]
    notes = [f"- {escaped(note)}" for note in board.notes]
    notes += [f"- {escaped(name)}: {escaped(note)}" for name, note in text.row_notes(board)]
    if notes:
        parts += ["Notes:", "\n".join(notes)]
    parts += ["How to read this:", "\n".join(f"- {escaped(a)}: {escaped(b)}" for a, b in text.reading(board))]
    return parts


def _markdown_table(table: text.Table) -> str:
    return tabulate(
        [[escaped(cell) for cell in row] for row in table.rows],
        headers=[escaped(column) for column in table.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=_alignment(table),
    )


def _alignment(table: text.Table) -> list[str] | None:
    """Per column; None for a table without rows, for which tabulate takes none."""
    return ["left" if column in table.text else "right" for column in table.columns] if table.rows else None


# ------------------------------------------------------------------------------------------ CSV and JSON


def csv(boards: Sequence[Board]) -> str:
    """A row for each method and metric, cost included (`cost/…`); values as in the records, not rounded.

    Fractions stay fractions. `difference` is the method minus the board's reference, `p_holm` its adjusted p
    (headline metric only). A method without any result has one row with its error.
    """
    out = io.StringIO()
    writer = _csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for board in boards:
        for row in (*board.rows, *board.references):
            for cells in _csv_rows(row):
                writer.writerow({key: _cell(value) for key, value in (_csv_head(board, row) | cells).items()})
    return out.getvalue()


def json(boards: Sequence[Board]) -> str:
    """The boards whole, as JSON: `{"boards": [...]}`."""
    content = msgspec.json.encode(msgspec.to_builtins({"boards": boards}, str_keys=True), order="deterministic")
    return msgspec.json.format(content, indent=1).decode() + "\n"


def _csv_head(board: Board, row: Row) -> dict[str, Any]:
    return {
        "task": board.task,
        "variant": board.variant,
        "device": board.device,
        "rank": row.rank,
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
            cells |= {"p": pair.p, "p_holm": pair.adjusted}
        found.append(cells)
    found += [{"metric": f"cost/{k}", "mean": v, "n": len(row.seeds)} for k, v in sorted(row.cost.items())]
    return found or [{}]


def _cell(value: Any) -> Any:
    """A number as it is; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return f"'{value}"
    return value


# ----------------------------------------------------------------------------------------------- terminal


def terminal(boards: Sequence[Board]) -> str:
    """The end of a run: for each board a small table, what is odd, and the sentence. Plain text."""
    return "\n\n".join(_block(board) for board in boards)


def _block(board: Board) -> str:
    table = text.score_table(board)
    labels = {row[-1] for row in table.rows}
    left_out = ["backward", "peak MiB", "stored", *(["settings"] if len(labels) == 1 else [])]
    kept = [i for i, name in enumerate(table.columns) if name not in left_out]
    worth = text.standing(board.suites) + (f"; settings: {min(labels)}" if len(labels) == 1 else "")
    body = tabulate(
        [[row[i] for i in kept] for row in table.rows],
        headers=[table.columns[i] for i in kept],
        tablefmt="simple",
        disable_numparse=True,
        colalign=[align for i, align in enumerate(_alignment(table) or []) if i in kept] or None,
    )
    failures = [f"{name}: {note}" for name, note in text.row_notes(board) if " seeds failed: " in note]
    parts = [f"{board.name}: {board.title}", worth, "", body, *failures, *board.notes, "", text.sentence(board)]
    return "\n".join(parts)
