"""Boards of the continual track: methods that store no data apart from those that store N examples a task.

Metrics are per scoring s (class, task, domain), tasks count from 1. `average_accuracy/s`, `forgetting/s`,
`backward_transfer/s`, `forward_transfer/s`, `untrained/s` and `final/s/J` are the records' own; from their curves
`matrix/s/I` follow `accuracy/s/I/J` (on task J after task I) and `average/s/I` (mean over the first I tasks).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fipbench.reports import text, words
from fipbench.reports.board import Board, Row, Section, plain
from fipbench.reports.calibration import calibration_table
from fipbench.reports.figures import Drawing
from fipbench.reports.items import right
from fipbench.reports.text import Table, plus_minus
from fipbench.reports.words import Terms
from fipbench.spec import Record

if TYPE_CHECKING:
    import numpy as np

APART: str = "memory"
NAIVE = "naive"
MEANING = {
    "class": "arg-max over all outputs",
    "task": "arg-max over the outputs of the example's own task, which the network is told",
    "domain": "all tasks share the outputs",
}


def suffix(key: int) -> str:
    """How many examples a task the rows of a section store."""
    return f" ({key} a task)" if key else ""


def title(section: Section) -> str:
    """The heading of a section."""
    return f"stores {section.key} example{'s' * (section.key > 1)} a task" if section.key else "stores no data"


def derived(record: Record) -> dict[str, float]:
    """The accuracy matrix and its means so far, entry by entry."""
    found: dict[str, float] = {}
    for score in scores(record.protocol):
        start = f"matrix/{score}/"
        n = sum(name.startswith(start) for name in record.curves)
        for i in range(1, n):
            row = record.curves.get(f"{start}{i}", {}).get("value", [])
            found |= {f"accuracy/{score}/{i}/{j}": value for j, value in enumerate(row, 1)}
            if len(row) >= i:
                found[f"average/{score}/{i}"] = sum(row[:i]) / i
    return found


def compared(protocol: Mapping[str, Any]) -> list[str]:
    """Average accuracy and forgetting by every scoring."""
    metrics = [f"{name}/{score}" for score in scores(protocol) for name in ("average_accuracy", "forgetting")]
    return [metric for metric in metrics if metric != protocol.get("headline")]


def test_examples(record: Record) -> int:
    """The test examples of all tasks: each is scored once by each scoring."""
    counts: dict[str, int] = {}
    for name, items in record.items.items():
        score = name.partition("/")[0]
        counts[score] = counts.get(score, 0) + items.count
    return max(counts.values())


def items(record: Record, headline: str) -> list[np.ndarray] | None:
    """The items of each task at the end: every task counts alike."""
    names = sorted((name for name in record.items if name.startswith(f"{scoring(headline)}/")), key=text.by_number)
    found = [right(record, name) for name in names]
    known = [row for row in found if row is not None]
    return known if known and len(known) == len(found) else None


def scores(protocol: Mapping[str, Any]) -> list[str]:
    """How the task is scored, the headline's scoring first."""
    found = [plain(score) for score in protocol.get("stream", {}).get("score", ())]
    return sorted(found, key=lambda score: score != scoring(protocol.get("headline", "")))


def scoring(headline: str) -> str:
    """The `class` of `average_accuracy/class`."""
    return plain(headline).rpartition("/")[2]


def tasks(board: Board) -> range:
    """The numbers of the stream's tasks, as far as any row has a result."""
    pattern = rf"final/{re.escape(scoring(board.headline))}/(\d{{1,4}})"
    rows = (*board.rows, *board.references)
    numbers = [int(m[1]) for row in rows for metric in row.metrics if (m := re.fullmatch(pattern, metric))]
    return range(1, max(numbers, default=0) + 1)


# ----------------------------------------------------------------------------------------------- tables


def tables(board: Board) -> list[Table]:
    """Scores; accuracy on each task; the accuracy matrix of two rows; how far the weights went; cost."""
    ends = [end_table(board, score) for score in scores(board.protocol)]
    found = [
        score_table(board),
        calibration_table(board),
        *ends,
        matrix_table(board),
        walk_table(board),
        cost_table(board),
    ]
    return [table for table in found if table is not None]


def score_table(board: Board) -> Table | None:
    """Average accuracy and forgetting by every scoring, side by side."""
    found = scores(board.protocol)
    metrics = [f"{name}/{score}" for name in ("average_accuracy", "forgetting") for score in found]
    against = ["− fip", "p (Holm)"] if any(section.reference for section in board.sections) else []

    def cells(row: Row) -> list[str]:
        values = [plus_minus(row.metrics.get(metric), metric) for metric in metrics]
        pair = text.comparison_cells(row, board.headline) if against else []
        spent = [text.COSTS.index("backward"), text.COSTS.index("wall s")]
        cost = [text.cost_cells(row)[n] for n in spent]
        return [str(len(row.seeds)), *values, *pair, *cost, _stored(row), text.settings(row)]

    accuracies = [f"{score}-incr., %" for score in found]
    forgotten = [f"forgetting, {score}" for score in found]
    return text.by_section(
        board,
        f"Average accuracy and forgetting at the end, in %, ranked by {scoring(board.headline)}-incremental accuracy",
        ["seeds", *accuracies, *forgotten, *against, "backward", "wall s", "stored", "settings"],
        cells,
        title,
        spare=("stored", *forgotten[1:], "backward", "settings", "wall s"),
        front=True,
    )


