"""What attack audits add to a robustness board: the worst case found, and how hard it was tried."""

from __future__ import annotations

from fipbench.reports import text
from fipbench.reports.board import Board, Row
from fipbench.reports.text import Table, plus_minus
from fipbench.reports.words import Terms

LOWERED = "audit_lowered@"


def audited(board: Board) -> list[Row]:
    """The rows of which records were audited."""
    return [
        row for row in (*board.rows, *board.references) if any(metric.startswith(LOWERED) for metric in row.metrics)
    ]


def radii(rows: list[Row]) -> list[str]:
    """The radii at which these were, as metrics spell them."""
    found = {metric.removeprefix(LOWERED) for row in rows for metric in row.metrics if metric.startswith(LOWERED)}
    return sorted(found, key=float)


def column(board: Board) -> tuple[str, ...]:
    """The name of the column that the table of scores has where records were audited."""
    return (f"audit, ε {_at(board)}",) if audited(board) else ()


def cells(board: Board, row: Row) -> list[str]:
    """What stands there: what the audit has over the recorded worst case, on the seeds audited."""
    if not audited(board):
        return []
    metric = f"{LOWERED}{_at(board)}"
    return [plus_minus(row.metrics.get(metric), metric)]


def _at(board: Board) -> str:
    """The radius of the headline, or the smallest that was audited."""
    at, spans = board.headline.rpartition("@")[2], radii(audited(board))
    return at if at in spans else spans[0]


def table(board: Board) -> Table | None:
    """The worst case found, what it has over the recorded one on the same seeds, and how hard it was tried; None where
    no record was audited."""
    rows = audited(board)
    if not rows:
        return None
    at, spans = _at(board), radii(rows)
    order = [at, *(span for span in spans if span != at)]
    alone = [f"audit_square@{at}", f"audit_noise@{at}", "audit_unbounded"]

    def numbers(row: Row) -> list[str]:
        found = []
        for span in order:
            found += [
                plus_minus(row.metrics.get(f"{name}@{span}"), f"{name}@{span}") for name in ("audited", "audit_lowered")
            ]
        found += [plus_minus(row.metrics.get(metric), metric) for metric in alone]
        means = [row.metrics[f"audit_{name}"].mean for name in ("gradients", "queries", "attacks")]
        return [str(len(row.values[f"{LOWERED}{at}"])), *found, *map(text.count, means)]

    pairs = [name for span in order for name in (f"found, ε {span}", f"− recorded, ε {span}")]
    beside = [f"Square alone, ε {at}", f"noise alone, ε {at}", "PGD, ε 1"]
    return text.by_section(
        board,
        "Attack audit: accuracy in % in the worst case found, and how hard it was tried",
        ["seeds", *pairs, *beside, "gradients", "queries", "attacks"],
        numbers,
        scored=lambda row: row in rows,
    )


def reading(board: Board) -> Terms:
    """How to read that table; nothing where there is none."""
    rows = audited(board)
    if not rows:
        return []
    missing = [row.name for row in (*board.rows, *board.references) if row.seeds and row not in rows]
    return [
        (
            "Attack audit",
            "the members made again and attacked harder than the task does, by `fipbench audit`; found: an example "
            "counts as correct only if no attack of the record or of the audit has changed the vote; − recorded: found "
            "less recorded on the same seeds and examples, mean over the seeds audited, zero where the number is "
            "confirmed; Square, a black-box search, and noise alone should leave more right than gradient attacks do, "
            "and PGD at ε 1, where any image is allowed, nothing; gradients and queries: of the vote, mean an example "
            "and radius; attacks: at each radius. The ranking is by the recorded worst case, on all seeds"
            + (f". Not audited: {', '.join(missing)}" if missing else ""),
        )
    ]
