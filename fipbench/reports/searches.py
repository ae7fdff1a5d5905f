"""What the common searches cost and found: a page over the files of settings that tasks name, and a figure each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from fipbench.reports import figures, render, text
from fipbench.reports.figures import Drawing
from fipbench.reports.text import Table
from fipbench.spec import Found, Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# After so many trials the best score so far is shown.
AFTER = (1, 2, 4, 8)


class _Line(msgspec.Struct, frozen=True):
    """A method of a search, as `figures.styles` asks for it."""

    label: str
    found: Found


def pages(searches: Mapping[str, Tuned]) -> dict[str, str]:
    """File name -> content: `searches.md`, and `searches.TASK.svg` for each task."""
    parts = [
        "# What the searches cost, and what they found",
        "Every method of a task had the same number of trials, each at the same budget, scored on validation examples "
        "cut from the training split; trial 1 is the method's library defaults. A method with fewer settings than "
        "trials has all of them tried. *Examples* are those of all trials together, backward passes, base networks "
        "included.",
    ]
    files = {}
    for task, tuned in sorted(searches.items()):
        how = tuned.search
        drawing = best_so_far(task, tuned)
        files[f"searches.{task}.svg"] = drawing.svg
        parts += [
            f"## {task}",
            f"{how.trials} {how.law} trials, {how.seeds} seed{'s' if how.seeds > 1 else ''} each, at "
            f"{text.counted(how.budget_epochs, 'epoch')}; objective: {render.escaped(how.objective)}, "
            "mean over the seeds."
            + (f" The best {how.finalists} of each, tried again at the task's own budget." if how.finalists else ""),
            f"![{render.escaped(drawing.alt)}](searches.{task}.svg)",
            render.markdown_table(table(tuned)),
        ]
    return {"searches.md": "\n\n".join(parts) + "\n", **files}


def table(tuned: Tuned) -> Table:
    """A row a method: its trials, what they took, the best score after some of them, the settings that won."""
    after = [k for k in AFTER if k < tuned.search.trials] + [tuned.search.trials]
    objective = tuned.search.objective
    finals = ("finalists, %",) if tuned.search.finalists else ()
    rows = []
    for label, found in sorted(tuned.methods.items()):
        best = [found.best_of[min(k, len(found.best_of)) - 1] for k in after]
        again = ", ".join(_score(score, objective) for score in found.finals) or text.ABSENT
        rows.append(
            (
                label,
                str(found.trials),
                str(found.failed),
                f"{found.examples_spent / 1e6:.2f}",
                *(_score(score, objective) for score in best),
                *((again,) if finals else ()),
                ", ".join(f"{name} {_value(value)}" for name, value in sorted(found.params.items())),
            )
        )
    best_after = tuple(f"best of {k}, %" for k in after)
    return Table(
        caption="Search",
        columns=("method", "trials", "failed", "examples, 10^6", *best_after, *finals, "settings found"),
        rows=tuple(rows),
        text=("method", "settings found"),
    )


def best_so_far(task: str, tuned: Tuned) -> Drawing:
    """The best validation score so far against the number of trials, a line a method."""
    lines = [_Line(label, found) for label, found in sorted(tuned.methods.items())]
    styles = figures.styles(lines, of=lambda line: line.label)
    height = max(2.2, 0.21 * len(lines))

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.12, 0.16, 0.5, 0.8))
        figures.plain_axes(axes)
        for line in lines:
            scores = [100 * score for score in line.found.best_of]
            axes.plot(range(1, len(scores) + 1), scores, **styles[line.label])
        axes.set_xlabel("trials")
        axes.set_ylabel("best so far, %")
        axes.set_xticks(range(1, tuned.search.trials + 1))
        ends = [(len(e.found.best_of), 100 * e.found.best_of[-1], e.label, styles[e.label]) for e in lines]
        figures.end_labels(axes, ends, 0.2 / height)

    words = "; ".join(
        f"{e.label} from {100 * next(filter(math.isfinite, e.found.best_of)):.1f} to {100 * e.found.best_of[-1]:.1f}"
        for e in lines
    )
    title = f"Best validation score so far against the number of trials, on {task}"
    return Drawing(
        key="", svg=figures.svg((6.0, height + 0.6), draw, title, f"In per cent: {words}."), alt=title, caption=title
    )


def _score(score: float, objective: str) -> str:
    """In per cent, as the boards have it; absent where nothing had worked so far."""
    return text.number(score, objective) if math.isfinite(score) else text.ABSENT


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
