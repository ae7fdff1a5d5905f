"""Two ways of doing one thing, timed in turn in one process: A B A B ..., and what is found said in one form."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One figure and what it should be.

    Attributes:
        what, against: what is measured and the alternative it is held against; without one, `against` is empty.
        value, low, high: the median over the rounds, the smallest and the largest; of one measurement alike.
        unit: `×` for a ratio, else as written behind the number.
        least, most: the target, if there is one; `better` says which of these it is.
        clock: `CPU` or `wall`, or what else was measured.
        details: other figures of the same measurement.
        note: what else one must know to read it.
    """

    what: str
    against: str = ""
    value: float
    low: float
    high: float
    unit: str = "×"
    least: float | None = None
    most: float | None = None
    clock: str = "CPU"
    details: dict[str, float] = {}
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none. A value that is not a number meets nothing."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


Measure = Callable[[int], Iterable[Finding]]


class Timing(msgspec.Struct, frozen=True):
    """Seconds of each round, of both."""

    ours: list[float]
    theirs: list[float]

    def times_as_fast(self) -> dict[str, float]:
        """theirs / ours: its median over the rounds, lowest and highest."""
        return spread([b / a for a, b in zip(self.ours, self.theirs, strict=True)])

    def ratio(self) -> dict[str, float]:
        """ours / theirs: its median over the rounds, lowest and highest."""
        return spread([a / b for a, b in zip(self.ours, self.theirs, strict=True)])


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest, as fields of a finding."""
    values = list(values)
    return {"value": statistics.median(values), "low": min(values), "high": max(values)}


def of_children() -> float:
    """Seconds that the processor has spent in processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def interleaved(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Timing:
    """Seconds of both in each round, after one round unmeasured.

    Seconds are of the processor, in this process, on one thread: what else the machine does is not in them, and a
    round's two runs stand next to one another, so that slower memory or a lower clock falls on both.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for n in range(rounds + 1):
        for run, found in zip((ours, theirs), seconds, strict=True):
            start = clock()
            run()
            if n:
                found.append(clock() - start)
    return Timing(*seconds)


def peak() -> float:
    """The most memory that this process has held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def shown(finding: Finding) -> str:
    """A finding on a line or more of a terminal."""
    span = "" if finding.low == finding.high else f" ({finding.low:.4g} to {finding.high:.4g})"
    target = goal(finding)
    verdict = "" if finding.met is None else f"; target {target}: {'met' if finding.met else 'MISSED'}"
    against = f", against {finding.against}" if finding.against else ""
    lines = [f"{finding.what}{against}", f"  {finding.value:.4g} {finding.unit}{span}, {finding.clock}{verdict}"]
    return "\n".join([*lines, *(f"    {name:<34} {value:10.4g}" for name, value in finding.details.items())])


def goal(finding: Finding) -> str:
    """The target in words; empty where there is none."""
    least = "" if finding.least is None else f"≥ {finding.least:g}"
    most = "" if finding.most is None else f"≤ {finding.most:g}"
    return " ".join(filter(None, (least, most, finding.unit if least or most else "")))


def main(measure: Measure, rounds: int) -> int:
    """Measure on one thread, print (as JSON with `--json`), and return 1 where a target is missed, else 0."""
    parser = argparse.ArgumentParser(description=(measure.__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="a JSON list and nothing else")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds (default: %(default)s)")
    options = parser.parse_args()
    # Installed packages are there compiled; told to write no bytecode, each process would compile a checkout's anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    import torch

    torch.set_num_threads(1)
    found = []
    for finding in measure(options.rounds):
        found.append(finding)
        if not options.json:
            print(shown(finding), flush=True)
    if options.json:
        print(json.dumps([msgspec.to_builtins(finding) for finding in found]))
    sys.stdout.flush()
    return int(any(finding.met is False for finding in found))
