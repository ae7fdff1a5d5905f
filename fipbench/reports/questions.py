"""Questions that no single board answers: does the exact step beat the penalty, does a path of constant outputs beat
replay, does a geodesic beat the straight line, does Fisher information protect, do learning and compression commute?
Answered over all boards whose records can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from fipbench.reports import render, text
from fipbench.reports.board import REFERENCE, Board, Row, Section
from fipbench.reports.text import Table
from fipbench.reports.words import ALPHA
from fipbench.statistics import Difference, holm, paired_difference

STEPS = ("fip-exact", "fip-ball")
REPLAYS = ("replay", "der")
LINE = ("geodesic", "linear-path")
FISHER = ("ewc", "l2")
DISTANCES = ("weights", "outputs", "disagreement")


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A method against a rival on one section of a board: `of` minus `rival` by seed on the headline metric.

    `p`: of the paired t test, adjusted by Holm over all pairs of its question.
    """

    board: Board
    section: Section
    of: Row
    rival: Row
    found: Difference
    p: float | None = None


class Excess(msgspec.Struct, frozen=True, kw_only=True):
    """What two orders of operations differ by beyond noise, for one method and one distance (`docs/composition.md`).

    `p`: two-sided, of the t test over seeds that the mean excess is zero, adjusted by Holm over all of the question.
    """

    board: Board
    row: Row
    kind: str
    place: str
    found: Difference
    p: float | None = None


def page(boards: Iterable[Board]) -> str:
    """A page with a sentence and a table for each question; the same boards give the same bytes."""
    found = [board for board in boards if "calibration" not in board.suites]
    steps = pairs(found, [(step, REFERENCE) for step in STEPS])
    rivals = pairs(found, [(REFERENCE, rival) for rival in REPLAYS])
    lines = pairs(found, [LINE])
    fisher = pairs(found, [FISHER])
    left = excesses(found)
    parts = [
        "# Five questions",
        "Computed from the committed records of all boards that have the rows. Quick tasks are smoke tests. "
        f"Differences are paired by seed; p is two-sided, adjusted by Holm over the table; below {ALPHA:g} it counts. "
        "What the terms mean: [geometry](../docs/geometry.md), [composition](../docs/tracks/composition.md).",
        "## Does the exact step beat the penalty?",
        "`fip` adds the distance of outputs to the loss; `fip-exact` solves the problem of the step, `fip-ball` "
        "searches a ball. Same memory, same cap; what each spent stands beside.",
        *_compared(steps),
        "## Does a path of constant outputs beat replay at equal memory?",
        "`replay` trains on the labels of the same memory. `der` keeps outputs, too: it holds logits to those noted "
        "when an example was stored, by their squared distance. Where the search chose that distance for `fip` "
        "([searches](searches.md)), the two differ in when outputs are noted and in their settings. Same memory, same "
        "cap; what each spent stands beside.",
        *_compared(rivals),
        "## Does a geodesic between tasks beat the straight line?",
        "`geodesic` walks from a network of the new task alone towards the old one by steps that change the new task's "
        "outputs little, `linear-path` goes straight; both stop where the new task bears it no longer. Nothing is "
        "stored.",
        *_compared(lines),
        "## Does Fisher information protect better than staying near?",
        "`ewc` holds each weight near its values after earlier tasks as strongly as the weight mattered to them, `l2` "
        "all weights alike. Nothing is stored.",
        *_compared(fisher),
        "## Do learning and compression commute, beyond noise?",
        "The excess is what the squared distance between the two orders has beyond that of two runs of one order, in "
        "the units of the distance squared; 0 if the orders lead to the same mean.",
        *_commuting(left),
    ]
    return "\n\n".join(parts) + "\n"


def pairs(boards: Iterable[Board], wanted: Sequence[tuple[str, str]]) -> list[Pair]:
    """Every pair of these methods, (method, rival), that stands in one section of a continual board."""
    found = []
    for board in boards:
        for section in board.sections if board.track == "continual" else ():
            rows = {row.label: row for row in reversed(section.ranked)}
            for method, rival in wanted:
                if method in rows and rival in rows:
                    values = [rows[name].values.get(board.headline, {}) for name in (method, rival)]
                    one = paired_difference(values[0], values[1])
                    found.append(Pair(board=board, section=section, of=rows[method], rival=rows[rival], found=one))
    adjusted = holm([pair.found.p for pair in found])
    return [msgspec.structs.replace(pair, p=p) for pair, p in zip(found, adjusted, strict=True)]


