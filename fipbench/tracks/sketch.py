"""The way through weight space as a record can hold it: each point a random projection to a few numbers.

The map is one for all methods of a task, so that the ways of different methods lie in one space. It is never held as a
matrix: each weight is added with a random sign to one of 4096 buckets (the count sketch of Charikar, Chen &
Farach-Colton, 2002), and the buckets are multiplied by random signs over the square root of the number of dimensions
(Achlioptas, 2003). Both draw raw bits of Philox, whose stream NumPy keeps for good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fipbench.errors import ProtocolError, UserError
from fipbench.spec import ContinualTask, Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights = Mapping[str, Tensor]

BUCKETS = 4096
_BLOCK = 1 << 18  # weights at a time; a multiple of the four that a word of random bits is for
_DIGITS = 4


@dataclass(frozen=True)
class Projection:
    """A random linear map S of n weights to d numbers that keeps inner products on average, <Sx, Sy> = <x, y>.

    The variance of || Sx ||^2 is at most (2/d + 2/4096 + 4/(4096 d)) || x ||^4, so that the standard deviation of a
    length is near 1/sqrt(2 d) of it, whatever n is.

    Attributes:
        dimensions: d.
        seed: draws the map, 128 bits at most.
    """

    dimensions: int
    seed: int

    def __call__(self, start: Weights, end: Weights) -> NDArray[np.float64]:
        """S (end - start), shape (d,), over the weights in the order of `start`. Time is linear in n, memory constant
        but for a block of them.

        Args:
            start, end: name -> weights; same names and shapes.
        """
        buckets = np.zeros(2 * BUCKETS)
        bits = np.random.Philox(key=self.seed)
        for name, before in start.items():
            a, b = before.detach().reshape(-1), end[name].detach().reshape(-1)
            for n in range(0, len(a), _BLOCK):
                moved = (b[n : n + _BLOCK].double() - a[n : n + _BLOCK].double()).cpu().numpy()
                drawn = bits.random_raw(-(-len(moved) // 4)).astype("<u8", copy=False).view("<u2")[: len(moved)]
                buckets += np.bincount(drawn & (2 * BUCKETS - 1), weights=moved, minlength=2 * BUCKETS)
        return (buckets[:BUCKETS] - buckets[BUCKETS:]) @ self._signs

    @cached_property
    def _signs(self) -> NDArray[np.float64]:
        """Plus or minus 1/sqrt(d), shape (BUCKETS, d)."""
        count = BUCKETS * self.dimensions
        # Philox goes through 2^256 states; these bits are far from those of the buckets.
        words = np.random.Philox(key=self.seed).jumped().random_raw(count // 64).astype("<u8", copy=False)
        signs = np.unpackbits(words.view(np.uint8)).reshape(BUCKETS, self.dimensions)
        return (2.0 * signs - 1.0) / np.sqrt(self.dimensions)


@dataclass
class Walk:
    """The points of one run, in the unit || w_1 ||, seen from w_1, the network that has learned the first task.

    Attributes:
        rows: of each point the number of the task being learned, from 1, and its coordinates.
    """

    projection: Projection
    points: int
    start: Weights
    norm: float
    rows: list[list[float]] = field(default_factory=list)

    def within(self, steps: int) -> frozenset[int]:
        """After which of a task's `steps` there is a point, beside that at its end."""
        return frozenset(round(k * steps / self.points) for k in range(1, self.points)) - {0, steps}

    def add(self, task: int, weights: Weights) -> None:
        """The point of these weights, its coordinates to four significant digits.

        Raises:
            ProtocolError: they are not finite.
        """
        coordinates = self.projection(self.start, weights) / self.norm
        if not np.isfinite(coordinates).all():
            raise ProtocolError(f"the network while learning task {task} has weights that are not finite")
        self.rows.append([float(task), *(float(f"{value:.{_DIGITS}g}") for value in coordinates)])

    def curve(self) -> dict[str, list[float]]:
        """`point`, counted from 0, its `task`, and its coordinates `1` to `d`."""
        task, *coordinates = (list(column) for column in zip(*self.rows, strict=True))
        named: dict[str, Any] = {str(k): values for k, values in enumerate(coordinates, start=1)}
        return {"point": [float(k) for k in range(len(self.rows))], "task": task, **named}


def walk_of(task: ContinualTask, job: Job, start: Weights, norm: float) -> Walk | None:
    """What records the way of this run: of the first seed's, where the task asks for it.

    Args:
        start: w_1, of norm `norm`.

    Raises:
        UserError: more dimensions than weights.
    """
    asked = task.sketch
    if not asked:
        return None
    weights = sum(value.numel() for value in start.values())
    if asked.dimensions > weights:
        raise UserError(
            f"task '{task.name}', field 'sketch.dimensions': {asked.dimensions}, but the network has {weights} "
            "weights; lower it"
        )
    if job.seed or job.split != "test":
        return None
    seed = hashlib.sha256(f"{task.name}/{task.version}/sketch".encode()).digest()[:8]
    return Walk(Projection(asked.dimensions, int.from_bytes(seed, "big")), asked.points, start, norm)
