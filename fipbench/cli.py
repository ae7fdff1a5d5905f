"""The command line. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fipbench import __version__, registry
from fipbench.errors import UserError

app = typer.Typer(
    name="fipbench",
    help="Reproducibility benchmarks for functionally invariant paths, with tested baselines.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


# What typer raises for a wrong call; the class has moved between its releases.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    code = 2
    try:
        code = app(prog_name="fipbench", standalone_mode=False) or 0
        sys.stdout.flush()
    except UserError as error:
        _say_error(str(error))
    except _UsageError as error:
        text = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx else "fipbench"
        _say_error(f"{text[:1].lower()}{text[1:]}; see `{command} --help`")
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _say_error(f"{error.filename or 'disk'}: {error.strerror}")
    if code == _INTERRUPTED:
        print("interrupted: what is finished is stored; the same command goes on from there", file=sys.stderr)
    sys.exit(code)


def _say_error(text: str) -> None:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


# ------------------------------------------------------------------------------- arguments and completion


def _task_names(incomplete: str) -> list[str]:
    return [name for name in (*registry.task_files(), "all") if name.startswith(incomplete)]


def _method_names(incomplete: str) -> list[str]:
    *before, last = incomplete.split(",")
    known = sorted({name for track in registry.TRACKS for name in registry.method_names(track)})
    return [",".join([*before, name]) for name in known if name.startswith(last)]


def _show_version(value: bool) -> None:
    if value:
        print(f"fipbench {__version__}")
        raise typer.Exit


Tasks = Annotated[
    list[str], typer.Argument(help="Task names, TOML files, or 'all'.", metavar="TASK", autocompletion=_task_names)
]
Suite = Annotated[str | None, typer.Option(help="quick | standard | paper. With 'all': its tasks (default quick).")]
Methods = Annotated[
    str, typer.Option(help="Comma-separated names (default: all of the track).", autocompletion=_method_names)
]
Seeds = Annotated[int | None, typer.Option(help="Seeds 0..N-1 (default: 10 in quick, 5 elsewhere).")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="METHOD.PARAM=VALUE; repeat for more.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with methods; repeat for more.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda.")]
Workers = Annotated[int | None, typer.Option(help="Jobs at a time (default: one a core; one on cuda).")]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds a job may take; one that takes longer is killed and recorded as failed.")
]
Results = Annotated[
    Path | None,
    typer.Option(help="Folder of records (default: FIPBENCH_RESULTS or the platform's data folder)."),
]
UnknownData = Annotated[bool, typer.Option("--allow-unknown-data", help="Accept data whose digest no task knows.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


# ----------------------------------------------------------------------------------------------- looking


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="tasks | methods | suites")] = "tasks",
    plugin: Plugins = None,
    check: Annotated[bool, typer.Option("--check", help="Also load every method and say which are broken.")] = False,
) -> None:
    """List tasks, methods or suites."""
    if what == "tasks":
        for name in registry.task_files():
            task = registry.read_task(name)
            print(f"{name:28} {task.track:12} {','.join(task.suites):18} {task.title}")
    elif what == "suites":
        for name, meaning in registry.SUITES.items():
            print(f"{name:10} {meaning}")
    elif what == "methods":
        _list_methods([str(p) for p in plugin or []], check)
    else:
        raise UserError(f"list {what}: expected tasks, methods or suites")


def _list_methods(plugins: list[str], check: bool) -> None:
    broken = 0
    found = {track: registry.find_methods(track, plugins) for track in registry.TRACKS}
    for track, targets in found.items():
        for name, target in targets.items():
            line = f"{name:28} {track:12} {target}"
            if check:
                try:
                    method = registry.load_method(track, name, target)
                    line = f"{name:28} {track:12} {method.version:16} {method.summary}"
                except UserError as error:
                    broken += 1
                    line = f"{name:28} {track:12} BROKEN: {error}"
            print(line)
    if broken:
        raise UserError(f"{broken} of the methods do not load")


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="A task's name or TOML file.", autocompletion=_task_names)],
    plugin: Plugins = None,
) -> None:
    """Show a task in full, with its methods' settings."""
    import msgspec
    import tomli_w

    from fipbench import plan

    found = registry.read_task(task)
    content = _filled(msgspec.to_builtins(found))
    content.pop("methods", None)
    print(tomli_w.dumps(content).rstrip())
    print("\n# methods, with the parameters that a run gives them")
    for row in plan.task_rows(found, plugins=[str(p) for p in plugin or []]):
        params = ", ".join(f"{k}={v}" for k, v in row.params.items())
        print(f"{row.label:24} {row.settings:9} {params}".rstrip())


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    below = {key: _filled(value) if isinstance(value, dict) else value for key, value in content.items()}
    return {key: value for key, value in below.items() if value not in ("", {}, [], ())}


