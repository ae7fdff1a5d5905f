"""The page of all benchmarks, rendered from what they found: `performance.json` in, docs/performance.md out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.timing import Finding, goal

RECORDS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
# In the order of the page; what each takes on an idle machine stands on it, too.
BENCHMARKS = (
    "continual_step",
    "sparse_step",
    "threshold",
    "text_length",
    "harness",
    "avalanche_loop",
    "memory",
    "tables",
    "site",
    "startup",
    "exact_step",
    "workers",
)
ALONE = ("startup", "site", "tables", "workers")
NOT_MEASURED = "ViT-B and BERT-base in bfloat16 on a GPU, and how busy ResNet18 keeps one (target: ≥ 90 %)"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark's findings, when, on what and how busy a machine they were made, and the seconds it took."""

    findings: list[Finding]
    time: str
    seconds: float
    load: float
    cores: int
    provenance: dict[str, Any]


def load() -> dict[str, Run]:
    """What was found of the benchmarks that there are, in their order."""
    found = msgspec.convert(json.loads(RECORDS.read_text("utf-8")), dict[str, Run]) if RECORDS.is_file() else {}
    return {name: found[name] for name in BENCHMARKS if name in found}


def save(found: Mapping[str, Run]) -> None:
    """Write the figures and the page."""
    RECORDS.write_text(json.dumps(msgspec.to_builtins(found), indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(found), "utf-8")


_HEAD = """\
# Performance

Written by `make bench` from `benchmarks/performance.json`; do not edit, run it again. `python -m benchmarks NAME...`
measures some of it again and leaves the rest as it is."""
_HOW = """\
A comparison is a ratio against an alternative that is run beside it, in turn: the figure is the median over the rounds,
beside it stand the smallest and the largest. Seconds are the processor's on one thread unless the column `clock` says
otherwise: other work on the machine is not in them, but it shares caches and the clock, so what the load was when a
benchmark began stands at the end."""
_ALONE = "† Absolute seconds or the wall's, and the machine was not idle: to be repeated on one that is."


def page(found: Mapping[str, Run]) -> str:
    """The page in Markdown."""
    missed = [finding for run in found.values() for finding in run.findings if finding.met is False]
    kept = [finding for run in found.values() for finding in run.findings if finding.met]
    none = [name for name in BENCHMARKS if name not in found]
    said = [
        f"{len(kept)} targets met, {len(missed)} MISSED"
        + (f": {'; '.join(f.what for f in missed)}." if missed else ".")
    ]
    if none:
        said.append(f"Not measured yet: {', '.join(none)}.")
    said.append(f"Not measured, for want of a GPU: {NOT_MEASURED}.")
    columns = ("what", "against", "measured", "rounds", "clock", "target", "")
    made = ("benchmark", "commit", "on", "took, s", "load before", "machine", "versions")
    parts = [
        *(_HEAD, "\n".join(said), _HOW, _table(columns, map(_row, _each(found))), "## In detail"),
        *("\n".join(_details(name, run)) for name, run in found.items()),
        *("## Made with", _table(made, [_made(name, run) for name, run in found.items()])),
    ]
    if any(map(_disturbed, found, found.values())):
        parts.append(_ALONE)
    return "\n\n".join(parts) + "\n"


def _disturbed(name: str, run: Run) -> bool:
    """Whether other work was running beside a benchmark that wants the machine for itself."""
    return name in ALONE and run.load > 0.3


def _each(found: Mapping[str, Run]) -> Iterator[Finding]:
    for run in found.values():
        yield from run.findings


def _row(finding: Finding) -> tuple[str, ...]:
    span = "" if finding.low == finding.high else f"{number(finding.low)} to {number(finding.high)}"
    verdict = {None: "", True: "met", False: "**MISSED**"}[finding.met]
    measured = f"{number(finding.value)} {finding.unit}"
    return finding.what, finding.against or "–", measured, span, finding.clock, goal(finding) or "–", verdict


def _details(name: str, run: Run) -> Iterator[str]:
    yield f"### `python -m benchmarks.{name}`\n"
    for finding in run.findings:
        figures = ", ".join(f"{what} {number(value)}" for what, value in finding.details.items())
        note = f" {finding.note}" if finding.note else ""
        yield f"- {finding.what}: {figures or 'nothing else'}.{note}"


def _made(name: str, run: Run) -> tuple[str, ...]:
    made = run.provenance
    commit, _, changes = made["commit"].partition("+")
    hardware, versions = made["hardware"], made["versions"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_bytes'] / 2**30:.0f} GiB"
    shown = ", ".join(f"{part} {versions[part]}" for part in ("python", "torch", "numpy"))
    busy = f"{run.load:.1f} of {run.cores}" + (" †" if _disturbed(name, run) else "")
    return (
        name,
        f"`{commit[:10]}`{' with changes' if changes else ''}",
        run.time[:10],
        f"{run.seconds:.0f}",
        busy,
        machine,
        shown,
    )


def number(value: float) -> str:
    """Three digits, whole where large, with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(head: tuple[str, ...], rows: Any) -> str:
    from tabulate import tabulate

    return tabulate(
        [[cell.replace("|", "\\|") for cell in row] for row in rows], head, tablefmt="github", disable_numparse=True
    )
