"""`fipbench data`: what tasks need besides code, and how a machine without network gets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fipbench.cli.options import task_names
from fipbench.errors import UserError

if TYPE_CHECKING:
    from fipbench.stock import Entry, State

app = typer.Typer(help="Data sets and weights: list, fetch, verify, export.", rich_markup_mode=None)

Tasks = Annotated[
    list[str] | None,
    typer.Argument(
        help="Task names, TOML files, or 'all' of --suite (default: every task there is).",
        metavar="[TASK]",
        autocompletion=task_names,
    ),
]
Suite = Annotated[str | None, typer.Option(help="quick | standard | paper | calibration: its tasks.")]


@app.command("list")
def list_(tasks: Tasks = None, suite: Suite = None) -> None:
    """What is needed, what is there, how large, under which licence."""
    from fipbench import stock

    entries, cache = _entries(tasks, suite), _cache()
    missing = []
    for entry in entries:
        found = stock.state(entry, cache)
        missing += [entry] if found.place == "missing" else []
        print("\n".join(_described(entry, found)))
    local = [entry.name for entry in missing if not stock.on_hub(entry)]
    print(
        f"{len(entries)} needed, {len(missing)} missing"
        + ("; `fipbench data fetch` gets them" if len(missing) > len(local) else "")
        + (f"; no hub has {', '.join(local)}, a mirror has to bring it" if local else "")
    )


@app.command()
def fetch(tasks: Tasks = None, suite: Suite = None) -> None:
    """Get what tasks need into the cache, unless it is there."""
    from fipbench import stock
    from fipbench.cache import writable

    if not tasks and not suite:
        raise UserError("data fetch: name tasks or a --suite; `fipbench data list` says what they need")
    cache = writable(_cache(), "name another with FIPBENCH_CACHE")
    failed = []
    for entry in (entries := _entries(tasks, suite)):
        try:
            print(f"{entry.name:44} {stock.fetch(entry, cache)}", flush=True)
        except UserError as error:
            failed.append((entry, error))
            print(f"{entry.name:44} failed", flush=True)
    if failed:
        others = ", ".join(entry.name for entry, _ in failed[1:])
        raise UserError(
            f"{len(failed)} of {len(entries)} could not be fetched: {failed[0][1]}" + (f"; nor {others}" * bool(others))
        )


@app.command()
def verify(tasks: Tasks = None, suite: Suite = None) -> None:
    """Decode what is there and compare it with the known digests.

    Exit code 0: all that is there is known, 1: some differs, 2: nothing could be checked.
    """
    from fipbench import stock
    from fipbench.cache import writable

    cache = writable(_cache(), "name another with FIPBENCH_CACHE")
    verdicts = []
    for entry in _entries(tasks, suite):
        check = stock.verify(entry, cache)
        verdicts.append(check.verdict)
        print(f"{check.verdict:8} {entry.name:44} {check.text}", flush=True)
    print(", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("known", "differs", "cannot")))
    if "differs" in verdicts:
        raise typer.Exit(1)
    if "known" not in verdicts:
        raise UserError("data verify: nothing could be checked; see above why")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The mirror's folder; made if it is not there.", metavar="DIR")],
    tasks: Tasks = None,
    suite: Suite = None,
) -> None:
    """Lay out what is there as a mirror, for a machine without network.

    Nothing is downloaded, nothing in DIR overwritten, nothing written elsewhere.
    """
    from fipbench import mirror, stock
    from fipbench.cache import expanded
    from fipbench.spec import Model

    cache, entries = _cache(), _entries(tasks, suite)
    root = expanded(folder).absolute()
    results = []
    for entry in entries:
        done = mirror.export(entry, root, cache)
        results.append((entry, done))
        size = f", {_size(done.bytes)}" if done.bytes else ""
        print(f"{done.verdict:8} {entry.name:44} {done.text}{size}; licence: {_licence(entry)}", flush=True)
    laid = [entry for entry, done in results if done.verdict in ("written", "there")]
    if any(not isinstance(entry.source, Model) for entry in laid):
        print(f"FIPBENCH_DATA={root}")
    if any(isinstance(entry.source, Model) for entry in laid):
        print(f"FIPBENCH_MODELS={root / mirror.MODELS}")
    refused = [done.text for _, done in results if done.verdict == "refused"]
    missing = [entry for entry, done in results if done.verdict == "missing"]
    if refused:
        more = f"; and {len(refused) - 1} more, see above" if len(refused) > 1 else ""
        raise UserError(f"{len(refused)} of {len(results)} not laid out: {refused[0]}{more}")
    if missing and (tasks or suite):
        names = ", ".join(entry.name for entry in missing)
        way = "`fipbench data fetch` gets them" if all(map(stock.on_hub, missing)) else "see above what gets them"
        raise UserError(f"{folder}: lacks {names}; {way}, then export again")


def _entries(tasks: list[str] | None, suite: str | None) -> list[Entry]:
    """What the named tasks need, or the suite's, or all there are."""
    from fipbench import plan, registry, stock

    names = tasks or (["all"] if suite else list(registry.task_files()))
    return stock.needed(
        plan.chosen_tasks(names, suite), [Path(name).parent for name in names if name.endswith(".toml")]
    )


def _cache() -> Path:
    from fipbench.cache import cache_dir

    return cache_dir()


def _described(entry: Entry, found: State) -> list[str]:
    """An entry's lines in the list."""
    from fipbench import stock

    known = found.place != "missing"
    size = found.bytes if known else entry.about.bytes or 0
    examples = found.examples if known else entry.about.examples or {}
    facts = [
        stock.where(found) + ("" if known or stock.on_hub(entry) else f"; {stock.remedy(entry)}"),
        *([_size(size)] if size else []),
        *([" + ".join(f"{count:,}" for count in examples.values()) + " examples"] if examples else []),
    ]
    lines = [entry.name, f"    {', '.join(facts)}", f"    licence: {_licence(entry)}"]
    if found.problem:
        lines.append(f"    problem: {found.problem}")
    for label, digests in entry.variants.items():
        said = ", ".join(f"{what} {value[:12]}" for what, value in digests.items())
        lines.append(f"    variant {label}: {said}" + (" (this one is here)" if label == found.variant else ""))
    if known and not found.variant:
        lines.append("    which variant is here was not looked at yet: `fipbench data verify`")
    elif known and found.variant not in entry.variants:
        lines.append("    what is here is none of these")
    return [*lines, f"    for {', '.join(entry.tasks)}"]


def _licence(entry: Entry) -> str:
    return entry.about.licence + (f" ({entry.about.note})" if entry.about.note else "")


def _size(count: int) -> str:
    """Bytes as a person reads them."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
