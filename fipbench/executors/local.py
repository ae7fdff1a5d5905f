"""Jobs on this machine, each in a process of its own, `workers` at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fipbench import store, worker
from fipbench.code import imports_of
from fipbench.errors import UserError
from fipbench.spec import Record, Ticket, id_of
from fipbench.tracks import preload

Watch = Callable[[dict[str, Any]], Any]


def execute(tickets: Sequence[Ticket], workers: int, watch: Watch) -> Iterator[Record]:
    """Run all tickets; yields each job's record as it finishes.

    Args:
        workers: jobs at a time.
        watch: takes the events `start`, `progress` (text, share) and `exit`, each with the job's id.

    Raises:
        UserError: the results folder stopped being writable, or jobs cannot be started at all; what is stored
            stays stored.
    """
    if not tickets:
        return
    todo = deque(tickets)
    running: dict[str, Ticket] = {}
    attempts = 0
    while todo or running:
        server = _start(tickets)
        try:
            for _ in range(min(workers, len(todo))):
                _submit(server, todo.popleft(), running, watch)
            for event in _events(server):
                if event["event"] == "unwritable":
                    folder = tickets[0].results
                    raise UserError(
                        f"{folder}: cannot write here ({event['text']}); make room or name another --results"
                    )
                watch(event)
                if event["event"] != "exit":
                    continue
                ticket = running.pop(event["id"])
                yield _record(ticket, event["code"])
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
    with contextlib.suppress(BrokenPipeError):
        server.stdin.write(msgspec.json.encode(ticket) + b"\n")
        server.stdin.flush()
    watch({"event": "start", "id": id_of(ticket.job)})


def _events(server: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert server.stdout is not None
    for line in server.stdout:
        event = msgspec.json.decode(line)
        if event["event"] != "ready":
            yield event


def _record(ticket: Ticket, code: int) -> Record:
    """What the job left in the store, or a record of how it died."""
    folder = Path(ticket.results)
    found = store.get(folder, id_of(ticket.job))
    if code == 0 and found is not None:
        return found
    if code < 0:
        name = signal.Signals(-code).name
        how = f"the job's process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    else:
        how = f"the job's process ended with exit code {code} and left no record"
    record = worker.crashed(ticket, how)
    if found is None or found.status != "ok":
        try:
            store.write(folder, record)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot write here ({error.strerror}); make room or name another --results"
            ) from None
    return record


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