def excesses(boards: Iterable[Board]) -> list[Excess]:
    """The excess of each distance, for every method of the composition boards."""
    found = []
    for board in boards:
        for row in board.ranked if board.track == "composition" else ():
            for metric, values in sorted(row.values.items()):
                head, _, place = metric.partition("@")
                what, _, kind = head.partition("/")
                if what == "excess" and kind in DISTANCES:
                    one = paired_difference(values, dict.fromkeys(values, 0.0))
                    found.append(Excess(board=board, row=row, kind=kind, place=place, found=one))
    adjusted = holm([one.found.p for one in found])
    return [msgspec.structs.replace(one, p=p) for one, p in zip(found, adjusted, strict=True)]


def _compared(found: Sequence[Pair]) -> list[str]:
    if not found:
        return ["No board has both rows yet."]
    rows = []
    for pair in found:
        metric = pair.board.headline
        spent = [_spent(row.cost) for row in (pair.of, pair.rival)]
        rows.append(
            (
                pair.board.name,
                str(pair.section.key) if pair.section.key else text.ABSENT,
                pair.of.short,
                text.plus_minus(pair.of.metrics[metric], metric),
                pair.rival.short,
                text.plus_minus(pair.rival.metrics[metric], metric),
                _signed(pair.found, metric),
                text.p_value(pair.p),
                str(pair.found.n),
                *(f"{a} : {b}" for a, b in zip(*spent, strict=True)),
            )
        )
    columns = ("task", "stored a task", "method", "its score, %", "rival", "the rival's, %", "difference", "p (Holm)")
    table = Table(
        caption="",
        columns=(*columns, "seeds", "passes, 10^3", "wall s"),
        rows=tuple(rows),
        text=("task", "method", "rival"),
    )
    said = _said(
        [(f"{pair.of.short} less {pair.rival.short}", pair.board, pair.found, pair.p) for pair in found],
        "the difference is above zero",
    )
    return [said, _shown(table)]


def _commuting(found: Sequence[Excess]) -> list[str]:
    if not found:
        return ["No board of the composition track yet."]
    rows = []
    for one in found:
        of = {what: one.row.metrics.get(f"{what}/{one.kind}@{one.place}") for what in ("commutator", "noise")}
        rows.append(
            (
                one.board.name,
                one.row.short,
                one.kind,
                *(text.to_three_digits(value) for value in of.values()),
                text.to_three_digits(one.row.metrics[f"excess/{one.kind}@{one.place}"]),
                text.p_value(one.p),
                str(one.found.n),
            )
        )
    columns = ("task", "method", "distance", "between orders", "within one", "excess of squares", "p (Holm)", "seeds")
    table = Table(caption="", columns=columns, rows=tuple(rows), text=("task", "method", "distance"))
    said = _said([(one.row.short, one.board, one.found, one.p) for one in found], "the excess is above zero")
    return [said, _shown(table)]


def _said(found: Sequence[tuple[str, Board, Difference, float | None]], above: str) -> str:
    """A line for each name: of how many comparisons it is so, evidence apart from smoke tests."""
    lines = []
    for name in dict.fromkeys(name for name, *_ in found):
        parts = []
        for quick, where in ((False, "on real data"), (True, "in the quick suite, a smoke test,")):
            given = [(one, p) for other, board, one, p in found if other == name and ("quick" in board.suites) is quick]
            if given:
                parts.append(f"{where} {_counted(given, above)}")
        lines.append(f"- **{name}**: {'; '.join(parts)}.")
    return "\n".join(lines)


def _counted(found: Sequence[tuple[Difference, float | None]], above: str) -> str:
    sure = [one for one, p in found if p is not None and p < ALPHA and one.mean is not None]
    more, less = (sum((one.mean or 0.0) * sign > 0 for one in sure) for sign in (1, -1))
    rest = len(found) - more - less
    return f"in {more} of {len(found)} comparisons {above}, in {less} it is below, in {rest} neither is found"


def _spent(cost: Mapping[str, float]) -> tuple[str, str]:
    """Passes, forward and backward together, in thousands; seconds."""
    if not cost:
        return text.ABSENT, text.ABSENT
    passes = cost["forward_examples"] + cost["backward_examples"]
    return f"{passes / 1e3:.0f}", text.seconds(cost["wall_s"])


def _signed(found: Difference, metric: str) -> str:
    if found.mean is None:
        return text.ABSENT
    half = "" if found.half is None else f" ± {text.number(found.half, metric)}"
    sign = "+" if found.mean > 0 else "−" if found.mean < 0 else ""
    return f"{sign}{text.number(abs(found.mean), metric)}{half}"


def _shown(table: Table) -> str:
    return render.markdown_table(table)
