"""One file with records to hand in, and what can be said of it without running anything.

A submission is a gzip stream of JSON lines: the first is the manifest, the others are records as a store holds them,
with their provenance. It has no folders, so no path in it can lead anywhere, and nothing that is ever executed.

The checks read the records alone: whether the file is whole, its records are of the protocol that they name, that of
the task, the data and the methods that are installed here, and no seed of a row is missing. Whether the numbers come
out again, `fipbench verify` finds out by running a sample.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fipbench import __version__, data, plan, registry, store
from fipbench.cache import write_atomic
from fipbench.errors import UserError
from fipbench.spec import TASK_TYPES, Record, Spec, canonical, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

SCHEMA = "fipbench.submission/1"
# Of the unpacked lines; a small file must not fill a machine's memory.
LARGEST = 512 << 20
_MAGIC = b"\x1f\x8b"

Line = Annotated[str, Meta(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]


class Manifest(Spec, frozen=True, kw_only=True):
    """What the file says of itself.

    Attributes:
        records: how many lines follow; `digest`: SHA-256 of these lines as they stand there.
        tasks: digest of the protocol of each task; `methods`: versions by `TRACK/NAME`.
        by: who hands it in; `source`: where the code of a method is that is not of this package; `note`: a line more.
    """

    schema: str = SCHEMA
    fipbench: Line = __version__
    records: Annotated[int, Meta(ge=1)]
    digest: str
    tasks: dict[str, str]
    methods: dict[str, tuple[str, ...]]
    by: Line = ""
    source: Line = ""
    note: Line = ""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: `wrong` makes a submission unfit, a `note` a person should know of."""

    kind: Literal["kept", "note", "wrong"]
    text: str


def is_one(path: Path) -> bool:
    """Whether a file is a gzip stream, which no other file that `fipbench verify` takes is."""
    try:
        with path.open("rb") as file:
            return file.read(2) == _MAGIC
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------- packing


def pack(records: Iterable[Record], *, by: str = "", source: str = "", note: str = "") -> bytes:
    """A submission of these records, one of each identity; the same records give the same bytes.

    Raises:
        UserError: there are none, records of one task are of unlike protocols, or a text is none that fits a line.
    """
    found = store.unique(records)
    if not found:
        raise UserError("nothing to submit: no records of the test split; run something first (`fipbench run TASK`)")
    check_alike(found)
    lines = b"".join(store.encode(record) + b"\n" for record in found)
    fields = {"by": by, "source": source, "note": note}
    if source and not source.startswith(("https://", "http://")):
        raise UserError(f"--source {source!r}: expected an address that begins with https://")
    try:
        manifest = msgspec.convert(
            {"records": len(found), "digest": hashlib.sha256(lines).hexdigest(), **_names(found), **fields}, Manifest
        )
    except msgspec.ValidationError as error:
        where = str(error).partition("`$.")[2].strip("`")
        raise UserError(f"--{where}: expected one line of at most 300 printable characters") from None
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as stream:
        stream.write(msgspec.json.encode(manifest) + b"\n" + lines)
    return packed.getvalue()


