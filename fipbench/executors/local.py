"""Jobs on this machine, each in a process of its own, `workers` at a time."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fipbench import store, worker
from fipbench.code import imports_of
from fipbench.errors import UserError
from fipbench.executors.server import KILL
from fipbench.spec import Record, Ticket, id_of
from fipbench.tracks import preload

Watch = Callable[[dict[str, Any]], Any]
_LONGEST_WAIT_S = 3600.0


def execute(tickets: Sequence[Ticket], workers: int, watch: Watch, timeout: float | None = None) -> Iterator[Record]:
    """Run all tickets; yields each job's record as it finishes.

    Args:
        workers: jobs at a time.
        watch: takes the events `start`, `began`, `progress` (text, share) and `exit`, each with the job's id.
        timeout: seconds that a job may take from when it holds its lock. One that takes longer is killed, with the
            processes it started, and recorded as failed.

    Raises:
        UserError: the results folder stopped being writable, or jobs cannot be started at all; what is stored
            stays stored.
    """
    if not tickets:
        return
    todo = deque(tickets)
    running: dict[str, Ticket] = {}
    due: dict[str, float] = {}
    late: set[str] = set()
    attempts = 0
    while todo or running:
        server = _start(tickets)
        try:
            for _ in range(min(workers, len(todo))):
                _submit(server, todo.popleft(), running, watch)
            for event in _events(server, due, late):
                if event["event"] == "began" and timeout is not None:
                    due[event["id"]] = time.monotonic() + timeout
                elif event["event"] == "unwritable":
                    raise unwritable(tickets[0].results, event["text"])
                watch(event)
                if event["event"] != "exit":
                    continue
                due.pop(event["id"], None)
                limit = timeout if event["id"] in late else None
                yield _record(running.pop(event["id"]), event["code"], limit)
                if todo:
                    _submit(server, todo.popleft(), running, watch)
                elif not running:
                    return
            # The server itself died: its jobs died with it and are given to a new one.
            attempts += 1
            if attempts > 3:
                raise UserError("the process that starts jobs died four times; see above why, and `fipbench doctor`")
            todo.extendleft(reversed(running.values()))
            running.clear()
            due.clear()
            late.clear()
        finally:
            _stop(server)


def _start(tickets: Iterable[Ticket]) -> subprocess.Popen[bytes]:
    cuda = any(t.job.device != "cpu" for t in tickets)
    groups = {(t.job.track, str(t.task["model"]["name"]), t.target) for t in tickets}
    found = [name for track, model, target in sorted(groups) for name in preload(track, model, imports_of(target))]
    threads = str(max(t.job.threads for t in tickets))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",  # the order of a set is part of a computation
    }
    return subprocess.Popen(
        # -P: a file in the user's folder must not stand in for a library.
        [sys.executable, "-P", "-m", "fipbench.executors.server", "spawn" if cuda else "fork", *dict.fromkeys(found)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def _submit(server: subprocess.Popen[bytes], ticket: Ticket, running: dict[str, Ticket], watch: Watch) -> None:
    assert server.stdin is not None
    running[id_of(ticket.job)] = ticket
    _tell(server, msgspec.json.encode(ticket))
    watch({"event": "start", "id": id_of(ticket.job)})


def _tell(server: subprocess.Popen[bytes], line: bytes) -> None:
    assert server.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        server.stdin.write(line + b"\n")
        server.stdin.flush()


def _events(server: subprocess.Popen[bytes], due: dict[str, float], late: set[str]) -> Iterator[dict[str, Any]]:
    """The server's events as they come, until it ends.

    Args:
        due: when each job must be done (monotonic clock); one that is not is killed and put into `late`.
    """
    assert server.stdout is not None
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        while True:
            first = min(due.values(), default=math.inf)
            # No system waits for more than some weeks at a time.
            wait = None if math.isinf(first) else min(_LONGEST_WAIT_S, max(0.0, first - time.monotonic()))
            ready = selector.select(wait)
            for identity in [name for name, end in due.items() if end <= time.monotonic()]:
                late.add(identity)
                del due[identity]
                _tell(server, KILL + identity.encode())
            if not ready:
                continue
            chunk = os.read(server.stdout.fileno(), 1 << 16)
            if not chunk:
                return
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                event = msgspec.json.decode(line)
                if event["event"] != "ready":
                    yield event


def _record(ticket: Ticket, code: int, limit: float | None) -> Record:
    """What the job left in the store, or a record of how it died.

    Args:
        limit: the time it was killed after, if it was.
    """
    folder = Path(ticket.results)
    found = store.get(folder, id_of(ticket.job))
    if found is not None and (code == 0 or (found.status == "ok" and not ticket.force)):
        return found
    if limit is not None:
        how = f"no end within {limit:g} s (--timeout); the job's process and what it had started were killed"
        return kept(folder, worker.crashed(ticket, TimeoutError(how)))
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        how = f"the job's process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    else:
        how = f"the job's process ended with exit code {code} and left no record"
    return kept(folder, worker.crashed(ticket, RuntimeError(how)))


def kept(folder: Path, record: Record) -> Record:
    """The record of a job that died, stored unless another run computes that job just now, or has."""
    from filelock import Timeout

    try:
        with store.lock(folder, record.id).acquire(timeout=1):
            found = store.get(folder, record.id)
            if found is None or found.status != "ok":
                store.write(folder, record)
    except Timeout:  # an OSError, too
        pass
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    return record


def unwritable(folder: str | Path, why: str | None) -> UserError:
    return UserError(f"{folder}: cannot write here ({why}); make room or name another --results")


def _stop(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError, OSError):
        if server.stdin is not None:
            server.stdin.close()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout is not None:
        server.stdout.close()
