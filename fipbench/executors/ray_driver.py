"""The process that speaks to Ray: `python -m fipbench.executors.ray_driver`, a `Setup` (JSON) on standard input.

Ray ends the process that speaks to it when the cluster's head is gone; this one may be ended. It writes events as JSON
lines to standard output: `start`, `answer` and `lost` with a job's id, `note`, `refused` with a text that ends it
all, and `end`. It ends when its input does, and with it all that it has started; what Ray says goes to standard error.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fipbench.executors import node
from fipbench.executors.node import Packet
from fipbench.spec import Ticket, id_of

# Ray's own limit is lower; what is in its object store here are answers of some kilobytes.
_STORE_BYTES = 80 * 2**20
# A job's estimated memory times this is its share of a GPU; no more than so many jobs share one.
_MARGIN = 1.5
_MOST_ON_A_GPU = 8

Emit = Callable[[dict[str, Any]], Any]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and where.

    Attributes:
        address: of a cluster that is there (`host:port`, `auto`), or `local` for one of this machine, for this run.
        workers: jobs at a time, beside what the cluster's CPUs and GPUs allow.
        gpu_bytes: memory that a job takes on a GPU, by task; of others nothing is known.
        patience: seconds for which no node may be able to run what is left.
    """

    address: str
    packets: tuple[Packet, ...]
    workers: int | None = None
    gpu_bytes: dict[str, int] = {}
    patience: float = 60.0


class Need(msgspec.Struct, frozen=True):
    """What a job takes of a node: CPUs, and GPUs or a share of one."""

    cpus: float
    gpus: float

    def fits(self, resources: dict[str, float]) -> bool:
        """Whether a node of these resources can run the job when nothing else runs there."""
        return self.cpus <= resources.get("CPU", 0) and self.gpus <= resources.get("GPU", 0)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


class Refused(Exception):
    """The run cannot go on; in words for the user."""


