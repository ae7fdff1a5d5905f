"""Arguments and options that several commands share, their completion, and how a mistake is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fipbench.errors import UserError


def task_names(incomplete: str) -> list[str]:
    from fipbench import registry

    return [name for name in (*registry.task_files(), "all") if name.startswith(incomplete)]


def method_names(incomplete: str) -> list[str]:
    from fipbench import registry

    *before, last = incomplete.split(",")
    known = sorted({name for track in registry.TRACKS for name in registry.method_names(track)})
    return [",".join([*before, name]) for name in known if name.startswith(last)]


Tasks = Annotated[
    list[str], typer.Argument(help="Task names, TOML files, or 'all'.", metavar="TASK", autocompletion=task_names)
]
Suite = Annotated[
    str | None, typer.Option(help="quick | standard | paper | calibration. With 'all': its tasks (default quick).")
]
Methods = Annotated[
    str, typer.Option(help="Comma-separated names (default: all of the track).", autocompletion=method_names)
]
Seeds = Annotated[int | None, typer.Option(help="Seeds 0..N-1 (default: 10 in quick, 5 elsewhere).")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="METHOD.PARAM=VALUE; repeat for more.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with methods; repeat for more.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda.")]
Workers = Annotated[int | None, typer.Option(help="Jobs at a time (default: one a core; one on cuda).")]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds a job may take; one that takes longer is killed and recorded as failed.")
]
Executor = Annotated[str, typer.Option(help="local | ray | slurm: where jobs run (docs/clusters.md).")]
Address = Annotated[
    str | None,
    typer.Option(help="host:port of a Ray cluster, or auto (default: RAY_ADDRESS, or a new one of this machine)."),
]
Slurm = Annotated[
    list[str] | None, typer.Option("--slurm", help="KEY=VALUE for sbatch, as in partition=gpu; repeat for more.")
]
Results = Annotated[
    Path | None,
    typer.Option(help="Folder of records (default: FIPBENCH_RESULTS or the platform's data folder)."),
]
UnknownData = Annotated[bool, typer.Option("--allow-unknown-data", help="Accept data whose digest no task knows.")]


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def results_at(results: Path | None) -> Path:
    """The results folder, or the file of records, that is meant."""
    from fipbench import cache

    return cache.expanded(results) if results else cache.results_dir()


def check_file(out: Path) -> None:
    """Prove that a file can be written there, before there is work to lose."""
    from fipbench import cache

    cache.writable(out.absolute().parent, "name another with --out")
    if out.exists() and not out.is_file():  # a device or a pipe would be replaced by a file
        raise UserError(f"{out}: is {'a folder' if out.is_dir() else 'no plain file'}; --out names a file")


def say_error(text: str) -> None:
    """One line on standard error."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
