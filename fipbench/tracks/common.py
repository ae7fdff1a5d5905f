"""What the tracks share: seeds that come from task and seed alone, data, the base network, the outcome."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import data, models
from fipbench.cache import once, tensor_digest
from fipbench.spec import Items, Job, Task, digest
from fipbench.training import Examples, Meter, fit, optimizer, stream


@dataclass
class Outcome:
    """What a track found out: the measured part of a record."""

    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    items: dict[str, Items] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    base_wall_s: float = 0.0
    base_wait_s: float = 0.0
    parameters_stored: int = 0
    examples_stored: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)


def seed_for(job: Job, purpose: str) -> int:
    """A 63-bit seed from task, seed and purpose: never from the method, so that all methods start alike."""
    text = f"{job.task}/{job.task_version}/{job.seed}/{job.split}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(job: Job, purpose: str) -> torch.Generator:
    """A CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(job, purpose))


def training_data(task: Task, job: Job, cache: Path) -> tuple[Examples, int]:
    """What a method may see, and how many training examples were dropped because they stand in the test split.

    For a tuning job the task's validation examples are held out of it; the held-out part is the same for
    every seed and method.
    """
    train = data.load(task.data, "train", cache, job.data["train"])
    test = data.load(task.data, "test", cache, job.data["test"])
    train, dropped = data.without_repeats(train, test)
    if job.split == "validation":
        order = _validation_order(task, len(train.labels))
        index = order[task.validation :]
        train = Examples(train.inputs[index], train.labels[index])
    return _to(train, job.device), dropped


def scoring_data(task: Task, job: Job, cache: Path) -> Examples:
    """What the harness scores on: the test split, or the held-out validation examples of a tuning job."""
    test = data.load(task.data, "test", cache, job.data["test"])
    if job.split == "validation":
        train = data.load(task.data, "train", cache, job.data["train"])
        train, _ = data.without_repeats(train, test)
        index = _validation_order(task, len(train.labels))[: task.validation]
        test = Examples(train.inputs[index], train.labels[index])
    return _to(test, job.device)


def _validation_order(task: Task, n: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(f"{task.name}/validation".encode()).digest()[:7], "big")
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _to(examples: Examples, device: str) -> Examples:
    return Examples(examples.inputs.to(device), examples.labels.to(device))


@dataclass(frozen=True)
class Base:
    """The shared trained network: weights, earlier snapshots by epoch, and what it cost.

    `wall_s` is what its training took whoever did it, `wait_s` how long this job waited to have it.
    """

    network: nn.Module
    snapshots: dict[int, dict[str, Tensor]]
    forward_examples: int
    backward_examples: int
    wall_s: float
    wait_s: float
    digest: str


def base_network(task: Task, job: Job, train: Examples, cache: Path) -> Base:
    """The network that every method of (task, seed) starts from: trained once, kept by content, shared."""
    recipe = task.base
    asked = time.monotonic()

    def build() -> tuple[dict[str, Tensor], dict[str, Any]]:
        began = time.monotonic()
        network = models.build(task.model, seed_for(job, "weights")).to(job.device)
        meter = Meter()
        tensors = {f"epoch0/{k}": v.clone() for k, v in network.state_dict().items()}
        meter.attach(network)
        batches = stream(train, recipe.batch_size, generator_for(job, "base batches"))
        steps = len(train.labels) // recipe.batch_size
        rule = optimizer(
            recipe.optimizer, network.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay
        )
        for epoch in range(1, recipe.epochs + 1):
            fit(network, batches, steps=steps, optimizer=rule)
            if epoch in recipe.snapshots or epoch == recipe.epochs:
                name = "final" if epoch == recipe.epochs else f"epoch{epoch}"
                tensors |= {f"{name}/{k}": v.clone() for k, v in network.state_dict().items()}
        facts = {"forward": meter.forward, "backward": meter.backward, "wall_s": time.monotonic() - began}
        return {k: v.cpu().contiguous() for k, v in tensors.items()}, facts

    parts = {
        "data": job.data,
        "split": job.split,
        "held_out": task.validation if job.split == "validation" else 0,
        "model": task.model,
        "base": recipe,
        "seed": [seed_for(job, "weights"), seed_for(job, "base batches")],
        "device": job.device,
        "threads": job.threads,
        "torch": str(torch.__version__),
    }
    tensors, facts = once(cache / "shared", f"{job.task}-s{job.seed}-{digest(parts)[:16]}", build)
    network = models.build(task.model, seed_for(job, "weights"))
    network.load_state_dict(_under(tensors, "final"))
    return Base(
        network=network.to(job.device),
        snapshots={epoch: _under(tensors, f"epoch{epoch}") for epoch in recipe.snapshots if epoch < recipe.epochs},
        forward_examples=facts["forward"],
        backward_examples=facts["backward"],
        wall_s=facts["wall_s"],
        wait_s=time.monotonic() - asked,
        digest=tensor_digest(tensors),
    )


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}
