"""What is measured of a path: accuracy and loss along it, how far it came, its shape, and the metric on its way.

Batch norm: its statistics are no weights. At every point that is measured, the ends included, they are taken anew
from training examples, as in the published paths (Garipov et al., 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import metrics
from fipbench.errors import ProtocolError
from fipbench.fip.distance import bhattacharyya
from fipbench.fip.metric import gram, kolmogorov_smirnov, law_of
from fipbench.fip.metric.length import measure_path
from fipbench.fip.metric.operator import Metric, metric_of
from fipbench.fip.plane import grid, plane_through
from fipbench.fip.trajectory import trajectory
from fipbench.spec import ConnectivityTask
from fipbench.tracks.common import Base, Outcome
from fipbench.training import Examples, predict

# Training examples under whose metric a path's length is measured, and with which batch norm's statistics are taken.
METRIC_EXAMPLES, STATISTICS_EXAMPLES = 64, 2000
# Of the first, those whose spectrum is taken: 16, or fewer (never below 2) where they have more outputs than rows.
SPECTRUM_EXAMPLES, SPECTRUM_ROWS = 16, 256
# An eigenvalue of g from which on a direction counts as one that changes the outputs (the source's example).
SENSITIVE = 1e-3
# An end counts as the second network within so much of the distance between the two, or where no probability of any
# scored example differs by more than this.
SAME_WEIGHTS, SAME_OUTPUTS = 1e-6, 1e-4


class Course:
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

    def under_metric(self, points: Sequence[Tensor]) -> tuple[float, float]:
        """Length and energy under g of the polyline through the points, passed from 0 to 1 with as much time for each
        segment; g is taken in the middle of each."""
        if not self.normed:
            found = measure_path(self._metric(), points)
            return found.length, found.energy
        length = squares = 0.0
        for a, b in pairwise(points):
            self.at(torch.lerp(a, b, 0.5))  # a metric keeps the statistics that the network has
            found = measure_path(self._metric(), [a, b])
            length, squares = length + found.length, squares + found.energy
        return length, squares * (len(points) - 1)

    def spectrum(self, point: Tensor) -> dict[str, float]:
        """Of g at a point, over the first training examples: its rank, how many directions change the outputs, and
        the distance of its spectrum from the Marchenko-Pastur law."""
        outputs = self.at(point)(self.inputs[:1]).shape[1]
        count = min(SPECTRUM_EXAMPLES, max(2, SPECTRUM_ROWS // outputs))
        found = gram(self._metric(count))
        return {
            "rank": float(found.rank),
            "sensitive_directions": float(found.metric.size - found.dimension_below(SENSITIVE)),
            "marchenko_pastur": kolmogorov_smirnov(found.values, law_of(found.metric, found.values)),
        }

    def _metric(self, count: int | None = None) -> Metric:
        return metric_of(self.network, self.inputs[:count], space="fisher")


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
    steps = torch.tensor(_lengths(points))
    ends = steps.double().cumsum(0)
    if count < 2 or not len(ends) or not float(ends[-1]):
        raise ValueError(f"expected two points or more on a path that has a length, got {count}")
    places = [n / (count - 1) for n in range(count)]
    found = []
    for place in places[1:-1]:
        at = place * float(ends[-1])
        number = min(int(torch.searchsorted(ends, at)), len(ends) - 1)
        share = 1 - (float(ends[number]) - at) / float(steps[number])
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


def score(
    task: ConnectivityTask,
    course: Course,
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
        **_geometry(course, measured),
        "networks": float(len(points)),
    }
    outcome.items["lowest_accuracy"] = right[accuracies.index(min(accuracies))]
    if not reached:
        outcome.notes.append(f"ends short of the second network by {left:.2f} of the distance between the two")
    return whole


def _geometry(course: Course, measured: Sequence[Tensor]) -> dict[str, float]:
    """The path's shape in weight space and under g; g's spectrum at both ends and half-way."""
    length, energy = course.under_metric(measured)
    shape = trajectory(measured)
    places = {"1": measured[0], "middle": measured[len(measured) // 2], "2": measured[-1]}
    spectra = {
        f"{name}/{place}": value for place, point in places.items() for name, value in course.spectrum(point).items()
    }
    return {
        "length_metric": length,
        "energy_metric": energy,
        "directional_similarity": shape.mean_directional_similarity,
        "turning_angle": float(shape.angles.mean()),
        **spectra,
    }


def look(size: int, course: Course, whole: Sequence[Tensor], outcome: Outcome) -> None:
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
