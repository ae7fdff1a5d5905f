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

from benchmarks.timing import Finding, interleaved, main, of_children, spread

RECORDS = Path(__file__).resolve().parents[1] / "leaderboards" / "digits-sparsity.jsonl"
CLI = [sys.executable, "-m", "fipbench.cli"]


def seconds_of(command, folder):
    """A callable that runs the command to its end, silently."""
    places = {"FIPBENCH_CACHE": f"{folder}/cache", "FIPBENCH_RESULTS": f"{folder}/results"}
    return lambda: subprocess.run(command, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL)


def measure(rounds):
    """What the command line takes before there is work."""
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "results"
        stored.mkdir()
        for line in RECORDS.read_bytes().splitlines():
            (stored / f"{json.loads(line)['id']}.json").write_bytes(line)
        torch = seconds_of([sys.executable, "-c", "import torch"], folder)
        for name, arguments, limit in (
            ("--help", ["--help"], 0.3),
            ("list tasks", ["list", "tasks"], 0.3),
            ("list methods", ["list", "methods"], 0.3),
            ("run digits-sparsity, all records there", ["run", "digits-sparsity"], 3),
        ):
            found = interleaved(seconds_of([*CLI, *arguments], folder), torch, rounds, of_children)
            yield Finding(
                what=f"`fipbench {name}`",
                **spread(found.ours),
                unit="s",
                most=limit,
                clock="CPU of the process",
                details={"of `import torch`": found.ratio()["value"]},
            )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=2))
