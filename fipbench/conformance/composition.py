"""The contract of the composition track, as plain functions: `check_*(method, problem)` raises AssertionError in words.

As `fipbench.conformance.sparsity`, which lends those checks that are the same in all tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fipbench import data, registry
from fipbench.conformance import instruments
from fipbench.conformance import sparsity as contract
from fipbench.spec import Job, Method
from fipbench.tracks import composition, composition_plan
from fipbench.tracks.common import base_network
from fipbench.training import Meter


@dataclass
class Operated:
    """One operation as it was seen: what was due, what came back, what went through the matrices."""

    kind: str
    sparsity: float
    weights: dict[str, np.ndarray]
    forward: int
    backward: int
    limit: int
    again: dict[str, np.ndarray] | None = None


@dataclass
class Observation:
    """One run of a method under instruments; `error` is what ended it."""

    operations: list[Operated] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    error: Exception | None = None


class Problem(contract.Problem):
    """A small composition and folders of its own; remembers what it has seen of each method."""

    task: Any

    def __init__(self, task: Any, folder: Path) -> None:
        self.task, self.folder, self.cache = task, folder, folder / "cache"
        self.variant, self.digests = data.identify_all(task.sources, self.cache)
        self._records, self._seen = {}, {}

    def test_split(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, features) uint8 and labels of the first data set's test split."""
        examples = data.load(self.task.sources[0], "test", self.cache, self.digests[data.key_of("test", 0, 2)])
        return examples.inputs.flatten(1).numpy(), examples.labels.numpy()

    def good_record(self, method: Method, seed: int = 0, fresh: bool = False) -> Any:
        """The record of a run that must have succeeded, with and without the instruments."""
        record = super().good_record(method, seed, fresh)
        error = self.observe(method).error
        assert error is None, f"{method.name} failed under observation: {type(error).__name__}: {error}"
        return record

    def base_cost(self) -> tuple[int, int]:
        """Examples forward and backward that the shared base network took."""
        job = self._any_job()
        train = composition.data_of(self.task, job, self.cache)[0][0][0]
        base = base_network(self.task, job, train, self.cache, part="first data set")
        return base.forward_examples, base.backward_examples

    def _observe(self, method: Method) -> Observation:
        seen = Observation()
        job = self.job(method)
        try:
            make = registry.load_factory(method.target)
            watched = _watched(make(**method.defaults), seen, instruments.Witness(*self.test_split()))
            with instruments.worker_settings(job.threads):
                composition.run(self.task, job, watched, self.cache, lambda text, share: None)
                self._once_more(make(**method.defaults), job, seen)
        except Exception as error:
            seen.error = error
        return seen

    def _once_more(self, method: Any, job: Job, seen: Observation) -> None:
        """The last operation by itself, as another process that goes on would do it."""
        step = composition_plan.steps_of(self.task)[-1]
        sources, _ = composition.data_of(self.task, job, self.cache)
        train = sources[0][0]
        base = base_network(self.task, job, train, self.cache, part="first data set")
        before = seen.operations[-2].weights
        start = composition._loaded(base, {name: torch.from_numpy(value.copy()) for name, value in before.items()})
        meter = Meter(composition_plan.passes_of(self.task, step, [len(part.labels) for part, _ in sources]))
        memory = composition._memory(self.task, job, train)
        found = composition._do(self.task, job, method, step, sources[step.source][0], memory, start, meter)
        seen.operations[-1].again = _numbers(found)

    def _any_job(self) -> Job:
        return self.job(Method(name="none", track="composition", target="none:none", version="1", defaults={}))


# ------------------------------------------------------------------------------------------------ the checks


def check_other_seed_other_record(method: Method, problem: Problem) -> None:
    """Another seed gives other networks: other answers than the first seed's."""
    first, other = problem.good_record(method), problem.good_record(method, seed=1)
    assert first.id != other.id, f"{method.name}: two seeds have one id"
    assert first.items != other.items, (
        f"{method.name}: seeds 0 and 1 give the same networks; is the network that is handed over used at all?"
    )