def end_table(board: Board, score: str) -> Table | None:
    """Accuracy on every task at the end, what tasks did to each other, and the untrained network beside."""
    metrics = [f"final/{score}/{j}" for j in tasks(board)]
    metrics += [f"{name}/{score}" for name in ("backward_transfer", "forward_transfer", "untrained")]
    return text.by_section(
        board,
        f"Accuracy in % on each task at the end, {score}-incremental",
        [*(f"task {j}" for j in tasks(board)), "backward transfer", "forward transfer", "untrained"],
        lambda row: [plus_minus(row.metrics.get(metric), metric) for metric in metrics],
        title,
        scored=lambda row: bool(row.seeds),
    )


def matrix_table(board: Board) -> Table | None:
    """The accuracy matrix of fip and of the best other row, both with the largest memory."""
    score, every = scoring(board.headline), tasks(board)
    section = next((s for s in reversed(board.sections) if s.ranked), None)
    if section is None or not every:
        return None
    own = [row for row in section.ranked if row.name == section.reference]
    chosen = [*own, *[row for row in section.ranked if not words.of_fip(row)][:1]]
    rows: list[tuple[str, ...]] = []
    groups = []
    for row in chosen:
        groups.append((len(rows), f"{row.name}{text.MARK if row.calibration else ''}"))
        start = row.curves.get(f"matrix/{score}/0", {}).get("value", ())
        if len(start) == len(every):
            rows.append(("untrained", *(text.number(value, "accuracy") for value in start)))
        for i in every:
            found = [row.metrics.get(f"accuracy/{score}/{i}/{j}") for j in every]
            rows.append((f"after task {i}", *(text.number(v.mean, "accuracy") if v else text.ABSENT for v in found)))
    if not rows:
        return None
    return Table(
        caption=f"Accuracy in % on each task after each task, {score}-incremental, means over seeds",
        columns=("network", *(f"task {j}" for j in every)),
        rows=tuple(rows),
        groups=tuple(groups),
        head="network",
        text=("network",),
    )


def walk_table(board: Board) -> Table | None:
    """How far the weights are from those that learned the first task, in all and by layer."""
    curves = {name for row in board.ranked for name in row.ends if name.startswith("weights/")}
    names = ["weights", "path", *sorted(curves, key=text.by_number)]
    if not any("weights" in row.ends for row in board.rows):
        return None
    return text.by_section(
        board,
        "Relative change of the weights since the first task, at the end",
        [re.sub("^weights/", "in ", plain(name)) for name in names],
        lambda row: [text.to_thousandths(row.ends.get(name)) for name in names],
        title,
        scored=lambda row: "weights" in row.ends,
    )


def cost_table(board: Board) -> Table | None:
    """All that is counted."""

    def cells(row: Row) -> list[str]:
        *spent, parameters = text.cost_cells(row)
        return [*spent, parameters, _stored(row)]

    columns = [*text.COSTS[:-1], "parameters stored", "examples stored"]
    return text.by_section(board, "Cost", columns, cells, title, scored=lambda row: bool(row.cost))


def _stored(row: Row) -> str:
    counted = row.cost and row.role != "reference"  # which may keep all there is
    return text.count(row.cost["examples_stored"]) if counted else text.ABSENT


# ------------------------------------------------------------------------------------------------ words


def protocol(board: Board) -> Terms:
    """What stands above the tables."""
    found = scores(board.protocol)
    return words.above(
        board,
        network="the same network, trained on the first task, for all methods",
        data=_sizes(board.train_examples) + words.examples([(board.test_examples, "test")]),
        budget=_budget(board),
        own=[
            ("Stream", _stream(board)),
            ("Scoring", "; ".join(f"{s}-incremental: {MEANING.get(s, s)}" for s in found)),
            ("Memory", _memory(board)),
            ("Bag of words", _bag_of_words(board)),
        ],
        headline=f"{scoring(board.headline)}-incremental average accuracy: the mean over the tasks of the accuracy at "
        "the end (Lopez-Paz & Ranzato, 2017)",
    )


def _sizes(train: Sequence[int]) -> str:
    if not train:
        return ""
    low, high = min(train), max(train)
    return f"; {low:,} training examples a task" if low == high else f"; {low:,} to {high:,} training examples a task"


def _budget(board: Board) -> str:
    budget, base = board.protocol.get("budget", {}), board.protocol.get("base", {})
    if not budget:
        return ""
    factor = budget.get("factor", 1)
    return (
        f"{text.counted(base.get('epochs'), 'epoch')} of the first task, {budget.get('epochs')} of each later one, "
        f"batches of {budget.get('batch_size')}; a method may spend at most {factor:g} times the passes of such "
        "fine-tuning (training examples forward plus backward, the base network's included); a reference is not capped"
    )


