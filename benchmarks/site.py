"""The site of many records: seconds to write it, and to load its largest pages in a browser.

`python -m benchmarks.site [--records N]`. Records are the committed ones, again and again under other seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from fipbench import site, store
from fipbench.spec import Record, id_of, sealed

COMMITTED = Path(__file__).resolve().parents[1] / "leaderboards"
LOADS = 5


def many(count: int) -> list[Record]:
    """So many records: each committed one, then under the next seeds."""
    found, _ = store.read(COMMITTED)
    seeds = 1 + max(record.job.seed for record in found)
    return [_moved(found[n % len(found)], seeds * (n // len(found))) for n in range(count)]


def _moved(record: Record, by: int) -> Record:
    job = msgspec.structs.replace(record.job, seed=record.job.seed + by)
    return sealed(msgspec.structs.replace(record, job=job, id=id_of(job)))


def loaded(pages: dict[str, Path]) -> dict[str, float]:
    """Median milliseconds from the start of navigation to the end of the load event, by page; none without Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        return {}
    from playwright.sync_api import sync_playwright

    script = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    found: dict[str, list[float]] = {name: [] for name in pages}
    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-renderer-backgrounding"]
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        for _ in range(LOADS):
            for name, path in pages.items():
                page.goto(path.as_uri())
                page.wait_for_timeout(50)
                found[name].append(page.evaluate(script))
        browser.close()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> int:
    """Measure, print (as JSON with `--json`); 1 where they take more than 20 s or a page more than 1 s."""
    parser = argparse.ArgumentParser(description="the site of many records")
    parser.add_argument("--records", type=int, default=5000, help="how many records (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    options = parser.parse_args()
    records = many(options.records)
    with tempfile.TemporaryDirectory(prefix="fipbench-site-") as place:
        start = time.process_time()
        paths = site.write(records, place)
        written = time.process_time() - start
        tasks = sorted(Path(place, "tasks").glob("*.html"), key=lambda path: path.stat().st_size)
        shown = {"overview": Path(place, "index.html"), "claims": Path(place, "claims.html"), "largest task": tasks[-1]}
        sizes = {f"{name}, kB": path.stat().st_size / 1000 for name, path in shown.items()}
        loads = {f"{name}, load ms": value for name, value in loaded(shown).items()}
    met = written <= 20 and all(value <= 1000 for value in loads.values())
    found = {"records": len(records), "files": len(paths), "written, s of one core": written, **sizes, **loads}
    if options.json:
        print(json.dumps({"title": "site of many records", **found, "met": met}))
    else:
        print("site of many records")
        for name, value in found.items():
            print(f"  {name:<28} {value:10.4g}")
        print(f"  targets: written in 20 s, a page in 1 s: {'met' if met else 'MISSED'}")
    return int(not met)


if __name__ == "__main__":
    raise SystemExit(main())
