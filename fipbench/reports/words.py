"""A board in words, as far as all tracks say it alike: what stands above and below the tables, and the sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fipbench import registry
from fipbench.reports.board import REFERENCE, Board, Comparison, Row, Section, plain
from fipbench.reports.text import FRONT, counted, is_fraction, number, p_value, plus_minus

ALPHA = 0.05
STANDING = {
    "quick": "a smoke test, not evidence",
    "standard": "real data at a size that a workstation can repeat",
    "paper": "the published experiments as published",
}
Terms = list[tuple[str, str]]


# ----------------------------------------------------------------------------------------------- header


def standing(suites: Iterable[str]) -> str:
    """What numbers of these suites are worth."""
    return "; ".join(f"{suite} suite: {STANDING[suite]}" if suite in STANDING else f"{suite} suite" for suite in suites)


def above(board: Board, *, network: str, data: str, budget: str, own: Terms, headline: str) -> Terms:
    """What stands above the tables: the protocol, the budget and how settings were selected. (term, explanation)

    Args:
        network: for whom it is the same; `data`, `budget`, `headline`: how many examples, what may be spent, what
            ranks.
        own: what else the track has to say.
    """
    labels = sorted({label for row in (*board.rows, *board.references) for label in row.settings})
    found = [
        ("Standing", standing(board.suites)),
        ("Data", _data(board) + data),
        ("Network", _network(board, network)),
        ("Budget", budget),
        *own,
        ("Selection", _selection(board, labels)),
        ("Headline", headline),
        ("Seeds", _seeds(board)),
        (
            "±",
            "half-width of the 95 % t interval over seeds (standard deviation with ddof 1); it covers what "
            "the seed decides, not the choice of test set. A mean without ± has one seed and no interval",
        ),
    ]
    return [(term, plain(text)) for term, text in found if text]


def below(board: Board, *, comparison: str, stored: str, own: Terms) -> Terms:
    """What stands below the tables: what the columns mean, and where the numbers were made. (term, explanation)"""
    found = [
        ("Ranks", ranks(board)),
        ("Comparison", comparison),
        ("Detectable", detected(board)),
        ("Test items", item_by_item(board)),
        (FRONT, _front(board)),
        (
            "Cost",
            "forward, backward: training examples through the network, mean over seeds, shared base network "
            "included; wall s: mean seconds, on a machine that may have done other work beside; peak MiB: largest "
            f"memory of a job's process; stored: {stored}",
        ),
        ("Search", searched(board)),
        *own,
        ("Machines", "; ".join(board.machines)),
        ("Version", f"task version {board.version}, protocol {board.digest}, device {board.device}"),
    ]
    return [(term, plain(text)) for term, text in found if text]


def searched(board: Board) -> str:
    """What the search behind the tuned rows took, for those whose settings the installed task's file holds."""
    tuned = registry.search_of(board.task) if board.task in registry.task_files() else None
    if tuned is None:
        return ""
    spent = {
        row.label: found.examples_spent
        for row in sorted(board.rows, key=lambda row: row.label)
        if "tuned" in row.settings
        and (found := tuned.methods.get(row.label))
        and found.params.items() <= row.params.items()
    }
    if not spent:
        return ""
    each = ", ".join(f"{label} {number / 1e6:.2f} M" for label, number in spent.items())
    return f"not part of the cost above: examples backward, base networks included, in all trials of a method: {each}"


def examples(sizes: Sequence[tuple[int | None, str]]) -> str:
    """`; N training examples; M test examples`, as far as they are known."""
    return "".join(f"; {size:,} {split} examples" for size, split in sizes if size)


def passes(board: Board) -> str:
    """A budget of so many epochs, the base network's included."""
    budget = board.protocol.get("budget", {})
    if not budget:
        return ""
    epochs = budget.get("epochs", 0) * budget.get("factor", 1)
    n = sum(board.train_examples)
    in_all = f" = {2 * epochs * n:,.0f} examples" if n else ""
    return (
        f"{counted(epochs, 'epoch')}, that is {2 * epochs:g} passes over the training data, forward and backward "
        f"together{in_all}, the training of the base network included; batches of {budget.get('batch_size')}"
    )


def compared(board: Board) -> str:
    """What the columns of differences mean where there is one section."""
    name = board.sections[0].reference if board.sections else None
    if name is None:
        return "fip has no result here, so no method is compared with it"
    text = f"− {name}: mean difference to {name} over the seeds that both have"
    if not board.comparisons:
        return f"{text}; too few common seeds for a test"
    return f"{text} (positive: better than {name}); {tested(board)}"


def tested(board: Board, where: str = "this table") -> str:
    """Which test, and what it is adjusted for."""
    return (
        "p: two-sided paired t test, adjusted by Holm over "
        f"the {board.comparisons} comparison{'s' * (board.comparisons > 1)} of {where}"
    )


