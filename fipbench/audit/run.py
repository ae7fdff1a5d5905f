"""One record audited: its network made again, compared with it, and attacked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from fipbench import attacks, metrics, plan, registry, verify, worker
from fipbench.audit import own as adaptive
from fipbench.audit import searches
from fipbench.audit.findings import findings
from fipbench.audit.rounds import ANYTHING, FARTHER, Bout
from fipbench.cache import cache_dir
from fipbench.determinism import deterministic
from fipbench.errors import UserError
from fipbench.spec import Job, Record, RobustnessTask, Ticket, digest
from fipbench.spec.audits import Audit, sealed
from fipbench.tracks import robustness
from fipbench.tracks.common import seed_for

Tick = Callable[[str, float], Any]


class Otherwise(RuntimeError):
    """The network that was made again is not the one that the record is about."""


def prepared(records: Sequence[Record], plugins: Sequence[str], folder: Path) -> dict[str, Ticket]:
    """What is needed to make the networks of these records again, by identity, before any work is done.

    Args:
        plugins: Python files that hold methods.
        folder: an empty one, to work in. Data and base networks come from the user's cache.

    Raises:
        UserError: one is no record of the robustness track with a result, or cannot be run here; says which and why.
    """
    for record in records:
        if record.job.track != "robustness":
            raise UserError(
                f"{record.id}: is of track {record.job.track}; an audit attacks records of track robustness"
            )
        if record.status != "ok":
            why = record.error.message if record.error else "no reason recorded"
            raise UserError(f"{record.id}: failed ({why}); there is no number to audit")
    tickets, cannot = verify.tickets(records, plugins, folder)
    if cannot:
        raise UserError(f"{cannot[0].record.id}: {cannot[0].reason}")
    shared = cache_dir() / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "shared").symlink_to(shared, target_is_directory=True)
    return tickets


def audit(
    record: Record,
    ticket: Ticket,
    *,
    strength: str = "default",
    own: Mapping[str, adaptive.Attack] | None = None,
    tick: Tick = lambda text, share: None,
) -> Audit:
    """Make the record's network again and attack it; the same call gives the same audit but for cost and provenance.

    Args:
        ticket: from `prepared`.
        strength: one of `fipbench.spec.audits.STRENGTHS`.
        own: attacks made for the method, by name.
        tick: called with what is being done and its share of the radius that is done.

    Raises:
        Otherwise: the network made again answers otherwise than the record says, or cannot be made.
    """
    job, size = ticket.job, searches.SIZES[strength]
    task = msgspec.convert(ticket.task, RobustnessTask)
    began, cpu = time.monotonic(), time.process_time()
    with _as_a_job(job):
        tick("network", 0.0)
        made = _made(record, ticket, task)
        vote = attacks.MeanSoftmax(made.members).eval().requires_grad_(False)
        surrogate = made.surrogate.eval().requires_grad_(False)
        inputs, labels = robustness.attacked(task, made.scoring)
        recorded = _checked(record, task, job, made, vote)
        remade = time.process_time() - cpu
        bout = Bout(vote, inputs, labels, [*made.members, surrogate], seed_for(job, "audit"), tick)
        found = searches.of(vote, surrogate, size)
        found += [adaptive.search(name, attack, vote) for name, attack in (own or {}).items()]
        for epsilon, standing in recorded.items():
            bout.at(epsilon, standing, found)
        tick("beyond", 0.0)
        beyond = _beyond(bout, task, found)
        flat = bout.flat()
    said = findings(bout.compared, bout.radii, beyond, flat, bout.tried)
    return sealed(
        Audit(
            id=record.id,
            task=job.task,
            method=job.method,
            seed=job.seed,
            items_digest=digest(record.items),
            strength=strength,
            settings=asdict(size),
            own=tuple(own or ()),
            attacked=len(labels),
            radii=tuple(bout.radii),
            beyond=beyond,
            flat=flat,
            tried=tuple(bout.tried),
            findings=tuple(said),
            cost={
                "wall_s": round(time.monotonic() - began, 3),
                "cpu_s": round(time.process_time() - cpu, 3),
                "remade_s": round(remade, 3),
            },
            provenance=plan.provenance() | {"time": datetime.now(UTC).isoformat(timespec="milliseconds")},
        )
    )


def _beyond(bout: Bout, task: RobustnessTask, found: Sequence[searches.Search]) -> dict[str, float]:
    """Accuracy under one start of each PGD at larger radii than the task's."""
    once = [searches.Search(one.name, one.kind, one.find) for one in found if one.name.startswith("PGD")]
    farther = min(FARTHER * task.attack.epsilons[-1], ANYTHING)
    return {f"{epsilon:g}": bout.beyond(epsilon, once) for epsilon in sorted({farther, ANYTHING})}


def _made(record: Record, ticket: Ticket, task: RobustnessTask) -> robustness.Voters:
    """The record's members, made as its job made them.

    Raises:
        Otherwise: the method fails here.
    """
    try:
        method = registry.load_factory(ticket.target)(**ticket.job.params)
        made = robustness.voters(task, ticket.job, method, Path(ticket.cache), lambda text, share: None)
    except (UserError, OSError):
        raise
    except Exception as error:
        raise Otherwise(
            f"{record.id}: its method fails here: {registry.one_line(error)}; nothing was audited"
        ) from error
    made.unfinished.drop()
    return made


def _checked(
    record: Record, task: RobustnessTask, job: Job, made: robustness.Voters, vote: attacks.MeanSoftmax
) -> dict[float, Tensor]:
    """Which attacked items stood in the record's worst case, by radius, as the record and the network here both say.

    Raises:
        Otherwise: they do not say the same.
    """
    scoring = made.scoring
    all_items = scoring.batch(torch.arange(len(scoring.labels), device=scoring.labels.device))
    clean = attacks.correct(vote, all_items.inputs, all_items.labels)
    inputs, labels = robustness.attacked(task, scoring)
    robust = attacks.white_box(vote, inputs, labels, task.attack, seed_for(job, "attacks"))["robust"]
    rows = dict(zip(task.attack.epsilons, robust[1:], strict=True))
    here = {"clean": clean} | {f"robust@{epsilon:g}": row for epsilon, row in rows.items()}
    for name, row in here.items():
        kept = record.items.get(name)
        if kept != metrics.packed(row):
            stored = record.metrics.get(name)
            raise Otherwise(
                f"{record.id}: the network made again is not that of the record: {name} is "
                f"{float(row.double().mean()):.4f}, recorded {'nothing' if stored is None else f'{stored:.4f}'}"
                f"{'' if kept is None else ' (or the same, of other items)'}; nothing was audited. Networks come out "
                "again on the kind of machine and with the torch that made them"
            )
    return rows


@contextmanager
def _as_a_job(job: Job) -> Iterator[None]:
    """Threads, generators and algorithms of a job; torch's are put back."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    worker.settle(job)
    try:
        with deterministic(job.device):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