def _stream(board: Board) -> str:
    stream = board.protocol.get("stream", {})
    classes = stream.get("classes", ())
    if classes:
        parts = "; then ".join(", ".join(map(str, part)) for part in classes)
        what = f"{len(classes)} tasks, classes {parts}"
    elif stream.get("permutations"):
        what = f"{stream['permutations']} tasks, the pixels in as many fixed orders, the first as they are"
    else:
        return ""
    over = "those of the example's own task" if stream.get("softmax") == "task" else "all outputs"
    kept = "; the optimiser's state goes on from task to task" if stream.get("optimizer") == "kept" else ""
    return f"{what}; trained with the loss over {over}{kept}"


def _memory(board: Board) -> str:
    sizes = [str(size) for size in board.protocol.get("memories", ())]
    if not sizes:
        return ""
    first = board.sections[0] if board.sections else None
    none = f", which are held against {first.reference}" if first and first.reference and not first.key else ""
    return (
        f"methods that store examples keep {' or '.join(sizes)} a task, the same for all methods; rows are ranked and "
        f"compared with those that store as many, apart from those that store none{none}"
    )


def _bag_of_words(board: Board) -> str:
    found = {
        metric: row.metrics[metric] for row in board.references for metric in row.metrics if metric.startswith("tfidf/")
    }
    shown = [
        f"{plus_minus(found[metric], metric)} % on data set {plain(metric.removeprefix('tfidf/'))}"
        for metric in sorted(found, key=text.by_number)
    ]
    return (
        f"TF-IDF with logistic regression, trained on each data set alone, scores {words.listed(shown)}"
        if shown
        else ""
    )


def reading(board: Board) -> Terms:
    """What stands below the tables."""
    return words.below(
        board,
        comparison=_comparison(board),
        stored="examples of past tasks that are kept at the end (references may keep all)",
        own=[
            (
                "Forgetting",
                "mean over the tasks before the last of the best accuracy that any earlier network had on it, minus "
                "that at the end (Chaudhry et al., 2018)",
            ),
            (
                "Transfer",
                "backward: mean over the tasks before the last of accuracy at the end minus right after the task; "
                "forward: mean over the tasks after the first of accuracy right before the task minus the untrained "
                "network's (Lopez-Paz & Ranzato, 2017)",
            ),
            (
                "Weights",
                "weights: || w - w_1 || / || w_1 || with w_1 the network that has learned the first task, and the "
                "same for each layer; path: the length of the walk in the same unit, summed where it was looked at",
            ),
        ],
    )


def _comparison(board: Board) -> str:
    if not any(section.reference for section in board.sections):
        return "fip has no result here, so no method is compared with it"
    what = f"{scoring(board.headline)}-incremental average accuracy"
    first = board.sections[0]
    none = "" if first.key else f"; where nothing is stored, to {first.reference}"
    over = (
        f"; {words.tested(board, 'all sections together')}"
        if board.comparisons
        else "; too few common seeds for a test"
    )
    return (
        f"− fip: mean difference in {what} to fip with the same memory{none}, over the seeds that both have "
        f"(positive: better than fip){over}"
    )


# --------------------------------------------------------------------------------------------- sentence


def sentence(board: Board) -> str:
    """Who leads in each section; where fip stands against naive and against the best method of the same memory."""
    parts = [", ".join(_of_section(board, section)) for section in board.sections if section.ranked]
    if not parts:
        return f"{board.name}: no method has a result."
    pairs = {row.comparisons[board.headline].n for row in board.rows if text.is_tested(row, board.headline)}
    span = "" if not pairs else f"{min(pairs)}" if len(pairs) == 1 else f"{min(pairs)} to {max(pairs)}"
    tests = f" ({span} paired seeds, p by Holm)" if span else ""
    what = f"{scoring(board.headline)}-incremental average accuracy"
    return f"{board.name}, {what}{tests}: {'; '.join(parts)}."


def _of_section(board: Board, section: Section) -> list[str]:
    headline = board.headline
    lead = words.lead(section, headline)
    if section.key:
        where = f"with {section.key} example{'s' * (section.key > 1)} a task"
        return [f"{where} {lead}", words.against_best(section, headline, brief=True)]
    parts = [f"without stored data {lead}"]
    naive = next((row for row in section.ranked if row.method == NAIVE), None)
    if naive is None:
        return parts
    found = naive.comparisons.get(headline)
    if naive not in words.leaders(section, headline):
        parts.append(f"{words.said(naive)} has {words.score(naive, headline)}")
    if found is not None and found.mean is not None and (own := board.row(section.reference)) is not None:
        parts.append(f"{own.name} {words.relation(words.flipped(found), headline, words.said(naive), brief=True)}")
    return parts


# ---------------------------------------------------------------------------------------------- figures


def drawings(board: Board) -> list[Drawing]:
    """Average accuracy against tasks learned, the course of learning, the way through weight space; none without a
    result."""
    from fipbench.reports.tracks import continual_figures, continual_path

    walked = continual_path.path(board)
    return [*continual_figures.drawings(board), *([walked] if walked else [])]
