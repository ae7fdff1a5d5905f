"""Whether stored records come out again: a sample of their jobs is run anew, and all that identity promises compared.

A job is run from its record alone: the record holds the protocol and all parameters. It must be the code, data and
kind of device that the record names; what cannot be had is said, not run with something else. Shared base networks
are trained anew, too: only decoded data, which jobs check by its digest, is taken from the cache.
"""

from __future__ import annotations

import base64
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from fipbench import api, plan, registry, worker
from fipbench.cache import cache_dir
from fipbench.errors import UserError
from fipbench.executors import local
from fipbench.executors.choice import default_workers
from fipbench.spec import TASK_TYPES, Method, Record, Task, Ticket, builtins, canonical, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

ABSENT = "nothing"


class Difference(msgspec.Struct, frozen=True):
    """A field that came out otherwise: its place in the record, and both values as JSON."""

    field: str
    stored: str
    now: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record: `reason` says why it cannot be run, `differences` in what it differs."""

    record: Record
    verdict: Literal["equal", "differs", "cannot"]
    reason: str = ""
    differences: tuple[Difference, ...] = ()


def verify(
    records: Sequence[Record],
    *,
    sample: int | None = None,
    seed: int = 0,
    plugins: Sequence[str] = (),
    workers: int | None = None,
    timeout: float | None = None,
    watch: api.Watch | None = None,
) -> list[Check]:
    """Run jobs of these records again, into a folder that is thrown away, and compare.

    Args:
        sample: how many, drawn by `seed` among those that can be run here; default all.
        plugins, workers, timeout, watch: as of `fipbench.run`.

    Returns:
        A check of every record that cannot be run here, then of every one that was run.

    Raises:
        UserError: a mistake in the arguments, or a plugin file that does not load.
    """
    for option, value in (("--sample", sample), ("--workers", workers)):
        plan.positive(option, value)
    api.seconds(timeout)
    for file in plugins:  # a file that is not there is a mistake, not a method that cannot be run
        registry.plugin_methods(file)
    listen = watch or (lambda event: None)
    with tempfile.TemporaryDirectory(prefix="fipbench-verify-") as folder:
        runnable, cannot = tickets(records, plugins, Path(folder))
        chosen = sorted(runnable)
        if sample is not None and sample < len(chosen):
            chosen = sorted(random.Random(seed).sample(chosen, sample))
        jobs = [runnable[identity] for identity in chosen]
        listen({"event": "plan", "todo": len(jobs), "done": 0, "set_aside": []})
        found = {}
        for again in local.execute(jobs, workers or default_workers(jobs), listen, timeout):
            listen({"event": "record", "record": again, "id": again.id})
            found[again.id] = again
    run = sorted((r for r in records if r.id in found), key=lambda record: record.id)
    return cannot + [_compared(record, found[record.id]) for record in run]


def _compared(record: Record, again: Record) -> Check:
    # Job and protocol were given to it: another record of the same job may have them under another label.
    again = msgspec.structs.replace(again, job=record.job, protocol=record.protocol)
    found = differences(record, again)
    return Check(record=record, verdict="differs" if found else "equal", differences=tuple(found))


# ---------------------------------------------------------------------------------------- what can be run


def tickets(records: Sequence[Record], plugins: Sequence[str], folder: Path) -> tuple[dict[str, Ticket], list[Check]]:
    """A ticket for each job that can be run here, by its id, and a check that says why for each that cannot.

    Args:
        folder: an empty one, to work in: it gets results and a cache that shares decoded data with the user's.
    """
    for name in ("results", "cache"):
        (folder / name).mkdir()
    for name in ("data", "hub"):
        (cache_dir() / name).mkdir(parents=True, exist_ok=True)
        (folder / "cache" / name).symlink_to(cache_dir() / name, target_is_directory=True)
    found: dict[str, Ticket] = {}
    cannot = []
    methods, digests = cache(lambda track, name: _method(track, name, plugins)), _identifier(cache_dir())
    for record in records:
        try:
            found[record.id] = _ticket(record, methods, digests, folder)
        except UserError as error:
            cannot.append(Check(record=record, verdict="cannot", reason=str(error)))
    return found, cannot


def _ticket(
    record: Record,
    methods: Callable[[str, str], Method],
    digests: Callable[[Task], dict[str, str]],
    folder: Path,
) -> Ticket:
    """The ticket of a record's job.

    Raises:
        UserError: it cannot be run here; says why.
    """
    job = record.job
    if worker.died(record):
        raise UserError("its process was ended from outside, or by its time limit: nothing that its code must do again")
    if job.track not in TASK_TYPES:
        raise UserError(f"there is no track '{job.track}'")
    try:
        task = msgspec.convert(record.protocol, TASK_TYPES[job.track])
    except msgspec.ValidationError as error:
        raise UserError(f"the schema of tasks has changed since ({error})") from None
    if task_digest(task, PROTOCOL_VERSIONS[job.track]) != job.task_digest:
        raise UserError(f"the protocol of task '{job.task}' or of track {job.track} has changed since")
    method = methods(job.track, job.method)
    if method.version != job.method_version:
        raise UserError(f"the code of method '{job.method}' has changed since ({job.method_version}, {method.version})")
    try:
        plan.choose_device(job.device)
    except UserError:
        raise UserError(f"it is of device '{job.device}', which torch does not find here") from None
    if (here := digests(task)) != job.data:
        raise UserError(f"the data here is not that of the record ({_short(here)}, not {_short(job.data)})")
    return Ticket(
        job=job,
        task=record.protocol,
        target=method.target,
        results=str(folder / "results"),
        cache=str(folder / "cache"),
    )


def _method(track: str, name: str, plugins: Sequence[str]) -> Method:
    targets = registry.find_methods(track, plugins, [name])
    if name not in targets:
        raise UserError(f"there is no {track} method '{name}'; name its file with --plugin or install its package")
    return registry.load_method(track, name, targets[name])


def _identifier(folder: Path) -> Callable[[Task], dict[str, str]]:
    """The digests of the data and pretrained weights here, found out once for tasks that share them."""
    known: dict[bytes, dict[str, str] | UserError] = {}

    def digests(task: Task) -> dict[str, str]:
        key = canonical([task.sources, task.model])
        if key not in known:
            try:
                known[key] = plan.contents(task, folder, allow_unknown=True)[1]
            except UserError as error:
                known[key] = error
        if isinstance(answer := known[key], UserError):
            raise answer
        return answer

    return digests


def _short(digests: dict[str, str]) -> str:
    return ", ".join(f"{split} {value[:12]}" for split, value in sorted(digests.items()))


# -------------------------------------------------------------------------------------------- comparison


def differences(stored: Record, now: Record) -> list[Difference]:
    """In what two records differ by the rule of `spec.equal`, which they are if this is empty."""
    a, b = _leaves(stored), _leaves(now)
    fields = [*a, *(field for field in b if field not in a)]
    return [
        Difference(".".join(map(str, field)), a.get(field, ABSENT), b.get(field, ABSENT))
        for field in fields
        if a.get(field) != b.get(field)
    ]


def _leaves(record: Record) -> dict[tuple[Any, ...], str]:
    """Every compared value of a record as JSON, by its place."""
    content = builtins(record)
    for name in ("provenance", "digest"):
        del content[name]
    for name in ("wall_s", "peak_memory_bytes"):
        del content["cost"][name]
    if content["error"]:
        del content["error"]["where"]
    return dict(_below(content, ()))


def _below(value: Any, place: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], str]]:
    if not value or not isinstance(value, dict | list | tuple):
        return [(place, canonical(value).decode())]
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, inner in pairs for leaf in _below(inner, (*place, key))]


def told(checks: Sequence[Check]) -> list[str]:
    """All checks as a person reads them, and a hint where the records that differ come from elsewhere."""
    return [line for check in checks for line in lines(check)] + origins(checks)


def counts(checks: Sequence[Check]) -> str:
    """How many checks came out how."""
    equal, differ, cannot = (sum(c.verdict == v for c in checks) for v in ("equal", "differs", "cannot"))
    return f"{equal} equal, {differ} differ, {cannot} cannot be run here"


def lines(check: Check, most: int = 5) -> list[str]:
    """A check as a person reads it: a line, and one for each of the first differences."""
    first = f"{check.verdict:8} {check.record.id}"
    if check.reason:
        return [f"{first}: {check.reason}"]
    shown = [f"  {d.field}: {_said(d)}" for d in check.differences[:most]]
    more = len(check.differences) - most
    return [first, *shown, *([f"  and {more} more"] if more > 0 else [])]


def _said(difference: Difference) -> str:
    if difference.field.startswith("items.") and difference.field.endswith(".bits"):
        try:
            pair = [base64.b64decode(value, validate=True) for value in (difference.stored[1:-1], difference.now[1:-1])]
        except ValueError:
            pair = []
        if pair and len(pair[0]) == len(pair[1]):
            apart = sum((a ^ b).bit_count() for a, b in zip(*pair, strict=True))
            return f"{apart} items were right in one and wrong in the other"
    return f"stored {_cut(difference.stored)}, now {_cut(difference.now)}"


def _cut(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def origins(checks: Sequence[Check]) -> list[str]:
    """Where the records that differ were made, if not on a machine and with a torch like here: a hint."""
    here = plan.provenance()
    found = {_origin(check.record.provenance) for check in checks if check.verdict == "differs"} - {_origin(here)}
    return [f"stored on {origin}; this is {_origin(here)}" for origin in sorted(found)]


def _origin(provenance: dict[str, Any]) -> str:
    versions, hardware = provenance.get("versions"), provenance.get("hardware")
    torch = versions.get("torch") if isinstance(versions, dict) else None
    cpu = hardware.get("cpu") if isinstance(hardware, dict) else None
    return f"torch {torch or 'unknown'}, {cpu or 'unknown processor'}"
