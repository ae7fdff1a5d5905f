"""The connectivity track: does a path between two trained networks stay as good as they are?

A method gets two networks that were trained alike from two seeds, their training data and a budget, and gives the
networks of a path from the first to the second, as a list or one by one. The harness joins them by straight lines,
goes on in a straight line to the second network where the path ends elsewhere, and measures at points evenly spread
along the whole: a method can neither hide a barrier between its points nor stop before it. A network that computes
the same function as the second one counts as it, whatever the order of its units.

A job that was stopped goes on after the last network that a method gave, if the method offers its state; where the
path was whole, any job goes on with measuring it.

Batch norm: its statistics are no weights. At every point that is measured, the ends included, they are taken anew
from training examples, as in the published paths (Garipov et al., 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import metrics
from fipbench.errors import BudgetExceeded, ProtocolError
from fipbench.fip.distance import bhattacharyya
from fipbench.fip.metric.length import measure_path
from fipbench.fip.metric.operator import Metric, metric_of
from fipbench.fip.plane import grid, plane_through
from fipbench.spec import ConnectivityTask, Job, Recipe
from fipbench.tracks.common import Base, Outcome, base_network, batches, generator_for, only_split
from fipbench.tracks.partial import Counted, Partial, offers_state, restore, state_of, under
from fipbench.training import Batch, Examples, Meter, cross_entropy, decay, fit, optimizer, predict

# Training examples under whose metric a path's length is measured, and with which batch norm's statistics are taken.
METRIC_EXAMPLES, STATISTICS_EXAMPLES = 64, 2000
# An end counts as the second network within so much of the distance between the two, or where no probability of any
# scored example differs by more than this.
SAME_WEIGHTS, SAME_OUTPUTS = 1e-6, 1e-4
# A longer path is not kept for a job that may be stopped: it would be in memory twice.
KEPT_BYTES = 2**31


@dataclass(frozen=True)
class Trial:
    """What a method is given beside the two networks.

    Attributes:
        train: the training examples; nothing here leads to any other.
        batches: a stream without end over them, the same for every method of (task, seed).
        batch_size: of that stream.
        recipe: how the two networks were trained.
        generator: for a method's own random choices.
        meter: counts what is spent and stops the method at the limit.
        finished: networks that an earlier process of the job took from the method, for methods that offer their state
            (`fipbench.tracks.partial`): the others are due. Else 0.
    """

    train: Examples
    batches: Counted
    batch_size: int
    recipe: Recipe
    generator: torch.Generator
    meter: Meter
    finished: int = 0

    @property
    def steps(self) -> int:
        """Training steps of one network with `batch_size` that the budget still allows."""
        return self.meter.steps(self.batch_size)

    def fit(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        rule: str = "sgd",
        loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
    ) -> nn.Module:
        """Train `model` in place on `batches`, the learning rate falling as the networks' own did."""
        chosen = optimizer(rule, model.parameters(), learning_rate, self.recipe.momentum, self.recipe.weight_decay)
        falling = decay(chosen, self.recipe.decay or (), steps)
        clip = self.recipe.clip or 0.0
        return fit(model, self.batches, steps=steps, optimizer=chosen, loss=loss, schedule=falling, clip=clip)

    @contextmanager
    def products(self) -> Iterator[Callable[[int, int], None]]:
        """For products with the Jacobian: inside, calls of networks are not counted, because a transform of torch.func
        hides how many examples they are of; what is taken is told to `spend(forward, backward)`, which this gives."""
        with self.meter.paused():
            yield self.meter.spend


# `path(first, second, trial)`, giving networks; it may offer its state.
MakePath = Any


