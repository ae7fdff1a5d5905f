"""Helpers of the continual track's tests: a stream of three small tasks of real digits, and networks in numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from fipbench import data, plan, registry, worker
from fipbench.spec import ContinualTask, Job, Method, Record, Ticket
from fipbench.tracks import continual
from fipbench.tracks.common import Outcome
from fipbench.training import Batch, Examples

TINY = """\
title   = "Three tasks of two digits"
track   = "continual"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [20], outputs = 10, mean = 0.305, std = 0.376 }
stream  = { classes = [[0, 1], [2, 3], [4, 5]], score = ["class", "task"] }
base    = { epochs = 2, batch_size = 16, learning_rate = 0.05, snapshots = [0] }
budget  = { epochs = 2, batch_size = 16, factor = 5 }
memories   = [4, 10]
probes     = 40
validation = 300
headline   = "average_accuracy/class"
"""
CLASSES = ((0, 1), (2, 3), (4, 5))
MEAN, STD = 0.305, 0.376
Weights = dict[str, np.ndarray]


def write_stream(folder: Path, name: str = "stream", more: str = "", **fields: str) -> Path:
    """The task as a TOML file; `fields` replace or add top-level lines (TOML text; empty: left out)."""
    text = TINY
    for field, value in fields.items():
        line = f"{field} = {value}\n" if value else ""
        text, count = re.subn(rf"^{field} *=.*\n", lambda _, line=line: line, text, flags=re.M)
        text += "" if count else line
    path = folder / f"{name}.toml"
    path.write_text(text + more)
    return path


@contextmanager
def one_thread() -> Iterator[None]:
    """As the worker does it: on several threads sums are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(name: str, **params: Any) -> Any:
    """An installed method of the continual track, made with these parameters."""
    return registry.load_factory(registry.find_methods("continual")[name])(**params)


class Bench:
    """A task of the continual track, its data and a cache; methods run in this process."""

    def __init__(self, folder: Path, cache: Path, more: str = "", **fields: str) -> None:
        self.folder, self.cache = folder, cache
        self.file = write_stream(folder, more=more, **fields)
        self.task: ContinualTask = registry.read_task(str(self.file))
        self.variant, self.digests = data.identify_all(self.task.sources, cache)

    def method(self, name: str, file: Path | None = None) -> Method:
        """A method by its name, installed or in a plugin file."""
        targets = registry.find_methods("continual", [str(file)] if file else [])
        return registry.load_method("continual", name, targets[name])

    def job(
        self, method: str | Method = "naive", seed: int = 0, split: str = "test", role: str = "", **params: Any
    ) -> Job:
        """A job of one method; memory is 0 unless it is given or the method has one."""
        found = self.method(method) if isinstance(method, str) else method
        row = plan.Row(label=found.name, method=found, params={**found.defaults, **params}, settings="default")
        job = plan.make_job(self.task, row, seed, "quick", "cpu", self.variant, self.digests, split)
        return msgspec.structs.replace(job, role=role or job.role)

    def run(self, learn: Any, task: ContinualTask | None = None, **job: Any) -> Outcome:
        """What the track finds out about `learn(model, experience, trial)`."""
        with one_thread():
            return continual.run(task or self.task, self.job(**job), learn, self.cache, lambda text, share: None)

    def record(self, job: Job, target: str | None = None, force: bool = False) -> Record:
        """The record that a worker makes of a job."""
        ticket = Ticket(
            job=job,
            task=msgspec.to_builtins(self.task),
            target=target or self.method(job.method).target,
            results=str(self.folder / "results"),
            cache=str(self.cache),
            force=force,
        )
        return worker.run(ticket, lambda event: None)

    def split(self, name: str) -> Examples:
        """All examples of a split of the first data set, as they are stored."""
        key = data.key_of(name, 0, len(self.task.sources))
        return data.load(self.task.sources[0], name, self.cache, self.digests[key])

    def part(self, name: str, classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, 64) in [0, 1] and labels of some classes of a split, in order."""
        whole = self.split(name)
        labels = whole.labels.numpy()
        rows = np.isin(labels, classes)
        return whole.inputs.flatten(1).numpy()[rows] / 255, labels[rows]


class Watched:
    """A learner under observation: the weights before and after each task, the batches it drew, what it was given."""

    def __init__(self, learn: Any) -> None:
        self.learn = learn
        self.starts: list[Weights] = []
        self.ends: list[Weights] = []
        self.batches: list[list[Batch]] = []
        self.trial: Any = None
        for name in ("network", "network_for"):
            if hasattr(learn, name):
                setattr(self, name, getattr(learn, name))

    def __call__(self, model: Any, experience: Any, trial: Any) -> Any:
        drawn: list[Batch] = []

        def record() -> Iterator[Batch]:
            for batch in experience.batches:
                drawn.append(batch)
                yield batch

        self.trial = trial
        self.batches.append(drawn)
        self.starts.append(weights_of(model))
        returned = self.learn(model, replace(experience, batches=record()), trial)
        self.ends.append(weights_of(model if returned is None else returned))
        return returned


def weights_of(model: torch.nn.Module) -> Weights:
    """Every parameter, as numpy's, copied."""
    return {name: value.detach().numpy().astype(np.float64) for name, value in model.named_parameters()}


