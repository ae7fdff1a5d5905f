"""What the command line takes before there is work: answers, and a run whose records are all there.

Each is a whole process; the alternative is a process that imports torch and does nothing else.

python -m benchmarks.startup [--json]
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import interleaved, main

RECORDS = Path(__file__).resolve().parents[1] / "leaderboards" / "digits-sparsity.jsonl"
CLI = [sys.executable, "-m", "fipbench.cli"]


def seconds_of(command, folder):
    """A callable that runs the command to its end, silently."""
    places = {"FIPBENCH_CACHE": f"{folder}/cache", "FIPBENCH_RESULTS": f"{folder}/results"}
    return lambda: subprocess.run(command, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL)


def measure(rounds):
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "results"
        stored.mkdir()
        for line in RECORDS.read_bytes().splitlines():
            (stored / f"{json.loads(line)['id']}.json").write_bytes(line)
        torch = seconds_of([sys.executable, "-c", "import torch"], folder)
        for name, arguments in (
            ("--help", ["--help"]),
            ("list tasks", ["list", "tasks"]),
            ("list methods", ["list", "methods"]),
            ("run, all stored", ["run", "all"]),
        ):
            ours, theirs, ratio = interleaved(seconds_of([*CLI, *arguments], folder), torch, rounds, children=True)
            found |= {f"{name}, s": ours, f"{name}, ratio": ratio}
        found["import torch, s"] = theirs
    found["worst share of its limit"] = max(
        found["--help, s"] / 0.3,
        found["list tasks, s"] / 0.3,
        found["list methods, s"] / 0.3,
        found["run, all stored, s"] / 3,
    )
    return found


if __name__ == "__main__":
    title = "start-up: answers within 0.3 s, a run with all its records within 3 s"
    raise SystemExit(main(title, measure, "worst share of its limit", 1.0, rounds=5))
