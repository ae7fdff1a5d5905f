"""Which executor a run uses, as on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import msgspec

from fipbench.errors import UserError, unknown
from fipbench.executors import local
from fipbench.spec import Record, Ticket

# What each needs beyond what is installed anyway: the extra has the library's name as its executor's.
_LIBRARIES = {"local": "", "ray": "ray", "slurm": "submitit"}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """An executor and its settings.

    Attributes:
        address: of a Ray cluster; none: a new one of this machine.
        slurm: what `sbatch` is given, by the name of its option.
        gpu_bytes: memory that a job takes on a GPU, by task.
    """

    name: str = "local"
    address: str | None = None
    slurm: dict[str, str] = {}
    gpu_bytes: dict[str, int] = {}

    @property
    def elsewhere(self) -> bool:
        """Whether jobs run on other machines than this one."""
        return self.name == "slurm" or self.address is not None


def choose(name: str, address: str | None = None, slurm: Sequence[str] = ()) -> Choice:
    """The choice that these options make (`slurm`: KEY=VALUE each).

    Raises:
        UserError: no such executor, its library is not installed, or an option that is another executor's.
    """
    if name not in _LIBRARIES:
        raise unknown("executor", name, _LIBRARIES)
    if address is not None and name != "ray":
        raise UserError("--address: is of --executor ray")
    if slurm and name != "slurm":
        raise UserError("--slurm: is of --executor slurm")
    library = _LIBRARIES[name]
    if library and find_spec(library) is None:
        raise UserError(f"--executor {name}: {library} is not installed; pip install 'fipbench[{name}]'")
    if name == "ray":
        address = address or os.environ.get("RAY_ADDRESS") or None
    options = {}
    for text in slurm:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UserError(f"--slurm {text}: expected KEY=VALUE, as in partition=gpu")
        options[key.removeprefix("--").replace("-", "_")] = value
    return Choice(name=name, address=address, slurm=options)


def execute(
    choice: Choice, tickets: Sequence[Ticket], workers: int | None, watch: local.Watch, timeout: float | None = None
) -> Iterator[Record]:
    """Run all tickets by the executor that was chosen; see its own `execute`."""
    if choice.name == "ray":
        from fipbench.executors import ray

        return ray.execute(tickets, workers, watch, timeout, address=choice.address, gpu_bytes=choice.gpu_bytes)
    if choice.name == "slurm":
        from fipbench.executors import slurm

        return slurm.execute(tickets, workers, watch, timeout, options=choice.slurm)
    return local.execute(tickets, workers or default_workers(tickets), watch, timeout)


def default_workers(tickets: Sequence[Ticket]) -> int:
    """As many jobs of this machine at a time as there are cores for their threads; one where a GPU is shared."""
    if any(t.job.device == "cuda" for t in tickets):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max((t.job.threads for t in tickets), default=1))
