"""`submit`, and what `verify` says of a submission."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fipbench.cli.options import Methods, Plugins, Results, check_file, names, results_at, task_names
from fipbench.errors import UserError, unknown


def submit(
    out: Annotated[Path, typer.Option(help="The file to write, by custom NAME.jsonl.gz.")],
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Of these tasks (default: all).", autocompletion=task_names)
    ] = None,
    methods: Methods = "",
    results: Results = None,
    plugin: Plugins = None,
    by: Annotated[str, typer.Option(help="Who hands it in: a name, an address.")] = "",
    source: Annotated[str, typer.Option(help="Where the code of your method is (https://...).")] = "",
    note: Annotated[str, typer.Option(help="One line more.")] = "",
) -> None:
    """Pack records and their provenance into one file to hand in.

    `fipbench verify FILE` checks it. It holds JSON alone, no code. Exit code 0: fit to hand in, 1: written, but
    something is wrong with it.
    """
    from fipbench import registry, store, submission

    check_file(out)
    where = results_at(results)
    found, problems = store.read(where)
    for problem in problems:
        print(f"damaged  {problem.path}: {problem.reason}; left out")
    wanted = [registry.plain_name(name) for name in names(methods)]
    for kind, given, known in (
        ("task", tasks or [], {record.job.task for record in found}),
        ("method", wanted, {record.job.label for record in found}),
    ):
        for name in given:
            if name not in known:
                raise unknown(kind, name, known, where=f"among the records in {where}")
    found = [r for r in found if (not tasks or r.job.task in tasks) and (not wanted or r.job.label in wanted)]
    content = submission.pack(found, by=by, source=source, note=note)
    submission.write(out, content)
    manifest, records = submission.read(out)
    wrong = _say(submission.check(records, [str(p) for p in plugin or []]))
    print(f"{out}: {manifest.records} records of {len(manifest.tasks)} tasks, {len(content):,} bytes")
    if wrong:
        print("not fit to hand in: see WRONG above; rows that lack seeds run without --seeds, or stay out by --methods")
        raise typer.Exit(1)


def look_at(file: Path, plugins: list[str]) -> tuple[list[Any], int]:
    """Say what can be said of a submission without running anything: its records, and how much is wrong."""
    from fipbench import submission

    manifest, records = submission.read(file)
    print(f"kept     whole: {manifest.records} records, digest {manifest.digest[:12]}, fipbench {manifest.fipbench}")
    for what in ("by", "source", "note"):
        if text := getattr(manifest, what):
            print(f"         {what}: {text}")
    return records, _say(submission.check(records, plugins))


def verify_submission(file: Path, sample: int, plugins: list[str], again: Any) -> None:
    """`fipbench verify` of a submission; `again(records, sample)` runs that many of its jobs anew.

    Raises:
        UserError: it is no whole submission.
        typer.Exit: something is wrong.
    """
    if sample < 0:
        raise UserError(f"--sample: expected a number of jobs, or 0 to run nothing, got {sample}")
    records, wrong = look_at(file, plugins)
    if sample:
        again(records, sample)
    print(f"{file}: {len(records)} records, {wrong} checks fail{'' if sample else '; nothing was run'}")
    if wrong:
        raise typer.Exit(1)


def _say(findings: list[Any]) -> int:
    for finding in findings:
        # A record may hold anything, also what would steer a terminal.
        text = "".join(c if c.isprintable() else "�" for c in finding.text)
        print(f"{'WRONG' if finding.kind == 'wrong' else finding.kind:8} {text}")
    return sum(finding.kind == "wrong" for finding in findings)
