"""The processes that jobs run in."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec
import pytest

from fipbench import api, plan, store, worker
from fipbench.errors import UserError
from fipbench.executors import choice, local
from fipbench.spec import id_of


@pytest.fixture
def tickets(tiny):
    return plan.tickets(api.request(str(tiny()), methods=["magnitude"], seeds=2))


def test_a_limit_beyond_what_the_system_waits_for():
    """poll takes milliseconds as an int, that is 24 days."""
    command = [sys.executable, "-c", """print('{"event":"exit","id":"a","code":0}')"""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as server:
        events = list(local._events(server, {"a": time.monotonic() + 1e10}, set()))
    assert events == [{"event": "exit", "id": "a", "code": 0}]


def test_a_reason_that_json_cannot_hold_is_recorded_all_the_same(tickets):
    record = worker.crashed(tickets[0], OSError("no file caf\udce9"))
    assert store.parse(store.encode(record)).error.message == "no file caf\\udce9"


def test_in_an_interpreter_of_its_own(tickets, results):
    """The mode for CUDA, which does not survive a fork; here on a CPU."""
    line = msgspec.json.encode(tickets[0]) + b"\n"
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "fipbench.executors.server", "spawn"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with server:
        assert json.loads(server.stdout.readline()) == {"event": "ready"}
        server.stdin.write(line)
        server.stdin.flush()
        events = []
        while not events or events[-1]["event"] != "exit":
            events.append(json.loads(server.stdout.readline()))
        server.stdin.close()
        assert server.wait(timeout=10) == 0
    identity = id_of(tickets[0].job)
    assert events[-1] == {"event": "exit", "id": identity, "code": 0}
    assert {event["id"] for event in events} == {identity}
    assert "progress" in {event["event"] for event in events}
    assert store.get(results, identity).status == "ok"


def test_jobs_that_cannot_be_started_at_all(tickets, monkeypatch, capfd):
    monkeypatch.setattr(local, "preload", lambda track, model, imported: ["no_such_library"])
    with pytest.raises(UserError, match=r"died four times.*fipbench doctor"):
        list(local.execute(tickets, 2, lambda event: None))
    assert "No module named 'no_such_library'" in capfd.readouterr().err


def test_nothing_to_do_starts_nothing(monkeypatch):
    monkeypatch.setattr(local, "_start", lambda tickets: pytest.fail("started"))
    assert list(local.execute([], 2, lambda event: None)) == []


def test_a_worker_for_every_core(tickets, monkeypatch):
    monkeypatch.setattr(choice.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert choice.default_workers(tickets) == 8
    threads = [msgspec.structs.replace(t, job=msgspec.structs.replace(t.job, threads=3)) for t in tickets]
    assert choice.default_workers(threads) == 2
    cuda = [msgspec.structs.replace(t, job=msgspec.structs.replace(t.job, device="cuda")) for t in tickets]
    assert choice.default_workers(cuda) == 1


def test_events_are_whole_lines(tmp_path):
    """However long a text is, what shares the pipe stays readable: a line is below PIPE_BUF."""
    import os

    from fipbench.executors import server

    read, write = os.pipe()
    server._emit(write, {"event": "progress", "id": "é" * 80, "text": "\x01é" * 5000, "share": 0.5})
    line = os.read(read, 1 << 20)
    os.close(read)
    assert line.endswith(b"\n") and len(line) < 4096
    assert json.loads(line)["share"] == 0.5
    server._emit(write, {"event": "ready"})  # nobody reads any more: no harm
    os.close(write)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_job_keeps_its_memory_from_step_to_step():
    # 48 MB, eight times: a fault for each of 93,750 pages of 4 kB, where every array is new to the kernel. The first
    # few are new to a heap that has no room for them yet.
    code = (
        "import resource, torch\n"
        "from fipbench.executors import server\n"
        "server.keep_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(30): torch.ones(12_000_000)\n"
        "before = faults()\n"
        "for _ in range(8): torch.ones(12_000_000)\n"
        "print(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24_000
