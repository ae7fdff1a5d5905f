"""A static site of what the records say: records in, pages out. Nothing is fetched, it opens from disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from fipbench import audit_store, claims, collecting, store
from fipbench.errors import UserError
from fipbench.reports import boards
from fipbench.reports.board import Board
from fipbench.spec import Record, valid_name
from fipbench.spec.audits import Audit

__all__ = ["write"]

_ASSETS = ("site.css", "site.js")


def write(
    records: Iterable[Record],
    out_dir: str | Path,
    ledger: claims.Ledger | None = None,
    audits: Mapping[str, Audit] | None = None,
) -> list[Path]:
    """Write the site of these records; the same records give the same bytes.

    Files: `index.html`, `methods.html`, `claims.html` and `claims.csv`; for each task `tasks/TASK.html` with `TASK.csv`
    (a line a record), `TASK.statistics.csv`, `TASK.items.csv` and `TASK.tex` beside it; for each method
    `methods/METHOD.html`; for each record on a board `records/ID.html` and `records/ID.json`, so that `records` is a
    results folder of its own, and `records/audits/ID.json` where it was audited. Other files in the folder are left as
    they are.

    Args:
        ledger: published numbers; default those that come with fipbench.
        audits: attack audits by the identity of their record; see `fipbench.audit_store.matching`.

    Returns:
        The files written, in order.

    Raises:
        UserError: no records on the test split, or one whose task, method or identity cannot name a file.
    """
    records = list(records)
    audits = audits or {}
    found = boards(records, audits=audits)
    if not found:
        raise UserError("site: no records of the test split; run something first (`fipbench run TASK`)")
    shown = _shown(found, records)
    folder = Path(out_dir)
    for name in ("", "assets", "tasks", "methods", "records", *(["records/audits"] if audits.keys() & shown else [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
    paths = []
    with collecting.aside():
        for name, content in _files(found, shown, records, ledger or claims.load(), audits):
            paths.append(folder / name)
            paths[-1].write_bytes(content)
    return paths


def _shown(found: Iterable[Board], records: Iterable[Record]) -> dict[str, Record]:
    """The records behind the rows of these boards by id; of one identity the one that a board counts."""
    by_id = {record.id: record for record in store.unique(records)}
    shown = {i: by_id[i] for board in found for row in (*board.rows, *board.references) for i in row.records}
    for record in shown.values():
        job = record.job
        if not (valid_name(job.task) and valid_name(job.method) and re.fullmatch(r"[a-z0-9+-]{1,200}", record.id)):
            raise UserError(f"site: a record {record.id!r} of task {job.task!r}, {job.method!r} cannot name a file")
    return shown


def _files(
    found: list[Board],
    shown: dict[str, Record],
    records: list[Record],
    ledger: claims.Ledger,
    audits: Mapping[str, Audit],
) -> Iterator[tuple[str, bytes]]:
    """(path below the folder, content) of every file."""
    from fipbench.reports import latex, render, verdicts
    from fipbench.site import pages, runs, tables

    judged = claims.judge(ledger, records)
    content = pages.Content(boards=found, records=shown, judged=judged, ledger=ledger, every=records)
    for name in _ASSETS:
        yield f"assets/{name}", (files("fipbench.site") / "assets" / name).read_bytes()
    yield "index.html", pages.overview(content)
    yield "methods.html", pages.methods(content)
    yield "claims.html", pages.published(content)
    yield "claims.csv", verdicts.csv(judged).encode()
    for task in dict.fromkeys(board.task for board in found):
        group = [board for board in found if board.task == task]
        yield f"tasks/{task}.html", pages.task(content, group)
        yield f"tasks/{task}.csv", tables.values(group, shown, audits).encode()
        yield f"tasks/{task}.statistics.csv", render.csv(group).encode()
        yield f"tasks/{task}.items.csv", tables.items(group, shown).encode()
        yield f"tasks/{task}.tex", latex.latex(group).encode()
    for method in sorted({record.job.method for record in shown.values()}):
        yield f"methods/{method}.html", pages.method(content, method)
    for identity, page in runs.pages(found, shown, audits):
        yield f"records/{identity}.html", page
        yield f"records/{identity}.json", store.encode(shown[identity]) + b"\n"
    for identity in sorted(audits.keys() & shown):
        yield f"records/audits/{identity}.json", audit_store.encode(audits[identity]) + b"\n"