def ranks(board: Board) -> str:
    """What the ranks say and rest on."""
    if not board.ranked:
        return ""
    order = "rows stand in order of their mean"
    if not board.rank_tests:
        return f"{order}; too few common seeds to tell any apart"
    where = "rows of its section" if len([section for section in board.sections if section.ranked]) > 1 else "rows"
    return (
        f"{order}; # is the range of ranks that a row may have: at best 1 + the {where} found better, at worst the "
        "number of those not found worse, itself included. Two rows are told apart by a two-sided paired t test with "
        f"p < {ALPHA:g}, adjusted by Holm over the {board.rank_tests} pairs of rows"
    )


def detected(board: Board) -> str:
    """The minimum detectable difference to the reference row: a multiple of ±, and its size for the closest row."""
    pairs = [(row, row.comparisons[board.headline]) for row in board.ranked if board.headline in row.comparisons]
    found = [(row, pair, pair.detectable) for row, pair in pairs if pair.detectable and pair.half]
    if not found:
        return ""
    factors = {pair.n: least / pair.half for _, pair, least in found if pair.half}
    seeds = "" if len(factors) == 1 else " (paired seeds: {})".format(", ".join(map(str, sorted(factors))))
    span = " to ".join(dict.fromkeys(f"{factor:.2f}" for factor in (min(factors.values()), max(factors.values()))))
    row, _, least = min(found, key=lambda entry: abs(entry[1].mean or 0.0))
    return (
        f"a true difference of {span} times the ± of a row's difference{seeds} is found (p < {ALPHA:g}, before Holm) "
        f"with a chance of 80 %; for {row.name}, the closest, {_with_unit(least, board.headline)}"
    )


def item_by_item(board: Board) -> str:
    """The first two rows of each section on the same test items: what the choice of the test set adds."""
    parts = []
    for top in (section.top for section in board.sections):
        if top is None or top.over_items.half is None or top.over_seeds.half is None:
            continue
        metric = board.headline
        mean, alone = number(top.over_items.mean, metric), number(top.over_seeds.half, metric)
        part = (
            f"{top.first} − {top.second}: {mean} ± {alone} over {top.over_items.n} seeds, "
            f"± {_with_unit(top.over_items.half, metric)} with the choice of the {top.over_items.items:,} test items"
        )
        if top.mcnemar:
            sure = sum(p < ALPHA for p in top.mcnemar)
            part += f", p < {ALPHA:g} in {sure} of {len(top.mcnemar)} by McNemar's exact test seed by seed"
        parts.append(part)
    return "; ".join(parts)


def _with_unit(value: float, metric: str) -> str:
    return number(value, metric) + (" points" if is_fraction(metric) else "")


def _front(board: Board) -> str:
    if not any(row.front for row in board.ranked):
        return ""
    return (
        "on the Pareto front: no row has a mean as high for fewer examples forward plus backward, or a higher one for "
        "as many (within 1 %)"
    )


def sources(board: Board) -> list[dict[str, Any]]:
    """The data sets of the task, in order."""
    data = board.protocol.get("data", {})
    return list(data) if isinstance(data, list | tuple) else [data]


def source_name(data: dict[str, Any]) -> str:
    """What a data set is called; where it is tested on another split than "test", with its configuration and that."""
    name = plain(data.get("repo") or data.get("embedded") or "unnamed")
    return f"{name} {plain(data.get('config', ''))} (tested on {plain(data['test'])})" if data.get("test") else name


def _data(board: Board) -> str:
    found = sources(board)
    digests = ", ".join(f"{split} {digest[:12]}" for split, digest in sorted(board.data.items()))
    if len(found) == 1:
        note = _variants(found[0]).get(board.variant, {}).get("note", "")
        notes = f": {note}" if note else ""
    else:
        notes = "".join(
            f"; {source_name(data)}: {known['note']}"
            for number, data in enumerate(found, 1)
            for known in _variants(data).values()
            if known.get("test") == board.data.get(f"test-{number}") and known.get("note")
        )
    return f"{', then '.join(map(source_name, found))}, variant {board.variant} ({digests}){notes}"


