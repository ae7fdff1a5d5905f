"""Speed and memory, as ratios against stated alternatives: each benchmark in a process of its own, one at a time.

`python -m benchmarks [NAME...]` writes what they find to performance.json beside this file, and
docs/performance.md from it. The simulations of `statistics`, `estimate` and `paper_scale` are run by their own names.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time

import msgspec

from benchmarks import performance
from benchmarks.timing import Finding, shown


def run(name):
    """One benchmark's findings, as `performance.Run`; None where it broke."""
    from fipbench import plan

    load, began = os.getloadavg()[0], time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    try:
        findings = msgspec.convert(json.loads(done.stdout), list[Finding])
    except (ValueError, msgspec.ValidationError):
        return None
    return performance.Run(
        findings=findings,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - began, 1),
        load=round(load, 2),
        cores=os.cpu_count() or 1,
        provenance=plan.provenance(),
    )


def main(arguments):
    """0; 1 if a target is missed or a benchmark breaks, which leaves what was found of it before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(performance.BENCHMARKS)}")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page again")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(performance.BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(performance.BENCHMARKS)}")
    found, broken = performance.load(), []
    for name in [] if options.render else options.names or performance.BENCHMARKS:
        made = run(name)
        if made is None:
            broken.append(name)
            continue
        print("\n".join([f"== {name}, {made.seconds:.0f} s", *map(shown, made.findings)]), flush=True)
        found[name] = made
        performance.save({known: found[known] for known in performance.BENCHMARKS if known in found})
    found = {known: found[known] for known in performance.BENCHMARKS if known in found}
    performance.save(found)
    for name in broken:
        print(f"error: benchmarks.{name} did not finish", file=sys.stderr)
    return int(bool(broken) or any(finding.met is False for one in found.values() for finding in one.findings))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
