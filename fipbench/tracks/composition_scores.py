"""What the composition track measures: both data sets along both orders, zeros, and how far apart the orders end.

Distances between two networks: of weights the Euclidean one, relative to the base network's norm; of outputs the root
mean squared Hellinger distance of the softmax outputs on the test items of both data sets (each counts half); and the
share of items on which the predicted classes differ. The squares of the first two and the third are squared Euclidean
distances (of weights, of square roots of probabilities, of indicators), so for networks X, X' of one order and Y, Y' of
the other, drawn independently of each other,

    E|X - Y|^2 - (E|X - X'|^2 + E|Y - Y'|^2) / 2  =  |E X - E Y|^2.

The commutator is the root of the first term, the noise floor that of the second, and their difference, `excess`, is an
unbiased estimate of what the orders themselves differ by: zero in the mean where the operations commute.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from fipbench import metrics, pruning
from fipbench.errors import ProtocolError
from fipbench.fip.path import distance_walked
from fipbench.spec import CompositionTask, Items
from fipbench.tracks.common import Outcome
from fipbench.tracks.composition_plan import AGAIN, ORDERS, Step, at
from fipbench.training import Examples, predict

Weights = dict[str, Tensor]
Pair = tuple[str, str]
DISTANCES = ("weights", "outputs", "disagreement")


def weights_of(network: nn.Module) -> Weights:
    """Copies of a network's parameters."""
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def pairs_of(task: CompositionTask) -> tuple[dict[str, list[Pair]], list[Pair]]:
    """Pairs of networks of unlike orders, by sparsity, and those of one order with another draw."""
    unlike = {}
    for sparsity in task.sparsities:
        draws = ("", AGAIN) if sparsity == task.repeat else ("",)
        ends = [[at(order, sparsity, draw) for draw in draws] for order in ORDERS]
        unlike[f"{sparsity:g}"] = list(product(ends[0], ends[1]))
    alike = [(at(order, task.repeat), at(order, task.repeat, AGAIN)) for order in ORDERS]
    return unlike, alike


