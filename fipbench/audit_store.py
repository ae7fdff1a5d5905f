"""Audits on disk: a JSON file each in the folder `audits` of a results folder, or lines of a file TASK.audits.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from fipbench.cache import write_atomic
from fipbench.spec import Record, digest
from fipbench.spec.audits import SCHEMA, STRENGTHS, Audit, audit_digest
from fipbench.store import AUDIT_LINES, Problem, lock

FOLDER = "audits"

_decoder = msgspec.json.Decoder(Audit)


def parse(content: bytes, name: str = "") -> Audit:
    """An audit from its JSON.

    Args:
        name: the identity of its record, if that is known from its file's name.

    Raises:
        ValueError: truncated, of another schema, altered since it was written, or under another's name.
    """
    try:
        audit = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an audit ({error})") from None
    if audit.schema != SCHEMA or audit.strength not in STRENGTHS:
        raise ValueError(f"an audit of schema '{audit.schema}', strength '{audit.strength}', which are not known here")
    if audit.digest != audit_digest(audit):
        raise ValueError("content does not match its digest; it was altered or damaged")
    if name and audit.id != name:
        raise ValueError(f"it is of record '{audit.id}', not of that of its file's name")
    return audit


def encode(audit: Audit) -> bytes:
    """The audit as one line of JSON."""
    return msgspec.json.encode(audit)


def write(where: Path, audit: Audit) -> Path:
    """Keep an audit in place of an earlier one of its record, in a folder or, if `where` ends in .jsonl, as a line of
    that file, which stays in order of the records' names.

    Raises:
        OSError: it cannot be written; what was there is there still.
        ValueError: the file of lines holds something that is no audit, which would be lost.
    """
    if where.suffix != ".jsonl":
        where.mkdir(parents=True, exist_ok=True)
        path = where / f"{audit.id}.json"
        write_atomic(path, encode(audit) + b"\n")
        return path
    where.parent.mkdir(parents=True, exist_ok=True)
    with lock(where.parent, where.name):
        kept, problems = _lines(where) if where.is_file() else ([], [])
        if problems:
            raise ValueError(f"{problems[0].path}: {problems[0].reason}")
        by_id = {one.id: one for one in kept} | {audit.id: audit}
        write_atomic(where, b"".join(encode(by_id[i]) + b"\n" for i in sorted(by_id)))
    return where


def read(where: Path) -> tuple[dict[str, Audit], list[Problem]]:
    """The audits that belong to a results folder or to a file of records, by their record's identity, and what is
    none; nothing where there are no audits.

    Of a folder: those in its folder `audits` and the lines of its files NAME.audits.jsonl; of a file NAME.jsonl the
    lines of NAME.audits.jsonl beside it and those in the folder `audits` beside it. Of several of one record the
    hardest counts.
    """
    if where.is_dir():
        audits, problems = at(where / FOLDER)
        beside = sorted(where.glob(f"*{AUDIT_LINES}"))
    else:
        audits, problems = at(where.parent / FOLDER)
        beside = [where.with_name(f"{where.stem}{AUDIT_LINES}")]
    for path in filter(Path.is_file, beside):
        more, wrong = _lines(path)
        audits += more
        problems += wrong
    found: dict[str, Audit] = {}
    for audit in audits:
        if audit.id not in found or _weight(audit) > _weight(found[audit.id]):
            found[audit.id] = audit
    return found, problems


def at(place: Path) -> tuple[list[Audit], list[Problem]]:
    """The audits in one folder, or in one file of lines, that `write` was given; none where there is neither."""
    if place.is_file():
        return _lines(place)
    audits: list[Audit] = []
    problems: list[Problem] = []
    for path in sorted(place.glob("*.json")) if place.is_dir() else ():
        try:
            audits.append(parse(path.read_bytes(), path.stem))
        except (OSError, ValueError) as error:
            problems.append(Problem(path, str(error)))
    return audits, problems


def matching(audits: Mapping[str, Audit], records: Iterable[Record]) -> dict[str, Audit]:
    """Those of the audits that are of these very records: of one whose items are others than those audited, none."""
    known = {record.id: digest(record.items) for record in records if record.id in audits}
    return {identity: audits[identity] for identity, items in known.items() if audits[identity].items_digest == items}


def _lines(path: Path) -> tuple[list[Audit], list[Problem]]:
    audits: list[Audit] = []
    problems: list[Problem] = []
    for n, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                audits.append(parse(line))
            except ValueError as error:
                problems.append(Problem(path.with_name(f"{path.name}:{n}"), str(error)))
    return audits, problems


def _weight(audit: Audit) -> tuple[int, int, int, str]:
    return audit.version, STRENGTHS.index(audit.strength), len(audit.own), audit.digest
