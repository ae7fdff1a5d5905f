"""Two ways of doing one thing, timed in turn in one process: A B A B ..., and their medians compared."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def interleaved(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, children: bool = False
) -> tuple[float, float, float]:
    """Median seconds of each, and the median of the ratios ours / theirs of a round, after one round unmeasured.

    Seconds are of the processor, in this process, on one thread: what else the machine does is not in them, and
    a round's two runs stand next to one another, so that slower memory or a lower clock falls on both. With
    `children` they are the wall's, for work done in processes that are started.
    """
    clock = time.perf_counter if children else time.process_time
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        pair = []
        for run in (ours, theirs):
            start = clock()
            run()
            pair.append(clock() - start)
        seconds.append((pair[0], pair[1]))
    a, b = zip(*seconds[1:], strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in seconds[1:])


def main(title: str, measure: Callable[[int], dict[str, float]], target: str, limit: float, rounds: int) -> int:
    """Measure on one thread, print (as JSON with `--json`), and return 1 where `target` is above `limit`, else 0."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.rounds)
    met = found[target] <= limit
    if options.json:
        where = {"python": platform.python_version(), "torch": str(torch.__version__), "threads": 1}
        print(json.dumps({"title": title, **found, "target": target, "limit": limit, "met": met, **where}))
    else:
        print(title)
        for name, value in found.items():
            print(f"  {name:<28} {value:10.4g}")
        print(f"  target: {target} <= {limit:g}: {'met' if met else 'MISSED'}")
    sys.stdout.flush()
    return 0 if met else 1
