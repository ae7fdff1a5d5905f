"""Finds tasks (TOML files) and methods (entry points, plugin files) without importing more than it must."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from fipbench.code import code_digest
from fipbench.errors import UserError, unknown
from fipbench.methods import TRACKS, Mark
from fipbench.protocol import SUITES as SUITES
from fipbench.protocol import check_names, not_storable, problems
from fipbench.reading import convert, read_toml
from fipbench.spec import TASK_TYPES, Data, Method, Name, Task, Tuned, storable, valid_name

# ---------------------------------------------------------------------------------------------- tasks


def task_files() -> dict[str, Path]:
    """Name and file of every task that is installed."""
    folder = Path(str(files("fipbench.tasks")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


class Head(msgspec.Struct, frozen=True):
    """What a list shows of a task."""

    name: Name
    title: str
    track: Name
    suites: tuple[Name, ...]


def task_heads() -> Iterator[Head]:
    """The heads of all installed tasks; the rest of their files is not looked at.

    Raises:
        UserError: a file is no TOML, or its head breaks the schema.
    """
    read = cache(read_toml)  # for this list alone: a task that others extend is read once
    for name, path in task_files().items():
        yield convert({**_inherited(path, read=read), "name": name}, Head, path)


def read_task(name_or_file: str) -> Task:
    """The task of that name, or in that TOML file.

    Raises:
        UserError: no such task, or the file breaks the schema (names file, field and what was expected).
    """
    if name_or_file.endswith(".toml"):
        path = Path(name_or_file)
        if not path.is_file():
            raise UserError(f"{path}: no such task file")
    else:
        known = task_files()
        if name_or_file not in known:
            raise unknown("task", name_or_file, known)
        path = known[name_or_file]
    content = _inherited(path)
    if isinstance(content.get("data"), str):
        content["data"] = _data_source(path, content["data"])
    elif isinstance(content.get("data"), list):
        content["data"] = [_data_source(path, d) if isinstance(d, str) else d for d in content["data"]]
    _cut_into_tasks(content)
    kind = TASK_TYPES.get(str(content.get("track")))
    if kind is None:
        raise UserError(f"{path}: field 'track': expected one of {', '.join(TASK_TYPES)}")
    if not valid_name(path.stem):
        raise UserError(f"{path}: a task's file name may hold lower-case letters, digits and hyphens only")
    content["name"] = path.stem
    found, content["selection"] = _tuned(path, content)
    own = content.get("methods", {})
    if not isinstance(own, dict):
        raise UserError(f"{path}: field 'methods': expected a table")
    content["searched"] = sorted(found.keys() - own.keys())
    content["methods"] = {**found, **own}
    if odd := not_storable(content):
        raise UserError(f"{path}: field '{odd}': expected a finite number")
    task = convert(content, kind, path)
    check_names(task, path)
    for field, problem in problems(task):
        raise UserError(f"{path}: field '{field}': {problem}")
    return task


# What a task has of its own: results of a search and published numbers are not those of another protocol.
_OWN = ("tuned", "published", "claims", "suites")


def _inherited(
    path: Path, heirs: tuple[Path, ...] = (), read: Callable[[Path], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A task file's content over that of the task that it `extends`, tables field by field; files by `read`.

    Raises:
        UserError: no such task, or one that extends itself.
    """
    content = dict((read or read_toml)(path))
    if "extends" not in content:
        return content
    name = str(content.pop("extends"))
    beside = path.parent / f"{name}.toml"
    parent = beside if valid_name(name) and beside.is_file() else task_files().get(name)
    if parent is None:
        raise unknown("task", name, task_files(), where=f"in {path}, field 'extends'")
    if parent.resolve() in (path.resolve(), *heirs):
        raise UserError(f"{path}: field 'extends': '{name}' extends this task in turn")
    found = _inherited(parent, (path.resolve(), *heirs), read)
    merged = {key: value for key, value in found.items() if key not in _OWN}
    for key, value in content.items():
        known = merged.get(key)
        tables = isinstance(known, dict) and isinstance(value, dict) and key != "data"
        merged[key] = {**known, **value} if tables and known is not None else value
    return merged


def _cut_into_tasks(content: dict[str, Any]) -> None:
    """`classes_per_task = K` of a stream is short for all the model's classes in numeric order, K at a time."""
    stream, model = content.get("stream"), content.get("model")
    if not isinstance(stream, dict) or not isinstance(model, dict):
        return
    size, outputs = stream.get("classes_per_task"), model.get("outputs")
    if not isinstance(size, int) or not isinstance(outputs, int) or size < 1 or outputs > 1_000_000:
        return
    if "classes" not in stream:
        rest = {key: value for key, value in stream.items() if key != "classes_per_task"}
        content["stream"] = {
            **rest,
            "classes": [list(range(k, min(k + size, outputs))) for k in range(0, outputs, size)],
        }


