"""What the tests of clusters share: jobs that are stand-ins, a run in a thread, waiting."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fipbench.spec import Record, Ticket

HERE = Path(__file__).parent
FOLDERS = (HERE / "stand_ins", HERE.parent / "faults", HERE.parent)
sys.path.append(str(HERE.parent / "faults"))
PATH = os.pathsep.join([*map(str, FOLDERS), *filter(None, [os.environ.get("PYTHONPATH")])])


def tickets(
    folder: Path, jobs: list[tuple[str, int]], threads: int = 1, device: str = "cpu", **params: Any
) -> list[Ticket]:
    """Tickets of stand-in jobs (method, seed) whose records go to `folder/results`; each says that it was computed."""
    import stand_in

    (folder / "results").mkdir(exist_ok=True)
    given = {"folder": str(folder), "counted": str(folder / "computed"), **params}
    made = stand_in.tickets(folder / "results", jobs, **given)
    jobs_ = [msgspec.structs.replace(t.job, threads=threads, device=device) for t in made]
    return [msgspec.structs.replace(t, job=job) for t, job in zip(made, jobs_, strict=True)]


class Running:
    """A run in a thread of its own: the events it told, its records, what it raised."""

    def __init__(self, start: Callable[[Callable[[dict[str, Any]], None]], Iterator[Record]]) -> None:
        self.events: list[dict[str, Any]] = []
        self.records: list[Record] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(start,), daemon=True)
        self._thread.start()

    def _run(self, start: Any) -> None:
        try:
            for record in start(self.events.append):
                self.records.append(record)
        except BaseException as error:
            self.error = error

    def wait(self, seconds: float = 240) -> Running:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), self.events
        return self

    @property
    def notes(self) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == "note"]

    def until(self, said: Callable[[], Any], seconds: float = 240) -> None:
        """Wait until it is true; fail if the run has ended meanwhile."""
        end = time.monotonic() + seconds
        while not said():
            assert self._thread.is_alive(), (self.error, self.events)
            assert time.monotonic() < end, self.events
            time.sleep(0.05)
