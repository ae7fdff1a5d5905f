"""The command line. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated, Any

import typer

from fipbench import __version__
from fipbench.cli import auditing, authoring, data, estimating, looking, reporting, running, submitting
from fipbench.cli.options import say_error
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
    for stream in (sys.stdout, sys.stderr):
        if (
            isinstance(stream, io.TextIOWrapper) and stream.errors == "strict"
        ):  # what its encoding lacks, as ± in ASCII, loses no answer
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="fipbench", standalone_mode=False) or 0
        sys.stdout.flush()
    except UserError as error:
        say_error(str(error))
    except _UsageError as error:
        text = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx else "fipbench"
        say_error(f"{text[:1].lower()}{text[1:]}; see `{command} --help`")
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        say_error(f"{error.filename or 'disk'}: {error.strerror}")
    if code == _INTERRUPTED:
        print("interrupted: what is finished is stored; the same command goes on from there", file=sys.stderr)
    sys.exit(code)


def _show_version(value: bool) -> None:
    if value:
        print(f"fipbench {__version__}")
        raise typer.Exit


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


app.command("list")(looking.list_)
app.command()(looking.show)
app.command()(looking.doctor)
app.add_typer(authoring.new, name="new")
app.command()(authoring.check)
app.add_typer(data.app, name="data")
app.command()(estimating.estimate)
app.command()(running.run)
app.command()(running.verify)
app.command()(running.tune)
app.command()(auditing.audit)
app.command()(submitting.submit)
app.command()(reporting.leaderboard)
app.command()(reporting.compare)
app.command()(reporting.site)
app.command()(reporting.export)
