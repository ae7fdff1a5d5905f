"""Tasks x methods x seeds -> tickets: what a run should hold, in full, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fipbench import data, registry
from fipbench.errors import UserError, unknown
from fipbench.provenance import provenance
from fipbench.spec import ContinualTask, Job, Method, Params, Task, Ticket, Value, canonical, storable, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS

SEEDS = {"quick": 10, "standard": 5, "paper": 5, "calibration": 3}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for; every field as on the command line. A dry run fetches no data.

    Attributes:
        elsewhere: jobs run on other machines, whose devices cannot be seen from here.
    """

    tasks: tuple[str, ...]
    results: Path
    cache: Path
    suite: str | None = None
    methods: tuple[str, ...] = ()
    seeds: int | None = None
    settings: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    device: str = "auto"
    elsewhere: bool = False
    allow_unknown_data: bool = False
    force: bool = False
    dry_run: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a task's board to be: a method with the parameters it shall have there."""

    label: str
    method: Method
    params: Params
    settings: str


def tickets(request: Request) -> list[Ticket]:
    """One ticket for every job that the request names, whether or not its record exists already.

    Raises:
        UserError: anything in the request that cannot be (unknown names, bad values, missing data, no CUDA).
    """
    tasks = chosen_tasks(request.tasks, request.suite)
    positive("--seeds", request.seeds)
    overrides = parse_settings(request.settings)
    rows = {task.name: task_rows(task, request.methods, overrides, request.plugins) for task in tasks}
    check_used(request.methods, overrides, rows, tasks, request.plugins)
    for task in tasks:
        _check_distinct(task, rows[task.name])
    device = choose_device(request.device, request.elsewhere)
    found: list[Ticket] = []
    facts = provenance()
    for task in tasks:
        variant, digests = contents(task, request.cache, request.allow_unknown_data, dry=request.dry_run)
        suite = request.suite or task.suites[0]
        # Method by method, so that jobs that run side by side train different base networks.
        for row in rows[task.name]:
            for seed in range(request.seeds or SEEDS[suite]):
                job = make_job(task, row, seed, suite, device, variant, digests)
                found.append(
                    Ticket(
                        job=job,
                        task=msgspec.to_builtins(task),
                        target=row.method.target,
                        results=str(request.results),
                        cache=str(request.cache),
                        force=request.force,
                        provenance=facts,
                    )
                )
    return found


def contents(task: Task, cache: Path, allow_unknown: bool = False, dry: bool = False) -> tuple[str, dict[str, str]]:
    """The variant of a task's data, and digests of all that its jobs start from: data, and pretrained weights.

    Args:
        dry: what is not at hand is taken to be what the task declares.

    Raises:
        UserError: something is not there or not what it should be.
    """
    variant, digests = data.identify_all(task.sources, cache, allow_unknown=allow_unknown, dry=dry)
    if not task.model.weights:
        return variant, digests
    if dry:
        return variant, {**digests, "weights": task.model.sha256 or "not looked at"}
    from fipbench.models.pretrained import weights_digest

    return variant, {**digests, "weights": weights_digest(task.model)}


def positive(option: str, value: int | None) -> None:
    """Raise UserError unless the option's value, if it was given, is at least one."""
    if value is not None and value < 1:
        raise UserError(f"{option}: expected a positive number, got {value}")


def make_job(
    task: Task,
    row: Row,
    seed: int,
    suite: str,
    device: str,
    variant: str,
    digests: dict[str, str],
    split: str = "test",
) -> Job:
    """The job of one row and seed."""
    return Job(
        task=task.name,
        task_version=task.version,
        task_digest=task_digest(task, PROTOCOL_VERSIONS[task.track]),
        track=task.track,
        method=row.method.name,
        method_version=row.method.version,
        params=row.params,
        seed=seed,
        suite=suite,
        device=device,
        split=split,
        threads=task.threads,
        data_variant=variant,
        data=digests,
        label=row.label,
        role=row.method.role,
        settings=row.settings,
    )


