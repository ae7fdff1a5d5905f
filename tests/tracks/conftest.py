"""The tiny problem in process: `run_track(method)` gives the outcome, `run_job(...)` the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from fipbench import data, plan, registry, worker
from fipbench.spec import Job, Method, SparsityTask, Ticket
from fipbench.tracks import sparsity
from fipbench.tracks.common import Outcome

TINY = """
title   = "A tiny problem on the real digits"
track   = "sparsity"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [20, 10], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05, snapshots = [0, 1] }
budget  = { epochs = 5, batch_size = 32 }
validation = 300
headline   = "area"
sparsities = [0.5, 0.9]
"""


class Lab:
    """A task, the digits and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "tiny.toml"
        self.file.write_text(TINY)
        self.cache = folder / "cache"
        self.task: SparsityTask = registry.read_task(str(self.file))
        self.variant, self.digests = data.identify(self.task.data, self.cache)

    def split(self, name: str) -> Any:
        """All examples of a split as they are stored."""
        return data.load(self.task.data, name, self.cache, self.digests[name])

    def method(self, name: str, file: Path | None = None) -> Method:
        """A method by its name, installed or in a plugin file."""
        targets = registry.find_methods("sparsity", [str(file)] if file else [])
        return registry.load_method("sparsity", name, targets[name])

    def job(self, method: str | Method = "magnitude", seed: int = 0, split: str = "test", **params: Any) -> Job:
        found = self.method(method) if isinstance(method, str) else method
        row = plan.Row(label=found.name, method=found, params={**found.defaults, **params}, settings="default")
        return plan.make_job(self.task, row, seed, "quick", "cpu", self.variant, self.digests, split)

    def run(self, prune: Any, task: SparsityTask | None = None, **job: Any) -> Outcome:
        """What the track finds out about `prune(model, sparsities, trial)`."""
        return sparsity.run(task or self.task, self.job(**job), prune, self.cache, lambda text, share: None)

    def record(self, job: Job, target: str | None = None) -> Any:
        """The record that a worker makes of a job."""
        ticket = Ticket(
            job=job,
            task=msgspec.to_builtins(self.task),
            target=target or self.method(job.method).target,
            results=str(self.folder / "results"),
            cache=str(self.cache),
        )
        return worker.run(ticket, lambda event: None)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])
