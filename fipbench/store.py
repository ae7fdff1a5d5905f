"""One JSON file a record: written whole or not at all, checked when read, mergeable as lines of one file."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fipbench.cache import write_atomic
from fipbench.errors import UserError
from fipbench.spec import SCHEMA, Record, id_of, record_digest

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Beside a file of records, NAME.jsonl, the audits of them: NAME and this.
AUDIT_LINES = ".audits.jsonl"

_decoder = msgspec.json.Decoder(Record)


class _Data(msgspec.Struct):
    variants: dict[str, dict[str, Any]] = {}


class _Model(msgspec.Struct):
    inputs: list[int] = []
    hidden: list[int] = []
    channels: list[int] = []


class _Base(msgspec.Struct):
    weight_decay: float = 0.0
    clip: float = 0.0


class _Stream(msgspec.Struct):
    classes: list[list[int]] = []
    score: list[str] = []


class _Attack(msgspec.Struct):
    epsilons: list[float] = []
    step_size: float = 0.0


class _Protocol(msgspec.Struct):
    """What boards take apart of a task, of whichever version: any of it may be missing, none of another kind."""

    suites: list[str] = []
    data: _Data | list[_Data] = msgspec.field(default_factory=_Data)
    model: _Model = msgspec.field(default_factory=_Model)
    base: _Base = msgspec.field(default_factory=_Base)
    budget: dict[str, float] = {}
    stream: _Stream = msgspec.field(default_factory=_Stream)
    attack: _Attack = msgspec.field(default_factory=_Attack)
    published: dict[str, Any] = {}
    sparsities: list[float] = []
    memories: list[int] = []
    repeat: float | None = None


class Problem(msgspec.Struct, frozen=True):
    """A file (or line) in a store that is no valid record, and why."""

    path: Path
    reason: str


def parse(content: bytes, name: str = "") -> Record:
    """A record from its JSON.

    Args:
        name: the identity it should have, if that is known from its file's name.

    Raises:
        ValueError: truncated, of another schema, altered since it was written, or under another's name.
    """
    try:
        record = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a record ({error})") from None
    if record.schema != SCHEMA:
        raise ValueError(f"schema is '{record.schema}', expected '{SCHEMA}'")
    if record.digest != record_digest(record):
        raise ValueError("content does not match its digest; it was altered or damaged")
    if record.id != id_of(record.job) or (name and record.id != name):
        raise ValueError(f"identity '{record.id}' is not that of its job and file")
    if record.status not in ("ok", "failed"):
        raise ValueError(f"status is '{record.status}', expected 'ok' or 'failed'")
    try:
        msgspec.convert(record.protocol, _Protocol)
    except msgspec.ValidationError as error:
        raise ValueError(f"its protocol is none of a task ({error})") from None
    return record


def encode(record: Record) -> bytes:
    """The record as one line of JSON."""
    return msgspec.json.encode(record)


def write(folder: Path, record: Record) -> Path:
    """Put a record into the store, atomically.

    Raises:
        OSError: the folder cannot be written; the store is as it was.
    """
    path = folder / f"{record.id}.json"
    write_atomic(path, encode(record) + b"\n")
    return path


def get(folder: Path, identity: str) -> Record | None:
    """The record of that identity, if a valid one is there."""
    path = folder / f"{identity}.json"
    try:
        return parse(path.read_bytes(), identity)
    except (OSError, ValueError):
        return None


def read(where: Path) -> tuple[list[Record], list[Problem]]:
    """All valid records of a store (a folder), or of a file of JSON lines, and what in it is none.

    What records have in common, as a task's protocol, is one object that they share: nobody may change it.

    Raises:
        UserError: there is no such folder or file.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would walk all that is read again and again, and finds nothing: a record holds no cycle
    try:
        return _read(where, {})
    finally:
        if collecting:
            gc.enable()


def _read(where: Path, seen: dict[bytes, Any]) -> tuple[list[Record], list[Problem]]:
    """`read`; `seen` holds what records may share."""
    records: list[Record] = []
    problems: list[Problem] = []
    if where.is_file():
        found: Iterable[tuple[Path, str, bytes]] = (
            (where.with_name(f"{where.name}:{n}"), "", line)
            for n, line in enumerate(where.read_bytes().splitlines(), 1)
            if line.strip()
        )
    elif where.is_dir():
        found = ((p, p.stem if p.suffix == ".json" else "", b"") for p in sorted(where.iterdir()))
    else:
        raise UserError(f"{where}: no such results folder or file; `fipbench run` makes one, --results names it")
    for path, name, content in found:
        if where.is_dir():
            if path.name.endswith(AUDIT_LINES):
                continue
            if path.suffix == ".jsonl" and path.is_file():
                more, wrong = _read(path, seen)
                records += more
                problems += wrong
                continue
            if path.suffix != ".json" or not path.is_file():
                continue
            try:
                content = path.read_bytes()
            except OSError as error:
                problems.append(Problem(path, error.strerror or str(error)))
                continue
        try:
            records.append(_sharing(parse(content, name), seen))
        except ValueError as error:
            problems.append(Problem(path, str(error)))
    return records, problems


def _sharing(record: Record, seen: dict[bytes, Any]) -> Record:
    """The record with the objects seen before in place of those that are the same to the byte (1 is not 1.0): its
    protocol and where it was made, a large part of it."""
    for name, value in record.provenance.items():
        if not isinstance(value, str):
            record.provenance[name] = seen.setdefault(msgspec.json.encode(value), value)
    shared = seen.setdefault(msgspec.json.encode(record.protocol), record.protocol)
    msgspec.structs.force_setattr(record, "protocol", shared)
    return record


def set_aside(folder: Path, problem: Problem) -> Path:
    """Move a file that is no record out of the way, into `set-aside/`; nothing is deleted or overwritten."""
    aside = folder / "set-aside"
    aside.mkdir(exist_ok=True)
    target = aside / problem.path.name
    count = 1
    while target.exists():
        target = aside / f"{problem.path.name}.{count}"
        count += 1
    with contextlib.suppress(FileNotFoundError):  # another run was faster
        os.rename(problem.path, target)
    return target


def lock(folder: Path, identity: str) -> BaseFileLock:
    """The lock of one job; the operating system frees it when its holder dies."""
    from filelock import FileLock

    locks = folder / ".locks"
    locks.mkdir(exist_ok=True)
    return FileLock(locks / f"{identity}.lock")