class Scorer:
    """Measures networks against the test items of both data sets; a method never holds it.

    Networks are scored as copies of their weights in a network of the harness's own.
    """

    def __init__(self, task: CompositionTask, base: nn.Module, scoring: Sequence[Examples]) -> None:
        self.task = task
        self.scoring = scoring
        self.network = copy.deepcopy(base)
        self.base = weights_of(base)
        self.norm = math.sqrt(sum(float(v.double().square().sum()) for v in self.base.values()))
        self.unlike, self.alike = pairs_of(task)
        self.outputs: dict[str, Tensor] = {}
        self.rows: dict[str, dict[str, float]] = {"base": self._measured(self._predicted())}
        self.squares: dict[str, list[float]] = {}
        self.items: dict[str, Items] = {}
        self.kept = 0

    def __call__(self, step: Step, network: nn.Module) -> Weights:
        """Measure what an operation led to; returns its weights.

        Raises:
            ProtocolError: other parameters than were given, weights that are not finite, or other zeros than due.
        """
        weights = weights_of(network)
        if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in self.base.items()}:
            raise ProtocolError(f"the network after {step.name} has other parameters than the base network")
        if bad := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
            raise ProtocolError(f"the network after {step.name} has weights that are not finite ({bad[0]})")
        self.network.load_state_dict(network.state_dict() | weights)
        zeros, total = pruning.zeros(self.network)
        due = pruning.zeros_at(step.sparsity, total)
        if step.kind == "co" and zeros != due:
            raise ProtocolError(f"the network after {step.name} has {zeros} zeros among {total}, not {due}")
        found = self._predicted()
        row = self._measured(found)
        row |= {"sparsity": zeros / total, "weights": distance_walked(self.base, weights) / self.norm}
        if step.final:
            self.outputs[step.name] = torch.cat([out.softmax(1).sqrt() for out in found])
            if zeros < due:  # cut back to the sparsity, without training
                masks = pruning.magnitude_masks(pruning.prunable(self.network), step.sparsity)
                pruning.apply(self.network, masks)
                found = self._predicted()
            for number, (out, examples) in enumerate(zip(found, self.scoring, strict=True), start=1):
                row[f"cut/{number}"] = metrics.accuracy(out, examples.labels)
                if not step.name.startswith(AGAIN):
                    self.items[f"{step.name}/{number}"] = metrics.packed_correct(out, examples.labels)
        self.rows[step.name] = row
        self.kept = sum(int((value != 0).sum()) for value in weights.values())
        return weights

    def compare(self, networks: dict[str, Weights]) -> None:
        """Measure how far apart the networks of each pair are that is complete."""
        for a, b in self._pairs():
            if _name(a, b) not in self.squares and a in networks and b in networks:
                moved = distance_walked(networks[a], networks[b]) / self.norm
                self.squares[_name(a, b)] = [moved**2, *self._apart(self.outputs[a], self.outputs[b])]
        self.outputs = {name: out for name, out in self.outputs.items() if name in self.waiting()}

    def waiting(self) -> set[str]:
        """Networks of pairs that are not measured yet."""
        return {name for a, b in self._pairs() if _name(a, b) not in self.squares for name in (a, b)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that was measured so far: outputs, and the rest as JSON."""
        items = {name: msgspec.to_builtins(found) for name, found in self.items.items()}
        return self.outputs, {"rows": self.rows, "squares": self.squares, "items": items, "kept": self.kept}

    def go_on(self, outputs: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on measuring from such a state."""
        self.outputs = outputs
        self.rows, self.squares, self.kept = facts["rows"], facts["squares"], facts["kept"]
        self.items = {name: msgspec.convert(found, Items) for name, found in facts["items"].items()}

    def report(self, outcome: Outcome) -> None:
        """Metrics, curves and items of all networks seen."""
        sparsities = list(self.task.sparsities)
        for name in ("base", "cl"):
            outcome.metrics |= {f"accuracy/{name}/{i}": self.rows[name][f"accuracy/{i}"] for i in (1, 2)}
        ends: dict[str, list[float]] = {}
        for order in ("co", *ORDERS):
            rows = [self.rows[at(order, sparsity)] for sparsity in sparsities]
            for key in rows[0]:
                what, _, number = key.partition("/")
                name = f"{what}/{order}/{number}" if number else f"{what}/{order}"
                values = [row[key] for row in rows]
                outcome.curves[name] = {"sparsity": sparsities, "value": values}
                if what in ("accuracy", "sparsity"):
                    outcome.metrics |= {f"{name}@{s:g}": v for s, v in zip(sparsities, values, strict=True)}
                if what == "cut":
                    ends.setdefault(order, []).extend(values)
                if what == "perplexity" and order in ORDERS:
                    outcome.metrics[name] = min(values)
        for order, values in ends.items():
            outcome.metrics[f"average_accuracy/{order}"] = sum(values) / len(values)
        outcome.metrics["average_accuracy"] = sum(map(sum, ends.values())) / sum(map(len, ends.values()))
        self._report_distances(outcome)
        outcome.items = self.items
        outcome.parameters_stored = self.kept

    def _report_distances(self, outcome: Outcome) -> None:
        place = f"{self.task.repeat:g}"
        for n, kind in enumerate(DISTANCES):
            root = (lambda square: square) if kind == "disagreement" else math.sqrt
            between = {
                sparsity: sum(self.squares[_name(a, b)][n] for a, b in pairs) / len(pairs)
                for sparsity, pairs in self.unlike.items()
            }
            within = sum(self.squares[_name(a, b)][n] for a, b in self.alike) / len(self.alike)
            outcome.metrics |= {f"commutator/{kind}@{s}": root(square) for s, square in between.items()}
            outcome.metrics[f"noise/{kind}@{place}"] = root(within)
            outcome.metrics[f"excess/{kind}@{place}"] = between[place] - within

    def _pairs(self) -> list[Pair]:
        return [pair for pairs in self.unlike.values() for pair in pairs] + self.alike

    def _predicted(self) -> list[Tensor]:
        return [predict(self.network, examples) for examples in self.scoring]

    def _measured(self, found: list[Tensor]) -> dict[str, float]:
        """Accuracy over all outputs, and exp of the mean cross-entropy, on each data set."""
        row = {}
        for number, (out, examples) in enumerate(zip(found, self.scoring, strict=True), start=1):
            row[f"accuracy/{number}"] = metrics.accuracy(out, examples.labels)
            loss = float(nn.functional.cross_entropy(out.double(), examples.labels))
            row[f"perplexity/{number}"] = math.exp(min(loss, 700.0))
        return row

    def _apart(self, a: Tensor, b: Tensor) -> list[float]:
        """Mean squared Hellinger distance, and share of unlike classes; each data set counts half."""
        sizes = [len(examples.labels) for examples in self.scoring]
        parts = list(zip(a.double().split(sizes), b.double().split(sizes), strict=True))
        hellinger = [float((x - y).square().sum(1).mean()) / 2 for x, y in parts]
        unlike = [float((x.argmax(1) != y.argmax(1)).double().mean()) for x, y in parts]
        return [sum(hellinger) / 2, sum(unlike) / 2]


def _name(a: str, b: str) -> str:
    return f"{a} {b}"
