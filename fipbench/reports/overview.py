"""Many boards at a glance: who leads each, where fip stands, and which baselines reach their own published numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from fipbench.claims import VERDICTS, Judgement, Ledger
from fipbench.claims.ledger import Study
from fipbench.reports import text, words
from fipbench.reports.board import Board, Row, Section
from fipbench.reports.calibration import Calibration

Line = tuple[str, ...]
# After the verdict on a number that plain fine-tuning would have reached.
NAIVE_TOO = "(naive, too)"


def standings(found: Iterable[Board]) -> list[Line]:
    """One line a section of each board: task, stored examples a task, first row, its score, fip's score, fip minus the
    best row that is not of its family, p by Holm, seeds of the first row."""
    lines = []
    for board in found:
        for section in board.sections:
            if section.ranked:
                lines.append(_standing(board, section))
    return lines


def _standing(board: Board, section: Section) -> Line:
    metric = board.headline
    first = section.ranked[0]
    own, rival = _rivals(section)
    gap, p = _gap(rival, metric) if own and rival else (text.ABSENT, text.ABSENT)
    return (
        board.task,
        str(section.key) if len(board.sections) > 1 else text.ABSENT,
        ", ".join(row.short for row in words.leaders(section, metric)),
        text.plus_minus(first.metrics[metric], metric),
        text.plus_minus(own.metrics[metric], metric) if own else text.ABSENT,
        gap,
        p,
        str(len(first.seeds)),
    )


def tally(found: Iterable[Board]) -> str:
    """How often fip is told apart from the best row that is not of its family, in a sentence; empty if that is
    nowhere tested."""
    seen: Counter[str] = Counter()
    unsearched = 0
    for board in found:
        for section in board.sections:
            own, rival = _rivals(section)
            pair = rival.comparisons.get(board.headline) if own and rival else None
            if pair is not None and pair.mean is not None and pair.adjusted is not None:
                side = "below" if pair.mean > 0 else "above"
                seen[side if pair.adjusted < words.ALPHA else "neither"] += 1
                unsearched += not all("tuned" in row.settings for row in (own, rival) if row)
    if not seen:
        return ""
    return (
        f"In {text.counted(seen.total(), 'comparison')} with the best method that is no variant of it, fip is above it "
        f"in {seen['above']} and below it in {seen['below']}; in {seen['neither']} no difference is found "
        f"(p < {words.ALPHA:g}, Holm within a board)"
        + (f". In {unsearched} the settings of one or both are not from the common search." if unsearched else ".")
    )


def relatives(found: Iterable[Board]) -> str:
    """Where a variant of fip has a higher mean than fip with the same memory, in a sentence; empty if nowhere."""
    above: dict[str, list[str]] = {}
    for board in found:
        for section in board.sections:
            own, _ = _rivals(section)
            for row in section.ranked if own else ():
                if row is own:
                    break  # ranked by the mean
                if words.of_fip(row) and board.task not in above.setdefault(row.label, []):
                    above[row.label].append(board.task)
    said = "; ".join(f"`{label}` on {words.listed(tasks)}" for label, tasks in sorted(above.items()))
    return f"Rows of fip's own family with a higher mean, told apart or not: {said}." if said else ""


def unsearched(found: Iterable[Board]) -> str:
    """Tasks of whose rows none has settings from the common search, in a sentence; empty if there is no such task."""
    tasks = [board.task for board in found if not any("tuned" in row.settings for row in board.rows)]
    return f"No search for settings was made for {words.listed(tasks)}." if tasks else ""


def _rivals(section: Section) -> tuple[Row | None, Row | None]:
    """The row that others are compared with, and the best that is not of its family."""
    own = next((row for row in section.ranked if row.name == section.reference), None)
    return own, next((row for row in section.ranked if not words.of_fip(row)), None)


def _gap(rival: Row, metric: str) -> tuple[str, str]:
    pair = rival.comparisons.get(metric)
    if pair is None or pair.mean is None:
        return text.ABSENT, text.ABSENT
    return f"{text.difference(words.flipped(pair), metric)} ({rival.short})", text.p_value(pair.adjusted)


def calibrated(found: Sequence[Calibration]) -> list[Line]:
    """One line a published number: method, task, published, ours, margin, verdict, source.

    Where plain fine-tuning (`naive`) would have reached a method's number on the same task, the verdict says so: it
    tells nothing of the method.
    """
    plain = {(entry.task, entry.published.metric): entry.ours.mean for entry in found if entry.label == "naive"}

    def verdict(entry: Calibration) -> str:
        least = entry.published.value - entry.published.margin
        idle = entry.label != "naive" and plain.get((entry.task, entry.published.metric), -math.inf) >= least
        return f"{entry.verdict} {NAIVE_TOO}" if idle and entry.passed else entry.verdict

    return [
        (
            entry.label,
            entry.task,
            text.number(entry.published.value, entry.published.metric),
            text.plus_minus(entry.ours, entry.published.metric),
            f"−{100 * entry.published.margin:g}",
            verdict(entry),
            entry.published.source,
        )
        for entry in sorted(found, key=lambda entry: (entry.track, entry.label, entry.task))
    ]


def calibration_legend(found: Sequence[Calibration]) -> str:
    """What the verdicts of `calibrated` mean."""
    seeds = " or ".join(map(str, sorted({entry.ours.n for entry in found})))
    marked = any(NAIVE_TOO in cell for line in calibrated(found) for cell in line)
    return (
        f"reached: our mean over {seeds} seeds is no further below the published value than the margin, in points; "
        "far above: further above it than that, which asks for a reason as well; missed: further below."
    ) + (
        " naive, too: plain fine-tuning, as it came out here on the same task, would have reached the number as well, "
        "so that it tells nothing of the method."
        if marked
        else ""
    )


def experiments(
    ledger: Ledger,
    judged: Sequence[Judgement],
    found: Iterable[Board],
    built: Collection[str],
    stepped: Collection[str],
) -> list[Line]:
    """One line a published experiment: its title, our task, how far it was run, and its rows by verdict.

    Args:
        built: names of the tasks there are. `stepped`: those of which a few steps were run at their true size.
    """
    seeds = {board.task: len(row.seeds) for board in found for section in board.sections for row in section.ranked[:1]}
    lines: list[Line] = []
    for name, study in ledger.studies.items():
        own = [j for j in judged if j.claim.study == name]
        if not study.labels and not any(task in built for task in study.tasks):
            continue  # facts and figures that are no experiment of the paper's own
        counts = Counter(f"smaller: {j.verdict}" if j.scale == "smaller" else j.verdict for j in own)
        order = [*VERDICTS, *(f"smaller: {verdict}" for verdict in VERDICTS)]
        verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
        methods = {label for labels in study.labels.values() for label in labels}
        if methods and methods <= ledger.planned.methods.keys():  # a task is no use without its method
            state = ("not built", "never")
        else:
            state = _state(study, own, seeds, built, stepped)
        lines.append((study.title, *state, verdicts))
    return lines


def _state(
    study: Study,
    own: Sequence[Judgement],
    seeds: dict[str, int],
    built: Collection[str],
    stepped: Collection[str],
) -> tuple[str, str]:
    """The tasks of ours behind an experiment, and how far it was run."""
    whole, run = study.tasks[:1], [task for task in study.tasks if task in seeds]
    shown = ", ".join(f"{task} ({seeds[task]} seeds)" for task in run)
    if whole and whole[0] in seeds:
        partly = any(j.scale == "smaller" or j.verdict in ("not-run", "protocol-mismatch") for j in own)
        return shown, "run in part" if partly else "run"
    if run:
        return shown, "smaller or otherwise"
    if whole and whole[0] in built:
        return whole[0], "a few steps" if whole[0] in stepped else "never"
    return "not built", "never"
