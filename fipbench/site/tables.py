"""What stands beside a task's page: a line for each record, from which its statistics follow, and how they do."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fipbench.reports import text
from fipbench.reports.board import Board, Row
from fipbench.reports.build import MEAN_COSTS
from fipbench.reports.items import right
from fipbench.reports.render import cell
from fipbench.reports.views import view
from fipbench.spec import Record
from fipbench.spec.audits import Audit

FIXED = ("board", "method", "memory", "role", "reference", "settings", "seed", "record", "status", "error")
_COSTS = (*MEAN_COSTS, "peak_memory_bytes")


def values(boards: Sequence[Board], records: Mapping[str, Record], audits: Mapping[str, Audit] | None = None) -> str:
    """A line a record of these boards: whose row it is, and every number of it that a mean is taken of.

    Columns: `FIXED`, then the metrics, the last values of curves as `end/CURVE`, and `cost/…`. `method` is the row's
    name, `memory` its section, `reference` the row that it is compared with. Nothing is rounded.
    """
    lines = [line for board in boards for line in _lines(board, records, audits or {})]
    measured = {name for line in lines for name in line if name not in FIXED}
    columns = (
        *FIXED,
        *sorted(measured, key=lambda n: (n.startswith("cost/"), n.startswith("end/"), text.by_number(n))),
    )
    return _csv(columns, lines)


def _lines(board: Board, records: Mapping[str, Record], audits: Mapping[str, Audit]) -> Iterator[dict[str, Any]]:
    shows = view(board.track)
    for memory, reference, row in _rows(board):
        of_row = {
            "board": cell(board.name),
            "method": cell(row.name),
            "memory": memory,
            "role": cell(row.role),
            "reference": cell(reference if reference != row.name else ""),
        }
        for record in (records[i] for i in row.records):
            good = record.status == "ok"
            head = {
                **of_row,
                "settings": cell(record.job.settings),
                "seed": record.job.seed,
                "record": cell(record.id),
                "status": cell(record.status),
                "error": "" if record.error is None else cell(f"{record.error.type}: {record.error.message}"),
            }
            ends = {f"end/{name}": axes["value"][-1] for name, axes in record.curves.items() if axes.get("value")}
            cost = {f"cost/{name}": getattr(record.cost, name) for name in _COSTS}
            more = audits[record.id].metrics if record.id in audits else {}
            yield head | (shows.derived(record) | record.metrics | more | ends | cost if good else {})


def _rows(board: Board) -> Iterator[tuple[int | str, str, Row]]:
    """Key of its section, name of the row that it is compared with, and every row."""
    for section in board.sections:
        for row in section.rows:
            yield section.key, section.reference or "", row
    for row in board.references:
        yield "", "", row


def items(boards: Sequence[Board], records: Mapping[str, Record]) -> str:
    """Which test items were right, as a string of 0 and 1, for the two first rows of each section that are compared
    item by item; a line a record and set of items."""
    lines = []
    for board in boards:
        for top in (section.top for section in board.sections):
            for row in [board.row(name) for name in (top.first, top.second)] if top else []:
                assert row is not None
                for record in (records[i] for i in row.records):
                    for name in record.items:
                        found = right(record, name)
                        bits = "" if found is None else (found + ord("0")).astype("uint8").tobytes().decode("ascii")
                        lines.append(
                            {
                                "board": cell(board.name),
                                "method": cell(row.name),
                                "seed": record.job.seed,
                                "items": cell(name),
                                "right": bits,
                            }
                        )
    return _csv(("board", "method", "seed", "items", "right"), lines)


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines of numbers and of text that went through `cell`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([line.get(column, "") for column in columns] for line in lines)
    return out.getvalue()


_RECIPE = """\
import numpy as np, pandas as pd
from scipy import stats

runs = pd.read_csv({file!r})
runs = runs[(runs.board == {board!r}) & (runs.status == "ok")]
score = runs.pivot(index="seed", columns="method", values={metric!r})
n = score.count()
table = pd.DataFrame({{"mean": score.mean(), "half": stats.t.ppf(0.975, n - 1) * score.sem(), "n": n}})

against = runs.drop_duplicates("method").set_index("method").reference.dropna()
for row, other in against.items():
    if row in score and other in score:
        gap = (score[row] - score[other]).dropna()
        t = stats.ttest_1samp(gap, 0) if len(gap) > 1 else None
        table.loc[row, "difference"] = gap.mean()
        table.loc[row, "difference_half"] = stats.t.ppf(0.975, len(gap) - 1) * gap.sem()
        table.loc[row, "p"] = t.pvalue if t else np.nan
p = table.get("p", pd.Series(dtype=float)).dropna().sort_values()
table["p_holm"] = (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1)
print(table)
"""


def recipe(board: Board) -> str:
    """Python that computes mean, interval, difference and p (Holm) of every row from the CSV beside the page.

    A difference that is the same for every seed has p = 0, and 1 where it is zero, on the board; scipy says nan or
    warns there.
    """
    return _RECIPE.format(file=f"{board.task}.csv", board=cell(board.name), metric=board.headline)
