"""10,000 records from a results folder to tables: seconds and memory of a process that does nothing else.

Records are the committed ones, again and again under other seeds. They are read from one file each, every one checked
against its digest, and rendered as Markdown and CSV, without the figures. The alternative only decodes the same files
by Python's own json, and checks and renders nothing.

python -m benchmarks.tables [--json]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.records import many
from benchmarks.timing import Finding, main, peak, spread

RECORDS = 10_000


def tables(folder):
    """(records read, characters written)."""
    from fipbench import reports, store
    from fipbench.reports import render

    found, problems = store.read(Path(folder))
    assert not problems
    boards = reports.boards(found)
    return len(found), sum(len(render.csv([board])) + len(render.markdown([board], {})) for board in boards)


def decoded(folder):
    """(records decoded, characters read)."""
    import json

    texts = [path.read_text("utf-8") for path in sorted(Path(folder).iterdir())]
    return len([json.loads(text) for text in texts]), sum(map(len, texts))


WAYS = {"tables": tables, "decoded": decoded}


def process(way, folder):
    """(seconds of the processor, peak memory in MB) of a process that goes that way, imports included."""
    found = subprocess.run(
        [sys.executable, "-m", __spec__.name, way, folder], capture_output=True, check=True, text=True
    )
    seconds, memory, records, _ = found.stdout.split()
    assert int(records) == RECORDS
    return float(seconds), float(memory)


def measure(rounds):
    """Many records to tables."""
    from fipbench import store

    with tempfile.TemporaryDirectory(prefix="fipbench-tables-") as folder:
        for record in many(RECORDS):
            store.write(Path(folder), record)
        found = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                found[way].append(process(way, folder))
    ours, theirs = ([a for a, _ in found[way]] for way in WAYS)
    details = {
        "json.loads of the same files, s": spread(theirs)["value"],
        "times its seconds": spread([a / b for a, b in zip(ours, theirs, strict=True)])["value"],
    }
    yield Finding(what=f"{RECORDS:,} records to tables", **spread(ours), unit="s", most=3, details=details)
    memory = [b for _, b in found["tables"]]
    yield Finding(
        what=f"memory of {RECORDS:,} records to tables",
        **spread(memory),
        unit="MB",
        most=500,
        clock="peak memory",
        details={"json.loads of the same files, MB": spread([b for _, b in found["decoded"]])["value"]},
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        done = WAYS[sys.argv[1]](sys.argv[2])
        print(time.process_time(), peak(), *done)
        raise SystemExit(0)
    raise SystemExit(main(measure, rounds=3))
