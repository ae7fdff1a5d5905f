"""The sparsity track: how well does a network do with only a few of its weights?

A method gets the dense network, its training data, increasing sparsities and a budget, and yields for each
sparsity a network with exactly that many zeros among the prunable weights. The harness scores each.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from fipbench import metrics, pruning
from fipbench.errors import BudgetExceeded, ProtocolError
from fipbench.fip import distance, distance_walked
from fipbench.spec import Items, Job, Recipe, SparsityTask
from fipbench.tracks.common import (
    Outcome,
    bag_of_words,
    base_network,
    batches,
    generator_for,
    only_split,
)
from fipbench.tracks.partial import Counted, Partial, offers_state, restore, state_of, under
from fipbench.training import Batch, Examples, Meter, cross_entropy, decay, fit, optimizer, predict


@dataclass(frozen=True)
class Trial:
    """What a method is given beside the dense network and the sparsities.

    Attributes:
        train: the training examples; nothing here leads to any other.
        batches: a stream without end over them, the same for every method of (task, seed).
        batch_size: of that stream.
        snapshots: weights of the dense network's own training, by epoch (0: before it).
        recipe: how the dense network was trained.
        generator: for a method's own random choices.
        meter: counts what is spent and stops the method at the limit.
        finished: how many sparsities an earlier process of the same job yielded; they are not due again. Above zero
            only for a method that can go on (`fipbench.tracks.partial`).
        last: the network at the last of them, if there is one.
    """

    train: Examples
    batches: Counted
    batch_size: int
    snapshots: Mapping[int, dict[str, Tensor]]
    recipe: Recipe
    generator: torch.Generator
    meter: Meter
    finished: int = 0
    last: nn.Module | None = None

    @property
    def steps(self) -> int:
        """Training steps of `batch_size` that the budget still allows."""
        return self.meter.steps(self.batch_size)

    def outputs(self, model: nn.Module) -> Tensor:
        """Outputs of `model` for all training examples, shape (n, outputs); costs n forward passes."""
        return predict(model, self.train)

    def fit(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        rule: str = "sgd",
        loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
        masks: pruning.Masks | None = None,
        after_step: Callable[[int], Any] | None = None,
    ) -> nn.Module:
        """Train `model` in place on `batches`; weights outside `masks` are zero after every step."""
        if masks:
            pruning.apply(model, masks)

        def after(step: int) -> None:
            if masks:
                pruning.apply(model, masks)
            if after_step is not None:
                after_step(step)

        chosen = optimizer(rule, model.parameters(), learning_rate, self.recipe.momentum, self.recipe.weight_decay)
        clip = self.recipe.clip or 0.0
        falling = decay(chosen, self.recipe.decay or (), steps)
        return fit(
            model,
            self.batches,
            steps=steps,
            optimizer=chosen,
            loss=loss,
            schedule=falling,
            after_step=after,
            clip=clip,
        )


Prune = Callable[[nn.Module, tuple[float, ...], Trial], Iterator[tuple[float, nn.Module]]]


def run(task: SparsityTask, job: Job, method: Prune, cache: Path, tick: Callable[[str, float], Any]) -> Outcome:
    """Let a method prune the base network of (task, seed), and measure every network it yields.

    Raises:
        ProtocolError: the method broke the contract.
        BudgetExceeded: it used more than the task allows.
    """
    split = only_split(task, job, cache)
    train = split.train
    tick("base network", 0.0)
    base = base_network(task, job, train, cache)
    limit = 2 * task.budget.epochs * len(train.labels)
    meter = Meter(limit, (base.forward_examples, base.backward_examples))
    trial = Trial(
        train=train,
        batches=Counted(batches(task, train, task.budget.batch_size, generator_for(job, "batches"))),
        batch_size=task.budget.batch_size,
        snapshots=base.snapshots,
        recipe=task.base,
        generator=generator_for(job, "choices"),
        meter=meter,
    )
    outcome = Outcome(
        meter=meter,
        base_wall_s=base.wall_s,
        base_wait_s=base.wait_s,
        provenance={"base": base.digest, "train_examples": len(train.labels)},
    )
    if split.dropped:
        outcome.notes.append(f"{split.dropped} training examples dropped because they stand in the test split")
    score = _Scorer(task, base.network, split.scoring)
    levels = (0.0,) if job.role == "reference" else task.sparsities
    meter.tick = lambda share: tick("method", share)
    given = meter.attach(copy.deepcopy(base.network))
    unfinished = Partial(job, cache) if offers_state(method) else None
    if unfinished:
        trial = _go_on(unfinished, trial, given, method, score)
    seen = trial.finished
    for sparsity, network in _pairs(method(given, levels, trial)):
        if seen == len(levels) or not math.isclose(sparsity, levels[seen], abs_tol=1e-12):
            due = f"{levels[seen]:g}" if seen < len(levels) else "nothing more"
            raise ProtocolError(f"yielded sparsity {sparsity:g} where {due} was due")
        with meter.paused():
            score(sparsity, network, exact=job.role != "reference")
        seen += 1
        if unfinished and seen < len(levels):
            unfinished.save(*_state(seen, network, trial, method, score))
    if meter.passes > limit or meter.limit != limit:
        raise BudgetExceeded(f"more than the task's {limit} passes (examples forward plus backward)")
    if seen < len(levels):
        raise ProtocolError(f"yielded {seen} of {len(levels)} sparsities, then stopped")
    score.report(outcome)
    if job.role == "reference":
        outcome.metrics |= bag_of_words(task, job, cache)
    if meter.passes < 0.99 * meter.limit:
        outcome.notes.append(f"stopped at {meter.passes / meter.limit:.0%} of the budget")
    if unfinished:
        outcome.earlier_s = unfinished.earlier_s
        unfinished.drop()
    return outcome


def _state(
    done: int, network: nn.Module, trial: Trial, method: Any, score: _Scorer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the job holds after `done` sparsities."""
    last, measured = score.state()
    tensors, facts = state_of(trial, network=network.state_dict(), method=method.state_dict(), last=last)
    return tensors, {**facts, "done": done, "batches": trial.batches.taken, "measured": measured}


