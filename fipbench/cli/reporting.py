"""Commands that read records: `leaderboard`, `compare`, `site`, `export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fipbench.cli.options import Results, check_file, names, results_at
from fipbench.errors import UserError

Places = Annotated[
    list[Path] | None,
    typer.Option("--results", help="Results folder, or a file of records as JSON lines; repeat to see them together."),
]


def leaderboard(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks (default: all there are records of).")] = None,
    format_: Annotated[str, typer.Option("--format", help="md | csv | html | json | tex; comma-separated.")] = "md",
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("boards"),
    results: Places = None,
) -> None:
    """Render leaderboards from records alone."""
    from fipbench import cache, reports

    formats = _formats(format_, reports.FORMATS)
    places = _places(results)
    records = _records(places)
    audits = _audits(places, records)
    cache.writable(out, "name another with --out")
    for path in reports.write(records, out, formats=formats, tasks=_known_tasks(tasks, records), audits=audits):
        print(path)


def compare(
    rows: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of rows (with * and ?), papers, studies or tasks (default: all).", metavar="ROWS"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="md | csv | html | json; comma-separated.")] = "md",
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("comparison"),
    results: Places = None,
    ledger: Annotated[
        Path | None, typer.Option(help="A folder of published numbers (default: those that come with fipbench).")
    ] = None,
) -> None:
    """Hold published numbers against the records."""
    from fipbench import cache, claims
    from fipbench.reports import verdicts

    formats = _formats(format_, verdicts.FORMATS)
    published = claims.load(ledger)
    wanted = verdicts.chosen(published, rows or [])
    records = _records([place for place in _places(results) if results or place.is_dir()])
    cache.writable(out, "name another with --out")
    judged = claims.judge(published, records, wanted)
    for path in verdicts.write(judged, out, formats):
        print(path)
    print(verdicts.sentence(judged))


def site(
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    results: Places = None,
    ledger: Annotated[
        Path | None, typer.Option(help="A folder of published numbers (default: those that come with fipbench).")
    ] = None,
) -> None:
    """Write a static site of all records, to be opened from disk."""
    from fipbench import cache, claims
    from fipbench import site as pages

    published = claims.load(ledger)
    places = _places(results)
    records = _records(places)
    audits = _audits(places, records)
    cache.writable(out, "name another with --out")
    paths = pages.write(records, out, published, audits)
    print(f"{len(paths)} files written; open {out / 'index.html'}")


def export(
    out: Annotated[Path, typer.Option(help="The file of JSON lines to write.")],
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks (default: all).")] = None,
    results: Results = None,
) -> None:
    """Write all records as one file of JSON lines."""
    from fipbench import cache, store

    records, problems = store.read(results_at(results))
    for problem in problems:
        print(f"warning: {problem.path}: {problem.reason}; not exported", file=sys.stderr)
    wanted = _known_tasks(tasks, records)
    chosen = [record for record in records if record.job.split == "test" and record.job.task in wanted]
    if not chosen:
        raise UserError(f"{results_at(results)}: no records to export")
    lines = [store.encode(r) + b"\n" for r in sorted(chosen, key=lambda r: r.id)]
    check_file(out)
    cache.write_atomic(out, b"".join(lines))
    print(f"{len(lines)} records written to {out}")


def _formats(given: str, known: Sequence[str]) -> list[str]:
    """The formats that were named, at least one."""
    formats = names(given)
    for name in formats or [given]:
        if name not in known:
            raise UserError(f"--format {name}: expected some of {', '.join(known)}")
    return formats


def _places(results: list[Path] | None) -> list[Path]:
    """The folders and files of records that are meant."""
    return [results_at(place) for place in results] if results else [results_at(None)]


def _records(places: list[Path]) -> list[Any]:
    """All valid records of some folders or files, with what is none told and left out."""
    from fipbench import store

    found = []
    for place in places:
        records, problems = store.read(place)
        for problem in problems:
            print(f"warning: {problem.path}: {problem.reason}; not counted", file=sys.stderr)
        found += records
    return found


def _audits(places: list[Path], records: list[Any]) -> dict[str, Any]:
    """The audits, in any of the places, of the very records that a board shows; the first place's win."""
    from fipbench import audit_store, store

    found: dict[str, Any] = {}
    for place in places:
        audits, problems = audit_store.read(place)
        for problem in problems:
            print(f"warning: {problem.path}: {problem.reason}; not shown", file=sys.stderr)
        found = audit_store.matching(audits, store.unique(records)) | found
    return found


def _known_tasks(tasks: list[str] | None, records: list[Any]) -> list[str]:
    from fipbench.errors import unknown

    known = sorted({r.job.task for r in records})
    for name in tasks or []:
        if name not in known:
            raise unknown("task", name, known, where="among the records")
    return tasks or known