@app.command()
def doctor() -> None:
    """Check that this installation can run the suite."""
    from fipbench import doctor as checks

    if not checks.report(print):
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------------- running


@app.command()
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
    results: Results = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; compute nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute again what is stored already.")] = False,
    allow_unknown_data: UnknownData = False,
) -> None:
    """Compute what the results lack; show the leaderboards."""
    from fipbench import api, plan
    from fipbench.progress import watching

    plan.positive("--workers", workers)
    api.seconds(timeout)
    request = api.request(
        tasks,
        suite=suite,
        methods=_names(methods),
        seeds=seeds,
        settings=settings or [],
        plugins=plugin or [],
        device=device,
        results=results,
        allow_unknown_data=allow_unknown_data,
        force=force,
        dry_run=dry_run,
    )
    tickets = plan.tickets(request)
    if dry_run:
        _say_plan(tickets, api.missing(tickets)[0])
        return
    with watching(sys.stdout) as watch:
        result = api.execute(tickets, workers=workers, watch=watch, timeout=timeout)
    from fipbench import reports

    print()
    print(reports.terminal(reports.boards(result.records)))
    print(
        f"\n{result.computed} jobs computed, {len(result.records) - result.computed} from the store {request.results}"
    )
    if failed := result.failed:
        for what, records in _reasons(failed).items():
            more = f" (and {len(records) - 1} more)" if len(records) > 1 else ""
            print(f"failed: {records[0].id}{more}: {what}", file=sys.stderr)
        _say_error(
            f"{len(failed)} of {len(result.records)} jobs failed; they run again next time; "
            f"what a job printed is in {request.results / 'logs'}"
        )
        mistaken = any(record.error and record.error.type == UserError.__name__ for record in failed)
        raise typer.Exit(2 if mistaken else 1)


def _reasons(failed: list[Any]) -> dict[str, list[Any]]:
    """Failed records by what went wrong."""
    found: dict[str, list[Any]] = {}
    for record in failed:
        what = f"{record.error.type}: {record.error.message}" if record.error else record.status
        found.setdefault(what.removeprefix("UserError: "), []).append(record)
    return found


@app.command()
def verify(
    records: Annotated[Path, typer.Argument(help="A record, a results folder, or a file of records as JSON lines.")],
    sample: Annotated[int, typer.Option(help="How many of the records that can be run here.")] = 5,
    seed: Annotated[int, typer.Option(help="Draws the sample.")] = 0,
    plugin: Plugins = None,
    workers: Workers = None,
    timeout: Timeout = None,
) -> None:
    """Run stored jobs again and compare.

    Exit code 0: all equal, 1: some differ, 2: nothing could be checked.
    """
    from fipbench import store
    from fipbench import verify as again
    from fipbench.progress import watching

    found, problems = store.read(records)
    for problem in problems:
        print(f"damaged  {problem.path}: {problem.reason}")
    if not found:
        raise UserError(f"{records}: no valid records to verify")
    with watching(sys.stdout) as watch:
        checks = again.verify(
            found,
            sample=sample,
            seed=seed,
            plugins=[str(p) for p in plugin or []],
            workers=workers,
            timeout=timeout,
            watch=watch,
        )
    for text in again.told(checks):
        print(text)
    verdicts, rest = {check.verdict for check in checks}, len(found) - len(checks)
    print(f"{len(found)} records: {again.counts(checks)}, {rest} not drawn; {len(problems)} damaged")
    if "differs" in verdicts or problems:
        raise typer.Exit(1)
    if "equal" not in verdicts:
        raise UserError(f"{records}: no record could be checked; see above why")


