"""One JSON file a record: written whole or not at all, checked when read, mergeable as lines of one file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fipbench import collecting
from fipbench.cache import write_atomic
from fipbench.errors import UserError
from fipbench.spec import SCHEMA, Curves, Record, canonical, id_of, record_digest

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Beside a file of records, NAME.jsonl, the audits of them: NAME and this.
AUDIT_LINES = ".audits.jsonl"


class _Written(Record, frozen=True, kw_only=True):
    """A record whose largest parts are not decoded: its protocol, the same in many, and its curves."""

    protocol: msgspec.Raw  # type: ignore[assignment]
    curves: msgspec.Raw = msgspec.Raw(b"{}")  # type: ignore[assignment]


_decoder = msgspec.json.Decoder(_Written)
_protocol_decoder = msgspec.json.Decoder(dict[str, Any])
_FIELDS = tuple(field for field in Record.__struct_fields__ if field not in ("protocol", "curves"))


class _Seen(msgspec.Struct):
    """What the records that are read may share, by its JSON: protocols, and parts of their provenance."""

    protocols: dict[bytes, dict[str, Any]] = {}
    parts: dict[bytes, Any] = {}


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
    record, curves = _parsed(content, name, {})
    try:
        return msgspec.structs.replace(record, curves=curves.decoded())
    except msgspec.DecodeError as error:
        raise ValueError(f"not a record ({error})") from None


def _parsed(content: bytes, name: str, protocols: dict[bytes, dict[str, Any]]) -> tuple[Record, Curves]:
    """`parse`, but for the curves, which are decoded when they are asked for.

    Args:
        protocols: those of records before by their JSON, which this one may share and adds its own to.
    """
    try:
        written = _decoder.decode(content)
        if (key := bytes(written.protocol)) not in protocols:
            protocols[key] = _protocol_decoder.decode(key)
        curves = Curves(bytes(written.curves), written.id)
        curves.check()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a record ({error})") from None
    record = Record(**{field: getattr(written, field) for field in _FIELDS}, protocol=protocols[key], curves=curves)
    if record.schema != SCHEMA:
        raise ValueError(f"schema is '{record.schema}', expected '{SCHEMA}'")
    if record.digest != _digest_as_written(content, record.digest) and record.digest != _digest(record):
        raise ValueError("content does not match its digest; it was altered or damaged")
    if record.id != id_of(record.job) or (name and record.id != name):
        raise ValueError(f"identity '{record.id}' is not that of its job and file")
    if record.status not in ("ok", "failed"):
        raise ValueError(f"status is '{record.status}', expected 'ok' or 'failed'")
    try:
        msgspec.convert(record.protocol, _Protocol)
    except msgspec.ValidationError as error:
        raise ValueError(f"its protocol is none of a task ({error})") from None
    return record, curves


def _digest_as_written(content: bytes, digest: str) -> str:
    """The digest of a record whose text is canonical, as `encode` has it: much faster than to write it once more."""
    blank = content.strip().replace(b'"digest":"' + digest.encode() + b'"', b'"digest":""', 1)
    return hashlib.sha256(blank).hexdigest()


def _digest(record: Record) -> str:
    """The digest of a record whose text was laid out in some other way.

    Raises:
        ValueError: its curves are none.
    """
    try:
        return record_digest(record)
    except UserError as error:
        raise ValueError(f"not a record ({error})") from None


def encode(record: Record) -> bytes:
    """The record as one line of canonical JSON."""
    return canonical(record)


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

    What records have in common, as a task's protocol, is one object that they share: nobody may change it. Curves are
    decoded when they are asked for; `parse` is the stricter.

    Raises:
        UserError: there is no such folder or file.
    """
    found: tuple[list[Record], list[Problem]] = [], []
    with collecting.off():
        if where.is_file():
            _read_lines(where, _Seen(), *found)
        elif where.is_dir():
            _read_folder(where, _Seen(), *found)
        else:
            raise UserError(f"{where}: no such results folder or file; `fipbench run` makes one, --results names it")
    return found


def _read_folder(where: Path, seen: _Seen, records: list[Record], problems: list[Problem]) -> None:
    with os.scandir(where) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix == ".jsonl" and not name.endswith(AUDIT_LINES):
            _read_lines(where / name, seen, records, problems)
        elif suffix == ".json":
            try:
                with open(os.path.join(where, name), "rb") as file:
                    content = file.read()
                records.append(_sharing(content, stem, seen))
            except OSError as error:
                problems.append(Problem(where / name, error.strerror or str(error)))
            except ValueError as error:
                problems.append(Problem(where / name, str(error)))


def _read_lines(where: Path, seen: _Seen, records: list[Record], problems: list[Problem]) -> None:
    for n, line in enumerate(where.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                records.append(_sharing(line, "", seen))
            except ValueError as error:
                problems.append(Problem(where.with_name(f"{where.name}:{n}"), str(error)))


def _sharing(content: bytes, name: str, seen: _Seen) -> Record:
    """The record with the objects seen before in place of those that are the same to the byte (1 is not 1.0): where it
    was made."""
    record, _ = _parsed(content, name, seen.protocols)
    for part, value in record.provenance.items():
        if not isinstance(value, str):
            record.provenance[part] = seen.parts.setdefault(msgspec.json.encode(value), value)
    return record


def unique(records: Iterable[Record]) -> list[Record]:
    """Those on the test split, by identity, one of each: good before failed, then the newest."""
    best: dict[str, Record] = {}
    for record in records:
        known = best.get(record.id)
        if record.job.split == "test" and (known is None or _preference(record) > _preference(known)):
            best[record.id] = record
    return [best[identity] for identity in sorted(best)]


def _preference(record: Record) -> tuple[bool, str, str]:
    return record.status == "ok", made_at(record), record.digest


def made_at(record: Record) -> str:
    """When it was made, as it says; such times sort."""
    return str(record.provenance.get("time", ""))


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
