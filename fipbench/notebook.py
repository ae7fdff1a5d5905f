"""Records and boards as a notebook shows them: `fipbench.load("results")`, `fipbench.load("results").boards()`.

Every cell comes from a file that anybody may have written, and is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fipbench import cache, store
from fipbench.errors import unknown
from fipbench.reports import boards as boards_of
from fipbench.reports import render, text
from fipbench.reports.board import Board, plain
from fipbench.reports.views import view
from fipbench.spec import Record

if TYPE_CHECKING:
    import pandas as pd

# A notebook that shows thousands of rows is slow to open; all of them are in the frame.
SHOWN = 50


@dataclass(frozen=True)
class Boards(Sequence[Board]):
    """Leaderboards, in the order of their names."""

    found: tuple[Board, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: Any) -> Any:
        return Boards(self.found[index]) if isinstance(index, slice) else self.found[index]

    def __str__(self) -> str:
        return render.terminal(self.found) if self.found else "no boards: no record of the test split"

    def _repr_html_(self) -> str:
        """The sentence and the tables of each board."""
        if not self.found:
            return f"<p>{escape(str(self))}</p>"
        parts = []
        for board in self.found:
            shows = view(board.track)
            parts.append(f"<h4>{escape(board.name)}</h4><p>{escape(shows.sentence(board))}</p>")
            parts += [_html(table) for table in shows.tables(board)]
        return "".join(parts)

    def _repr_markdown_(self) -> str:
        if not self.found:
            return str(self)
        parts = []
        for board in self.found:
            shows = view(board.track)
            parts += [f"#### {render.escaped(board.name)}", render.escaped(shows.sentence(board))]
            parts += [f"{render.escaped(t.caption)}:\n\n{render.markdown_table(t)}" for t in shows.tables(board)]
        return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """The valid records of a folder or file, and what in it is none."""

    found: tuple[Record, ...]
    problems: tuple[store.Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: Any) -> Any:
        return Records(self.found[index], self.problems) if isinstance(index, slice) else self.found[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.found)

    def __str__(self) -> str:
        damaged = f", {len(self.problems)} files or lines that are none" if self.problems else ""
        return f"{len(self.found)} records{damaged}"

    __repr__ = __str__

    def boards(self, task: str = "") -> Boards:
        """The leaderboards of these records, or those of one task.

        Raises:
            UserError: there is no record of that task on the test split.
        """
        every = boards_of(self.found)
        if task and task not in {board.task for board in every}:
            raise unknown("task", task, {board.task for board in every}, where="among the records")
        return Boards(tuple(board for board in every if task in ("", board.task)))

    def frame(self) -> pd.DataFrame:
        """One row a record.

        Columns: `id`, `status`, `error`, the job's fields, `params` as `param.NAME`, metrics as `metric.NAME`, cost
        as `cost.NAME`, and `notes`. Curves and items stay in the files.
        """
        import pandas as pd

        rows = []
        for record in self.found:
            job = msgspec.to_builtins(record.job)
            params = job.pop("params")
            job.pop("data")
            rows.append(
                {"id": record.id, "status": record.status, "error": record.error and record.error.message}
                | job
                | {f"param.{k}": v for k, v in params.items()}
                | {f"metric.{k}": v for k, v in record.metrics.items()}
                | {f"cost.{k}": v for k, v in msgspec.to_builtins(record.cost).items()}
                | {"notes": "; ".join(record.notes)}
            )
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return _html(self._table())

    def _repr_markdown_(self) -> str:
        table = self._table()
        return f"{render.escaped(table.caption)}:\n\n{render.markdown_table(table)}\n"

    def _table(self) -> text.Table:
        left_out = len(self.found) - SHOWN
        more = f", the first {SHOWN} of them here; all are in .frame()" if left_out > 0 else ""
        return text.Table(
            caption=f"{self}{more}",
            columns=("task", "method", "seed", "status", "headline", "score", "passes", "seconds"),
            rows=tuple(_row(record) for record in self.found[:SHOWN]),
            text=("task", "method", "status", "headline"),
        )


def load(where: str | Path | None = None) -> Records:
    """The records of a results folder or of a file of JSON lines (default: FIPBENCH_RESULTS, or the platform's data
    folder).

    Raises:
        UserError: there is no such folder or file.
    """
    records, problems = store.read(cache.expanded(where) if where else cache.results_dir())
    return Records(tuple(records), tuple(problems))


def shown(records: Iterable[Record]) -> Boards:
    """The boards of these records."""
    return Boards(tuple(boards_of(records)))


def _row(record: Record) -> tuple[str, ...]:
    headline = plain(record.protocol.get("headline", ""))
    score = record.metrics.get(headline)
    state = record.status if record.error is None else f"{record.status}: {plain(record.error.message)}"
    return (
        record.job.task,
        record.job.label,
        str(record.job.seed),
        state,
        text.metric_name(headline),
        text.ABSENT if score is None else text.number(score, headline),
        f"{record.cost.forward_examples + record.cost.backward_examples:,}",
        f"{record.cost.wall_s:.1f}",
    )


def _html(table: text.Table) -> str:
    """A table with a caption, headers that say what they head, and every cell escaped."""
    headings = dict(table.groups)
    align = ["left" if column in table.text else "right" for column in table.columns]
    head = "".join(
        f'<th scope="col" style="text-align:{side}">{escape(name)}</th>'
        for name, side in zip(table.columns, align, strict=True)
    )
    body = []
    for number, row in enumerate(table.rows):
        if number in headings:
            body.append(f'<tr><th colspan="{len(row)}" style="text-align:left">{escape(headings[number])}</th></tr>')
        cells = zip(row, align, strict=True)
        body.append("<tr>" + "".join(f'<td style="text-align:{side}">{escape(c)}</td>' for c, side in cells) + "</tr>")
    return (
        f"<table><caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