def images(inputs: torch.Tensor) -> np.ndarray:
    """A batch's or memory's images as (n, pixels) in [0, 1], double precision."""
    scale = 255 if inputs.dtype == torch.uint8 else 1
    return inputs.flatten(1).double().numpy() / scale


# --------------------------------------------------------------------------------- a network of numpy's


def layers(weights: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the layers, first to last."""
    return [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]


def activations(weights: Mapping[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """What goes into each layer of a ReLU network, and at the end its logits."""
    found = [(x - MEAN) / STD]
    names = layers(weights)
    for name in names:
        z = found[-1] @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        found.append(z if name == names[-1] else np.maximum(z, 0))
    return found


def logits(weights: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network's outputs, (n, outputs)."""
    return activations(weights, x)[-1]


def gradient(weights: Mapping[str, np.ndarray], x: np.ndarray, slope: np.ndarray) -> Weights:
    """Gradient of a loss in the weights, from its gradient in the logits."""
    found: Weights = {}
    into = activations(weights, x)
    for name, inputs in zip(reversed(layers(weights)), reversed(into[:-1]), strict=True):
        found[f"{name}.weight"], found[f"{name}.bias"] = slope.T @ inputs, slope.sum(0)
        slope = (slope @ weights[f"{name}.weight"]) * (inputs > 0)
    return found


def total(*gradients: Weights) -> Weights:
    """Their sum."""
    return {name: sum(one[name] for one in gradients) for name in gradients[0]}


def accuracy(weights: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, allowed: Any = None) -> float:
    """Fraction of examples whose largest output (among the allowed ones) is their label's."""
    return float(correct(weights, x, y, allowed).mean())


def correct(weights: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, allowed: Any = None) -> np.ndarray:
    """Whether each example's largest output, among the allowed ones, is its label's."""
    z = logits(weights, x)
    if allowed is None:
        return z.argmax(1) == y
    return np.asarray(allowed)[z[:, list(allowed)].argmax(1)] == y


def softmax(z: np.ndarray) -> np.ndarray:
    """Of each row."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy_slope(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of the mean cross-entropy in the logits: (softmax - one-hot) / n."""
    slope = softmax(z)
    slope[np.arange(len(y)), y] -= 1
    return slope / len(y)


def length(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray] | None = None) -> float:
    """Euclidean length of all weights together, or of the way from one to the other."""
    return float(np.sqrt(sum(((a[name] - (b[name] if b else 0)) ** 2).sum() for name in a)))
