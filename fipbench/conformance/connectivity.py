"""The contract of the connectivity track, as plain functions: `check_*(method, problem)` raises in words.

As `fipbench.conformance.sparsity`, which lends those checks that are the same in all tracks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from torch import nn
from torch.autograd import forward_ad

from fipbench import registry
from fipbench.conformance import instruments
from fipbench.conformance import sparsity as contract
from fipbench.spec import Job, Method
from fipbench.tracks import common, connectivity


@dataclass
class Observation:
    """One run of a method under instruments; `error` is what ended it."""

    points: list[dict[str, np.ndarray]] = field(default_factory=list)
    own_forward: int = 0
    own_backward: int = 0
    found: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    error: Exception | None = None


class Problem(contract.Problem):
    """Two small networks and folders of its own; remembers what it has seen of each method."""

    task: Any

    def good_record(self, method: Method, seed: int = 0, fresh: bool = False) -> Any:
        """The record of a run that must have succeeded, with and without the instruments."""
        record = super().good_record(method, seed, fresh)
        error = self.observe(method).error
        assert error is None, f"{method.name} failed under observation: {type(error).__name__}: {error}"
        return record

    def base_cost(self) -> tuple[int, int]:
        """Examples forward and backward that both base networks took."""
        job = self._any_job()
        train, _ = common.training_data(self.task, job, self.cache)
        ends = [common.base_network(self.task, job, train, self.cache, purpose=p) for p in ("", "second")]
        return sum(end.forward_examples for end in ends), sum(end.backward_examples for end in ends)

    def _observe(self, method: Method) -> Observation:
        seen = Observation()
        job = self.job(method)
        witness = instruments.Witness(*self.test_split())
        kept: dict[str, Any] = {}
        try:
            work = registry.load_factory(method.target)(**method.defaults)
            with instruments.worker_settings(job.threads):
                watched = _watched(work, seen, witness, kept)
                connectivity.run(self.task, job, watched, self.cache, lambda text, share: None)
        except Exception as error:
            seen.error = error
        # By now the harness has measured the path.
        seen.found += witness.search(kept)
        return seen

    def _any_job(self) -> Job:
        return self.job(Method(name="none", track="connectivity", target="none:none", version="1", defaults={}))


# ------------------------------------------------------------------------------------------------ the checks


def check_cost_counted(method: Method, problem: Problem) -> None:
    """The recorded passes are what an independent count of matrix products finds, plus both base networks'.

    The tangents of forward mode cost what a backward pass costs, and are recorded as one.
    """
    seen, cost, base = problem.observe(method), problem.good_record(method).cost, problem.base_cost()
    for kind, recorded, counted in (
        ("forward", cost.forward_examples - base[0], seen.own_forward),
        ("backward", cost.backward_examples - base[1], seen.own_backward),
    ):
        assert recorded == counted, (
            f"{method.name}: the record says {recorded} examples {kind} of its own, but {counted} went through the "
            "matrices; call the networks that are handed over, or deepcopies, or tell `spend` what products take"
        )


def check_weights_finite(method: Method, problem: Problem) -> None:
    """Every weight of every network that is given back is a finite number."""
    for number, weights in enumerate(problem.observe(method).points):
        bad = [name for name, value in weights.items() if not np.isfinite(value).all()]
        assert not bad, f"{method.name}: weights of network {number} are not finite: {', '.join(bad)}"
    problem.good_record(method)


def check_leads_somewhere(method: Method, problem: Problem) -> None:
    """The path leads somewhere: it has a network other than the first."""
    problem.good_record(method)
    points = problem.observe(method).points
    assert points, f"{method.name}: gives no network"
    apart = [name for name in points[0] if not np.array_equal(points[0][name], points[-1][name])]
    assert len(points) == 1 or apart, f"{method.name}: begins and ends at the same network"


CHECKS: tuple[Callable[[Method, Any], None], ...] = (
    contract.check_same_seed_same_record,
    contract.check_test_split_out_of_reach,
    contract.check_budget_kept,
    check_cost_counted,
    check_weights_finite,
    check_leads_somewhere,
    contract.check_input_untouched,
    contract.check_described,
)


# ------------------------------------------------------------------------------------------- the instruments


def _watched(work: Any, seen: Observation, witness: Any, kept: dict[str, Any]) -> Callable[..., Any]:
    """`work` as the harness calls it, observed."""

    def path(first: nn.Module, second: nn.Module, trial: connectivity.Trial) -> Any:
        models = (first, second)
        before = [instruments.state(model) for model in models]
        kept.update(first=first, second=second, trial=trial, method=work)
        seen.found += witness.search(kept)
        products = Products(first)
        try:
            with products:
                found = work(first, second, trial)
                if isinstance(found, Iterator):
                    found = list(islice(found, 10_000))
            kept["path"] = found
            seen.points = [
                {name: value.detach().cpu().numpy().copy() for name, value in one.named_parameters()} for one in found
            ]
            return found
        finally:
            seen.own_forward, seen.own_backward = products.forward, products.backward
            for number, model in enumerate(models):
                after = instruments.state(model)
                keys = sorted(k for k in before[number] | after if before[number].get(k) != after.get(k))
                seen.changed += [f"{k} ({before[number].get(k)} -> {after.get(k)})" for k in keys]

    return path


class Products(instruments.Products):
    """As `instruments.Products`, but a pass forward is known at the first layer, and a pass backward by the gradient
    that it sends to a later layer's inputs. The tangents of forward mode are two more products with each layer, as many
    as a backward pass has, and count as one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.first = next(tuple(p.shape) for p in model.parameters() if p.ndim == 2)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            (rows, inner), columns = left.shape, right.shape[1]
            if (columns, inner) == self.first:
                tangent = forward_ad._current_level >= 0 and name == "mm"
                self._add("tangent" if tangent else "forward", self.first, rows)
            elif (inner, columns) in self.shapes:
                self._add("backward", (inner, columns), rows)
        return function(*args, **(kwargs or {}))
