"""The tiny problem of the connectivity track, in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fipbench import data, plan, registry, worker
from fipbench.spec import ConnectivityTask, Job, Method, Ticket
from fipbench.tracks import connectivity
from fipbench.tracks.common import Outcome

TINY = """
title   = "A tiny path on the real digits"
track   = "connectivity"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [20, 10], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05 }
budget  = { epochs = 5, batch_size = 32 }
validation = 300
headline   = "lowest_accuracy"
points     = 9
plane      = 4
"""


class Lab:
    """A task, the digits and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "tiny-path.toml"
        self.file.write_text(TINY)
        self.cache = folder / "cache"
        self.task: ConnectivityTask = registry.read_task(str(self.file))
        self.variant, self.digests = data.identify(self.task.data, self.cache)

    def method(self, name: str) -> Method:
        return registry.load_method("connectivity", name, registry.find_methods("connectivity")[name])

    def job(self, method: str = "linear", seed: int = 0, split: str = "test", **params: Any) -> Job:
        found = self.method(method)
        row = plan.Row(label=found.name, method=found, params={**found.defaults, **params}, settings="default")
        return plan.make_job(self.task, row, seed, "quick", "cpu", self.variant, self.digests, split)

    def run(self, path: Any, task: ConnectivityTask | None = None, **job: Any) -> Outcome:
        """What the track finds out about `path(first, second, trial)`."""
        return connectivity.run(task or self.task, self.job(**job), path, self.cache, lambda text, share: None)

    def record(self, job: Job) -> Any:
        """The record that a worker makes of a job."""
        ticket = Ticket(
            job=job,
            task=msgspec.to_builtins(self.task),
            target=self.method(job.method).target,
            results=str(self.folder / "results"),
            cache=str(self.cache),
        )
        return worker.run(ticket, lambda event: None)

    def test_items(self) -> Any:
        """All test inputs in [0, 1] and labels."""
        examples = data.load(self.task.data, "test", self.cache, self.digests["test"])
        return examples.inputs.float() / 255, examples.labels