def run(task: ConnectivityTask, job: Job, method: MakePath, cache: Path, tick: Callable[[str, float], Any]) -> Outcome:
    """Let a method connect the two base networks of (task, seed), and measure its path.

    Raises:
        ProtocolError: the method broke the contract.
        BudgetExceeded: it used more than the task allows.
    """
    split = only_split(task, job, cache)
    train = split.train
    tick("base networks", 0.0)
    ends = [base_network(task, job, train, cache, purpose=purpose) for purpose in ("", "second")]
    limit = 2 * task.budget.epochs * len(train.labels)
    meter = Meter(limit, (sum(end.forward_examples for end in ends), sum(end.backward_examples for end in ends)))
    trial = Trial(
        train=train,
        batches=Counted(batches(task, train, task.budget.batch_size, generator_for(job, "batches"))),
        batch_size=task.budget.batch_size,
        recipe=task.base,
        generator=generator_for(job, "choices"),
        meter=meter,
    )
    meter.tick = lambda share: tick("method", share)
    given = [meter.attach(copy.deepcopy(end.network)) for end in ends]
    course = _Course(ends, train, split.scoring)
    unfinished = Partial(job, cache)
    points = _made(method, given, trial, course, unfinished)
    if meter.passes > limit or meter.limit != limit:
        raise BudgetExceeded(f"more than the task's {limit} passes (examples forward plus backward)")
    outcome = Outcome(
        meter=meter,
        base_wall_s=sum(end.wall_s for end in ends),
        base_wait_s=sum(end.wait_s for end in ends),
        earlier_s=unfinished.earlier_s,
        parameters_stored=len(points) * len(points[0]),
        provenance={"base": ends[0].digest, "second": ends[1].digest, "train_examples": len(train.labels)},
    )
    if split.dropped:
        outcome.notes.append(f"{split.dropped} training examples dropped because they stand in the test split")
    if meter.passes < 0.99 * limit and job.role != "reference":
        outcome.notes.append(f"stopped at {meter.passes / limit:.0%} of the budget")
    tick("path", 0.0)
    whole = _score(task, course, points, outcome, lambda share: tick("path", share))
    if task.plane and job.seed == 0:
        _look(task.plane, course, whole, outcome)
    unfinished.drop()
    return outcome


def _made(
    method: MakePath, given: Sequence[nn.Module], trial: Trial, course: _Course, unfinished: Partial
) -> list[Tensor]:
    """The weights of the path's networks from the first network on, those that an earlier process was given among
    them; where the last of them is the second network but for rounding, it is that."""
    points, taken = [course.first], 0
    if kept := unfinished.load():
        tensors, facts = kept
        points, taken = list(under(tensors, "point", str(course.first.device)).values()), facts["networks"]
        restore(trial, tensors, facts)
        trial.batches.skip_to(facts["batches"])
        if facts["complete"]:
            return points
        method.load_state_dict(under(tensors, "method", str(course.first.device)))
        trial = replace(trial, finished=taken)

    def save(complete: bool) -> None:
        if len(points) * points[0].nbytes > KEPT_BYTES:
            return
        state = {} if complete else method.state_dict()
        tensors, facts = state_of(trial, method=state, point={str(n): point for n, point in enumerate(points)})
        unfinished.save(tensors, {**facts, "networks": taken, "batches": trial.batches.taken, "complete": complete})

    for number, network in enumerate(_networks(method(*given, trial)), start=taken):
        point = course.point_of(network, number)
        if not torch.equal(point, points[-1]):
            points.append(point)
        taken = number + 1
        if offers_state(method):
            save(complete=False)
    if course.left(points[-1]) <= SAME_WEIGHTS:
        points[-1] = course.second
    save(complete=True)
    return points