def check_budget_kept(method: Method, problem: Problem) -> None:
    """No operation takes more passes than it is allowed, by an independent count."""
    for number, one in enumerate(problem.observe(method).operations, start=1):
        spent = one.forward + one.backward
        assert spent <= one.limit, f"{method.name}: operation {number} spent {spent} passes; it is allowed {one.limit}"
    problem.good_record(method)


def check_cost_counted(method: Method, problem: Problem) -> None:
    """The recorded cost is what an independent count of matrix products finds, plus the base network's."""
    cost = problem.good_record(method).cost
    seen = problem.observe(method).operations
    for kind, recorded, base in zip(
        ("forward", "backward"), (cost.forward_examples, cost.backward_examples), problem.base_cost(), strict=True
    ):
        counted = base + sum(getattr(one, kind) for one in seen)
        assert recorded == counted, (
            f"{method.name}: the record says {recorded} examples {kind}, but {counted} went through the matrices; "
            "call the network that is handed over, or a deepcopy of it, as network(inputs)"
        )


def check_weights_finite(method: Method, problem: Problem) -> None:
    """Every weight of every network that is given back is a finite number."""
    for number, one in enumerate(problem.observe(method).operations, start=1):
        bad = [name for name, value in one.weights.items() if not np.isfinite(value).all()]
        assert not bad, f"{method.name}: after operation {number} weights are not finite: {', '.join(bad)}"
    problem.good_record(method)


def check_sparsity_exact(method: Method, problem: Problem) -> None:
    """After every Co exactly the zeros that are due (counted by numpy)."""
    for one in problem.observe(method).operations:
        if one.kind == "co":
            matrices = [value for value in one.weights.values() if value.ndim == 2]
            total = sum(value.size for value in matrices)
            due = int(Fraction(str(one.sparsity)) * total + Fraction(1, 2))
            zeros = sum(int((value == 0).sum()) for value in matrices)
            assert zeros == due, f"{method.name}: {zeros} zeros of {total} at sparsity {one.sparsity}, not {due}"
    problem.good_record(method)


def check_nothing_held(method: Method, problem: Problem) -> None:
    """An operation by itself gives the same network as behind others: a stopped job can go on with any of them."""
    problem.good_record(method)
    last = problem.observe(method).operations[-1]
    assert last.again is not None
    unlike = [name for name, value in last.weights.items() if not np.array_equal(value, last.again[name])]
    assert not unlike, (
        f"{method.name}: the last operation by itself gives another network ({unlike[0]}); hold nothing between "
        "operations, and draw from trial.generator"
    )


CHECKS: tuple[Callable[[Method, Any], None], ...] = (
    contract.check_same_seed_same_record,
    check_other_seed_other_record,
    contract.check_test_split_out_of_reach,
    check_budget_kept,
    check_cost_counted,
    check_weights_finite,
    check_sparsity_exact,
    check_nothing_held,
    contract.check_described,
)


# ------------------------------------------------------------------------------------------- the instruments


def _watched(work: Any, seen: Observation, witness: instruments.Witness) -> Callable[..., Any]:
    """`work` as the harness calls it, observed."""

    def operate(network: nn.Module, operation: composition.Operation, trial: composition.Trial) -> Any:
        limit = trial.meter.limit
        products = instruments.Products(network)
        known = {"network": network, "operation": operation, "trial": trial, "method": work}
        # What was seen of one operation holds for all: the search takes longer than the operation.
        if not seen.operations:
            seen.found += witness.search(known)
        found = None
        try:
            with products:
                found = work(network, operation, trial)
        finally:
            counts = products.forward, products.backward
            weights = _numbers(found) if isinstance(found, nn.Module) else {}
            seen.operations.append(Operated(operation.kind, operation.sparsity, weights, *counts, limit))
        if len(seen.operations) == 4:  # by now the harness has scored what the method gave back
            seen.found += witness.search({**known, "given back": found})
        return found

    return operate


def _numbers(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in network.named_parameters()}
