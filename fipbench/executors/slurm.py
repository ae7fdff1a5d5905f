"""Jobs on a Slurm cluster, through submitit: arrays of jobs, a log a job.

A job answers with a file of JSON beside its log, which is looked for once a second; whether a job that has not answered
is still there is asked of `squeue` (clusters without accounting have no `sacct`), and why it is not of `sacct`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import re
import signal
import subprocess
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fipbench import worker
from fipbench.cache import write_atomic
from fipbench.errors import UserError
from fipbench.executors import local, node
from fipbench.executors.node import Answer, Packet
from fipbench.spec import Record, Ticket, id_of

# The largest array that Slurm takes unless it is configured otherwise (MaxArraySize is 1001).
_MOST_JOBS = 1000
# Minutes beside --timeout, which does not count starting, waiting for a lock, and writing.
_SLACK_MIN = 10
# States after which a job is given to Slurm again: the fault was not the job's.
_LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")
# What is fipbench's to say.
_OURS = {"array", "error", "nodes", "ntasks", "ntasks_per_node", "open_mode", "output", "job_name"}
_POLL_S = 1.0
# Seconds between two looks at which jobs are there; one that is gone at both has ended.
_LOOK_S = 10.0


def execute(
    tickets: Sequence[Ticket],
    workers: int | None,
    watch: local.Watch,
    timeout: float | None = None,
    *,
    options: dict[str, str] | None = None,
    cluster: str = "slurm",
    look_s: float = _LOOK_S,
) -> Iterator[Record]:
    """Run all tickets; yields each job's record as it finishes. Closed early, it cancels jobs in the queue.

    Args:
        workers: jobs of an array at a time, at most (default: all that Slurm lets run).
        watch: takes the events `start` (given to Slurm) with the job's id, and `note` with a text.
        timeout: as of `local`; counted on the node.
        options: what `sbatch` is given; `time` in minutes is needed unless there is a timeout.
        cluster: submitit's name of the executor; `local` and `debug` need no Slurm.
        look_s: seconds between two looks at which jobs are there still.

    Raises:
        UserError: there is no Slurm here, it refuses the jobs, a node does not share the folders, or the results
            folder stopped being writable; what is stored stays stored.
    """
    if not tickets:
        return
    options = dict(options or {})
    minutes = _minutes(options.pop("time", None), timeout)
    folder = Path(tickets[0].results) / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise local.unwritable(tickets[0].results, error.strerror) from None
    with node.marked(tickets) as marks:
        passed = node.environment()
        packets = [Packet(ticket=t, timeout=timeout, environment=passed, marks=marks) for t in tickets]
        queue = Queue(folder, cluster, minutes, options, workers)
        try:
            yield from _run(queue, packets, watch, look_s)
        finally:
            queue.close()


def job(packet: bytes, answer: str) -> None:
    """What Slurm runs: the packet's job, its answer into a file."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        # submitit has it ignored, and what is left then would begin the job again until Slurm ends that, too.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    write_atomic(Path(answer), node.work(packet))


def _minutes(given: str | None, timeout: float | None) -> int:
    """Slurm's limit of a job, in minutes."""
    if given is None:
        if timeout is None:
            raise UserError("--executor slurm: a job needs a limit; pass --timeout SECONDS or --slurm time=MINUTES")
        return math.ceil(timeout / 60) + _SLACK_MIN
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"--slurm time={given}: expected minutes, a whole number above 0")
    if timeout is not None and int(given) * 60 < timeout:
        raise UserError(f"--slurm time={given}: Slurm would end jobs before --timeout {timeout:g} (seconds) does")
    return int(given)