class _Course:
    """Networks of the harness's own at places in weight space; a method never holds one."""

    def __init__(self, ends: Sequence[Base], train: Examples, scoring: Examples) -> None:
        self.scoring = scoring
        self.network = copy.deepcopy(ends[0].network).eval().requires_grad_(True)
        self.shapes = {name: value.shape for name, value in self.network.named_parameters()}
        self.first, self.second = (self.flat(dict(end.network.named_parameters())) for end in ends)
        self.span = float((self.second - self.first).double().norm())
        drawn = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
        order = drawn.to(train.labels.device)
        self.known = train.only(order[:STATISTICS_EXAMPLES])
        self.normed = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.inputs = train.batch(order[:METRIC_EXAMPLES]).inputs

    def flat(self, weights: Mapping[str, Tensor]) -> Tensor:
        """All parameters as one vector."""
        return torch.cat([weights[name].detach().flatten() for name in self.shapes]).clone()

    def at(self, point: Tensor) -> nn.Module:
        """The network there, the same object every time."""
        parts = point.split([shape.numel() for shape in self.shapes.values()])
        with torch.no_grad():
            for parameter, part in zip(self.network.parameters(), parts, strict=True):
                parameter.copy_(part.view_as(parameter))
        if self.normed:
            _take_statistics(self.network, self.normed, self.known)
        return self.network

    def outputs(self, point: Tensor, examples: Examples | None = None) -> Tensor:
        """Outputs there on the scored examples, or others."""
        return predict(self.at(point), examples or self.scoring)

    def point_of(self, network: nn.Module, number: int) -> Tensor:
        """The weights of a network that a method gives, checked."""
        weights = dict(network.named_parameters())
        if {name: value.shape for name, value in weights.items()} != self.shapes:
            raise ProtocolError(f"network {number} of the path has other parameters than the two networks")
        if bad := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
            raise ProtocolError(f"network {number} of the path has weights that are not finite ({bad[0]})")
        return self.flat(weights)

    def left(self, point: Tensor) -> float:
        """Distance to the second network, as a share of that between the two."""
        return float((self.second - point).double().norm()) / self.span

    def metric_length(self, points: Sequence[Tensor]) -> float:
        """Length under g of the polyline through the points, g taken in the middle of each segment."""
        if not self.normed:
            return measure_path(self._metric(), points).length
        total = 0.0
        for a, b in pairwise(points):
            self.at(torch.lerp(a, b, 0.5))  # a metric keeps the statistics that the network has
            total += measure_path(self._metric(), [a, b]).length
        return total

    def _metric(self) -> Metric:
        return metric_of(self.network, self.inputs, space="fisher")


def _networks(found: Any) -> Iterator[nn.Module]:
    if not isinstance(found, list | tuple | Iterator):
        raise ProtocolError(f"expected the networks of a path, got {type(found).__name__}")
    for one in found:
        if not isinstance(one, nn.Module):
            raise ProtocolError(f"expected networks, got {type(one).__name__} among them")
        yield one


@torch.no_grad()
def _take_statistics(network: nn.Module, normed: Sequence[Any], examples: Examples) -> None:
    """Batch norm's means and variances from these examples, each counting alike."""
    for module in normed:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    for index in torch.arange(len(examples.labels), device=examples.labels.device).split(250):
        network(examples.batch(index).inputs)
    for module in normed:
        module.eval()


def _lengths(points: Sequence[Tensor]) -> list[float]:
    return [float((b - a).double().norm()) for a, b in pairwise(points)]


def spread(points: Sequence[Tensor], count: int) -> tuple[list[float], list[Tensor]]:
    """`count` points evenly spread along the polyline through `points`, both ends included, and where they stand:
    from 0 to 1, as shares of its Euclidean length.

    Raises:
        ValueError: fewer than two points asked for, or a polyline without length.
    """
    lengths = torch.tensor(_lengths(points))
    ends = lengths.double().cumsum(0)
    if count < 2 or not len(ends) or not float(ends[-1]):
        raise ValueError(f"expected two points or more on a path that has a length, got {count}")
    places = [n / (count - 1) for n in range(count)]
    found = []
    for place in places[1:-1]:
        at = place * float(ends[-1])
        number = min(int(torch.searchsorted(ends, at)), len(ends) - 1)
        share = 1 - (float(ends[number]) - at) / float(lengths[number])
        found.append(torch.lerp(points[number], points[number + 1], min(1.0, max(0.0, share))))
    return places, [points[0], *found, points[-1]]