def _go_on(unfinished: Partial, trial: Trial, dense: nn.Module, method: Any, score: _Scorer) -> Trial:
    """Put all back to where an earlier process left it; returns the trial with what it had finished."""
    found = unfinished.load()
    if found is None:
        return trial
    tensors, facts = found
    device = str(trial.train.labels.device)
    network = copy.deepcopy(dense)
    network.load_state_dict(under(tensors, "network", device))
    method.load_state_dict(under(tensors, "method", device))
    score.go_on(under(tensors, "last", device), facts["measured"])
    trial.batches.skip_to(facts["batches"])
    restore(trial, tensors, facts)
    return replace(trial, finished=int(facts["done"]), last=network)


def _pairs(result: Any) -> Iterator[tuple[float, nn.Module]]:
    if not isinstance(result, Iterator) and not hasattr(result, "__iter__"):
        raise ProtocolError(f"expected an iterator of (sparsity, model), got {type(result).__name__}")
    for pair in result:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], nn.Module):
            raise ProtocolError(f"expected a tuple (sparsity, model), got {type(pair).__name__}")
        try:
            sparsity = float(pair[0])
        except (TypeError, ValueError):
            raise ProtocolError(f"expected a number as sparsity, got {type(pair[0]).__name__}") from None
        yield sparsity, pair[1]


class _Scorer:
    """Measures networks against the test split and the dense network; a method never holds it."""

    def __init__(self, task: SparsityTask, dense: nn.Module, scoring: Examples) -> None:
        self.examples = scoring
        self.scores = task.scores
        self.dense = {name: value.detach().clone() for name, value in dense.named_parameters()}
        self.last = self.dense
        self.path = 0.0
        self.norm = math.sqrt(sum(float(v.double().square().sum()) for v in self.dense.values()))
        self.outputs = predict(dense, self.examples)
        self.layers = list(pruning.prunable(dense))
        self.network = copy.deepcopy(dense)
        self.rows: list[dict[str, float]] = []
        self.items: dict[str, Items] = {}
        self.kept = 0

    def __call__(self, sparsity: float, network: nn.Module, exact: bool) -> None:
        weights = {name: value.detach().clone() for name, value in network.named_parameters()}
        if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in self.dense.items()}:
            raise ProtocolError(f"the network at sparsity {sparsity:g} has other parameters than the dense one")
        bad = [name for name, value in weights.items() if not bool(value.isfinite().all())]
        if bad:
            raise ProtocolError(f"the network at sparsity {sparsity:g} has weights that are not finite ({bad[0]})")
        self.network.load_state_dict(network.state_dict() | weights)
        zeros, total = pruning.zeros(self.network)
        if exact and zeros != (due := pruning.zeros_at(sparsity, total)):
            raise ProtocolError(f"the network at sparsity {sparsity:g} has {zeros} zeros among {total}, not {due}")
        outputs = predict(self.network, self.examples)
        self.path += distance_walked(self.last, weights)
        row = {
            "sparsity": sparsity,
            **self._scores(outputs),
            "weights": distance_walked(self.dense, weights) / self.norm,
            "path": self.path / self.norm,
            "outputs": float(distance.bhattacharyya(outputs, self.outputs)),
        }
        for name in self.layers:
            row[f"layer/{name}"] = float((weights[name] == 0).double().mean())
        self.rows.append(row)
        if "accuracy" in self.scores:  # a value on a scale is not right or wrong
            self.items[_at(sparsity)] = metrics.packed_correct(outputs, self.examples.labels)
        self.kept = sum(int((value != 0).sum()) for value in weights.values())
        self.last = weights

    def _scores(self, outputs: Tensor) -> dict[str, float]:
        return {name: metrics.SCORES[name](outputs, self.examples.labels) for name in self.scores}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that was measured so far: weights at the last look, and the rest as JSON."""
        items = {name: msgspec.to_builtins(found) for name, found in self.items.items()}
        return self.last, {"path": self.path, "rows": self.rows, "items": items, "kept": self.kept}

    def go_on(self, last: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on measuring from such a state."""
        self.last = last
        self.path, self.rows, self.kept = facts["path"], facts["rows"], facts["kept"]
        self.items = {name: msgspec.convert(found, Items) for name, found in facts["items"].items()}

    def report(self, outcome: Outcome) -> None:
        """Metrics, curves and items of all networks seen."""
        sparsities = [row["sparsity"] for row in self.rows]
        outcome.metrics["area"] = metrics.area_under_sparsity(sparsities, [row[self.scores[0]] for row in self.rows])
        for name, value in self._scores(self.outputs).items():
            outcome.metrics[f"dense_{name}"] = value
            outcome.metrics |= {f"{name}@{_at(row['sparsity'])}": row[name] for row in self.rows}
        for name in self.rows[0]:
            if name != "sparsity":
                outcome.curves[name] = {"sparsity": sparsities, "value": [row[name] for row in self.rows]}
        outcome.metrics["weights_walked"] = self.rows[-1]["weights"]
        outcome.metrics["outputs_walked"] = self.rows[-1]["outputs"]
        outcome.items = self.items
        outcome.parameters_stored = self.kept


def _at(sparsity: float) -> str:
    return f"{sparsity:g}"