def _variants(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return data.get("variants", {})


def _network(board: Board, shared: str) -> str:
    model, base = board.protocol.get("model", {}), board.protocol.get("base", {})
    if not model or not base:
        return ""
    decay = f", weight decay {base['weight_decay']:g}" if base.get("weight_decay") else ""
    clip = f", gradients clipped to norm {base['clip']:g}" if base.get("clip") else ""
    momentum = f", momentum {base.get('momentum')}" if base.get("optimizer") == "sgd" else ""
    return (
        f"{model.get('name')} ({_shape(model)}), for each seed {shared}: "
        f"{counted(base.get('epochs'), 'epoch')} of {base.get('optimizer')}, "
        f"learning rate {base.get('learning_rate')}{momentum}{decay}{clip}, batches of {base.get('batch_size')}"
    )


def _shape(model: dict[str, Any]) -> str:
    """`300-100-10` of a perceptron; convolutions and language models say what is what."""
    parts = []
    if model.get("channels"):
        parts.append(f"channels {'-'.join(map(str, model['channels']))}")
    if model.get("vocabulary"):
        parts.append(
            f"{counted(model.get('depth'), 'layer')} of width {model.get('width')}, {model.get('heads')} heads, "
            f"{model['vocabulary']} words, {'-'.join(map(str, model.get('inputs', ())))} tokens"
        )
    dense = "-".join(str(size) for size in (*model.get("hidden", ()), model.get("outputs")))
    return ", ".join([*parts, f"dense {dense}" if parts else dense])


def _selection(board: Board, labels: Sequence[str]) -> str:
    held_out = board.protocol.get("validation")
    cut = f"; tuning may use {held_out} validation examples cut from the training split" if held_out else ""
    rule = board.protocol.get("selection") or "no common search"
    return f"{rule}; settings of these rows: {', '.join(labels)}{cut}"


def _seeds(board: Board) -> str:
    counts = sorted({len(row.seeds) for row in board.ranked})
    if not counts:
        return "none finished"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{span} a method; a seed decides weights, base network and data order, alike for all methods"


# --------------------------------------------------------------------------------------------- sentence


def verdict(board: Board) -> str:
    """Who leads a board of one section, and where fip stands against the best other method; no full stop.

    "Other" are the methods not of the fip family (`fip`, `fip-…`). A difference is called one only if its
    Holm-adjusted p is below 0.05.
    """
    if not board.ranked:
        return "no method has a result"
    [section] = [section for section in board.sections if section.ranked]
    if len(section.ranked) == 1:
        row = section.ranked[0]
        return f"{said(row)} is the only method with a result ({score(row, board.headline)})"
    return f"{lead(section, board.headline)}; {against_best(section, board.headline)}"


def lead(section: Section, headline: str) -> str:
    """Who leads, with what score."""
    found = leaders(section, headline)
    if len(found) > 1:
        return f"{listed([said(row) for row in found])} tie for the lead ({score(found[0], headline)})"
    [row] = found
    assert row.rank is not None and row.rank_last is not None
    level = row.rank_last - row.rank if len(row.seeds) > 1 else 0
    doubt = f", not told apart from {level} other{'s' * (level > 1)}" if level else ""
    return f"{said(row)} leads ({score(row, headline)}{doubt})"


def leaders(section: Section, headline: str) -> list[Row]:
    """The ranked rows with the highest mean."""
    return [row for row in section.ranked if row.metrics[headline].mean == section.ranked[0].metrics[headline].mean]


def against_best(section: Section, headline: str, brief: bool = False) -> str:
    """Where the reference row stands against the best method that is not of its family; `brief` as in `relation`."""
    if section.reference is None:
        return "fip has no result here"
    best_mean = leaders(section, headline)
    own = next(row for row in section.rows if row.name == section.reference)
    others = [row for row in section.ranked if not of_fip(row)]
    if not others:
        return "no method but fip's own variants has a result"
    best = others[0]
    found = best.comparisons.get(headline)
    if found is None or found.mean is None:
        return f"{said(own)} and {said(best)} have no seed in common"
    rival = f"{said(best)}, the best other method"
    if best in best_mean:
        rival = "it" if len(best_mean) == 1 else said(best)
    subject = "it" if [row.name for row in best_mean] == [own.name] else said(own)
    return f"{subject} {relation(flipped(found), headline, rival, brief)}"


def of_fip(row: Row) -> bool:
    """Whether the method is fip or a variant of it."""
    return re.fullmatch(rf"{REFERENCE}(-.*)?", row.method) is not None


def said(row: Row) -> str:
    """The row's name in a sentence on its section."""
    return row.short + (" (calibration failed)" if row.calibration else "")


def score(row: Row, metric: str) -> str:
    """Its value with unit."""
    return plus_minus(row.metrics.get(metric), metric) + (" %" if is_fraction(metric) else "")


def flipped(found: Comparison) -> Comparison:
    """The reference minus the row."""
    mean = None if found.mean is None else -found.mean
    return msgspec.structs.replace(found, mean=mean)


def relation(found: Comparison, metric: str, rival: str, brief: bool = False) -> str:
    """How far above or below the rival, and whether that can be told from zero; `brief` leaves seeds and correction
    to be said elsewhere."""
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
    p = f"p {p if p.startswith('<') else f'= {p}'}"
    test = p if brief else f"{found.n} paired seeds, {p}, Holm"
    doubt = "" if found.adjusted < ALPHA else "not distinguishable from zero: "
    return f"{where}{doubt}{test})"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
