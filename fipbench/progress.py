"""Live progress of a run: a bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

Watch = Callable[[dict[str, Any]], None]


@contextmanager
def watching(out: TextIO) -> Iterator[Watch]:
    """A listener for a run's events that writes to `out`."""
    if out.isatty():
        with _bar(out) as watch:
            yield watch
    else:
        yield _lines(out)


class _Count:
    """Jobs done and due, and the time that the rest should take."""

    def __init__(self) -> None:
        self.due = self.done = self.failed = 0
        self.began = time.monotonic()

    def begin(self, due: int) -> None:
        self.due, self.done, self.failed, self.began = due, 0, 0, time.monotonic()

    def left(self) -> str:
        """Time left, from the jobs so far; empty until one is done."""
        if not self.done or self.done == self.due:
            return ""
        seconds = (time.monotonic() - self.began) / self.done * (self.due - self.done)
        return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


def _lines(out: TextIO) -> Watch:
    count = _Count()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "plan":
            count.begin(event["todo"])
            _warn(event)
            print(
                f"{event['todo']} job{'s' * (event['todo'] != 1)} to compute, {event['done']} in the store",
                file=out,
                flush=True,
            )
        elif event["event"] == "note":
            print(f"note: {event['text']}", file=sys.stderr, flush=True)
        elif event["event"] == "record":
            count.done += 1
            print(
                f"[{count.done}/{count.due}] {_outcome(event['record'])}  {count.left()}".rstrip(),
                file=out,
                flush=True,
            )

    return watch


def _warn(plan: dict[str, Any]) -> None:
    for text in plan["set_aside"]:
        print(f"warning: no valid record: {text}", file=sys.stderr, flush=True)


def _outcome(record: Any) -> str:
    what = record.status
    if record.error is not None:
        what = f"FAILED ({record.error.type}: {record.error.message[:120]})"
    job = record.job
    return f"{job.task} {job.label} seed {job.seed}: {what}, {record.cost.wall_s:.1f} s"


@contextmanager
def _bar(out: TextIO) -> Iterator[Watch]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    count = _Count()
    console = Console(file=out)
    with Progress(
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
    ) as progress:
        line = progress.add_task("planning", total=None)
        shares: dict[str, tuple[str, float]] = {}

        def describe() -> None:
            now = "; ".join(f"{_short(i)} {text} {share:.0%}" for i, (text, share) in list(shares.items())[:4])
            done = count.done + sum(share for _, share in shares.values())
            progress.update(line, completed=done, description=escape(f"{count.left()}  {now}".strip()))

        def watch(event: dict[str, Any]) -> None:
            kind = event["event"]
            if kind == "plan":
                count.begin(event["todo"])
                _warn(event)
                progress.update(line, total=event["todo"], completed=0)
            elif kind == "start":
                shares[event["id"]] = ("starting", 0.0)
            elif kind == "progress":
                shares[event["id"]] = (event["text"], event["share"])
            elif kind == "note":
                console.print(f"note: {event['text']}", markup=False, highlight=False)
            elif kind == "record":
                shares.pop(event["id"], None)
                count.done += 1
                if event["record"].error is not None:
                    console.print(_outcome(event["record"]), markup=False, highlight=False)
            describe()

        yield watch


def _short(identity: str) -> str:
    """`fip s3` for `task--fip--s3--digest`."""
    parts = identity.split("--")
    return " ".join(parts[1:3]) if len(parts) == 4 else identity
