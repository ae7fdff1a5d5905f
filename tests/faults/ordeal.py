"""What the fault tests share: how long they go on, a small run, and who belongs to it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from nursery import Run
from workbench import alive, gone

from fipbench import store
from fipbench.spec import Record, equal

KILLS = int(os.environ.get("FIPBENCH_SOAK", "4"))  # `make soak` asks for more
INPUTS = int(os.environ.get("FIPBENCH_FUZZ", "300"))  # `make fuzz` asks for more


def family(pid: int) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The servers of a run, each of which leads a session, and their jobs, as of now."""
    servers: list[psutil.Process] = []
    jobs: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(child.pid) == child.pid:
                    servers.append(child)
                    jobs += child.children()
    return servers, jobs


def whole(folder: Path) -> list[Record]:
    """The records of a store in which every file that is called a record is one, by id."""
    records, problems = store.read(folder)
    assert not problems, problems
    return sorted(records, key=lambda record: record.id)


def assert_same(found: list[Record], wanted: list[Record]) -> None:
    """Equal by the rule of `spec.equal`, one for one."""
    assert [record.id for record in found] == [record.id for record in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert equal(one, other), one.id


# --------------------------------------------------------------------------------------------------- kills

# Jobs and servers die more often than all: their deaths need no new start.
VICTIMS = {"job": 6, "server": 2, "run": 3, "everything": 2}
A_ROUND = 12  # kills before a store must come to its end


def soak(
    start: Callable[[Path], Run], wanted: list[Record], kills: int, pause: float, folder: Path, draw: random.Random
) -> str:
    """Kill runs `kills` times, at random moments `pause` seconds apart in the mean, each kind of victim at least once.

    Args:
        start: starts a run that makes the store `FOLDER/results`, or goes on with it.
        wanted: the records that every one of the stores must hold when its runs have come to their end.

    Returns:
        What was done, in one line.
    """
    kinds = draw.sample(list(VICTIMS), len(VICTIMS))
    kinds += draw.choices(list(VICTIMS), weights=list(VICTIMS.values()), k=max(0, kills - len(kinds)))
    killed: Counter[str] = Counter()
    stores = runs = 0
    while kinds and stores < 3 * kills + 20:
        todo, kinds = kinds[:A_ROUND], kinds[A_ROUND:]
        place = folder / str(stores)
        place.mkdir()
        runs += _disturbed(start, place, todo, killed, pause, draw)
        assert_same(whole(place / "results"), wanted)
        if todo:  # it was done before it was disturbed as often as planned
            kinds, pause = [*todo, *kinds], 0.7 * pause
        stores += 1
    assert killed.total() >= kills, kinds
    each = ", ".join(f"{count} of {kind}" for kind, count in sorted(killed.items()))
    return f"{killed.total()} kills ({each}) in {runs} runs over {stores} stores of {len(wanted)} records, all equal"


def _disturbed(
    start: Callable[[Path], Run], folder: Path, todo: list[str], killed: Counter[str], pause: float, draw: random.Random
) -> int:
    """One store, from nothing to its end, killed on the way as `todo` says, which is used up; how many runs it took."""
    for count in range(1, 4 * len(todo) + 5):
        run, relatives = start(folder), []
        while run.poll() is None:
            wait = time.monotonic() + draw.expovariate(1 / pause)
            while run.poll() is None and time.monotonic() < wait:
                time.sleep(min(0.005, pause / 5))
            relatives += [member for group in family(run.pid) for member in group]
            if todo and run.poll() is None and kill(todo[0], run.pid, draw):
                killed[todo.pop(0)] += 1
        assert gone(relatives), [member for member in relatives if alive(member)]
        if (folder / "results").exists():
            whole(folder / "results")
        assert "Traceback" not in run.said and run.code in (0, 1, 2, -signal.SIGKILL), run.said
        if run.code == 2:
            assert "died four times" in run.said
        if run.code == 0:
            return count
    raise AssertionError(f"never came to its end; {todo} left")


def kill(kind: str, pid: int, draw: random.Random) -> bool:
    """Kill what `kind` says of the run, if that is there; whether it was."""
    servers, jobs = family(pid)
    chosen = {
        "job": [draw.choice(jobs)] if jobs else [],
        "server": servers,
        "run": [psutil.Process(pid)],
        "everything": [psutil.Process(pid), *servers, *jobs],
    }[kind]
    draw.shuffle(chosen)
    died = 0
    for process in chosen:
        with contextlib.suppress(psutil.NoSuchProcess):
            if alive(process):
                process.send_signal(signal.SIGKILL)
                died += 1
    return died > 0
