"""A run by two workers against the same by one: jobs that do not wait for one another, by the wall's clock.

Needs two free cores: how many were busy before is among the figures, and where it is not near zero the ratio says
nothing. Each run begins with an empty cache and results folder; data is decoded before.

python -m benchmarks.workers [--json]
"""

import os
import tempfile
import time

from benchmarks.timing import Finding, interleaved, main

TASK, METHOD, SEEDS = "digits-sparsity", "gradual", 6


def run(workers):
    """All jobs by so many workers."""
    import fipbench

    with tempfile.TemporaryDirectory(prefix="fipbench-workers-") as folder:
        os.environ["FIPBENCH_CACHE"] = f"{folder}/cache"
        found = fipbench.run(TASK, methods=[METHOD], seeds=SEEDS, workers=workers, results=f"{folder}/results")
    assert found.computed == SEEDS and not found.failed


def measure(rounds):
    """Two workers against one."""
    import psutil

    psutil.cpu_percent()
    time.sleep(3)
    busy = psutil.cpu_percent() / 100 * (os.cpu_count() or 1)
    found = interleaved(lambda: run(2), lambda: run(1), rounds, time.perf_counter)
    yield Finding(
        what=f"{SEEDS} jobs of {TASK} by two workers",
        against="by one",
        **found.times_as_fast(),
        least=1.6,
        clock="wall",
        details={"two workers, s": min(found.ours), "one worker, s": min(found.theirs), "cores busy before": busy},
        note="" if busy < 0.2 else "Other work was running: says nothing, repeat on an idle machine.",
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
