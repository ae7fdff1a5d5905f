"""Numbers with units, table cells, and the tables that all tracks have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import msgspec

from fipbench.reports.board import Board, Comparison, Row, Section
from fipbench.statistics import Interval

ABSENT = "–"
MARK = " †"
FRONT = "◆"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Cells as plain text, not yet escaped.

    Attributes:
        groups: (number of the first row, heading) of rows that belong together.
        head: the column that names a row; `text`: columns that align left.
        spare: columns that a narrow terminal leaves out, the first of them first.
        fip: numbers of the rows that the others are compared with.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[int, str], ...] = ()
    head: str = "method"
    text: tuple[str, ...] = ("method", "settings")
    spare: tuple[str, ...] = ()
    fip: tuple[int, ...] = ()


# ---------------------------------------------------------------------------------------------- numbers


_FRACTION = re.compile(
    r"area|.*accuracy.*|clean.*|(forgetting|backward_transfer|forward_transfer|final|average|untrained|tfidf)/.*"
    r"|(robust|pgd|apgd|autoattack|transfer|audited|audit_(lowered|square|noise))@.*|audit_unbounded"
    r"|(dense_)?(f1|matthews_correlation|inverse_perplexity|pearson|spearman|pearson_spearman)(@.*)?"
)


def counted(number: object, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `0.5 epochs`."""
    shown = f"{number:g}" if isinstance(number, int | float) else number
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def is_fraction(metric: str) -> bool:
    """Whether a metric is read in per cent: a fraction, and as GLUE prints it a correlation, too."""
    return _FRACTION.fullmatch(metric) is not None


def metric_name(metric: str) -> str:
    """A metric with its unit."""
    words = metric.replace("_", " ")
    return f"{words}, %" if is_fraction(metric) else words


def number(value: float, metric: str) -> str:
    """A value of a metric: fractions in per cent to two decimals, all else to four digits."""
    return f"{100 * value:.2f}" if is_fraction(metric) else f"{value:.4g}"


def plus_minus(found: Interval | None, metric: str) -> str:
    """`mean ± half`, or the mean alone where there is no interval."""
    if found is None:
        return ABSENT
    half = "" if found.half is None else f" ± {number(found.half, metric)}"
    return _signed(number(found.mean, metric)).removeprefix("+") + half


def difference(found: Comparison | None, metric: str) -> str:
    """`+mean ± half` of a paired difference."""
    if found is None or found.mean is None:
        return ABSENT
    half = "" if found.half is None else f" ± {number(found.half, metric)}"
    return _signed(number(found.mean, metric)) + half


def p_value(p: float | None) -> str:
    """A p value to two digits, never below `< 0.001`."""
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def per_cent(fraction: float) -> str:
    """A fraction in per cent with the digits it needs: 0.999 is `99.9 %`."""
    return f"{100 * fraction:.10g} %"


def count(value: float) -> str:
    """A number of things, to three digits from ten thousand on: `431 k`, `2.15 M`."""
    if value < 1e4:
        return f"{value:.0f}"
    rounded = float(f"{value:.3g}")
    unit, size = next(pair for pair in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if rounded >= pair[1])
    return f"{rounded / size:#.3g}".rstrip(".") + f" {unit}"


