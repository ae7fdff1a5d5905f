"""The process that starts jobs: `python -m fipbench.executors.server MODE PRELOAD...`.

It reads tickets as JSON lines from standard input and writes events as JSON lines to standard output. In mode
`fork` it has the libraries loaded and forks for each job, so that a job pays no import; in mode `spawn` (where
CUDA is in use, which does not survive a fork) each job is a new interpreter. It stays single-threaded, holds no
state but its children, and kills them when its input ends, which it does when its parent dies. PRELOAD are modules,
or `module:function` to call. A line that begins with KILL names a job to be killed, with all its processes.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from fipbench.spec import Ticket, id_of

KILL = b"kill "


def main() -> None:
    """Serve until standard input ends."""
    mode, preload = sys.argv[1], sys.argv[2:]
    events = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no event
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in preload if mode == "fork" else ():
        module, _, function = name.partition(":")
        found = importlib.import_module(module)
        if function:
            getattr(found, function)()
    _emit(events, {"event": "ready"})
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    running: dict[int, str] = {}
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    continue
                chunk = os.read(0, 1 << 20)
                if not chunk:
                    _kill(running)
                    return
                *lines, waiting = (waiting + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(KILL):
                        wanted = line.removeprefix(KILL).decode()
                        _kill(pid for pid, name in running.items() if name == wanted)
                        continue
                    identity = id_of(msgspec.json.decode(line, type=Ticket).job)
                    start = _fork if mode == "fork" else _spawn
                    running[start(line, events, (wake_read, wake_write))] = identity
            _reap(running, events)


def _reap(running: dict[int, str], events: int) -> None:
    while running:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in running:
            code = os.waitstatus_to_exitcode(status)
            _emit(events, {"event": "exit", "id": running.pop(pid), "code": code})


def _kill(jobs: Iterable[int]) -> None:
    """Kill jobs and what they started: each leads a process group, and none of them has been reaped yet."""
    for pid in jobs:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _fork(line: bytes, events: int, inherited: tuple[int, ...]) -> int:
    server, pid = os.getpid(), os.fork()
    with contextlib.suppress(OSError):  # by both, so that it is so for whoever is first
        os.setpgid(pid, 0)
    if pid:
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in inherited:
            os.close(fd)
        code = work(line, events, server)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _spawn(line: bytes, events: int, inherited: tuple[int, ...]) -> int:
    command = [sys.executable, "-P", "-m", "fipbench.executors.job", str(events)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(events,), process_group=0)
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.close()
    process.returncode = 0  # reaped by _reap, not by Popen
    return process.pid


def work(line: bytes, events: int, server: int) -> int:
    """Run the job of a ticket in this process; its prints go to a log beside the records. Returns the exit code.

    Args:
        server: the process that started this one, and which this one shall not outlive.
    """
    from fipbench import worker

    ticket = msgspec.json.decode(line, type=Ticket)
    _die_with(server)
    keep_memory()
    log = Path(ticket.results) / "logs" / f"{id_of(ticket.job)}.log"
    _redirect(log)
    code = worker.run_and_store(ticket, lambda event: _emit(events, event))
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()
    return code


def _redirect(log: Path) -> None:
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        log.parent.mkdir(exist_ok=True)
        target = open(log, "wb")  # noqa: SIM115 (stays open as 1 and 2)
    except OSError:
        target = open(os.devnull, "wb")  # noqa: SIM115
    os.dup2(target.fileno(), 1)
    os.dup2(target.fileno(), 2)


def _die_with(server: int) -> None:
    """On Linux the kernel kills this process when the server dies; elsewhere it finishes its job."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != server:  # it has died already
            os._exit(70)


def keep_memory() -> None:
    """Freed memory stays with this process, where the C library is glibc. That gives arrays of over 32 MB back to the
    kernel, and asks for them anew, page by page, in every step of training a network with layers of that size."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError):  # another C library
            trim_threshold, mmap_max = -1, -4
            ctypes.CDLL(None).mallopt(mmap_max, 0)
            ctypes.CDLL(None).mallopt(trim_threshold, 2**31 - 1)


def _emit(events: int, event: dict[str, Any]) -> None:
    # Lines below PIPE_BUF are written whole, so the jobs may share the pipe.
    text = {k: v[:400] if isinstance(v, str) else v for k, v in event.items()}
    with contextlib.suppress(BrokenPipeError):
        os.write(events, msgspec.json.encode(text) + b"\n")


if __name__ == "__main__":
    main()
