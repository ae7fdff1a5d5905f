"""The site of many records: seconds to write it, and to load its largest pages in a browser.

Records are the committed ones, again and again under other seeds. Needs Chromium for the loading; see tests/site.

python -m benchmarks.site [--json]
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.records import many
from benchmarks.timing import Finding, main, spread
from fipbench import site

WRITTEN, LOADED = 10_000, 5000
LOADS = 5


def loads(pages: dict[str, Path]) -> dict[str, list[float]]:
    """Milliseconds from the start of navigation to the end of the load event, by page; none without Chromium."""
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
    return found


def written(count: int, place: str) -> tuple[float, int]:
    """(seconds of the processor, files) of the site of so many records."""
    records = list(many(count))
    start = time.process_time()
    paths = site.write(records, place)
    return time.process_time() - start, len(paths)


def measure(rounds: int) -> Iterator[Finding]:
    """The site of many records."""
    seconds: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="fipbench-site-") as place:
            taken, files = written(WRITTEN, place)
            seconds.append(taken)
    yield Finding(
        what=f"{WRITTEN:,} records to the site", **spread(seconds), unit="s", most=20, details={"files": files}
    )
    with tempfile.TemporaryDirectory(prefix="fipbench-site-") as place:
        written(LOADED, place)
        kinds = {
            kind: sorted(Path(place, kind).glob("*.html"), key=lambda path: path.stat().st_size)[-1]
            for kind in ("tasks", "methods", "records")
        }
        shown = {"overview": Path(place, "index.html"), "claims": Path(place, "claims.html")}
        shown |= {f"largest of {kind}": path for kind, path in kinds.items()}
        sizes = {f"{name}, kB": path.stat().st_size / 1000 for name, path in shown.items()}
        found = loads(shown)
    if found:
        slowest = max(found, key=lambda name: statistics.median(found[name]))
        yield Finding(
            what=f"the slowest page of the site of {LOADED:,} records to load ({slowest})",
            **spread([value / 1000 for value in found[slowest]]),
            unit="s",
            most=1,
            clock="wall, in Chromium",
            details=sizes | {f"{name}, s": statistics.median(values) / 1000 for name, values in found.items()},
        )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
