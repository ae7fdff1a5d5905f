"""A process that has imported everything once and forks runs of the program: a start takes milliseconds, not seconds.

`python nursery.py` reads requests as JSON lines and answers each with a line: `{"words", "environment", "said"}` is a
run, whose process it tells (what the run says goes to the file `said`), `{"poll": pid}` asks for a run's exit code.
A run is the program's own `main` in a process of its own; its server is forked from it, where the program starts a new
interpreter. Both are killed like any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from fipbench.spec import Ticket

HERE = Path(__file__).resolve().parent
PRELOAD = ["torch", "torch._dynamo", "safetensors.torch", "sklearn.datasets", "fipbench.tracks.sparsity"]
PRELOAD += ["fipbench.api", "fipbench.reports", "fipbench.worker", "fipbench.executors.server", "scipy.stats"]


class Forked:
    """What `fipbench.executors.local` uses of `subprocess.Popen`, for a server forked from this very process."""

    def __init__(self, command: list[str], *, env: dict[str, str], **_: Any) -> None:
        assert command[2:4] == ["-m", "fipbench.executors.server"], command
        ask_read, ask_write = os.pipe()
        say_read, say_write = os.pipe()
        self.code: int | None = None
        sys.stdout.flush()  # or both would say it
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.dup2(ask_read, 0)
            os.dup2(say_write, 1)
            for fd in (ask_read, ask_write, say_read, say_write):
                os.close(fd)
            os.environ.update(env)
            sys.stdout, sys.stderr = io.TextIOWrapper(open(1, "wb", 0)), io.TextIOWrapper(open(2, "wb", 0))  # noqa: SIM115
            _leave(lambda: _serve(command[4:]))
        os.close(ask_read)
        os.close(say_write)
        self.stdin, self.stdout = os.fdopen(ask_write, "wb"), os.fdopen(say_read, "rb")

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise subprocess.TimeoutExpired("server", timeout or 0)
            else:
                time.sleep(0.002)
        return self.code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _serve(arguments: list[str]) -> None:
    from fipbench.executors import server

    sys.argv = ["server", *arguments]
    server.main()


def _leave(work: Any) -> None:
    """Do it, and end this process, whatever comes of it."""
    code = 70
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(ask: dict[str, Any]) -> None:
    from fipbench import cli
    from fipbench.executors import local

    os.setsid()
    said = os.open(ask["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(ask["environment"])
    if size := ask.get("file_size"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if ask.get("bound"):
        be_bound()
    local.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )
    if "tickets" in ask:
        _stand_ins(ask)
    else:
        sys.argv = ["fipbench", *ask["words"]]
        cli.main()


def _stand_ins(ask: dict[str, Any]) -> None:
    """A run of the jobs in the file `tickets`, computed by `stand_in.run`; exit codes as the program's."""
    import msgspec
    import stand_in

    from fipbench import api, worker
    from fipbench.errors import UserError
    from fipbench.executors import local
    from fipbench.spec import Ticket

    worker.run = stand_in.run
    local.preload = lambda *_: []
    local.imports_of = lambda _: set()
    tickets = [msgspec.json.decode(line, type=Ticket) for line in Path(ask["tickets"]).read_bytes().splitlines()]
    try:
        result = api.execute(tickets, workers=ask["workers"], timeout=ask.get("timeout"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{result.computed} computed, {len(result.failed)} failed")
    sys.exit(bool(result.failed))


def be_bound() -> None:
    """Bound by the modes of files and folders from here on, as a user is; root is not (Linux: CAP_DAC_OVERRIDE)."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert library.capget(head, sets) == 0, ctypes.get_errno()
    for number in (0, 1):  # effective, permitted
        sets[number] &= ~(1 << 1)
    assert library.capset(head, sets) == 0, ctypes.get_errno()


def main() -> None:
    """Serve until standard input ends."""
    import importlib

    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        ask = json.loads(line)
        if "poll" in ask:
            pid, status = os.waitpid(ask["poll"], os.WNOHANG)
            answer: Any = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                _leave(lambda ask=ask: _run(ask))
        print(json.dumps(answer), flush=True)


class Nursery:
    """The process, from outside."""

    def __init__(self, *preload: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")])
        )
        command = [sys.executable, "-P", __file__, *preload]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.count = 0

    def ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, folder: Path, *words: object, **limits: Any) -> Run:
        """A run of the program with a cache of its own in `folder`.

        Args:
            limits: `file_size`, in bytes, beyond which no file may grow; `bound`, see `be_bound`.
        """
        self.count += 1
        said = folder / f"said-{self.count}"
        environment = {"FIPBENCH_CACHE": str(folder / "cache")}
        request = {"words": [str(word) for word in words], "environment": environment, "said": str(said)}
        return Run(self, self.ask(request | limits), said)

    def start_stand_ins(
        self, folder: Path, tickets: Sequence[Ticket], workers: int, timeout: float | None = None
    ) -> Run:
        """A run of these jobs, see `stand_in`."""
        self.count += 1
        file, said = folder / f"tickets-{self.count}", folder / f"said-{self.count}"
        file.write_bytes(b"\n".join(map(msgspec.json.encode, tickets)))
        request = {"tickets": str(file), "workers": workers, "timeout": timeout, "said": str(said), "environment": {}}
        return Run(self, self.ask(request), said)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


class Run:
    """A run: its process, whether it has ended, and what it said."""

    def __init__(self, nursery: Nursery, pid: int, said: Path) -> None:
        self.nursery, self.pid, self.file, self.code = nursery, pid, said, None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.nursery.ask({"poll": self.pid})
        return self.code

    def wait(self, timeout: float = 600) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < end, self.said
            time.sleep(0.02)
        return code

    @property
    def said(self) -> str:
        return self.file.read_text() if self.file.exists() else ""  # killed before it could say a word


if __name__ == "__main__":
    main()
