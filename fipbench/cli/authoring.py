"""Commands for who writes a method or a task: `new method`, `new task`, `check`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from fipbench.cli.options import task_names

new = typer.Typer(name="new", help="Begin a method or a task of your own.", rich_markup_mode=None, no_args_is_help=True)

Track = Annotated[str, typer.Option(help="composition | connectivity | continual | robustness | sparsity.")]


@new.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and hyphens.")],
    track: Track,
    out: Annotated[Path, typer.Option(help="The folder to write its package into.")] = Path(),
) -> None:
    """Write a package with a method, its entry point and a test, that installs and runs as it is."""
    from fipbench import scaffold

    method, test, pyproject = scaffold.new_method(name, track, out)
    task = {
        "composition": "reviews-composition",
        "connectivity": "digits-connectivity",
        "continual": "split-digits-5",
        "robustness": "digits-robustness",
        "sparsity": "digits-sparsity",
    }[track]
    print(f"{method}       the method")
    print(f"{test}       its test, for pytest")
    # With ./, for a bare name is a package of the index to pip.
    folder = pyproject.parent if pyproject.is_absolute() else f"./{pyproject.parent}"
    print(f"{pyproject}       its entry point: `pip install {folder}` makes it one of the installed")
    print(f"\nfipbench check {method}")
    print(f"fipbench run {task} --plugin {method} --methods {name},fip --seeds 3")


@new.command("task")
def new_task(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and hyphens.")],
    track: Annotated[str, typer.Option(help="composition | connectivity | continual | robustness | sparsity.")] = "",
    extends: Annotated[str, typer.Option(help="A task that it is like.", autocompletion=task_names)] = "",
    out: Annotated[Path, typer.Option(help="The folder to write NAME.toml into.")] = Path(),
) -> None:
    """Write a task's file, with comments, that runs as it is."""
    from fipbench.new_task import new_task as write

    file = write(name, track, extends, out)
    print(f"{file}       the task")
    print(f"\nfipbench show {file}")
    print(f"fipbench run {file} --seeds 2")


def check(
    what: Annotated[str, typer.Argument(help="An installed method's name, or a file NAME.py.", metavar="NAME|FILE")],
    track: Annotated[str, typer.Option(help="Of one track alone (default: all that have it).")] = "",
) -> None:
    """Say in words what a method does not keep of the contract.

    Every method of the suite is held to it, on a small task.

    Exit code 0: all is kept, 1: something is not.
    """
    from fipbench import conformance

    wrong, tried = 0, []
    for finding in conformance.examine(what, track):
        if (finding.track, finding.method) not in tried:
            tried.append((finding.track, finding.method))
            print(f"{finding.method} ({finding.track})")
        print(f"  {'WRONG' if finding.wrong else 'kept '}  {finding.check}")
        if finding.wrong:
            wrong += 1
            for part in (finding.meaning, finding.wrong):
                print(textwrap.fill(" ".join(part.split()), 110, initial_indent=" " * 9, subsequent_indent=" " * 9))
    methods = f"{len(tried)} method{'s' if len(tried) > 1 else ''}"
    print(f"{methods} tried on a small task: {f'{wrong} checks fail' if wrong else 'all checks pass'}")
    if wrong:
        raise typer.Exit(1)