def share(bytes_each: int, bytes_there: int) -> float:
    """The share of a GPU that a job gets, 1 or 1/2, 1/4, 1/8; all of it where one of the sizes is not known (0)."""
    if not bytes_each or not bytes_there:
        return 1.0
    together = int(bytes_there // (_MARGIN * bytes_each))
    return 1.0 if together < 2 else 1 / 2 ** min(int(math.log2(together)), int(math.log2(_MOST_ON_A_GPU)))


def main() -> None:
    """Run a setup until all its jobs are answered or lost, or standard input ends."""
    events = os.dup(1)
    os.dup2(2, 1)  # what Ray prints is no event
    setup = msgspec.json.decode(sys.stdin.buffer.readline(), type=Setup)

    def emit(event: dict[str, Any]) -> None:
        text = msgspec.json.encode(event) + b"\n"
        while text:
            text = text[os.write(events, text) :]

    import ray

    try:
        _connect(ray, setup.address)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        threading.Thread(target=_watch_input, daemon=True).start()
        serve(ray, setup, emit)
        emit({"event": "end"})
    except Refused as error:
        emit({"event": "refused", "text": str(error)})
    finally:
        ray.shutdown()


def _watch_input() -> None:
    """End this process when its input does, as it does when its parent dies."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _connect(ray: Any, address: str) -> None:
    started = {"include_dashboard": False, "object_store_memory": _STORE_BYTES} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **started)
    except Exception as error:  # of many kinds, by what is wrong with the cluster
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refused(f"no Ray cluster at {address}: {said}") from None


def serve(ray: Any, setup: Setup, emit: Emit) -> None:
    """Give all packets to the cluster, again where a worker or node was lost; see `main` for the events.

    Raises:
        Refused: no node can run a job, or a node says that it can run none.
    """
    needs = _needs(ray, setup)
    for need in sorted(set(needs.values()), key=str):
        if not _able(ray, need):
            raise Refused(f"a job needs {need}, which no node of the cluster has ({_told(_resources(ray))})")
    remote = ray.remote(max_retries=0)(node.work)
    todo, lost = deque(setup.packets), Counter[str]()
    running: dict[Any, Packet] = {}
    unable_since: float | None = None
    while todo or running:
        while todo and len(running) < (setup.workers or len(setup.packets)):
            packet = todo.popleft()
            need = needs[id_of(packet.ticket.job)]
            reference = remote.options(num_cpus=need.cpus, num_gpus=need.gpus).remote(msgspec.json.encode(packet))
            running[reference] = packet
            emit({"event": "start", "id": id_of(packet.ticket.job)})
        ready, _ = ray.wait(list(running), timeout=min(5.0, setup.patience / 4))
        for reference in ready:
            _settle(ray, reference, running.pop(reference), todo, lost, emit)
        if ready or all(_able(ray, needs[id_of(packet.ticket.job)]) for packet in running.values()):
            unable_since = None
            continue
        unable_since = unable_since or time.monotonic()
        if time.monotonic() - unable_since >= setup.patience:
            raise Refused(f"for {setup.patience:g} s no node could run what is left ({_told(_resources(ray))} there)")


def _settle(ray: Any, reference: Any, packet: Packet, todo: deque[Packet], lost: Counter[str], emit: Emit) -> None:
    """What came of a job: its answer, another try, or the end of it."""
    identity = id_of(packet.ticket.job)
    try:
        emit({"event": "answer", "id": identity, "answer": ray.get(reference).decode()})
        return
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(getattr(error, "cause", None), Exception) else error
        raise Refused(
            f"a node cannot run jobs ({type(cause).__name__}: {str(cause).strip().splitlines()[-1][:300]}); "
            "install this release of fipbench and its dependencies there, too"
        ) from None
    except ray.exceptions.OutOfMemoryError:
        emit({"event": "lost", "id": identity, "text": "was ended by Ray, the node being short of memory"})
        return
    except ray.exceptions.RayError as error:
        what = type(error).__name__
    lost[identity] += 1
    if lost[identity] > node.RETRIES:
        text = f"was lost {lost[identity]} times with the worker or node that ran it ({what})"
        emit({"event": "lost", "id": identity, "text": text})
        return
    emit({"event": "note", "text": f"{identity}: lost with the worker or node that ran it ({what}); given to another"})
    todo.appendleft(packet)


def _needs(ray: Any, setup: Setup) -> dict[str, Need]:
    """What each job takes, by its id."""
    tickets = [packet.ticket for packet in setup.packets]
    sized = any(ticket.job.device != "cpu" and setup.gpu_bytes.get(ticket.job.task) for ticket in tickets)
    there = _smallest_gpu(ray) if sized else 0

    def need(ticket: Ticket) -> Need:
        job = ticket.job
        gpus = share(setup.gpu_bytes.get(job.task, 0), there) if job.device != "cpu" else 0.0
        return Need(float(job.threads), gpus)

    return {id_of(ticket.job): need(ticket) for ticket in tickets}


def _smallest_gpu(ray: Any) -> int:
    """Memory of the smallest GPU of the cluster, in bytes; 0 where a node does not say."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    probe = ray.remote(num_cpus=0, num_gpus=0.01, max_retries=0)(node.gpu_bytes)
    nodes = [entry["NodeID"] for entry in ray.nodes() if entry["Alive"] and entry["Resources"].get("GPU")]
    try:
        # A GPU that is busy with another run's jobs answers when they are done: then it is taken to be unknown.
        return min(ray.get([probe.options(scheduling_strategy=On(n, soft=False)).remote() for n in nodes], timeout=60))
    except (ray.exceptions.RayError, ValueError):
        return 0


def _resources(ray: Any) -> list[dict[str, float]]:
    return [entry["Resources"] for entry in ray.nodes() if entry["Alive"]]


def _able(ray: Any, need: Need) -> bool:
    return any(need.fits(resources) for resources in _resources(ray))


def _told(nodes: Sequence[dict[str, float]]) -> str:
    """The nodes in words."""
    each = Counter(f"{found.get('CPU', 0):g} CPU and {found.get('GPU', 0):g} GPU" for found in nodes)
    return "; ".join(f"{count} of {what}" for what, count in sorted(each.items())) or "no nodes"


if __name__ == "__main__":
    main()
