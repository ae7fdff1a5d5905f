"""Commands that compute: `run`, `verify`, `tune`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fipbench.cli.options import (
    Address,
    Device,
    Executor,
    Methods,
    Plugins,
    Results,
    Seeds,
    Settings,
    Slurm,
    Suite,
    Tasks,
    Timeout,
    UnknownData,
    Workers,
    check_file,
    names,
    say_error,
    task_names,
)
from fipbench.errors import UserError


def run(
    tasks: Tasks,
    suite: Suite = None,
    methods: Methods = "",
    seeds: Seeds = None,
    settings: Settings = None,
    plugin: Plugins = None,
    device: Device = "auto",
    workers: Workers = None,
    timeout: Timeout = None,
    executor: Executor = "local",
    address: Address = None,
    slurm: Slurm = None,
    results: Results = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; compute nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute again what is stored already.")] = False,
    allow_unknown_data: UnknownData = False,
) -> None:
    """Compute what the results lack; show the leaderboards."""
    from fipbench import api, plan
    from fipbench.estimate import fits, needs
    from fipbench.executors.choice import choose
    from fipbench.progress import watching

    plan.positive("--workers", workers)
    api.seconds(timeout)
    chosen = choose(executor, address, slurm or ())
    request = api.request(
        tasks,
        suite=suite,
        methods=names(methods),
        seeds=seeds,
        settings=settings or [],
        plugins=plugin or [],
        device=device,
        results=results,
        elsewhere=chosen.elsewhere,
        allow_unknown_data=allow_unknown_data,
        force=force,
        dry_run=dry_run,
    )
    tickets = plan.tickets(request)
    if dry_run:
        _say_plan(tickets, api.missing(tickets)[0])
        return
    if not chosen.elsewhere:
        fits.check(tickets)
    if chosen.name == "ray":
        chosen = needs.sized(chosen, tickets)
    with watching(sys.stdout) as watch:
        result = api.execute(tickets, workers=workers, watch=watch, timeout=timeout, executor=chosen)
    from fipbench import reports

    print()
    print(reports.terminal(reports.boards(result.records)))
    print(
        f"\n{result.computed} job{'s' * (result.computed != 1)} computed, "
        f"{len(result.records) - result.computed} from the store {request.results}"
    )
    if failed := result.failed:
        for what, records in _reasons(failed).items():
            more = f" (and {len(records) - 1} more)" if len(records) > 1 else ""
            print(f"failed: {records[0].id}{more}: {what}", file=sys.stderr)
        logs = request.results / "logs"
        printed = f"; what a job printed is in {logs}" if logs.is_dir() and any(logs.iterdir()) else ""
        say_error(f"{len(failed)} of {len(result.records)} jobs failed; they run again next time{printed}")
        mistaken = any(record.error and record.error.type == UserError.__name__ for record in failed)
        raise typer.Exit(2 if mistaken else 1)


def _reasons(failed: list[Any]) -> dict[str, list[Any]]:
    """Failed records by what went wrong."""
    found: dict[str, list[Any]] = {}
    for record in failed:
        what = f"{record.error.type}: {record.error.message}" if record.error else record.status
        if record.error and record.error.where and record.error.type != UserError.__name__:
            what += f" ({record.error.where[-1]})"
        found.setdefault(what.removeprefix("UserError: "), []).append(record)
    return found


def verify(
    records: Annotated[
        Path, typer.Argument(help="A record, a results folder, a file of records as JSON lines, or a submission.")
    ],
    sample: Annotated[
        int | None,
        typer.Option(help="How many of the records that can be run here (default: 5; of a submission none)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the sample.")] = 0,
    plugin: Plugins = None,
    workers: Workers = None,
    timeout: Timeout = None,
) -> None:
    """Run stored jobs again and compare; look a submission through.

    Exit code 0: all equal, 1: some differ, 2: nothing could be checked.
    """
    from fipbench import store, submission
    from fipbench import verify as again
    from fipbench.cli.submitting import verify_submission
    from fipbench.progress import watching

    plugins = [str(p) for p in plugin or []]

    def run_again(found: list[Any], problems: list[Any], sample: int) -> None:
        with watching(sys.stdout) as watch:
            checks = again.verify(
                found, sample=sample, seed=seed, plugins=plugins, workers=workers, timeout=timeout, watch=watch
            )
        for text in again.told(checks):
            print(text)
        verdicts, rest = {check.verdict for check in checks}, len(found) - len(checks)
        print(f"{len(found)} records: {again.counts(checks)}, {rest} not drawn; {len(problems)} damaged")
        if "differs" in verdicts or problems:
            raise typer.Exit(1)
        if "equal" not in verdicts:
            raise UserError(f"{records}: no record could be checked; see above why")

    if submission.is_one(records):
        verify_submission(records, sample or 0, plugins, lambda found, n: run_again(found, [], n))
        return
    found, problems = store.read(records)
    for problem in problems:
        print(f"damaged  {problem.path}: {problem.reason}")
    if not found:
        raise UserError(f"{records}: no valid records to verify")
    run_again(found, problems, 5 if sample is None else sample)


def tune(
    task: Annotated[str, typer.Argument(help="A task's name or TOML file.", autocompletion=task_names)],
    out: Annotated[Path, typer.Option(help="The file of settings to write (TOML); the task names it as 'tuned'.")],
    trials: Annotated[int, typer.Option(help="Settings tried of each method.")] = 16,
    seeds: Annotated[int, typer.Option(help="Seeds averaged a trial.")] = 1,
    budget_epochs: Annotated[
        int | None, typer.Option(help="A smaller budget while searching, the same for all.")
    ] = None,
    finalists: Annotated[
        int, typer.Option(help="With --budget-epochs: each method's best so many decide at the task's own budget.")
    ] = 0,
    methods: Methods = "",
    plugin: Plugins = None,
    device: Device = "auto",
    workers: Workers = None,
    timeout: Timeout = None,
    results: Results = None,
) -> None:
    """Search all methods' settings, on validation data."""
    from fipbench import api, plan
    from fipbench import tune as common
    from fipbench.progress import watching

    plan.positive("--workers", workers)
    api.seconds(timeout)
    check_file(out)
    request = api.request(
        task, methods=names(methods), seeds=seeds, plugins=plugin or [], device=device, results=results
    )
    with watching(sys.stdout) as watch:
        path = common.search(
            request,
            trials=trials,
            budget_epochs=budget_epochs,
            out=out,
            finalists=finalists,
            workers=workers,
            timeout=timeout,
            watch=watch,
        )
    for line in common.told(path):
        print(line)
    print(f"settings written to {path}")