def write(path: Path, content: bytes) -> None:
    """Put a submission there, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_atomic(path, content)


def _names(records: Sequence[Record]) -> dict[str, Any]:
    methods: dict[str, set[str]] = {}
    for record in records:
        methods.setdefault(f"{record.job.track}/{record.job.method}", set()).add(record.job.method_version)
    return {
        "tasks": {record.job.task: record.job.task_digest for record in records},
        "methods": {name: sorted(versions) for name, versions in sorted(methods.items())},
    }


def check_alike(records: Sequence[Record]) -> None:
    """Raise UserError unless the records of each task are of one protocol and one content of its data; names the first
    field in which they differ."""
    first: dict[str, Record] = {}
    for record in records:
        other = first.setdefault(record.job.task, record)
        if record.job.task_digest == other.job.task_digest and record.job.data == other.job.data:
            continue
        field, one, two = _difference(other, record)
        raise UserError(
            f"records of task '{record.job.task}' are of unlike protocols: {field} is {one} in {other.id} and {two} in "
            f"{record.id}; pack them apart (--results names a folder or file)"
        )


def _difference(a: Record, b: Record) -> tuple[str, str, str]:
    ours, theirs = dict(_leaves(a.protocol, "")), dict(_leaves(b.protocol, ""))
    ours |= dict(_leaves(a.job.data, "data digest of "))
    theirs |= dict(_leaves(b.job.data, "data digest of "))
    for field in [*ours, *theirs]:
        if ours.get(field) != theirs.get(field):
            pair = [str(fields.get(field, "absent")) for fields in (ours, theirs)]
            return field, *(text if len(text) <= 40 else f"{text[:39]}…" for text in pair)  # type: ignore[return-value]
    return "the version of the track", a.job.task_digest, b.job.task_digest


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in sorted(value.items()):
            yield from _leaves(inner, f"{place}.{key}" if place and not place.endswith(" ") else f"{place}{key}")
    else:
        yield place, canonical(value).decode()


# ------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> tuple[Manifest, list[Record]]:
    """Manifest and records of a submission that is whole.

    Raises:
        UserError: it cannot be read, is damaged, too large, of another schema, or not what its manifest says.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole submission ({' '.join(str(error).split())})") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: unpacks to more than {LARGEST >> 20} MiB, which no submission should")
    head, _, lines = content.partition(b"\n")
    try:
        manifest = msgspec.json.decode(head, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: its first line is no manifest ({error})") from None
    if manifest.schema != SCHEMA:
        raise UserError(f"{path}: schema is {manifest.schema!r:.60}, expected '{SCHEMA}'")
    if hashlib.sha256(lines).hexdigest() != manifest.digest:
        raise UserError(f"{path}: its records do not match the manifest's digest; it was altered or damaged")
    records = []
    for number, line in enumerate(lines.splitlines(), 2):
        try:
            records.append(store.parse(line))
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from None
    if len(records) != manifest.records or len({record.id for record in records}) != len(records):
        raise UserError(f"{path}: its manifest says {manifest.records} different records; it has {len(records)} lines")
    if any(record.job.split != "test" for record in records):
        raise UserError(f"{path}: holds records of a search, which are not of the test split")
    check_alike(records)
    if _names(records) != {"tasks": manifest.tasks, "methods": {k: list(v) for k, v in manifest.methods.items()}}:
        raise UserError(f"{path}: its manifest names other tasks or methods than its records")
    return manifest, records


# ------------------------------------------------------------------------------------------------- checking


def check(records: Sequence[Record], plugins: Sequence[str] = ()) -> list[Finding]:
    """What the records of a whole submission say of themselves, against what is installed here; runs nothing."""
    found: list[Finding] = []
    by_task: dict[str, list[Record]] = {}
    for record in records:
        by_task.setdefault(record.job.task, []).append(record)
    for name, group in sorted(by_task.items()):
        found += _of_task(name, group)
        found += _of_seeds(name, group)
    found += _of_methods(records, plugins)
    if failed := [record for record in records if record.status != "ok"]:
        found.append(Finding("note", f"{len(failed)} of the jobs failed, which a board counts; first {failed[0].id}"))
    return found


def _of_task(name: str, group: Sequence[Record]) -> Iterator[Finding]:
    job = group[0].job
    if job.track not in TASK_TYPES:
        yield Finding("wrong", f"task {name}: there is no track '{job.track}' here")
        return
    try:
        stated = [msgspec.convert(record.protocol, TASK_TYPES[job.track]) for record in group]
    except msgspec.ValidationError as error:
        yield Finding("wrong", f"task {name}: its protocol is none of track {job.track} as it is here ({error})")
        return
    own = stated[0]
    if {record.job.track for record in group} | {task.track for task in stated} != {job.track}:
        yield Finding("wrong", f"task {name}: its records are of several tracks")
        return
    if {task_digest(task, PROTOCOL_VERSIONS[job.track]) for task in stated} != {job.task_digest}:
        yield Finding("wrong", f"task {name}: the protocol in the records is not that of their digest")
        return
    if name not in registry.task_files():
        yield Finding("note", f"task {name}: is none of the installed ones; its protocol stands in the records")
        task = own
    else:
        task = registry.read_task(name)
        here = task_digest(task, PROTOCOL_VERSIONS[task.track])
        if here != job.task_digest:
            theirs = msgspec.structs.replace(group[0], protocol=msgspec.to_builtins(task))
            field, packed, installed = _difference(group[0], theirs)
            yield Finding("wrong", f"task {name}: {field} is {packed} in the records and {installed} in the installed")
            return
        yield Finding("kept", f"task {name}: the protocol is the installed one ({here})")
    yield _of_data(name, task, job.data)


def _of_data(name: str, task: Any, digests: dict[str, str]) -> Finding:
    labels = []
    for number, source in enumerate(task.sources):
        keys = {split: data.key_of(split, number, len(task.sources)) for split in data.SPLITS}
        labels.append(data.variant_of(source, {split: digests.get(key, "") for split, key in keys.items()}))
    if data.UNKNOWN in labels:
        return Finding("wrong", f"task {name}: the digests of its data are none that the task knows")
    if task.model.weights and digests.get("weights") != task.model.sha256:
        return Finding("wrong", f"task {name}: the digest of the pretrained weights is not that of the task")
    return Finding("kept", f"task {name}: the data is {'+'.join(dict.fromkeys(labels))}, by its digests")


def _of_seeds(name: str, group: Sequence[Record]) -> Iterator[Finding]:
    """Every row has seeds 0 .. n-1, n that of the suite, and a score of each job that ended well."""
    rows: dict[bytes, list[Record]] = {}
    for record in group:
        job = record.job
        rows.setdefault(canonical([job.label, job.method, job.params, job.method_version, job.device]), []).append(
            record
        )
    suites, headline = (group[0].protocol.get(field) for field in ("suites", "headline"))
    if not isinstance(suites, list | tuple) or not isinstance(headline, str):
        return  # no protocol of a task, which `_of_task` has said
    suite = next((s for s in (group[0].job.suite, *map(str, suites)) if s in plan.SEEDS), "quick")
    wanted, short = plan.SEEDS[suite], []
    for row in rows.values():
        seeds = {record.job.seed for record in row}
        # A seed may be any number: those that are missing are not to be laid out.
        missing = list(islice((n for n in range(max(wanted, max(seeds) + 1)) if n not in seeds), 10))
        if missing:
            memory = row[0].job.params.get("memory")
            stored = "" if memory is None else f" (memory {memory})"
            short.append(f"{row[0].job.label}{stored} lacks {', '.join(map(str, missing))}")
        if any(r.status == "ok" and headline not in r.metrics for r in row):
            yield Finding("wrong", f"task {name}: {row[0].job.label} has records without the score '{headline:.60}'")
    if short:
        more = f"; and {len(short) - 3} more rows" if len(short) > 3 else ""
        yield Finding("wrong", f"task {name}: suite {suite} has seeds 0 to {wanted - 1}: {'; '.join(short[:3])}{more}")
    else:
        yield Finding("kept", f"task {name}: {len(rows)} rows with all seeds")


def _of_methods(records: Sequence[Record], plugins: Sequence[str]) -> Iterator[Finding]:
    seen: dict[tuple[str, str], set[str]] = {}
    for record in records:
        seen.setdefault((record.job.track, record.job.method), set()).add(record.job.method_version)
    for (track, name), versions in sorted(seen.items()):
        targets = registry.find_methods(track, plugins, [name])
        if name not in targets:
            yield Finding("note", f"method {name} ({track}): not installed here; nothing but its author's word")
            continue
        try:
            here = registry.load_method(track, name, targets[name]).version
        except UserError as error:
            yield Finding("note", f"method {name} ({track}): does not load here: {error}")
            continue
        if versions == {here}:
            yield Finding("kept", f"method {name} ({track}): its code is the installed one ({here})")
        else:
            other = ", ".join(sorted(versions - {here}))
            yield Finding("wrong", f"method {name} ({track}): of version {other} in the records, {here} here")