@app.command()
def tune(
    task: Annotated[str, typer.Argument(help="A task's name or TOML file.", autocompletion=_task_names)],
    out: Annotated[Path, typer.Option(help="The file of settings to write (TOML); the task names it as 'tuned'.")],
    trials: Annotated[int, typer.Option(help="Settings tried of each method.")] = 16,
    seeds: Annotated[int, typer.Option(help="Seeds averaged a trial.")] = 1,
    budget_epochs: Annotated[
        int | None, typer.Option(help="A smaller budget while searching, the same for all.")
    ] = None,
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
    _check_file(out)
    request = api.request(
        task, methods=_names(methods), seeds=seeds, plugins=plugin or [], device=device, results=results
    )
    with watching(sys.stdout) as watch:
        path = common.search(
            request,
            trials=trials,
            budget_epochs=budget_epochs,
            out=out,
            workers=workers,
            timeout=timeout,
            watch=watch,
        )
    print(f"settings written to {path}")


# --------------------------------------------------------------------------------------------- reporting


@app.command()
def leaderboard(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks (default: all there are records of).")] = None,
    format_: Annotated[str, typer.Option("--format", help="md | csv | html | json; comma-separated.")] = "md",
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("leaderboards"),
    results: Annotated[Path | None, typer.Option(help="Results folder, or a file of records as JSON lines.")] = None,
) -> None:
    """Render leaderboards from records alone."""
    from fipbench import cache, reports, store

    formats = _names(format_)
    for name in formats:
        if name not in reports.FORMATS:
            raise UserError(f"--format {name}: expected some of {', '.join(reports.FORMATS)}")
    records, problems = store.read(results or cache.results_dir())
    for problem in problems:
        print(f"warning: {problem.path}: {problem.reason}; not counted", file=sys.stderr)
    cache.writable(out, "name another with --out")
    for path in reports.write(records, out, formats=formats, tasks=_known_tasks(tasks, records)):
        print(path)


@app.command()
def compare(
    rows: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of rows (with * and ?), papers, studies or tasks (default: all).", metavar="ROWS"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="md | csv | html | json; comma-separated.")] = "md",
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("comparison"),
    results: Annotated[Path | None, typer.Option(help="Results folder, or a file of records as JSON lines.")] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="A folder of published numbers (default: those that come with fipbench).")
    ] = None,
) -> None:
    """Hold published numbers against the records."""
    from fipbench import cache, claims, store
    from fipbench.reports import verdicts

    formats = _names(format_)
    for name in formats:
        if name not in verdicts.FORMATS:
            raise UserError(f"--format {name}: expected some of {', '.join(verdicts.FORMATS)}")
    published = claims.load(ledger)
    wanted = verdicts.chosen(published, rows or [])
    place = results or cache.results_dir()
    records, problems = store.read(place) if results or place.is_dir() else ([], [])
    for problem in problems:
        print(f"warning: {problem.path}: {problem.reason}; not counted", file=sys.stderr)
    cache.writable(out, "name another with --out")
    judged = claims.judge(published, records, wanted)
    for path in verdicts.write(judged, out, formats):
        print(path)
    print(verdicts.sentence(judged))


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The file of JSON lines to write.")],
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks (default: all).")] = None,
    results: Results = None,
) -> None:
    """Write all records as one file of JSON lines."""
    from fipbench import cache, store

    records, problems = store.read(results or cache.results_dir())
    for problem in problems:
        print(f"warning: {problem.path}: {problem.reason}; not exported", file=sys.stderr)
    wanted = _known_tasks(tasks, records)
    chosen = [record for record in records if record.job.split == "test" and record.job.task in wanted]
    if not chosen:
        raise UserError(f"{results or cache.results_dir()}: no records to export")
    lines = [store.encode(r) + b"\n" for r in sorted(chosen, key=lambda r: r.id)]
    _check_file(out)
    cache.write_atomic(out, b"".join(lines))
    print(f"{len(lines)} records written to {out}")


def _check_file(out: Path) -> None:
    """Prove that a file can be written there, before there is work to lose."""
    from fipbench import cache

    cache.writable(out.absolute().parent, "name another with --out")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out names a file")


def _known_tasks(tasks: list[str] | None, records: list[Any]) -> list[str]:
    from fipbench.errors import unknown

    known = sorted({r.job.task for r in records})
    for name in tasks or []:
        if name not in known:
            raise unknown("task", name, known, where="among the records")
    return tasks or known


def _say_plan(tickets: list[Any], todo: list[Any]) -> None:
    from collections import Counter

    jobs = Counter((t.job.task, t.job.label) for t in tickets)
    left = Counter((t.job.task, t.job.label) for t in todo)
    for (task, label), count in jobs.items():
        print(f"{task:28} {label:24} {count:3} jobs, {left[task, label]:3} to compute")
    print(f"{len(tickets)} jobs, {len(todo)} to compute; nothing was run")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