def _say_plan(tickets: list[Any], todo: list[Any]) -> None:
    from collections import Counter

    jobs = Counter((t.job.task, t.job.label) for t in tickets)
    left = Counter((t.job.task, t.job.label) for t in todo)
    caps = _caps(tickets)
    for (task, label), count in jobs.items():
        print(f"{task:28} {label:24} {count:3} jobs, {left[task, label]:3} to compute{caps[task, label]}")
    print(f"{len(tickets)} job{'s' * (len(tickets) != 1)}, {len(todo)} to compute; nothing was run")


def _caps(tickets: list[Any]) -> dict[tuple[str, str], str]:
    """What the budget allows a job of each row, in words; needs no torch."""
    import msgspec

    from fipbench.estimate.work import cap_of, sizes_of
    from fipbench.spec import TASK_TYPES

    allowed: dict[str, str] = {}
    found = {}
    for ticket in tickets:
        job = ticket.job
        if job.task not in allowed:
            task = msgspec.convert(ticket.task, TASK_TYPES[job.track])
            sizes = sizes_of(task, Path(ticket.cache))
            bound = "about" if any(source.is_corpus for source in task.sources) else "at most"
            allowed[job.task] = f", {bound} {cap_of(task, sizes):,} passes each" if sizes else ""
        free = job.track == "continual" and job.role == "reference"
        found[job.task, job.label] = ", no cap" if free else allowed[job.task]
    return found
