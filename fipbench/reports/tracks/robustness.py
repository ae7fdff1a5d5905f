"""Boards of the robustness track: ranked by the worst case of the white-box attacks, everything else beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fipbench.reports import audits, figures, text, words
from fipbench.reports.board import Board, Row
from fipbench.reports.calibration import calibration_table
from fipbench.reports.figures import Drawing
from fipbench.reports.items import right
from fipbench.reports.text import Table, plus_minus
from fipbench.reports.words import Terms
from fipbench.spec import Record

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

APART: str = ""
LIPSCHITZ = {"lipschitz_lower": "≥", "lipschitz_upper": "≤"}
ATTACKS = {"pgd": "PGD", "apgd": "APGD", "autoattack": "AutoAttack", "transfer": "transfer"}


def suffix(key: int) -> str:
    """All rows are ranked together."""
    return ""


def derived(record: Record) -> dict[str, float]:
    """Diversity of each layer, counted from 1."""
    layers = record.curves.get("diversity", {}).get("value", [])
    return {f"diversity/{number}": value for number, value in enumerate(layers, 1)}


def compared(protocol: Mapping[str, Any]) -> list[str]:
    """The worst case at every radius, and clean accuracy."""
    metrics = [*(f"robust@{epsilon:g}" for epsilon in epsilons(protocol)), "clean"]
    return [metric for metric in metrics if metric != protocol.get("headline")]


def test_examples(record: Record) -> int:
    """Clean accuracy is measured on all of them."""
    return max(items.count for items in record.items.values())


def items(record: Record, headline: str) -> list[np.ndarray] | None:
    """The attacked items that stayed right."""
    found = right(record, headline)
    return None if found is None else [found]


def epsilons(protocol: Mapping[str, Any]) -> list[float]:
    """The radii of the attacks."""
    return [float(epsilon) for epsilon in protocol.get("attack", {}).get("epsilons", ())]


def radius(headline: str) -> str:
    """The `0.1` of `robust@0.1`."""
    return headline.rpartition("@")[2]


# ----------------------------------------------------------------------------------------------- tables


def tables(board: Board) -> list[Table]:
    """Scores; each attack at each radius; what the members are like; cost."""
    found = [score_table(board), audits.table(board), calibration_table(board), attack_table(board)]
    found += [member_table(board), cost_table(board)]
    return [table for table in found if table is not None]


def score_table(board: Board) -> Table | None:
    """The worst case at the headline's radius and at the others, clean accuracy, transfer apart."""
    at = radius(board.headline)
    name = board.sections[0].reference if board.sections else None
    robust = [metric for metric in compared(board.protocol) if metric.startswith("robust@")]
    metrics = ["clean", *robust, f"transfer@{at}"]
    spent = [text.COSTS.index("backward"), text.COSTS.index("wall s")]

    def cells(row: Row) -> list[str]:
        pair = text.comparison_cells(row, board.headline) if name else []
        values = [plus_minus(row.metrics.get(metric), metric) for metric in metrics]
        cost = [text.cost_cells(row)[n] for n in spent]
        headline = plus_minus(row.metrics.get(board.headline), board.headline)
        return [str(len(row.seeds)), headline, *audits.cells(board, row), *pair, *values, *cost, text.settings(row)]

    radii = [f"worst, ε {radius(metric)}" for metric in robust]
    against = [f"− {name}", "p (Holm)"] if name else []
    transfer = f"transfer, ε {at}"
    first = ["seeds", f"worst, ε {at}", *audits.column(board)]
    columns = [*first, *against, "clean", *radii, transfer, "backward", "wall s", "settings"]
    return text.by_section(
        board,
        f"Accuracy in % under the worst of the white-box attacks, ranked at ε {at}; clean, and under transferred "
        "attacks, beside",
        columns,
        cells,
        spare=("backward", "settings", transfer, "wall s", *radii),
        front=True,
    )