def chosen_tasks(names: Sequence[str], suite: str | None) -> list[Task]:
    """The named tasks, or with `all` every task of the suite (default: quick)."""
    if not names:
        raise UserError("name a task, or 'all'; `fipbench list tasks` shows what there is")
    if suite is not None and suite not in registry.SUITES:
        raise unknown("suite", suite, registry.SUITES)
    found: dict[str, Task] = {}
    for name in names:
        if name == "all":
            wanted = suite or "quick"
            every = [registry.read_task(n) for n in registry.task_files()]
            chosen = [task for task in every if wanted in task.suites]
        else:
            chosen = [registry.read_task(name)]
        for task in chosen:
            if suite is not None and suite not in task.suites:
                raise UserError(
                    f"task '{task.name}' is not in suite '{suite}' but in {', '.join(task.suites)}; drop --suite"
                )
            if found.setdefault(task.name, task) != task:
                raise UserError(f"{name}: another of the tasks is called '{task.name}', too; rename one of the files")
    if not found:
        raise UserError(f"suite '{suite}' has no tasks yet; `fipbench list tasks` shows what there is")
    return list(found.values())


def parse_settings(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """`METHOD.PARAM=VALUE` texts as {method: {parameter: value as text}}."""
    found: dict[str, dict[str, str]] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        method, dot, parameter = name.rpartition(".")
        if not (equals and dot and method and parameter):
            raise UserError(f"--set {text}: expected METHOD.PARAM=VALUE")
        found.setdefault(registry.plain_name(method), {})[parameter] = value
    return found


def task_rows(
    task: Task,
    wanted: Sequence[str] = (),
    overrides: Mapping[str, Mapping[str, str]] | None = None,
    plugins: Sequence[str] = (),
) -> list[Row]:
    """The rows of a task's board: every method of its track, its own variants, or those that are wanted.

    References come first, since others may be read against them. A task with published numbers is for the methods that
    have one; those that it is `without` are rows if they are wanted.
    """
    wanted = [registry.plain_name(name) for name in wanted or task.published or ()]
    bases = {label: registry.plain_name(str(params.get("use", label))) for label, params in task.methods.items()}
    targets = registry.find_methods(task.track, plugins, wanted)
    labels = {name: name for name in targets}
    targets = registry.find_methods(task.track, plugins, [*wanted, *bases.values()])
    for label, base in bases.items():
        if base not in targets:
            raise unknown(
                f"{task.track} method", base, targets, where=f"in task '{task.name}', field 'methods.{label}'"
            )
        labels[label] = base
    for name in task.without or ():
        if name not in labels:
            raise unknown(f"{task.track} method", name, labels, where=f"in task '{task.name}', field 'without'")
    rows = []
    for label, base in labels.items():
        if label not in wanted if wanted else label in (task.without or ()):
            continue
        method = registry.load_method(task.track, base, targets[base])
        # A variant takes what the task sets for its base and says where it differs.
        common = {name: value for name, value in task.common.items() if name in method.defaults}
        own = {**common, **task.methods.get(base, {}), **task.methods.get(label, {})}
        own.pop("use", None)
        for name in own:
            if name not in method.defaults:
                raise unknown("parameter", name, method.defaults, where=f"of '{base}' in task '{task.name}'")
        given = {
            name: _value(f"{label}.{name}", text, method.defaults)
            for name, text in (overrides or {}).get(label, {}).items()
        }
        fields = f"task '{task.name}', field 'methods.{label}"
        own = {name: _like(f"{fields}.{name}'", method.defaults[name], value) for name, value in own.items()}
        params = {**method.defaults, **own, **given}
        _check_required(label, method, {**own, **given})
        settings = "user" if given else ("tuned" if label in task.searched else "task" if own else method.settings)
        row = Row(label=label, method=method, params=params, settings=settings)
        rows += _with_memories(task, row, chosen="memory" in {**own, **given})
    for name in task.common:
        if not wanted and not any(name in row.method.defaults for row in rows):
            known = sorted({known for row in rows for known in row.method.defaults})
            raise unknown("parameter", name, known, where=f"in task '{task.name}', field 'common'")
    return sorted(rows, key=lambda row: row.method.role != "reference")


def _check_required(label: str, method: Method, chosen: Params) -> None:
    for name in method.required:
        if name not in chosen:
            needed = ", ".join(f"{one} ({type(method.defaults[one]).__name__})" for one in method.required)
            raise UserError(f"method '{label}' has no default for {needed}: give --set {label}.{name}=VALUE")


def _with_memories(task: Task, row: Row, *, chosen: bool) -> list[Row]:
    """A row for each memory that the task allows, where the method has one (and none is chosen for it)."""
    if not isinstance(task, ContinualTask) or "memory" not in row.method.defaults:
        return [row]
    if not chosen:
        return [msgspec.structs.replace(row, params={**row.params, "memory": m}) for m in task.memories]
    if row.params["memory"] not in task.memories:
        allowed = ", ".join(map(str, task.memories))
        raise UserError(f"{row.label}.memory={row.params['memory']}: task '{task.name}' allows {allowed}")
    return [row]


def _check_distinct(task: Task, rows: Sequence[Row]) -> None:
    """Rows of the same method with the same parameters would be the same jobs."""
    seen: dict[bytes, str] = {}
    for row in rows:
        other = seen.setdefault(canonical([row.method.name, row.params]), row.label)
        if other != row.label:
            raise UserError(
                f"task '{task.name}': '{other}' and '{row.label}' have the same parameters, so they are one; "
                "choose with --methods"
            )


def check_used(
    methods: Sequence[str],
    overrides: Mapping[str, Mapping[str, str]],
    rows: Mapping[str, Sequence[Row]],
    tasks: Sequence[Task],
    plugins: Sequence[str] = (),
) -> None:
    """Raise UserError unless every method that is named, or set a parameter of, has a row."""
    known = {row.label for task in rows.values() for row in task}
    tracks = {t: registry.method_names(t) for t in PROTOCOL_VERSIONS}
    for name in map(registry.plain_name, methods):
        if name in known:
            continue
        other = [track for track, names in tracks.items() if name in names or registry.of_library(track, name)]
        if other:
            raise UserError(f"method '{name}' is of track {other[0]}, which none of the tasks {', '.join(rows)} is")
        every = {n for task in tasks for n in (*registry.find_methods(task.track, plugins), *task.methods)}
        own = "" if plugins else " (one of your own needs --plugin FILE.py)"
        raise UserError(f"{unknown('method', name, every)}{own}")
    for name in overrides:
        if name not in known:
            raise unknown("method", name, known, where="in --set")


def _value(name: str, text: str, defaults: Params) -> Value:
    """A `--set` value in the type of the parameter's default."""
    label, _, parameter = name.rpartition(".")
    if parameter not in defaults:
        raise unknown("parameter", parameter, defaults, where=f"of '{label}' in --set")
    default = defaults[parameter]
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        value = type(default)(text)
        if not storable(value):
            raise ValueError
        return value
    except (ValueError, KeyError):
        expected = "true or false" if isinstance(default, bool) else f"{type(default).__name__}"
        raise UserError(f"--set {name}={text}: expected {expected}, as in the default {default!r}") from None


def _like(where: str, default: Value, value: Value) -> Value:
    """A task's value in the type of the parameter's default: TOML may write 1 for 1.0, and nothing else for another."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise UserError(f"{where}: expected {type(default).__name__}, as in the default {default!r}, got {value!r}")
    return value


def choose_device(asked: str, elsewhere: bool = False) -> str:
    """`cpu` or `cuda`, from what the user asked for and what is there.

    Args:
        elsewhere: jobs run on other machines: the user has to say which device, and is believed.

    Raises:
        UserError: another name, CUDA asked for and absent, or nothing asked for where it cannot be seen.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {asked}: expected auto, cpu or cuda")
    if elsewhere:
        if asked == "auto":
            raise UserError("--device auto: what the cluster's nodes have cannot be seen from here; say cpu or cuda")
        return asked
    # torch takes seconds to import: ask it only where there is a sign of a GPU, or the user wants one.
    if asked == "cpu" or (asked == "auto" and not Path("/dev/nvidiactl").exists()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu or auto")
    return "cpu"
