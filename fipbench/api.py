"""The suite from Python: `fipbench.run(...)` and `fipbench.load_records(DIR)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fipbench import cache, plan, store
from fipbench.errors import UserError
from fipbench.executors import choice
from fipbench.executors.choice import Choice
from fipbench.spec import Record, Ticket, id_of

if TYPE_CHECKING:
    import pandas as pd

Watch = Callable[[dict[str, Any]], Any]
_LOCAL = Choice()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has to show: every record it asked for, and which files in the store were no records."""

    records: list[Record]
    computed: int
    set_aside: list[Path]

    @property
    def failed(self) -> list[Record]:
        """Records of jobs that failed."""
        return [record for record in self.records if record.status != "ok"]

    def _repr_html_(self) -> str:
        from fipbench import notebook

        return notebook.shown(self.records)._repr_html_()

    def _repr_markdown_(self) -> str:
        from fipbench import notebook

        return notebook.shown(self.records)._repr_markdown_()


def request(
    tasks: str | Sequence[str],
    *,
    suite: str | None = None,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    settings: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    device: str = "auto",
    results: str | Path | None = None,
    elsewhere: bool = False,
    allow_unknown_data: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> plan.Request:
    """The request that these arguments make; folders are made and proved writable.

    Raises:
        UserError: a folder cannot be written.
    """
    return plan.Request(
        tasks=(tasks,) if isinstance(tasks, str) else tuple(tasks),
        results=cache.writable(
            cache.expanded(results).absolute() if results else cache.results_dir(),
            "name another with --results",
        ),
        cache=cache.writable(cache.cache_dir(), "name another with FIPBENCH_CACHE"),
        suite=suite,
        methods=tuple(methods),
        seeds=seeds,
        settings=tuple(settings),
        plugins=tuple(str(p) for p in plugins),
        device=device,
        elsewhere=elsewhere,
        allow_unknown_data=allow_unknown_data,
        force=force,
        dry_run=dry_run,
    )


def run(
    tasks: str | Sequence[str],
    *,
    suite: str | None = None,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    settings: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    device: str = "auto",
    workers: int | None = None,
    results: str | Path | None = None,
    allow_unknown_data: bool = False,
    force: bool = False,
    timeout: float | None = None,
    watch: Watch | None = None,
    executor: str = "local",
    address: str | None = None,
    slurm: Sequence[str] = (),
) -> Result:
    """Compute what the results folder lacks of these tasks, methods and seeds; return all records asked for.

    Args:
        tasks: names, TOML files, or "all" of `suite` (default quick).
        methods: names; default every method of each task's track.
        seeds: seeds 0 .. seeds - 1 (default: the suite's).
        settings: `METHOD.PARAM=VALUE`.
        plugins: Python files that hold methods.
        device: auto, cpu or cuda.
        workers: jobs at a time (default: a core each; one on cuda).
        results: folder of records (default: FIPBENCH_RESULTS or the platform's data folder).
        force: compute again what is there.
        timeout: seconds that a job may take; one that takes longer is killed and recorded as failed.
        watch: takes the events of the executor.
        executor: local, ray or slurm (docs/clusters.md).
        address: of a Ray cluster (default: RAY_ADDRESS, or a new one of this machine).
        slurm: `KEY=VALUE`, options of `sbatch`.

    Raises:
        UserError: a mistake in the arguments, a folder that cannot be written, or a cluster that is not there.
    """
    chosen = choice.choose(executor, address, slurm)
    asked = request(
        tasks,
        suite=suite,
        methods=methods,
        seeds=seeds,
        settings=settings,
        plugins=plugins,
        device=device,
        results=results,
        elsewhere=chosen.elsewhere,
        allow_unknown_data=allow_unknown_data,
        force=force,
    )
    seconds(timeout)
    return execute(plan.tickets(asked), workers=workers, watch=watch, timeout=timeout, executor=chosen)


def missing(tickets: Sequence[Ticket]) -> tuple[list[Ticket], list[Record], list[store.Problem]]:
    """What of the tickets must be computed, the records of the rest, and files in their way that are no records."""
    todo, done, problems = [], [], []
    for ticket in tickets:
        identity = id_of(ticket.job)
        path = Path(ticket.results) / f"{identity}.json"
        try:
            record = store.parse(path.read_bytes(), identity)
        except FileNotFoundError:
            todo.append(ticket)
            continue
        except (OSError, ValueError) as error:
            problems.append(store.Problem(path, str(error)))
            todo.append(ticket)
            continue
        if ticket.force or record.status != "ok":
            todo.append(ticket)
        else:
            done.append(record)
    return todo, done, problems


def seconds(timeout: float | None) -> None:
    """Raise UserError unless the limit, if there is one, is a positive number of seconds."""
    if timeout is not None and not 0 < timeout < math.inf:
        raise UserError(f"--timeout: expected a positive number of seconds, got {timeout:g}; leave it out for no limit")


def execute(
    tickets: Sequence[Ticket],
    *,
    workers: int | None = None,
    watch: Watch | None = None,
    timeout: float | None = None,
    executor: Choice = _LOCAL,
) -> Result:
    """Run what the store lacks of these tickets.

    Raises:
        UserError: fewer than one worker, a limit that is no time, or a results folder that cannot be written.
    """
    plan.positive("--workers", workers)
    seconds(timeout)
    todo, done, problems = missing(tickets)
    aside = [store.set_aside(Path(tickets[0].results), problem) for problem in problems]
    listen = watch or (lambda event: None)
    said = [f"{old.path}: {old.reason}; moved to {new}" for old, new in zip(problems, aside, strict=True)]
    listen({"event": "plan", "todo": len(todo), "done": len(done), "set_aside": said})
    for record in choice.execute(executor, todo, workers, listen, timeout):
        listen({"event": "record", "record": record, "id": record.id})
        done.append(record)
    order = {id_of(ticket.job): n for n, ticket in enumerate(tickets)}
    return Result(records=sorted(done, key=lambda record: order[record.id]), computed=len(todo), set_aside=aside)


def load_records(where: str | Path | None = None) -> pd.DataFrame:
    """Valid records of a results folder or JSON-lines file as a table, one row a record.

    Columns: `id`, `status`, `error`, the job's fields, `params` as `param.NAME`, metrics as `metric.NAME`,
    cost as `cost.NAME`, and `notes`. Curves and items stay in the files.

    Raises:
        UserError: there is no such folder or file.
    """
    from fipbench import notebook

    return notebook.load(where).frame()