def attack_table(board: Board) -> Table | None:
    """Every attack at every radius."""
    made = [kind for kind in ATTACKS if kind != "autoattack" or board.protocol.get("attack", {}).get(kind)]
    shown = [(f"{kind}@{e:g}", f"{ATTACKS[kind]}, ε {e:g}") for kind in made for e in epsilons(board.protocol)]
    if not shown:
        return None
    return text.by_section(
        board,
        "Accuracy in % under each attack",
        [name for _, name in shown],
        lambda row: [plus_minus(row.metrics.get(metric), metric) for metric, _ in shown],
        scored=lambda row: bool(row.seeds),
    )


def member_table(board: Board) -> Table | None:
    """One member against the vote, how far apart the members' representations and gradients are."""
    rows = (*board.rows, *board.references)
    layers = sorted({m for row in rows for m in row.metrics if m.startswith("diversity/")}, key=text.by_number)

    def cells(row: Row) -> list[str]:
        single = [plus_minus(row.metrics.get(metric), metric) for metric in ("clean", "clean_member_mean")]
        spread = [text.to_thousandths(row.metrics.get(m)) for m in ("coherence", "diversity", *layers)]
        return [*single, *spread, *(text.to_three_digits(row.metrics.get(m)) for m in bounds)]

    bounds = {m: f"Lipschitz {end}" for m, end in LIPSCHITZ.items() if any(m in row.metrics for row in rows)}
    columns = ["clean, %", "mean of members, %", "coherence", "diversity"]
    columns += [*(f"layer {m[10:]}" for m in layers), *bounds.values()]
    return text.by_section(board, "Members", columns, cells, scored=lambda row: bool(row.seeds))


def cost_table(board: Board) -> Table | None:
    """All that is counted."""
    return text.by_section(board, "Cost", text.COSTS, text.cost_cells, scored=lambda row: bool(row.cost))


# ------------------------------------------------------------------------------------------------ words


def protocol(board: Board) -> Terms:
    """What stands above the tables."""
    attack = board.protocol.get("attack", {})
    members = board.protocol.get("members")
    return words.above(
        board,
        network="the same trained network N1 for all methods",
        data=words.examples([(sum(board.train_examples), "training"), (board.test_examples, "test")]),
        budget=words.passes(board),
        own=[
            ("Members", f"{members} networks, the mean of their softmax outputs is the vote" if members else ""),
            ("Attacks", _attacks(attack)),
        ],
        headline=f"fraction of test examples classified correctly under every white-box attack with ε "
        f"{radius(board.headline)}: the worst case",
    )


def _attacks(attack: Mapping[str, Any]) -> str:
    if not attack:
        return ""
    radii = ", ".join(f"{epsilon:g}" for epsilon in attack.get("epsilons", ()))
    items = f"{attack['items']} test examples of a fixed drawing" if attack.get("items") else "all test examples"
    first = f"Beside them, in no headline: AutoAttack on the first {attack.get('autoattack')} of the drawing. "
    beside = first if attack.get("autoattack") else ""
    return (
        f"in the L-infinity ball of radius ε {radii} on inputs in [0, 1], on {items}. White box, through the vote: PGD "
        f"of {attack.get('steps')} steps of {attack.get('step_size', 0.25):g} ε with {attack.get('restarts')} random "
        f"starts, and APGD of {attack.get('apgd_steps')} steps. {beside}Transfer: PGD on a network trained apart, "
        "which is no worst case"
    )


def reading(board: Board) -> Terms:
    """What stands below the tables."""
    return words.below(
        board,
        comparison=words.compared(board),
        stored="parameters of all members",
        own=[
            *audits.reading(board),
            ("Worst case", "an example counts as correct only if no white-box attack with that ε has changed the vote"),
            (
                "Diversity",
                "standard deviation over the members of the norm of a layer's output, mean over examples; layer 1 is "
                "the first convolution or matrix, 'diversity' the mean over all",
            ),
            (
                "Coherence",
                "the largest cosine over the members between the gradient of their loss by the input and that of the "
                "network from which attacks are transferred, mean over examples",
            ),
            ("Lipschitz", _lipschitz(board)),
        ],
    )


def _lipschitz(board: Board) -> str:
    if not any("lipschitz_lower" in row.metrics for row in (*board.rows, *board.references)):
        return ""
    return (
        "how much a member's logits can change for a change of the input, Euclidean norms, mean over the members; at "
        "least: the largest spectral norm of the Jacobian on attacked items; at most: the product over the layers of "
        "their spectral norms"
    )


