"""How near `fipbench estimate` comes to what the committed records say was spent: ratios estimate / record, by track.

A record's task is that of the record itself, so that budgets which have changed since are compared like with like.
Records were made with other work on the machine: their seconds of one and the same job differ by the factor that is
printed as `spread` (largest / smallest of a row's seeds, the median over rows), which no estimate can be nearer than.

python -m benchmarks.estimate [--json] [--no-calibrate] [--rows] [TASK ...]
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import msgspec

from fipbench import cache, plan, registry, store
from fipbench.estimate.total import estimate
from fipbench.spec import TASK_TYPES

RECORDS = Path(__file__).resolve().parents[1] / "leaderboards"
TARGET = 0.80
FIELDS = {
    "seconds": lambda cost: cost.wall_s,
    "forward": lambda cost: cost.forward_examples,
    "backward": lambda cost: cost.backward_examples,
    "memory": lambda cost: cost.peak_memory_bytes,
}


def rows_of(records):
    """One row for each label and memory that the records have, and the records of each."""
    groups = defaultdict(list)
    for record in records:
        groups[record.job.label, record.job.params.get("memory")].append(record)
    rows = []
    for (label, _), found in groups.items():
        job = found[0].job
        target = registry.find_methods(job.track)[job.method]
        method = registry.load_method(job.track, job.method, target)
        # What records say of a parameter that the method no longer has is left out.
        params = {**method.defaults, **{k: v for k, v in job.params.items() if k in method.defaults}}
        rows.append(plan.Row(label=label, method=method, params=params, settings=job.settings))
    return rows, list(groups.values())


def ratios_of(path, calibrated):
    """(track, task, label, {field: [estimate / record]}, spread of the seconds) of each row of a file of records."""
    records, _ = store.read(path)
    protocols = defaultdict(list)
    for record in records:
        if record.status == "ok":
            protocols[record.job.task_digest].append(record)
    for same in protocols.values():
        task = msgspec.convert(same[0].protocol, TASK_TYPES[same[0].job.track])
        rows, groups = rows_of(same)
        found = estimate(task, rows, seeds=1, cache=cache.cache_dir(), calibrated=calibrated)
        for line, group in zip(found.lines, groups, strict=True):
            ours = {
                "seconds": line.seconds,
                "forward": line.forward_examples,
                "backward": line.backward_examples,
                "memory": line.memory_bytes,
            }
            ratios = {name: [ours[name] / of(record.cost) for record in group] for name, of in FIELDS.items()}
            seconds = [record.cost.wall_s for record in group]
            yield task.track, task.name, line.label, ratios, max(seconds) / min(seconds)


def within(ratios):
    return sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="tasks (default: all with records)")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--no-calibrate", action="store_true", help="from FLOPs, the cap and stated rates alone")
    parser.add_argument("--rows", action="store_true", help="also the median ratios of each method")
    options = parser.parse_args()
    by_track, spreads = defaultdict(lambda: defaultdict(list)), []
    for path in sorted(RECORDS.glob("*.jsonl")):
        if options.tasks and path.stem not in options.tasks:
            continue
        for track, task, label, ratios, spread in ratios_of(path, not options.no_calibrate):
            spreads.append(spread)
            for name, values in ratios.items():
                for heading in (track, f"{track}/{task}", "all"):
                    by_track[heading][name] += values
            if options.rows:
                medians = "  ".join(f"{name} {statistics.median(values):6.2f}" for name, values in ratios.items())
                print(f"  {task:24} {label:20} {medians}  spread {spread:5.2f}", flush=True)
    found = {heading: {name: within(v) for name, v in fields.items()} for heading, fields in by_track.items()}
    jobs = {heading: len(fields["seconds"]) for heading, fields in by_track.items()}
    missed = [name for name, share in found["all"].items() if share < TARGET]
    if options.json:
        print(json.dumps({"within a factor 2": found, "jobs": jobs, "target": TARGET, "met": not missed}))
    else:
        print("share of jobs whose estimate is within a factor 2 of the record")
        for heading, fields in sorted(found.items()):
            shares = "  ".join(f"{name} {share:6.1%}" for name, share in fields.items())
            print(f"  {heading:36} {jobs[heading]:4} jobs  {shares}")
        print(f"  spread of one row's seconds over its seeds: median {statistics.median(spreads):.2f}")
        print(f"  target: {TARGET:.0%} of all: {'MISSED by ' + ', '.join(missed) if missed else 'met'}")
    sys.stdout.flush()
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
