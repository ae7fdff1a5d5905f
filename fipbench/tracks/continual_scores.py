"""What the continual track measures: the accuracy matrix, the course of learning, how far the weights went."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from fipbench import metrics
from fipbench.cache import once
from fipbench.errors import ProtocolError
from fipbench.fip.path import distance_walked
from fipbench.spec import ContinualTask, Job, digest
from fipbench.tracks.common import Base, Outcome
from fipbench.tracks.sketch import walk_of
from fipbench.training import Examples, Meter, predict

Weights = dict[str, Tensor]
# The plain network for a task, by its number.
Told = Callable[[int], nn.Module]


class Scorer:
    """Measures networks against the test items of every task of the stream; a method never holds it.

    Networks are scored as copies of their weights in a network of the harness's own. A method whose answer needs the
    task to be told has an attribute `network_for`, a function of the model and a task's number (from 0) that gives the
    plain network for that task: it is asked where the scoring tells the task, and nowhere else.
    """

    def __init__(self, task: ContinualTask, job: Job, scoring: list[Examples], base: Base, cache: Path) -> None:
        self.task = task
        self.scoring = scoring
        self.probes = [Examples(s.inputs[: task.probes], s.labels[: task.probes]) for s in scoring]
        self.network = copy.deepcopy(base.network)
        self.learned = _weights(base.network)
        self.norm = _norm(self.learned)
        self.shared = self._shared(job, base, cache)
        self.rows: dict[str, list[list[float]]] = {score: [] for score in task.stream.score}
        self.courses: dict[str, dict[str, list[float]]] = {}
        self.walked: list[dict[str, float]] = []
        self.path = 0.0
        self.last = self.learned
        self.sketch = walk_of(task, job, self.learned, self.norm)
        self.items: dict[str, Any] = {}
        self.parameters = sum(value.numel() for value in self.learned.values())
        self._add_row(self._answers(self.shared["untrained"], scoring, None, "before training"))

    def after(self, number: int, network: nn.Module, told: Told | None = None) -> None:
        """The network after task `number` (from 0); `told` gives the one for a task of which it is told.

        Raises:
            ProtocolError: other parameters than the base network's, or weights that are not finite.
        """
        when = f"after task {number + 1}"
        weights = self._load(network, when)
        self._walk(weights)
        if self.sketch:
            self.sketch.add(number + 1, weights)
        if number == 0 and all(torch.equal(weights[name], self.learned[name]) for name in weights):
            outputs = self.shared["first"]
        else:
            outputs = [predict(self.network, examples) for examples in self.scoring]
        seen = self._answers(outputs, self.scoring, told, when)
        self._add_row(seen)
        if number:
            self.walked.append({"path": self.path, **self._moved(weights)})
        if number == len(self.scoring) - 1:
            for score, answers in seen.items():
                for i, (out, examples) in enumerate(zip(answers, self.scoring, strict=True), start=1):
                    self.items[f"{score}/{i}"] = metrics.packed_correct(out, examples.labels)
            if told:
                self.parameters = self._distinct([told(i) for i in range(len(self.scoring))], when)

    @contextmanager
    def watching(self, number: int, due: int, model: nn.Module, learn: Any, meter: Meter) -> Iterator[None]:
        """Score the probes while task `number` is learned, after steps 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ..., and
        sketch the weights now and then, if the task asks for it; `due` steps are due.

        A step is one of an optimiser that moves parameters of `model`. A method that holds the plain network
        elsewhere has an attribute `network`, a function of `model` that gives it; one that trains another network is
        not watched.
        """
        if number == 0:
            yield
            return
        courses: dict[str, dict[str, list[float]]] = {
            f"course/{score}/{number + 1}": {"step": []} for score in self.rows
        }
        steps = 0
        before = self.path, self.last
        sketched = self.sketch.within(due) if self.sketch else frozenset()

        when = f"while learning task {number + 1}"

        def plain() -> nn.Module:
            found: nn.Module = learn.network(model) if hasattr(learn, "network") else model
            return found

        def probe() -> None:
            self._walk(self._load(plain(), when))
            outputs = [predict(self.network, examples) for examples in self.probes]
            for score, answers in self._answers(outputs, self.probes, told_by(learn, model), when).items():
                course = courses[f"course/{score}/{number + 1}"]
                course["step"].append(steps)
                for i, (out, examples) in enumerate(zip(answers, self.probes, strict=True)):
                    course.setdefault(f"task{i + 1}", []).append(metrics.accuracy(out, examples.labels))

        def stepped(rule: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            nonlocal steps
            first = next((p for group in rule.param_groups for p in group["params"]), None)
            if not any(p is first for p in model.parameters()):
                return
            steps += 1
            if _is_probed(steps):
                with meter.paused(), torch.no_grad():
                    probe()
            if self.sketch and steps in sketched:
                with meter.paused(), torch.no_grad():
                    self.sketch.add(number + 1, self._parameters(plain(), when))

        with meter.paused(), torch.no_grad():
            probe()
        handle = register_optimizer_step_post_hook(stepped)
        try:
            yield
        finally:
            handle.remove()
        if steps:
            self.courses |= courses
        else:  # another network was trained: the way by the given one is none that was walked
            self.path, self.last = before

    def report(self, outcome: Outcome) -> None:
        """Metrics, curves and items of all that was seen."""
        tasks = [float(i) for i in range(1, len(self.scoring) + 1)]
        for score, rows in self.rows.items():
            untrained, matrix = rows[0], rows[1:]
            outcome.metrics[f"average_accuracy/{score}"] = metrics.average_accuracy(matrix)
            outcome.metrics[f"forgetting/{score}"] = metrics.forgetting(matrix)
            outcome.metrics[f"backward_transfer/{score}"] = metrics.backward_transfer(matrix)
            outcome.metrics[f"forward_transfer/{score}"] = metrics.forward_transfer(matrix, untrained)
            outcome.metrics[f"untrained/{score}"] = sum(untrained) / len(untrained)
            for i, value in enumerate(matrix[-1], start=1):
                outcome.metrics[f"final/{score}/{i}"] = value
            for i, row in enumerate(rows):
                outcome.curves[f"matrix/{score}/{i}"] = {"task": tasks, "value": row}
        for name in self.walked[0]:
            outcome.curves[name] = {"task": tasks[1:], "value": [row[name] for row in self.walked]}
        outcome.metrics["weights_walked"] = self.walked[-1]["weights"]
        outcome.metrics["path"] = self.walked[-1]["path"]
        outcome.curves |= self.courses
        if self.sketch:
            outcome.curves["sketch"] = self.sketch.curve()
        outcome.items = self.items
        outcome.parameters_stored = self.parameters

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """All that was measured so far: weights at the last look, and the rest as JSON."""
        return self.last, {
            "rows": self.rows,
            "courses": self.courses,
            "walked": self.walked,
            "path": self.path,
            "sketch": self.sketch.rows if self.sketch else [],
        }

    def go_on(self, last: Weights, facts: dict[str, Any]) -> None:
        """Go on measuring from such a state."""
        self.last = last
        self.rows, self.courses = facts["rows"], facts["courses"]
        self.walked, self.path = facts["walked"], facts["path"]
        if self.sketch:
            self.sketch.rows = facts["sketch"]

    def _load(self, network: nn.Module, when: str) -> Weights:
        """The network's weights, copied, put into the harness's own network."""
        weights = {name: value.detach().clone() for name, value in self._parameters(network, when).items()}
        bad = [name for name, value in weights.items() if not bool(value.isfinite().all())]
        if bad:
            raise ProtocolError(f"the network {when} has weights that are not finite ({bad[0]})")
        self.network.load_state_dict(network.state_dict() | weights)
        return weights

    def _parameters(self, network: nn.Module, when: str) -> Weights:
        """The network's own weights."""
        found: Weights = dict(network.named_parameters())
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in self.learned.items()}:
            raise ProtocolError(f"the network {when} has other parameters than the one that was given")
        return found

    def _walk(self, weights: Weights) -> None:
        self.path += distance_walked(self.last, weights) / self.norm
        self.last = weights

    def _moved(self, weights: Weights) -> dict[str, float]:
        """Relative change || w - w_1 || / || w_1 || since the first task, of all weights and by layer group."""
        found = {"weights": distance_walked(self.learned, weights) / self.norm}
        for group, names in _groups(weights).items():
            before = {name: self.learned[name] for name in names}
            now = {name: weights[name] for name in names}
            found[f"weights/{group}"] = distance_walked(before, now) / max(_norm(before), 1e-12)
        return found

    def _answers(
        self, outputs: list[Tensor], asked: list[Examples], told: Told | None, when: str
    ) -> dict[str, list[Tensor]]:
        """Outputs on each task's examples as each scoring sees them, those of the network in hand being `outputs`."""
        seen = {score: outputs for score in self.rows}
        if "task" in seen:
            if told:
                outputs = [self._told(told(i), examples, when) for i, examples in enumerate(asked)]
            seen["task"] = [self._masked(out, i) for i, out in enumerate(outputs)]
        return seen

    def _told(self, network: nn.Module, examples: Examples, when: str) -> Tensor:
        self._load(network, when)
        return predict(self.network, examples)

    def _masked(self, outputs: Tensor, number: int) -> Tensor:
        """Outputs with none but those of task `number` to choose from."""
        masked = torch.full_like(outputs, float("-inf"))
        own = list(self.task.stream.classes[number])
        masked[:, own] = outputs[:, own]
        return masked

    def _distinct(self, networks: list[nn.Module], when: str) -> int:
        """How many numbers the networks of all tasks hold together: at each place the different ones but zero."""
        count = 0
        for values in zip(*(self._parameters(network, when).values() for network in networks), strict=True):
            ordered = torch.stack([value.detach().flatten() for value in values]).sort(dim=0).values
            new = torch.cat([torch.ones_like(ordered[:1], dtype=torch.bool), ordered[1:] != ordered[:-1]])
            count += int((new & (ordered != 0)).sum())
        return count

    def _add_row(self, seen: dict[str, list[Tensor]]) -> None:
        for score, answers in seen.items():
            pairs = zip(answers, self.scoring, strict=True)
            self.rows[score].append([metrics.accuracy(out, examples.labels) for out, examples in pairs])

    def _shared(self, job: Job, base: Base, cache: Path) -> dict[str, list[Tensor]]:
        """Outputs on all test items of the network before any training and after the first task: alike for all
        methods, so they are computed once."""

        def build() -> tuple[Weights, dict[str, Any]]:
            untrained = copy.deepcopy(base.network)
            untrained.load_state_dict(base.snapshots[0])
            found = {}
            for name, network in (("untrained", untrained), ("first", base.network)):
                for i, examples in enumerate(self.scoring):
                    found[f"{name}/{i}"] = predict(network, examples).cpu()
            return found, {}

        parts = [base.digest, job.data, job.split, self.task.stream, self.task.name, self.task.validation]
        key = f"{job.task}-s{job.seed}-outputs-{digest(parts)[:16]}"
        tensors, _ = once(cache / "shared", key, build)
        device = self.scoring[0].labels.device
        return {
            name: [tensors[f"{name}/{i}"].to(device) for i in range(len(self.scoring))]
            for name in ("untrained", "first")
        }


def told_by(learn: Any, model: nn.Module) -> Told | None:
    """A method's networks by task, if its answers need the task to be told."""
    return partial(learn.network_for, model) if hasattr(learn, "network_for") else None


def _is_probed(step: int) -> bool:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, ...: powers of two and the middles between them."""
    return step & (step - 1) == 0 or (step % 3 == 0 and (step // 3) & (step // 3 - 1) == 0)


def _weights(network: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def _norm(weights: Weights) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in weights.values()))


def _groups(weights: Weights) -> dict[str, list[str]]:
    """Parameter names by layer: the path of the module, cut behind its first number (a block of a deep model)."""
    found: dict[str, list[str]] = {}
    for name in weights:
        parts = name.split(".")[:-1]
        cut = next((i + 1 for i, part in enumerate(parts) if part.isdigit()), min(2, len(parts)))
        found.setdefault(".".join(parts[:cut]) or name, []).append(name)
    return found