class Queue:
    """The jobs of this run that Slurm has, by identity; `folder` holds their logs and answers."""

    def __init__(self, folder: Path, cluster: str, minutes: int, options: dict[str, str], parallel: int | None) -> None:
        self.folder = folder
        self.cluster = cluster
        self.jobs: dict[str, Any] = {}
        self.packets: dict[str, Packet] = {}
        self.full = 0  # jobs that were there when Slurm took no more
        self._minutes = minutes
        self._options = options
        self._parallel = parallel
        logging.getLogger("submitit").setLevel(logging.ERROR)
        if taken := sorted(_OURS & set(options)):
            raise UserError(f"--slurm {taken[0]}: is set by fipbench")

    def submit(self, packets: Sequence[Packet]) -> None:
        """Give Slurm an array of jobs that take the same.

        Raises:
            UserError: it refuses them, or there is none.
        """
        import submitit

        identities = [id_of(packet.ticket.job) for packet in packets]
        answers = [str(self._answer(identity)) for identity in identities]
        for answer in answers:
            Path(answer).unlink(missing_ok=True)
        try:
            executor = submitit.AutoExecutor(folder=str(self.folder), cluster=self.cluster)
            executor.update_parameters(**self._parameters(packets[0].ticket, len(packets)))
            with contextlib.redirect_stderr(io.StringIO()):  # what Slurm says is in the error, too
                jobs = executor.map_array(job, [msgspec.json.encode(packet) for packet in packets], answers)
        except (RuntimeError, OSError, subprocess.SubprocessError, ValueError, NameError, AssertionError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            if "srun" in said:
                said = "no srun and sbatch on the PATH; run this where jobs are submitted"
            raise UserError(f"Slurm refused the jobs: {said[:500]}; --slurm KEY=VALUE says what sbatch gets") from None
        self.jobs.update(zip(identities, jobs, strict=True))
        self.packets.update(zip(identities, packets, strict=True))

    def _parameters(self, ticket: Ticket, count: int) -> dict[str, Any]:
        from submitit.slurm.slurm import SlurmExecutor

        known = SlurmExecutor._valid_parameters()
        own = {key: value for key, value in self._options.items() if key in known}
        further = {key.replace("_", "-"): value for key, value in self._options.items() if key not in known}
        gpus = ticket.job.device != "cpu" and not {"gres", "gpus", "gpus_per_node", "gpus_per_task"} & set(
            self._options
        )
        return {
            "name": "fipbench",
            "timeout_min": self._minutes,
            "cpus_per_task": ticket.job.threads,
            "stderr_to_stdout": True,
            "slurm_array_parallelism": self._parallel or count,
            **({"gpus_per_node": 1} if gpus else {}),
            **({"slurm_additional_parameters": further} if further else {}),
            **{f"slurm_{key}": value for key, value in own.items()},
        }

    def _answer(self, identity: str) -> Path:
        return self.folder / f"{identity}.answer.json"

    def answered(self) -> list[str]:
        """The jobs that have answered; looks at the folder itself, so that a network file system looks again, too."""
        with contextlib.suppress(OSError):
            os.chmod(self.folder, self.folder.stat().st_mode)
        there = set(os.listdir(self.folder))
        return [identity for identity in self.jobs if self._answer(identity).name in there]

    def take(self, identity: str) -> tuple[Packet, Answer]:
        """A job's packet and answer; the queue forgets it."""
        del self.jobs[identity]
        file = self._answer(identity)
        answer = msgspec.json.decode(file.read_bytes(), type=Answer)
        file.unlink()
        return self.packets.pop(identity), answer

    def gone(self) -> set[str]:
        """The jobs that are not there any more, of those that have not answered."""
        waiting = self.jobs.items() - {(name, self.jobs[name]) for name in self.answered()}
        if self.cluster != "slurm":
            return {identity for identity, entry in waiting if entry.done()}
        arrays = ",".join({entry.job_id.partition("_")[0] for _, entry in waiting})
        if not arrays:
            return set()
        command = ["squeue", "--noheader", "--array", "--format=%F_%K %i", f"--jobs={arrays}"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode and "nvalid job id" not in asked.stderr:
            return set()  # Slurm does not answer just now
        there = set(asked.stdout.split())
        return {identity for identity, entry in waiting if entry.job_id not in there}

    def drop(self, identity: str) -> tuple[Packet, str, str]:
        """A job that is gone without an answer: its packet, its state (`UNKNOWN` without accounting), the story."""
        entry = self.jobs.pop(identity)
        state = "UNKNOWN"
        with contextlib.suppress(Exception):  # of any kind, by what sacct is there
            state = entry.get_info(mode="force").get("State", state).split()[0]
        said = ""
        with contextlib.suppress(OSError):
            said = (entry.paths.stdout.read_text(errors="replace").strip().splitlines() or [""])[-1][:200]
        where = f"job {entry.job_id}, {state}" if state != "UNKNOWN" else f"job {entry.job_id}"
        text = f"ended without a record ({where}; see {entry.paths.stdout})" + (f": {said}" if said else "")
        return self.packets.pop(identity), state, text

    def close(self) -> None:
        """Cancel what is in the queue still; leave the logs."""
        for entry in self.jobs.values():
            with contextlib.suppress(Exception):
                entry.cancel(check=False)
        for file in [*self.folder.glob("*.pkl"), *self.folder.glob(".submission_file_*"), *self.folder.glob("*.json")]:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # where nothing was run


def _run(queue: Queue, packets: Sequence[Packet], watch: local.Watch, look_s: float) -> Iterator[Record]:
    todo, lost, noted = deque(_arrays(packets)), Counter[str](), set[str]()
    results = Path(packets[0].ticket.results)
    missed: set[str] = set()
    looked = time.monotonic()
    while todo or queue.jobs:
        _fill(queue, todo, watch)
        for identity in queue.answered():
            _, answer = queue.take(identity)
            if answer.record is None:
                raise UserError(answer.refused)
            if answer.note and answer.note not in noted:
                noted.add(answer.note)
                watch({"event": "note", "text": answer.note})
            yield answer.record
        if time.monotonic() - looked >= look_s:
            looked = time.monotonic()
            gone = queue.gone()
            for identity in sorted(gone & missed & set(queue.jobs)):
                packet, state, text = queue.drop(identity)
                lost[identity] += 1
                if state in _LOST and lost[identity] <= node.RETRIES:
                    watch({"event": "note", "text": f"{identity}: {state} ({text}); given to Slurm again"})
                    todo.append([packet])
                else:
                    yield local.kept(results, worker.crashed(packet.ticket, RuntimeError(f"the job's process {text}")))
            missed = gone
        if queue.jobs:
            time.sleep(_POLL_S)


def _arrays(packets: Sequence[Packet]) -> Iterator[list[Packet]]:
    """The packets in arrays of jobs that take the same."""
    kinds: dict[tuple[int, str], list[Packet]] = {}
    for packet in packets:
        kinds.setdefault((packet.ticket.job.threads, packet.ticket.job.device), []).append(packet)
    for alike in kinds.values():
        for first in range(0, len(alike), _MOST_JOBS):
            yield alike[first : first + _MOST_JOBS]


def _fill(queue: Queue, todo: deque[list[Packet]], watch: local.Watch) -> None:
    """Submit what is to be submitted: in smaller arrays where Slurm has a limit, later where others run still.

    Raises:
        UserError: Slurm refuses jobs for another reason, or even one alone.
    """
    while todo and not (queue.full and len(queue.jobs) >= queue.full):
        packets = todo.popleft()
        try:
            queue.full = 0
            queue.submit(packets)
        except UserError as error:
            limited = re.search(r"array|limit", str(error), re.IGNORECASE)
            if limited and len(packets) > 1:
                half = len(packets) // 2
                todo.extendleft([packets[half:], packets[:half]])
                continue
            if limited and queue.jobs:
                todo.appendleft(packets)
                queue.full = len(queue.jobs)
                return
            raise
        for packet in packets:
            watch({"event": "start", "id": id_of(packet.ticket.job)})
