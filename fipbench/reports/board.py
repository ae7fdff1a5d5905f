"""What a leaderboard is: a `Board` per task, data variant and device, its sections and rows. No text, no layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fipbench.spec import Params
from fipbench.statistics import Difference, Interval, ItemDifference

REFERENCE = "fip"


class Comparison(Difference, frozen=True, kw_only=True):
    """A row minus the reference row, paired by seed. `adjusted`: `p` by Holm; on the headline metric only.

    `detectable`: the true difference that the t test over these seeds finds with 80 % power at 5 %, before Holm.
    """

    adjusted: float | None = None
    detectable: float | None = None


class TopTwo(msgspec.Struct, frozen=True, kw_only=True):
    """The two rows of a section with the highest means, `first` minus `second`, on the same test items.

    `mcnemar`: for each seed the p of McNemar's exact test; empty where items are not simply right or wrong.
    """

    first: str
    second: str
    over_seeds: Difference
    over_items: ItemDifference
    mcnemar: tuple[float, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A method under one choice of hyper-parameters.

    Attributes:
        name: the label, with the parameters that tell it from its namesakes and what its section is; unique.
        short: the name within its section.
        rank: the best of the ranks in its section that it may have by the headline metric, from 1, `rank_last` the
            worst; see `fipbench.statistics.ranking`. None for references and without a result.
        front: whether it is on its section's Pareto front of mean score against examples forward and backward.
        seeds: seeds with a result; `failed`: how many jobs have none, and `errors`: their reasons.
        values: metric -> seed -> value; `metrics`: the interval over those.
        ends: curve -> the interval over its last values, None where it has none.
        curves: curve -> its axis and its series -> means over the seeds, at the places that all of them have; empty
            where there is no such place.
        cost: means over seeds; `peak_memory_bytes` is the largest.
        comparisons: metric -> this row minus the reference row of its section.
        calibration: why the method failed its calibration; empty where it did not.
        records: ids of its records by seed, those that failed included.
    """

    name: str
    short: str
    label: str
    method: str
    params: Params
    role: str
    settings: tuple[str, ...]
    method_version: str
    rank: int | None = None
    rank_last: int | None = None
    front: bool = False
    seeds: tuple[int, ...] = ()
    failed: int = 0
    errors: tuple[str, ...] = ()
    values: dict[str, dict[int, float]] = {}
    metrics: dict[str, Interval] = {}
    ends: Mapping[str, Interval | None] = {}
    curves: Mapping[str, Mapping[str, tuple[float, ...]]] = {}
    cost: dict[str, float] = {}
    comparisons: dict[str, Comparison] = {}
    notes: tuple[str, ...] = ()
    calibration: str = ""
    records: tuple[str, ...] = ()


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are ranked among themselves.

    Attributes:
        key: what its rows have in common: in continual learning the examples a task that they store, else 0.
        reference: name of the row that these are compared with, if there is one.
        rows: by headline mean, best first, then those without a result.
        top: the first two rows item by item, if their records hold the items of the headline metric.
    """

    key: int
    reference: str | None
    rows: tuple[Row, ...]
    top: TopTwo | None = None

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The rows with a place in the ranking."""
        return tuple(row for row in self.rows if row.rank is not None)


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What the records say about one task on one variant of its data and one kind of device.

    Attributes:
        name: the task's, with variant and device where the task has several boards; unique.
        protocol: the task as its newest record holds it.
        data: digest of each split.
        train_examples: how many a method was given (of each task of a stream), `test_examples`: scored on, if the
            records say so.
        machines: what the records were made on.
        headline: the metric of the ranking.
        comparisons: how many tests the p values of all sections are adjusted for; `rank_tests`: how many the ranks.
        sections: by key; `references`: rows of role "reference", apart.
    """

    name: str
    task: str
    track: str
    title: str
    suites: tuple[str, ...]
    version: int
    digest: str
    variant: str
    device: str
    data: dict[str, str]
    protocol: dict[str, Any]
    train_examples: tuple[int, ...]
    test_examples: int | None
    machines: tuple[str, ...]
    headline: str
    comparisons: int
    rank_tests: int
    sections: tuple[Section, ...]
    references: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all sections."""
        return tuple(row for section in self.sections for row in section.rows)

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The rows with a place in the ranking of their section."""
        return tuple(row for row in self.rows if row.rank is not None)

    def row(self, name: str | None) -> Row | None:
        """The row of that name."""
        return next((row for row in (*self.rows, *self.references) if row.name == name), None)


def plain(value: object) -> str:
    """Text of a record as one line of printable characters: nothing that a terminal, XML or a table obeys."""
    line = str(value)
    if line.isprintable() and "  " not in line and line == line.strip():  # as nearly all are; the one blank is " "
        return line
    return " ".join("".join(c if c.isprintable() else " " for c in line).split())
