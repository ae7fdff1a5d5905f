"""Jobs on a Ray cluster: one that is there, or one of this machine that lasts as long as the run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fipbench import worker
from fipbench.errors import UserError
from fipbench.executors import local, node
from fipbench.executors.node import Answer, Packet
from fipbench.executors.ray_driver import Setup
from fipbench.spec import Record, Ticket, id_of

_REMEDY = "start one (`ray start --head`), name another with --address, or leave --address and RAY_ADDRESS away"


def execute(
    tickets: Sequence[Ticket],
    workers: int | None,
    watch: local.Watch,
    timeout: float | None = None,
    *,
    address: str | None = None,
    gpu_bytes: dict[str, int] | None = None,
    patience: float = 60.0,
) -> Iterator[Record]:
    """Run all tickets; yields each job's record as it finishes.

    Args:
        workers: jobs at a time, at most (default: as many as CPUs and GPUs allow).
        watch: takes the events `start` (given to the cluster) with the job's id, and `note` with a text.
        timeout: as of `local`; counted on the node.
        address: `host:port` of the cluster's head, or `auto`; default: a new cluster of this machine.
        gpu_bytes, patience: see `ray_driver.Setup`.

    Raises:
        UserError: there is no such cluster or it is gone, no node can run a job, a node does not share the folders, or
            the results folder stopped being writable; what is stored stays stored.
    """
    if not tickets:
        return
    reachable(address)
    folder = Path(tickets[0].results)
    with node.marked(tickets) as marks:
        passed = node.environment()
        packets = tuple(Packet(ticket=t, timeout=timeout, environment=passed, marks=marks) for t in tickets)
        setup = Setup(
            address=address or "local", packets=packets, workers=workers, gpu_bytes=gpu_bytes or {}, patience=patience
        )
        log = folder / "logs" / "ray.log"
        driver = _start(setup, log)
        running = {id_of(ticket.job): ticket for ticket in tickets}
        noted: set[str] = set()
        try:
            for event in _events(driver):
                match event["event"]:
                    case "refused":
                        raise UserError(event["text"] + (f"; {_REMEDY}" if "no Ray cluster" in event["text"] else ""))
                    case "answer":
                        ticket = running.pop(event["id"])
                        answer = msgspec.json.decode(event["answer"], type=Answer)
                        if answer.record is None:
                            raise UserError(answer.refused)
                        if answer.note and answer.note not in noted:
                            noted.add(answer.note)
                            watch({"event": "note", "text": answer.note})
                        yield answer.record
                    case "lost":
                        ticket = running.pop(event["id"])
                        error = RuntimeError(f"the job's process {event['text']}")
                        yield local.kept(folder, worker.crashed(ticket, error))
                    case "end":
                        return
                    case _:
                        watch(event)
            which = f"the Ray cluster at {address}" if address else "the Ray cluster"
            raise UserError(
                f"{which} is gone (see {log}); what is finished is stored, the same command goes on from there"
            )
        finally:
            _stop(driver)


def reachable(address: str | None) -> None:
    """Raise UserError unless something listens at the address, where one is given that can be looked at."""
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UserError(f"--address {address}: expected host:port of the cluster's head, or auto")
    try:
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=10)):
            pass
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"no Ray cluster at {address}: {why}; {_REMEDY}") from None


def _start(setup: Setup, log: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
        "RAY_worker_niceness": "0",  # a job of a cluster of this machine has the rights of one of `local`
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # the nodes' own installation is used, none is made
    }
    environment.pop("RAY_ADDRESS", None)
    try:
        log.parent.mkdir(exist_ok=True)
        said = open(log, "wb")  # noqa: SIM115
    except OSError as error:
        raise local.unwritable(setup.packets[0].ticket.results, error.strerror) from None
    with said:
        driver = subprocess.Popen(
            [sys.executable, "-P", "-m", "fipbench.executors.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    assert driver.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        driver.stdin.write(msgspec.json.encode(setup) + b"\n")
        driver.stdin.flush()
    return driver


def _events(driver: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The driver's events as they come, until it ends."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.endswith(b"\n"):  # what is not was not written whole
            yield msgspec.json.decode(line)


def _stop(driver: subprocess.Popen[bytes]) -> None:
    """End the driver; a cluster that it had started ends with it."""
    with contextlib.suppress(BrokenPipeError, OSError):
        if driver.stdin is not None:
            driver.stdin.close()
    try:
        driver.wait(timeout=30)
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.wait()
    if driver.stdout is not None:
        driver.stdout.close()
