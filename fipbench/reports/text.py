"""A board in words: numbers with units, table cells, what the header says, and the one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from fipbench.reports.board import Board, Comparison, Row, plain, variant_note
from fipbench.statistics import Interval

ALPHA = 0.05
ABSENT = "–"
STANDING = {
    "quick": "a smoke test, not evidence",
    "standard": "real data at a size that a workstation can repeat",
    "paper": "the published experiments as published",
}


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Cells as plain text, not yet escaped. The column "method" names a row; `text` columns align left."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[str, ...] = ("method", "settings")


# ---------------------------------------------------------------------------------------------- numbers


def is_fraction(metric: str) -> bool:
    """Whether a metric is a fraction that people read in per cent."""
    return metric == "area" or "accuracy" in metric


def metric_name(metric: str) -> str:
    """A metric with its unit."""
    return f"{metric}, %" if is_fraction(metric) else metric


def number(value: float, metric: str) -> str:
    """A value of a metric: fractions in per cent to two decimals, all else to four digits."""
    return f"{100 * value:.2f}" if is_fraction(metric) else f"{value:.4g}"


def plus_minus(found: Interval | None, metric: str) -> str:
    """`mean ± half`, or the mean alone where there is no interval."""
    if found is None:
        return ABSENT
    half = "" if found.half is None else f" ± {number(found.half, metric)}"
    return number(found.mean, metric) + half


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


def score_table(board: Board) -> Table:
    """Score and cost of every row: ranked ones, those that failed, then the references."""
    compared = [f"− {board.reference}", "p (Holm)"] if board.reference else []
    headline = metric_name(board.headline)
    rows = []
    for row in (*board.rows, *board.references):
        found = row.comparisons.get(board.headline)
        cells = [
            _place(row),
            row.name,
            str(len(row.seeds)),
            plus_minus(row.metrics.get(board.headline), board.headline),
        ]
        if board.reference:
            cells += [difference(found, board.headline), p_value(found.adjusted if found else None)]
        rows.append((*cells, *_cost_cells(row), ", ".join(row.settings)))
    columns = ("#", "method", "seeds", headline, *compared, *_COSTS, "settings")
    return Table(caption="Score and cost", columns=columns, rows=tuple(rows))


def level_table(board: Board) -> Table | None:
    """Accuracy of every ranked row at every sparsity, if the task has sparsities."""
    if not board.levels or not board.ranked:
        return None
    rows = [
        (_place(row), row.name, *(plus_minus(row.metrics.get(metric), metric) for metric in board.levels))
        for row in board.ranked
    ]
    columns = ("#", "method", *(per_cent(sparsity) for sparsity in board.levels.values()))
    return Table(caption="Accuracy in % at each sparsity", columns=columns, rows=tuple(rows))


def end_table(board: Board) -> Table | None:
    """What the network at the highest sparsity is like: how far it walked, and where its zeros are."""
    layers = sorted({curve for row in board.ranked for curve in row.ends if curve.startswith("layer/")}, key=_by_number)
    if not board.levels or not layers:
        return None
    walked = ("weights", "path", "outputs")
    rows = [
        (
            _place(row),
            row.name,
            *(_to_thousandths(row.ends.get(curve)) for curve in walked),
            *(plus_minus(row.ends.get(layer), "accuracy") for layer in layers),
        )
        for row in board.ranked
    ]
    columns = ("#", "method", *walked, *(f"zeros in {layer.removeprefix('layer/')}, %" for layer in layers))
    last = per_cent(max(board.levels.values()))
    return Table(
        caption=f"At {last}: distances to the dense network, and zeros by layer", columns=columns, rows=tuple(rows)
    )


def _to_thousandths(found: Interval | None) -> str:
    if found is None:
        return ABSENT
    return f"{found.mean:.3f}" + ("" if found.half is None else f" ± {found.half:.3f}")


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts `layer/10.weight` behind `layer/4.weight`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def tables(board: Board) -> list[Table]:
    """All tables of a board, in the order in which they are shown."""
    return [table for table in (score_table(board), level_table(board), end_table(board)) if table is not None]


def row_notes(board: Board) -> list[tuple[str, str]]:
    """What there is to know about single rows: failures first, then what the records noted. (name, text)"""
    found = []
    for row in (*board.rows, *board.references):
        if row.failed:
            total = row.failed + len(row.seeds)
            found.append((row.name, f"{row.failed} of {total} seeds failed: {'; '.join(row.errors)}"))
        found += [(row.name, note) for note in row.notes]
    return found


def _place(row: Row) -> str:
    if row.role == "reference":
        return "ref."
    return str(row.rank) if row.rank else "failed" if not row.seeds else ABSENT


_COSTS = ("forward", "backward", "wall s", "peak MiB", "stored")


def _cost_cells(row: Row) -> list[str]:
    if not row.cost:
        return [ABSENT] * len(_COSTS)
    return [
        count(row.cost["forward_examples"]),
        count(row.cost["backward_examples"]),
        seconds(row.cost["wall_s"]),
        f"{row.cost['peak_memory_bytes'] / 2**20:.0f}",
        count(row.cost["parameters_stored"]),
    ]


# ----------------------------------------------------------------------------------------------- header

_BELOW = ("Comparison", "Cost", "Distances", "Machines", "Version")


def protocol(board: Board) -> list[tuple[str, str]]:
    """What stands above the tables: the protocol, the budget and how settings were selected. (term, explanation)"""
    return [(term, words) for term, words in header(board) if term not in _BELOW]


def reading(board: Board) -> list[tuple[str, str]]:
    """What stands below them: what the columns mean, and where the numbers were made. (term, explanation)"""
    return [(term, words) for term, words in header(board) if term in _BELOW]


def standing(suites: Iterable[str]) -> str:
    """What numbers of these suites are worth."""
    return "; ".join(f"{suite} suite: {STANDING[suite]}" if suite in STANDING else f"{suite} suite" for suite in suites)


def header(board: Board) -> list[tuple[str, str]]:
    """What a reader must know to read the tables: (term, explanation)."""
    rows = (*board.rows, *board.references)
    labels = sorted({settings for row in rows for settings in row.settings})
    found = [
        ("Standing", standing(board.suites)),
        ("Data", _data(board)),
        ("Network", _network(board)),
        ("Budget", _budget(board)),
        ("Sparsities", ", ".join(map(per_cent, board.levels.values())) + " of the prunable weights are zero"),
        ("Selection", _selection(board, labels)),
        ("Headline", _definition(board.headline)),
        ("Seeds", _seeds(board)),
        (
            "±",
            "half-width of the 95 % t interval over seeds (standard deviation with ddof 1); it covers what "
            "the seed decides, not the choice of test set. A mean without ± has one seed and no interval",
        ),
        ("Comparison", _comparison(board)),
        (
            "Cost",
            "forward, backward: training examples through the network, mean over seeds, shared base network "
            "included; wall s: mean seconds, on a machine that may have done other work beside; peak MiB: largest "
            "memory of a job's process; stored: parameters other than zero that are kept",
        ),
        (
            "Distances",
            "weights: || w - w_dense || / || w_dense ||; path: the same summed from level to level; outputs: mean "
            "Bhattacharyya distance of the softmax outputs to the dense network's on the test examples",
        ),
        ("Machines", "; ".join(board.machines)),
        ("Version", f"task version {board.version}, protocol {board.digest}, device {board.device}"),
    ]
    if not board.levels:
        found = [(term, text) for term, text in found if term not in ("Sparsities", "Distances")]
    return [(term, plain(text)) for term, text in found if text]


def _data(board: Board) -> str:
    data = board.protocol.get("data", {})
    source = data.get("repo") or data.get("embedded") or "unnamed"
    digests = ", ".join(f"{split} {digest[:12]}" for split, digest in sorted(board.data.items()))
    note = variant_note(board.protocol, board.variant)
    sizes = ((board.train_examples, "training"), (board.test_examples, "test"))
    examples = "".join(f"; {size:,} {split} examples" for size, split in sizes if size)
    return f"{source}, variant {board.variant} ({digests}){f': {note}' if note else ''}{examples}"


def _network(board: Board) -> str:
    model, base = board.protocol.get("model", {}), board.protocol.get("base", {})
    if not model or not base:
        return ""
    shape = "-".join(str(size) for size in (*model.get("hidden", ()), model.get("outputs")))
    decay = f", weight decay {base['weight_decay']:g}" if base.get("weight_decay") else ""
    return (
        f"{model.get('name')} ({shape}), for each seed the same trained network for all methods: "
        f"{base.get('epochs')} epochs of {base.get('optimizer')}, learning rate {base.get('learning_rate')}, "
        f"momentum {base.get('momentum')}{decay}, batches of {base.get('batch_size')}"
    )


def _budget(board: Board) -> str:
    budget = board.protocol.get("budget", {})
    if not budget:
        return ""
    epochs, n = budget.get("epochs", 0), board.train_examples
    examples = f" = {2 * epochs * n:,} examples" if n else ""
    return (
        f"{epochs} epochs, that is {2 * epochs} passes over the training data, forward and backward together"
        f"{examples}, the training of the base network included; batches of {budget.get('batch_size')}"
    )


def _selection(board: Board, labels: Sequence[str]) -> str:
    held_out = board.protocol.get("validation")
    cut = f"; tuning may use {held_out} validation examples cut from the training split" if held_out else ""
    rule = board.protocol.get("selection") or "no common search"
    return f"{rule}; settings of these rows: {', '.join(labels)}{cut}"


def _definition(metric: str) -> str:
    if metric == "area":
        return "area: mean accuracy over the axis −log10(1 − sparsity) between the levels, by the trapezoid rule"
    if metric.startswith("accuracy@"):
        return f"fraction of test examples classified correctly at {per_cent(float(metric[9:]))} sparsity"
    return metric


def _seeds(board: Board) -> str:
    counts = sorted({len(row.seeds) for row in board.ranked})
    if not counts:
        return "none finished"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{span} a method; a seed decides weights, base network and data order, alike for all methods"


def _comparison(board: Board) -> str:
    if board.reference is None:
        return "fip has no result here, so no method is compared with it"
    text = f"− {board.reference}: mean difference to {board.reference} over the seeds that both have"
    if not board.comparisons:
        return f"{text}; too few common seeds for a test"
    return (
        f"{text} (positive: better than {board.reference}); p: two-sided paired t test, adjusted by Holm over "
        f"the {board.comparisons} comparison{'s' * (board.comparisons > 1)} of this table"
    )


# --------------------------------------------------------------------------------------------- sentence


def sentence(board: Board) -> str:
    """What the board shows, in one sentence: who leads, and where fip stands against the best other method.

    "Other" are the methods not of the fip family (`fip`, `fip-…`). A difference is called one only if its
    Holm-adjusted p is below 0.05.
    """
    if not board.ranked:
        return f"{board.name}: no method has a result."
    leaders = [row for row in board.ranked if row.rank == 1]
    score = plus_minus(leaders[0].metrics[board.headline], board.headline)
    score += " %" if is_fraction(board.headline) else ""
    if len(board.ranked) == 1:
        return f"{board.name}: {leaders[0].name} is the only method with a result ({score})."
    if len(leaders) > 1:
        lead = f"{_listed([row.name for row in leaders])} tie for the lead ({score})"
    else:
        lead = f"{leaders[0].name} leads ({score})"
    return f"{board.name}: {lead}; {_against_best(board, leaders)}."


def _against_best(board: Board, leaders: Sequence[Row]) -> str:
    if board.reference is None:
        return "fip has no result here"
    others = [row for row in board.ranked if not re.fullmatch(r"fip(-.*)?", row.method)]
    if not others:
        return "no method but fip's own variants has a result"
    best = others[0]
    found = best.comparisons.get(board.headline)
    if found is None or found.mean is None:
        return f"{board.reference} and {best.name} have no seed in common"
    rival = f"{best.name}, the best other method"
    if best in leaders:
        rival = "it" if len(leaders) == 1 else best.name
    flipped = Comparison(mean=-found.mean, half=found.half, n=found.n, p=found.p, adjusted=found.adjusted)
    subject = "it" if [row.name for row in leaders] == [board.reference] else board.reference
    return f"{subject} {_relation(flipped, board.headline, rival)}"


def _relation(found: Comparison, metric: str, rival: str) -> str:
    """How far above or below the rival, and whether that can be told from zero."""
    assert found.mean is not None
    unit = " points" if is_fraction(metric) else ""
    half = "" if found.half is None else f" ± {number(found.half, metric)}"
    size = f"{number(abs(found.mean), metric)}{half}{unit}"
    if not number(found.mean, metric).strip("-0."):
        where = f"is level with {rival} (difference {size}, "
    else:
        where = f"is {size} {'above' if found.mean > 0 else 'below'} {rival} ("
    if found.adjusted is None:
        return f"{where}{found.n} paired seed{'s' * (found.n > 1)}, too few for a test)"
    p = p_value(found.adjusted)
    test = f"{found.n} paired seeds, p {p if p.startswith('<') else f'= {p}'}, Holm"
    doubt = "" if found.adjusted < ALPHA else "not distinguishable from zero: "
    return f"{where}{doubt}{test})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
