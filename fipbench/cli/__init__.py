"""The command line. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from typing import Annotated, Any

import typer

from fipbench import __version__
from fipbench.cli.options import say_error
from fipbench.errors import UserError

# Each command's module here, and its function; of `new` and `data`, the group of their commands.
_COMMANDS = {
    "list": ("looking", "list_"),
    "show": ("looking", "show"),
    "doctor": ("looking", "doctor"),
    "new": ("authoring", "new"),
    "check": ("authoring", "check"),
    "data": ("data", "app"),
    "estimate": ("estimating", "estimate"),
    "run": ("running", "run"),
    "verify": ("running", "verify"),
    "tune": ("running", "tune"),
    "audit": ("auditing", "audit"),
    "submit": ("submitting", "submit"),
    "leaderboard": ("reporting", "leaderboard"),
    "compare": ("reporting", "compare"),
    "site": ("reporting", "site"),
    "export": ("reporting", "export"),
}

# What typer raises for a wrong call; the class has moved between its releases.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    code = 2
    for stream in (sys.stdout, sys.stderr):
        # What its encoding lacks, as ± in ASCII, loses no answer.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _program(sys.argv[1:])(prog_name="fipbench", standalone_mode=False) or 0
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


def _program(words: list[str]) -> typer.Typer:
    """The command line; where the first word is a command, of that alone: to build them all takes longer than most
    answers."""
    app = typer.Typer(
        name="fipbench",
        help="Reproducibility benchmarks for functionally invariant paths, with tested baselines.",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_root)
    for name in words[:1] if words[:1] and words[0] in _COMMANDS else _COMMANDS:
        module, attribute = _COMMANDS[name]
        found = getattr(importlib.import_module(f"fipbench.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app
