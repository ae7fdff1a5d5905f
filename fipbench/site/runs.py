"""A page a record: what it measured, and all that is needed to repeat it, the exact command first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from fipbench import registry
from fipbench.reports import text
from fipbench.reports.board import Board, plain
from fipbench.reports.build import MEAN_COSTS
from fipbench.site import names
from fipbench.site.rendering import method_page, parts, rendered
from fipbench.spec import Record
from fipbench.spec.audits import Audit

if TYPE_CHECKING:
    from markupsafe import Markup

Terms = list[tuple[str, str]]


def pages(
    boards: Sequence[Board], records: Mapping[str, Record], audits: Mapping[str, Audit]
) -> Iterator[tuple[str, bytes]]:
    """(identity, page) of every record, row by row."""
    protocol_of = cache(_protocol)  # for these pages alone: most records of a board have the same
    for board in boards:
        for row in (*board.rows, *board.references):
            for identity in row.records:
                protocol = protocol_of(msgspec.json.encode(records[identity].protocol))
                yield identity, page(records[identity], board, row.name, protocol, audits.get(identity))


def _protocol(content: bytes) -> Markup:
    """A protocol, given as JSON, as HTML that is read."""
    from markupsafe import escape

    return escape(msgspec.json.format(content, indent=1).decode())


def page(record: Record, board: Board, row: str, protocol: Markup, audit: Audit | None = None) -> bytes:
    """The page of a record that stands in this row of this board; its protocol as HTML."""
    job = record.job
    return rendered(
        "record.html",
        root="../",
        record=record,
        row=row,
        title=board.title or board.name,
        task_page=f"../tasks/{quote(job.task)}.html",
        method_page=f"../{method_page(job.method)}",
        file=f"{quote(record.id)}.json",
        score=_score(record, board),
        error=plain(f"{record.error.type}: {record.error.message}") if record.error else "",
        where=[plain(line) for line in record.error.where] if record.error else [],
        commands=commands(record),
        job=_job(record),
        params=[(plain(name), plain(value)) for name, value in sorted(job.params.items())],
        metrics=[(plain(n), text.number(v, n) + " %" * text.is_fraction(n)) for n, v in record.metrics.items()],
        audit=_audit(audit) if audit else None,
        cost=_cost(record),
        made=_made(record),
        notes=[plain(note) for note in record.notes],
        protocol=protocol,
    )


def _audit(audit: Audit) -> dict[str, Any]:
    """What an attack audit of the record found: its sizes, a line a radius, a line an attack."""
    sizes = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in audit.settings.items())
    radii = text.Table(
        caption="Accuracy in % in the worst case",
        columns=("ε", "recorded", "found"),
        rows=tuple(
            (f"{r.epsilon:g}", *(text.number(v, "robust@") for v in (r.recorded, r.found))) for r in audit.radii
        ),
        head="ε",
    )
    tried = text.Table(
        caption="Every attack: items that it was tried on, that it fooled, and that it was the first to fool",
        columns=("attack", "ε", "tried on", "fooled", "first", "refused"),
        rows=tuple(
            (plain(t.attack), f"{t.epsilon:g}", f"{t.given:,}", f"{t.fooled:,}", f"{t.first:,}", plain(t.refused))
            for t in audit.tried
        ),
        head="attack",
        text=("attack", "refused"),
    )
    return {
        "file": f"audits/{quote(audit.id)}.json",
        "strength": f"{audit.strength} ({plain(sizes)})",
        "attacked": f"{audit.attacked:,}",
        "radii": parts(radii),
        "beyond": [(plain(at), text.number(value, "robust@")) for at, value in audit.beyond.items()],
        "findings": [plain(finding) for finding in audit.findings],
        "tried": parts(tried),
    }


def _score(record: Record, board: Board) -> str:
    if record.status != "ok":
        return "failed"
    value = record.metrics.get(board.headline)
    if value is None:
        return f"no {board.headline}"
    unit = " %" if text.is_fraction(board.headline) else ""
    return f"{text.number(value, board.headline)}{unit}, {names.metric(board.headline)}"


def commands(record: Record) -> list[tuple[str, str]]:
    """(what it does, shell command): the code of the record, the job again and compared, the job by its task's name."""
    job = record.job
    commit = str(record.provenance.get("commit", ""))
    found = []
    if re.fullmatch(r"[0-9a-f]{40}", commit):
        found.append(("The code that made it", f"git checkout {commit} && pip install -c constraints.txt ."))
    known = job.method in registry.method_names(job.track) or registry.of_library(job.track, job.method)
    # Code that is not installed here is somebody's own: a record names its digest, not its place.
    plugin = [] if known else ["--plugin", "FILE.py"]
    again = shlex.join(["fipbench", "verify", f"{record.id}.json", *plugin])
    alone = "alone" if known else f"and the file of {plain(job.method)}, which does not come with fipbench"
    found.append((f"Run this job again from its record {alone}, and compare to the bit", again))
    words = ["fipbench", "run", job.task, "--methods", job.label, "--seeds", str(job.seed + 1), "--device", job.device]
    if job.settings == "user":
        given = (
            f"{job.label}.{name}={_value(value)}" for name, value in sorted(job.params.items()) if name != "memory"
        )
        words += [part for setting in given for part in ("--set", setting)]
    words += plugin
    if job.data_variant == "unknown":
        words.append("--allow-unknown-data")
    before = (
        "" if job.seed == 0 else f", with seeds 0 to {job.seed - 1} before it" if job.seed > 1 else ", after seed 0"
    )
    return [*found, (f"Run it by name{before}", shlex.join(words))]


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _job(record: Record) -> Terms:
    job = record.job
    data = ", ".join(f"{split} {digest}" for split, digest in sorted(job.data.items()))
    found = [
        ("Identity", record.id),
        ("Task", f"{job.task}, version {job.task_version}, protocol {job.task_digest}"),
        ("Method", f"{job.method}, version {job.method_version}" + (f", as {job.label}" * (job.label != job.method))),
        ("Role", job.role),
        ("Settings", job.settings),
        ("Seed", str(job.seed)),
        ("Device", f"{job.device}, {job.threads} thread{'s' * (job.threads != 1)}"),
        ("Data", f"{job.data_variant} ({data})"),
        ("Digest", record.digest),
    ]
    return [(term, plain(words)) for term, words in found]


def _cost(record: Record) -> Terms:
    units = dict(zip(MEAN_COSTS, ("wall, seconds", *("",) * 4), strict=True))
    found = [(units[name] or name.replace("_", " "), f"{getattr(record.cost, name):,.10g}") for name in MEAN_COSTS]
    return [*found, ("peak memory, MiB", f"{record.cost.peak_memory_bytes / 2**20:.0f}")]


def _made(record: Record) -> Terms:
    """Where, when and with what it was made, as the record says."""
    known = {key: value for key, value in record.provenance.items() if key != "data"}
    return [(plain(key.replace("_", " ")), plain(_flat(value))) for key, value in sorted(known.items())]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