def sentence(board: Board) -> str:
    """Who leads by the worst case, where fip stands, and the clean accuracy of both."""
    if not board.ranked:
        return f"{board.name}: {words.verdict(board)}."
    leaders = words.leaders(board.sections[0], board.headline)
    own = [row for row in board.ranked if row.name == board.sections[0].reference and row not in leaders]
    clean = [f"{words.said(row)} {words.score(row, 'clean')}" for row in (*leaders, *own) if "clean" in row.metrics]
    known = [row for row in board.references if board.headline in row.metrics]
    apart = [f"{words.said(row)} (reference) has {words.score(row, board.headline)}" for row in known]
    beside = f"; clean: {', '.join(clean)}" if clean else ""
    reference = f"; {', '.join(apart)}" if apart else ""
    return f"{board.name}, worst case at ε {radius(board.headline)}: {words.verdict(board)}{reference}{beside}."


# ---------------------------------------------------------------------------------------------- figures


def drawings(board: Board) -> list[Drawing]:
    """Worst-case accuracy against ε beside that under transferred attacks; none without a result."""
    rows = [row for row in (*board.ranked, *board.references) if len(_points(board, row, "robust")) > 1]
    if not rows:
        return []
    styles = figures.styles(board.ranked) | {row.name: figures.BESIDE for row in board.references}

    def draw(figure: Figure) -> None:
        first = None
        for n, (kind, name) in enumerate(
            (("robust", "worst of the white-box attacks"), ("transfer", "transferred attack"))
        ):
            axes = figure.add_axes((0.08 + 0.34 * n, 0.14, 0.31, 0.74), sharex=first, sharey=first)
            first = first or axes
            figures.plain_axes(axes)
            axes.set_title(name, loc="left", fontsize=10)
            for row in rows:
                points = _points(board, row, kind)
                style = styles[row.name] | ({"linestyle": (0, (5, 2))} if kind == "transfer" else {})
                figures.bars(axes, [p[0] for p in points], [p[1:] for p in points], style)
            axes.set_xlabel("ε (L-infinity, inputs in [0, 1])")
            axes.set_ylim(-3, 103)
            axes.tick_params(labelleft=n == 0)
            if n == 0:
                axes.set_ylabel("test accuracy, %")
        names = [text.marked(row) + " (reference)" * (row.role == "reference") for row in rows]
        figures.legend(figure, (0.77, 0.88), [(name, styles[row.name]) for name, row in zip(names, rows, strict=True)])

    title = f"Accuracy under attack on {board.name}"
    return [
        Drawing(
            key="",
            svg=figures.svg((7.6, 3.7), draw, title, _in_words(board, rows)),
            alt=f"Accuracy of every method under attacks of growing radius on {board.name}",
            caption="Mean accuracy under attacks of radius ε: left the worst case of the white-box attacks, which "
            "ranks; right the attack transferred from another network. ε 0 is clean. Bars: 95 % t interval over seeds.",
        )
    ]


def _points(board: Board, row: Row, kind: str) -> list[tuple[float, float, float, float]]:
    """(ε, mean, lower and upper end of the interval) in per cent, from the clean accuracy on."""
    metrics = [(0.0, "clean"), *((epsilon, f"{kind}@{epsilon:g}") for epsilon in epsilons(board.protocol))]
    found = [(epsilon, row.metrics[metric]) for epsilon, metric in metrics if metric in row.metrics]
    return [
        (e, 100 * v.mean, 100 * max(0.0, v.mean - (v.half or 0.0)), 100 * min(1.0, v.mean + (v.half or 0.0)))
        for e, v in found
    ]


def _in_words(board: Board, rows: list[Row]) -> str:
    parts = []
    for row in rows:
        (near, start, *_), *_, (far, end, *_) = _points(board, row, "robust")
        parts.append(f"{row.name} from {start:.1f} % at ε {near:g} to {end:.1f} % at ε {far:g}")
    return f"Worst-case accuracy of the white-box attacks, means over seeds: {'; '.join(parts)}."
