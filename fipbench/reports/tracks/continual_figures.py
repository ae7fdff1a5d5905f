"""Figures of the continual track: average accuracy against tasks learned, and the course of learning one task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fipbench.reports import figures, words
from fipbench.reports.board import Board, Row, Section
from fipbench.reports.figures import Drawing, Style
from fipbench.reports.tracks import continual

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))
_STEPS = (0, 30, 3, 300, 3000, 30000, 10, 100, 1000, 10000)  # what is labelled, as far as there is room
_PANELS = 4


def drawings(board: Board) -> list[Drawing]:
    """Average accuracy against tasks learned, and the course of learning; only those that rows have values for."""
    return [drawing for drawing in (averages(board), course(board)) if drawing is not None]


def styles(board: Board) -> dict[str, Style]:
    """By label: a method looks alike with every memory."""
    known: dict[str, Style] = {}
    for stores in (False, True):
        rows = [row for s in board.sections if bool(s.key) == stores for row in s.ranked]
        known |= figures.styles(rows, of=lambda row: row.label)
    return known | {row.label: figures.BESIDE for row in board.ranked if row.method == continual.NAIVE}


# ---------------------------------------------------------------------------------------------- averages


def averages(board: Board) -> Drawing | None:
    """Mean accuracy over the tasks learned so far, after each task: a panel for each section, naive in every one."""
    score = continual.scoring(board.headline)
    panels = [(section, _with_naive(board, section, score)) for section in board.sections]
    panels = [(section, rows) for section, rows in panels if rows]
    if not panels:
        return None
    found = styles(board)
    heights = [max(1.7, 0.21 * len(rows) + 0.1) for _, rows in panels]
    total = sum(heights) + 0.5 * len(heights) + 0.3

    def draw(figure: Figure) -> None:
        top = total - 0.3
        first: Axes | None = None
        for number, ((section, rows), height) in enumerate(zip(panels, heights, strict=True)):
            box = (0.1, (top - height) / total, 0.58, height / total)
            axes = figure.add_axes(box, sharex=first, sharey=first)
            first = first or axes
            figures.plain_axes(axes)
            axes.set_title(continual.title(section), loc="left", fontsize=10, pad=13, parse_math=False)
            for row in rows:
                points = _points(row, score)
                bars = [(p[1], p[2], p[3]) for p in points]
                figures.bars(axes, [p[0] for p in points], bars, found[row.label])
            _references(axes, board)
            axes.set_ylabel("accuracy, %")
            axes.tick_params(labelbottom=number == len(panels) - 1)
            top -= height + 0.5
        assert first is not None
        figure.axes[-1].set_xlabel("tasks learned")
        first.set_xticks(ticked(list(continual.tasks(board))))
        first.margins(x=0.03)
        for axes, (_, rows), height in zip(figure.axes, panels, heights, strict=True):
            ends = [(*_points(row, score)[-1][:2], _named(row), found[row.label]) for row in rows]
            figures.end_labels(axes, ends, 0.2 / height)

    what = f"Average {score}-incremental accuracy over the tasks learned so far"
    return Drawing(
        key="",
        svg=figures.svg((5.4, total), draw, f"{what}, on {board.name}", _in_words(board, panels, score)),
        alt=f"{what}, of every method on {board.name}",
        caption=f"{what}, after each task; a panel for each memory. Bars: 95 % t interval over seeds.",
    )


def ticked(tasks: Sequence[int]) -> Sequence[int]:
    """Those of the tasks that an axis has room to number: ten at most, evenly, and the last where that can be."""
    every = -(-len(tasks) // 10)
    return tasks[every - 1 :: every]


def _with_naive(board: Board, section: Section, score: str) -> list[Row]:
    guests = [row for row in board.ranked if row.method == continual.NAIVE and row not in section.rows]
    return [row for row in (*section.ranked, *guests) if _points(row, score)]


def _named(row: Row) -> str:
    return row.short + (" †" if row.calibration else "")


def _points(row: Row, score: str) -> list[tuple[float, float, float, float]]:
    """(tasks learned, mean, lower and upper end of the interval), in per cent."""
    found = []
    i = 1
    while (value := row.metrics.get(f"average/{score}/{i}")) is not None:
        half = value.half or 0.0
        found.append((float(i), 100 * value.mean, 100 * max(0.0, value.mean - half), 100 * min(1.0, value.mean + half)))
        i += 1
    return found


def _references(axes: Axes, board: Board) -> None:
    for row in board.references:
        if board.headline in row.metrics:
            mean = 100 * row.metrics[board.headline].mean
            figures.level_line(axes, mean, f"{figures.short(row.short)} (reference) {mean:.1f}")


def _in_words(board: Board, panels: Sequence[tuple[Section, Sequence[Row]]], score: str) -> str:
    parts = []
    for section, _ in panels:
        ends = [(row, _points(row, score)) for row in section.ranked]
        lines = [f"{row.short} from {p[0][1]:.1f} % to {p[-1][1]:.1f} %" for row, p in ends if p]
        parts.append(f"{continual.title(section)}: {', '.join(lines)}")
    return f"Means with 95 % intervals over seeds, after the first and after the last task. {'. '.join(parts)}."


# ------------------------------------------------------------------------------------------------ course


def course(board: Board) -> Drawing | None:
    """Accuracy on the old tasks, and on the new one, against optimiser steps on the new one."""
    score = continual.scoring(board.headline)
    shown = [row for row in few(board) if any(course_of(row, score, i) for i in continual.tasks(board))]
    numbers = [i for i in continual.tasks(board) if any(course_of(row, score, i) for row in shown)]
    numbers = (
        sorted({numbers[round(n * (len(numbers) - 1) / (_PANELS - 1))] for n in range(_PANELS)}) if numbers else []
    )
    if not numbers:
        return None
    lines = line_styles(board, shown)
    wide = min(3.0, 6.0 / len(numbers))
    size = (wide * len(numbers) + 2.6, 4.2)

    def draw(figure: Figure) -> None:
        first: Axes | None = None
        for n, task in enumerate(numbers):
            for old in (True, False):
                left, width = (0.6 + n * wide) / size[0], (wide - 0.15) / size[0]
                axes = figure.add_axes((left, 0.54 if old else 0.12, width, 0.36), sharex=first, sharey=first)
                first = first or axes
                figures.plain_axes(axes)
                axes.grid(axis="x", color="#888888", alpha=0.15, linewidth=0.6)
                for row in shown:
                    if points := course_of(row, score, task):
                        axes.plot(
                            [math.log10(1 + step) for step, _, _ in points],
                            [100 * (before if old else new) for _, before, new in points],
                            **lines[row.name],
                        )
                if old:
                    axes.set_title(f"learning task {task}", fontsize=9.5)
                axes.tick_params(labelleft=n == 0, labelbottom=not old, labelsize=8.5)
                if n == 0:
                    axes.set_ylabel(
                        "accuracy on tasks\nbefore it, %" if old else "accuracy on the\ntask itself, %", fontsize=9.5
                    )
        _course_axes(figure, first, board, shown, numbers)
        order = [(row.name + (" †" if row.calibration else ""), lines[row.name]) for row in shown]
        figures.legend(figure, ((0.6 + len(numbers) * wide) / size[0], 0.9), order)

    what = f"Course of learning, {score}-incremental"
    return Drawing(
        key="course",
        svg=figures.svg(size, draw, f"{what}, on {board.name}", _course_in_words(shown, score, numbers)),
        alt=f"{what}: accuracy on old tasks and on the new one at each step, on {board.name}",
        caption=f"{what}: above, mean accuracy on the tasks before the one being learned; below, on that task, by "
        "optimiser steps on it (on a logarithmic axis from step 0). Means over seeds of naive, fip, and the best other "
        "method of each section that was watched.",
    )


def few(board: Board) -> list[Row]:
    """naive, then of each section fip and the best other."""
    found = [row for row in board.ranked if row.method == continual.NAIVE]
    score = continual.scoring(board.headline)
    for section in board.sections:
        found += [row for row in section.rows if row.name == section.reference]
        others = [row for row in section.ranked if row.method != continual.NAIVE and not words.of_fip(row)]
        found += [row for row in others if course_of(row, score, 2)][:1]
    return found


def line_styles(board: Board, rows: Sequence[Row], marked: bool = False) -> dict[str, Style]:
    """A method's colour, a dash for each memory, full for the largest, and if wanted the method's marker."""
    keys = sorted({section.key for section in board.sections if section.key}, reverse=True)
    known = figures.styles((row for row in rows if row.method != continual.NAIVE), of=lambda row: row.label)
    known |= {row.label: figures.BESIDE for row in rows if row.method == continual.NAIVE}
    found = {}
    for row in rows:
        key = next(section.key for section in board.sections if row in section.rows)
        dash = _DASHES[keys.index(key) % len(_DASHES)] if key else known[row.label]["linestyle"]
        found[row.name] = known[row.label] | {"linestyle": dash} | ({} if marked else {"marker": ""})
    return found


def course_of(row: Row, score: str, task: int) -> list[tuple[float, float, float]]:
    """(step, mean accuracy on the tasks before, accuracy on the task itself) while `task` is learned."""
    curve = row.curves.get(f"course/{score}/{task}", {})
    series = [curve.get(f"task{j}", ()) for j in range(1, task + 1)]
    if task < 2 or not all(series):
        return []
    columns = zip(curve.get("step", ()), *series, strict=False)
    return [(step, math.fsum(values[:-1]) / (task - 1), values[-1]) for step, *values in columns]


def _course_axes(figure: Figure, first: Axes | None, board: Board, rows: Sequence[Row], numbers: Sequence[int]) -> None:
    assert first is not None
    score = continual.scoring(board.headline)
    last = max(points[-1][0] for row in rows for i in numbers if (points := course_of(row, score, i)))
    ticks: dict[float, str] = {}
    for step in (step for step in _STEPS if step <= last):
        place = math.log10(1 + step)
        if all(abs(place - other) > 0.16 * math.log10(1 + last) for other in ticks):
            ticks[place] = str(step)
    first.set_xticks(list(ticks), list(ticks.values()))
    first.set_ylim(-3, 103)
    first.set_yticks([0, 25, 50, 75, 100])
    figure.text(0.6 / figure.get_figwidth(), 0.015, "optimiser steps on the task", fontsize=9.5)


def _course_in_words(rows: Sequence[Row], score: str, numbers: Sequence[int]) -> str:
    parts = []
    for row in rows:
        if points := course_of(row, score, numbers[0]):
            below = next((step for step, before, _ in points if before < points[0][1] / 2), None)
            half = "" if below is None else f", below half by step {below:.0f}"
            parts.append(f"{row.name} from {100 * points[0][1]:.1f} % to {100 * points[-1][1]:.1f} %{half}")
    what = f"Mean accuracy on the tasks before it while task {numbers[0]} is learned, over optimiser steps"
    return f"{what}: {'; '.join(parts)}."