def seconds(value: float) -> str:
    """A duration in seconds, to three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _signed(text: str) -> str:
    if not text.strip("-0."):
        return text.removeprefix("-")
    return f"−{text[1:]}" if text.startswith("-") else f"+{text}"


# ----------------------------------------------------------------------------------------------- tables

COSTS = ("forward", "backward", "wall s", "peak MiB", "stored")


def by_section(
    board: Board,
    caption: str,
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[str]],
    titles: Callable[[Section], str] = lambda section: "",
    scored: Callable[[Row], bool] = lambda row: True,
    spare: Sequence[str] = (),
    front: bool = False,
) -> Table | None:
    """A table with a row for each row of the board, section by section, references last; None without any.

    Args:
        columns, cells: what stands behind place and name.
        titles: heading of a section; none has one where it is empty.
        scored: which rows are shown.
        front: whether rows on the Pareto front are marked.
    """
    groups: list[tuple[int, str]] = []
    rows: list[tuple[str, ...]] = []
    fip = []
    for section in board.sections:
        shown = [row for row in section.rows if scored(row)]
        if shown and titles(section):
            groups.append((len(rows), titles(section)))
        fip += [len(rows) + n for n, row in enumerate(shown) if row.name == section.reference]
        rows += [(place(row), marked(row) + (f" {FRONT}" if front and row.front else ""), *cells(row)) for row in shown]
    references = [row for row in board.references if scored(row)]
    if references and groups:
        groups.append((len(rows), "references"))
    rows += [(place(row), marked(row), *cells(row)) for row in references]
    if not rows:
        return None
    return Table(
        caption=caption,
        columns=("#", "method", *columns),
        rows=tuple(rows),
        groups=tuple(groups),
        spare=tuple(spare),
        fip=tuple(fip),
    )


def score_table(board: Board) -> Table | None:
    """Score and cost of every row: ranked ones, those that failed, then the references."""
    name = board.sections[0].reference if board.sections else None
    compared = [f"− {name}", "p (Holm)"] if name else []

    def cells(row: Row) -> list[str]:
        score = [str(len(row.seeds)), plus_minus(row.metrics.get(board.headline), board.headline)]
        return [*score, *(comparison_cells(row, board.headline) if name else []), *cost_cells(row), settings(row)]

    columns = ("seeds", metric_name(board.headline), *compared, *COSTS, "settings")
    return by_section(board, "Score and cost", columns, cells, spare=("backward", "peak MiB", "stored"), front=True)


def comparison_cells(row: Row, headline: str) -> list[str]:
    """Difference to the reference row of its section, and p."""
    found = row.comparisons.get(headline)
    return [difference(found, headline), p_value(found.adjusted if found else None)]


def is_tested(row: Row, metric: str) -> bool:
    """Whether there is a p value for the row's difference to the reference row."""
    return metric in row.comparisons and row.comparisons[metric].adjusted is not None


def cost_cells(row: Row) -> list[str]:
    """What stands under `COSTS`."""
    if not row.cost:
        return [ABSENT] * len(COSTS)
    return [
        count(row.cost["forward_examples"]),
        count(row.cost["backward_examples"]),
        seconds(row.cost["wall_s"]),
        f"{row.cost['peak_memory_bytes'] / 2**20:.0f}",
        count(row.cost["parameters_stored"]),
    ]


def settings(row: Row) -> str:
    """Whose settings the row has."""
    return ", ".join(row.settings)


def to_thousandths(found: Interval | None) -> str:
    """`mean ± half` of a distance."""
    if found is None:
        return ABSENT
    return f"{found.mean:.3f}" + ("" if found.half is None else f" ± {found.half:.3f}")


def to_three_digits(found: Interval | None) -> str:
    """`mean ± half` of a number of any size, to three digits of the mean."""
    if found is None:
        return ABSENT
    places = max(0, 2 - math.floor(math.log10(abs(found.mean)))) if found.mean else 2
    shown = f"{found.mean:,.{places}f}".replace("-", "−")
    return shown + ("" if found.half is None else f" ± {found.half:,.{places}f}")


def by_number(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts `layer/10.weight` behind `layer/4.weight`; no two names tie, as `@0.04` and `@0.4` by number alone."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)], name


def marked(row: Row) -> str:
    """The row's name in its section, with a mark where the method failed its calibration."""
    return row.short + (MARK if row.calibration else "")


def place(row: Row) -> str:
    """The ranks that it may have, or why there is none."""
    if row.role == "reference":
        return "ref."
    if row.rank is None or row.rank_last is None:
        return ABSENT if row.seeds else "failed"
    return str(row.rank) if row.rank == row.rank_last else f"{row.rank}–{row.rank_last}"


def row_notes(board: Board) -> list[tuple[str, str]]:
    """What there is to know about single rows: failed calibrations and seeds, then what the records noted. (name,
    text)"""
    rows = (*board.rows, *board.references)
    failed = {row.method: row.calibration for row in rows if row.calibration}
    found = [(f"† {method}", f"failed its calibration: {why}") for method, why in sorted(failed.items())]
    for row in rows:
        if row.failed:
            total = row.failed + len(row.seeds)
            found.append((row.name, f"{row.failed} of {total} seeds failed: {'; '.join(row.errors)}"))
        found += [(row.name, note) for note in row.notes]
    return found
