"""What every track's module of `fipbench.reports.tracks` has, and which module is whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fipbench.errors import unknown
from fipbench.reports.board import Board
from fipbench.reports.figures import Drawing
from fipbench.reports.text import Table
from fipbench.reports.tracks import composition, connectivity, continual, robustness, sparsity
from fipbench.reports.words import Terms
from fipbench.spec import Record

if TYPE_CHECKING:
    import numpy as np


class View(Protocol):
    """The functions of a track's module.

    Attributes:
        APART: the parameter by which rows are ranked apart from each other; empty where all are ranked together.
    """

    APART: str

    def suffix(self, key: int, /) -> str:
        """What tells rows of one name in several sections apart; empty where there is one."""

    def derived(self, record: Record, /) -> dict[str, float]:
        """Metrics that follow from a record's curves, for intervals over seeds."""

    def compared(self, protocol: Mapping[str, Any], /) -> list[str]:
        """Metrics beside the headline for which rows are compared with the reference row."""

    def test_examples(self, record: Record, /) -> int:
        """How many test examples a record with items was scored on."""

    def items(self, record: Record, headline: str, /) -> list[np.ndarray] | None:
        """The headline metric item by item, if the record has them: strata whose means have it as their mean."""

    def tables(self, board: Board, /) -> list[Table]:
        """All tables, the one of the scores first; none where there are no rows."""

    def drawings(self, board: Board, /) -> list[Drawing]:
        """All figures; the first has the empty key."""

    def protocol(self, board: Board, /) -> Terms:
        """What stands above the tables."""

    def reading(self, board: Board, /) -> Terms:
        """What stands below the tables."""

    def sentence(self, board: Board, /) -> str:
        """What the board shows, in one sentence."""


def view(track: str) -> View:
    """The module of a track.

    Raises:
        UserError: there is none.
    """
    known: dict[str, View] = {
        "composition": composition,
        "connectivity": connectivity,
        "continual": continual,
        "robustness": robustness,
        "sparsity": sparsity,
    }
    if track not in known:
        raise unknown("track", track, known, where="in a record")
    return known[track]
