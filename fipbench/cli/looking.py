"""Commands that say what there is: `list`, `show`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fipbench.cli.options import Plugins, task_names
from fipbench.errors import UserError, unknown


def list_(
    what: Annotated[str, typer.Argument(help="tasks | methods | suites")] = "tasks",
    plugin: Plugins = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also load every method: its version and what it is, or why it is broken.")
    ] = False,
    suite: Annotated[
        str | None, typer.Option(help="quick | standard | paper | calibration: its tasks (default: all).")
    ] = None,
) -> None:
    """List tasks, methods or suites."""
    from fipbench import registry

    if suite is not None and suite not in registry.SUITES:
        raise unknown("suite", suite, registry.SUITES)
    if what == "tasks":
        tasks = [task for task in registry.task_heads() if suite in (None, *task.suites)]
        width = max((len(task.name) for task in tasks), default=0)
        for task in tasks:
            print(f"{task.name:{width}} {task.track:12} {','.join(task.suites):12} {task.title}")
    elif what == "suites":
        for name, meaning in registry.SUITES.items():
            print(f"{name:10} {meaning}")
    elif what == "methods":
        _list_methods([str(p) for p in plugin or []], check)
    else:
        raise UserError(f"list {what}: expected tasks, methods or suites")


def _list_methods(plugins: list[str], check: bool) -> None:
    from fipbench import registry

    broken, sound = 0, []
    for file in plugins:
        try:
            registry.plugin_methods(file)
            sound.append(file)
        except UserError as error:
            broken += 1
            print(f"{Path(file).name:28} {'plugin':12} BROKEN: {error}")
    found = {track: registry.find_methods(track, sound) for track in registry.TRACKS}
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


def show(
    task: Annotated[str, typer.Argument(help="A task's name or TOML file.", autocompletion=task_names)],
    plugin: Plugins = None,
) -> None:
    """Show a task in full, with its methods' settings."""
    import msgspec
    import tomli_w

    from fipbench import plan, registry

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
    return {key: value for key, value in below.items() if value not in (None, "", {}, [], ())}


def doctor() -> None:
    """Check that this installation can run the suite."""
    from fipbench import doctor as checks

    if not checks.report(print):
        raise typer.Exit(1)