def _data_source(task_path: Path, name: str) -> dict[str, Any]:
    """A data set that several tasks share: `data/NAME.toml` beside the task, or beside the installed ones."""
    folders = [task_path.parent / "data", Path(str(files("fipbench.tasks"))) / "data"]
    for folder in folders:
        if valid_name(name) and (folder / f"{name}.toml").is_file():
            content = read_toml(folder / f"{name}.toml")
            convert(content, Data, folder / f"{name}.toml")
            content.pop("about", None)  # `fipbench.stock` reads it; records hold what decides them
            return content
    known = [path.stem for folder in folders for path in folder.glob("*.toml")]
    raise unknown("data set", name, known, where=f"in {task_path}")


def search_of(task: str) -> Tuned | None:
    """The file of settings that an installed task names, if it names one."""
    path = task_files()[task]
    named = read_task(task).tuned
    return convert(read_toml(path.parent / named), Tuned, path.parent / named) if named else None


def _tuned(task_path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings found by the common search, from the file that the task names, and how they were chosen."""
    if not (named := content.get("tuned")):
        return {}, "library defaults, or what the task sets; nothing was searched"
    path = task_path.parent / str(named)
    if not path.is_file():
        raise UserError(f"{task_path}: field 'tuned': no such file: {path}; `fipbench tune` writes one")
    found: Tuned = convert(read_toml(path), Tuned, path)
    how = found.search
    where = f" on {how.task}" if how.task != content["name"] else ""
    return {name: entry.params for name, entry in found.methods.items()}, (
        f"common search{where}: {how.trials} {how.law} trials a method (fewer where there are fewer settings), "
        f"{how.seeds} seed{'s' if how.seeds > 1 else ''} each, at {how.budget_epochs:g} "
        f"epoch{'s' if how.budget_epochs != 1 else ''}, best {how.objective} on "
        "validation examples cut from the training split"
        + (f"; of a method's {how.finalists} best that of the task's own budget" if how.finalists else "")
    )


# -------------------------------------------------------------------------------------------- methods


_NAMING = "a method's name may hold lower-case letters, digits, hyphens and pluses only, 60 at most"


@cache
def _entries() -> dict[str, dict[str, EntryPoint]]:
    found: dict[str, dict[str, EntryPoint]] = {}
    every = entry_points()  # goes through all distributions, so once
    for track in TRACKS:
        by_name: dict[str, EntryPoint] = {}
        for entry in every.select(group=f"fipbench.methods.{track}"):
            if not valid_name(entry.name):
                raise UserError(
                    f"entry point '{entry.name}' ({entry.value}): {_NAMING}; rename it or uninstall its package"
                )
            other = by_name.get(entry.name)
            if other is not None and other.value != entry.value:
                raise UserError(
                    f"two methods are called '{entry.name}' in track {track}: {other.value} and {entry.value}; "
                    "uninstall one of the packages or rename its entry point"
                )
            by_name[entry.name] = entry
        found[track] = dict(sorted(by_name.items()))
    return found


def method_names(track: str) -> list[str]:
    """Names of the installed methods of a track; imports none of them."""
    return list(_entries().get(track, {}))


def entry_origin(track: str, name: str) -> str:
    """The distribution that brings an installed method."""
    dist = _entries()[track][name].dist
    return dist.name if dist else "unknown"


_LIBRARY, _STRATEGIES = "avalanche", "fipbench.tracks.strategies"


def plain_name(name: str) -> str:
    """A method's name as records have it: `avalanche:ER_ACE`, a class of that library, is `avalanche-er-ace`."""
    library, colon, own = name.partition(":")
    return f"{library}-{own.lower().replace('_', '-')}" if colon and library == _LIBRARY else name


def of_library(track: str, name: str) -> bool:
    """Whether a plain name is that of a class of Avalanche, should it have one of that name."""
    return track == "continual" and name.startswith(f"{_LIBRARY}-") and valid_name(name)


def find_methods(track: str, plugins: Iterable[str] = (), named: Iterable[str] = ()) -> dict[str, str]:
    """Name and target of every method of a track: entry points, then the plugin files.

    Args:
        named: plain names; those of classes of Avalanche are found, too.

    Raises:
        UserError: a plugin file does not import, holds no method, or takes a name that is taken.
    """
    found = {name: entry.value for name, entry in _entries().get(track, {}).items()}
    for file in plugins:
        for name, mark in plugin_methods(file).items():
            if mark.track != track:
                continue
            target = f"{Path(file).absolute()}:{name}"
            if found.setdefault(name, target) != target:
                raise UserError(f"{file}: a method called '{name}' exists already ({found[name]}); rename yours")
    for name in named:
        if of_library(track, name):
            found.setdefault(name, f"{_STRATEGIES}:{name.removeprefix(f'{_LIBRARY}-')}")
    return found


def plugin_methods(file: str) -> dict[str, Mark]:
    """The methods in a plugin file: its marked factories, by name with hyphens.

    Raises:
        UserError: the file is not there, does not import (with the reason and line), or holds no method.
    """
    module = plugin_module(file)
    found: dict[str, Mark] = {}
    for name, value in vars(module).items():
        mark = getattr(value, "fipbench", None)
        if isinstance(mark, Mark) and getattr(value, "__module__", None) == module.__name__:
            found[_with_hyphens(name)] = mark
    if not found:
        raise UserError(f"{file}: holds no method; mark a factory with a decorator of fipbench.methods")
    for name in found:
        if not valid_name(name):
            raise UserError(f"{file}: method '{name}': {_NAMING}")
    return found


def _with_hyphens(name: str) -> str:
    return name.strip("_").replace("_", "-").lower()


def plugin_module(file: str) -> ModuleType:
    """The module of a plugin file, imported once.

    Raises:
        UserError: the file is not there, or does not import (with the reason and line).
    """
    return _plugin_module(str(Path(file).absolute()))


@cache
def _plugin_module(file: str) -> ModuleType:
    path = Path(file)
    if path.is_dir():
        inside = next(
            (one for one in sorted(path.glob("*.py")) if not one.name.startswith(("test_", "_"))), path / "NAME.py"
        )
        raise UserError(f"{file}: is a folder; name the file in it, as {inside}")
    if not path.is_file():
        raise UserError(f"{file}: no such plugin file")
    try:
        file.encode()
    except UnicodeEncodeError:  # jobs are told of it in JSON
        raise UserError(f"{file}: its name is not UTF-8; rename it") from None
    name = f"fipbench_plugin_{hashlib.sha256(file.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: not a Python file (expected NAME.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{file}: does not import: {one_line(error)}{_line_in(error, file)}") from None
    return module


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the first line of its message."""
    text = (error.msg if isinstance(error, SyntaxError) and error.lineno else str(error)).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _line_in(error: BaseException, file: str) -> str:
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    return f" (line {line})" if line else ""


def load_factory(target: str) -> Any:
    """The factory behind a target (`module:attribute` or `/path/file.py:name`).

    Raises:
        UserError: it does not import, is not there, or is not marked.
    """
    where, _, attribute = target.rpartition(":")
    if where.endswith(".py"):
        module: Any = _plugin_module(where)
        attribute = next((name for name in vars(module) if _with_hyphens(name) == attribute), attribute)
    else:
        try:
            module = importlib.import_module(where)
        except (Exception, SystemExit) as error:
            raise UserError(f"method '{target}' does not import: {one_line(error)}") from None
    factory = getattr(module, attribute, None)
    if not isinstance(getattr(factory, "fipbench", None), Mark):
        raise UserError(f"method '{target}': no factory of that name marked with a decorator of fipbench.methods")
    return factory


def load_method(track: str, name: str, target: str) -> Method:
    """Everything about a method but its work: imports its module.

    Raises:
        UserError: it does not load, or is marked for another track.
    """
    factory = load_factory(target)
    mark: Mark = factory.fipbench
    if mark.track != track:
        raise UserError(f"method '{name}' ({target}) is of track {mark.track}, not {track}")
    for parameter, default in mark.defaults.items():
        if not storable(default):
            raise UserError(f"method '{name}' ({target}): default of {name}.{parameter}: expected a finite number")
    where = target.rpartition(":")[0]
    from_file = where.endswith(".py")
    return Method(
        name=name,
        track=track,
        target=target,
        version=f"{mark.version}+{code_digest(where)}",
        defaults=mark.defaults,
        search={key: msgspec.to_builtins(law) for key, law in mark.search.items()},
        role=mark.role,
        settings=mark.settings,
        summary=mark.summary,
        required=mark.required,
        origin="plugin file" if from_file else entry_origin(track, name) if name in method_names(track) else where,
    )