def barrier(places: Sequence[float], losses: Sequence[float]) -> float:
    """Highest rise of the loss above the straight line between its values at the ends; never below zero.

    Args:
        places: from 0 to 1, increasing; `losses`: there.

    Source: Frankle et al., 2020; as used by Entezari et al., 2022, and Ainsworth et al., 2023.
    """
    first, last = losses[0], losses[-1]
    return max(loss - ((1 - t) * first + t * last) for t, loss in zip(places, losses, strict=True))


def _score(
    task: ConnectivityTask,
    course: _Course,
    points: Sequence[Tensor],
    outcome: Outcome,
    tick: Callable[[float], Any],
) -> list[Tensor]:
    """Metrics, curves and items of the path, completed by a straight line where it does not end at the second
    network; returns it so completed."""
    own = sum(_lengths(points))
    left = course.left(points[-1])
    wanted, last = (course.outputs(point).double() for point in (course.second, points[-1]))
    alike = float((wanted.softmax(1) - last.softmax(1)).abs().max()) <= SAME_OUTPUTS
    reached = left == 0 or (alike and len(points) > 1)
    whole = list(points) if reached else [*points, course.second]
    places, measured = spread(whole, task.points)
    labels = course.scoring.labels
    right, losses = [], []
    for number, point in enumerate(measured):
        outputs = course.outputs(point)
        if not bool(outputs.isfinite().all()):
            raise ProtocolError(f"outputs at {places[number]:.0%} of the path are not finite")
        right.append(metrics.packed_correct(outputs, labels))
        losses.append(float(nn.functional.cross_entropy(outputs.double(), labels)))
        outcome.curves.setdefault("accuracy", {"distance": list(places), "value": []})["value"].append(
            metrics.accuracy(outputs, labels)
        )
        tick((number + 1) / len(measured))
    outcome.curves["loss"] = {"distance": list(places), "value": losses}
    accuracies = outcome.curves["accuracy"]["value"]
    total = own if reached else own + left * course.span
    walked = [value for place, value in zip(places, accuracies, strict=True) if place * total <= own * (1 + 1e-9)]
    outcome.metrics |= {
        "lowest_accuracy": min(accuracies),
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "lowest_accuracy_walked": min(walked),
        "barrier": barrier(places, losses),
        "end_accuracy/1": accuracies[0],
        "end_accuracy/2": metrics.accuracy(wanted, labels),
        "reached": float(reached),
        "distance_left": left,
        "outputs_left": float(bhattacharyya(last, wanted)),
        "length": total,
        "length_ratio": total / course.span,
        "length_metric": course.metric_length(measured),
        "networks": float(len(points)),
    }
    outcome.items["lowest_accuracy"] = right[accuracies.index(min(accuracies))]
    if not reached:
        outcome.notes.append(f"ends short of the second network by {left:.2f} of the distance between the two")
    return whole


def _look(size: int, course: _Course, whole: Sequence[Tensor], outcome: Outcome) -> None:
    """Accuracy on the plane through both ends of a path and its middle; a straight line has none.

    `plane`: accuracy at places (x, y), row by row from below; `plane/path`: the path's points, projected.
    """
    _, measured = spread(whole, 21)
    plane = plane_through(measured[0], measured[-1], measured[10])
    if plane is None:
        return
    xs, ys = grid(plane, measured, size)
    labels = course.scoring.labels
    cells = [(x, y) for y in ys for x in xs]
    values = [metrics.accuracy(course.outputs(plane.point(x, y)), labels) for x, y in cells]
    walked = [plane.project(point) for point in measured]
    for name, at, more in (("plane", cells, {"value": values}), ("plane/path", walked, {})):
        numbers = [float(number) for number in range(len(at))]
        outcome.curves[name] = {"cell": numbers, "x": [x for x, _ in at], "y": [y for _, y in at], **more}
