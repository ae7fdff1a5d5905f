"""The contract of the robustness track, as plain functions: `check_*(method, problem)` raises AssertionError in words.

As `fipbench.conformance.sparsity`, which lends its instruments and those checks that are the same in all tracks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any

import numpy as np
from torch import nn

from fipbench import registry
from fipbench.conformance import instruments
from fipbench.conformance import sparsity as contract
from fipbench.spec import Job, Method
from fipbench.tracks import robustness


@dataclass
class Observation:
    """One run of a method under instruments; `error` is what ended it."""

    members: list[dict[str, np.ndarray]] = field(default_factory=list)
    own_forward: int = 0
    own_backward: int = 0
    found: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    error: Exception | None = None


class Problem(contract.Problem):
    """A small vote and folders of its own; remembers what it has seen of each method."""

    task: Any

    def due(self, method: Method) -> int:
        """How many networks the method owes; a reference may be one."""
        return 1 if method.role == "reference" else self.task.members

    def good_record(self, method: Method, seed: int = 0, fresh: bool = False) -> Any:
        """The record of a run that must have succeeded, with and without the instruments."""
        record = super().good_record(method, seed, fresh)
        error = self.observe(method).error
        assert error is None, f"{method.name} failed under observation: {type(error).__name__}: {error}"
        return record

    def _observe(self, method: Method) -> Any:
        seen = Observation()
        job = self.job(method)
        witness = instruments.Witness(*self.test_split())
        kept: dict[str, Any] = {}
        try:
            work = registry.load_factory(method.target)(**method.defaults)
            with instruments.worker_settings(job.threads):
                robustness.run(
                    self.task, job, _watched(work, seen, witness, kept), self.cache, lambda text, share: None
                )
        except Exception as error:
            seen.error = error
        # By now the harness has scored and attacked what the method gave back.
        seen.found += witness.search(kept)
        return seen

    def _any_job(self) -> Job:
        return self.job(Method(name="none", track="robustness", target="none:none", version="1", defaults={}))


# ------------------------------------------------------------------------------------------------ the checks


def check_other_seed_other_record(method: Method, problem: Problem) -> None:
    """Another seed gives other networks: other answers than the first seed's."""
    first, other = problem.good_record(method), problem.good_record(method, seed=1)
    assert first.id != other.id, f"{method.name}: two seeds have one id"
    # Attacks and surrogate are the seed's own, whatever a method does: look at what its networks say unattacked.
    assert first.items["clean"] != other.items["clean"] or first.curves["diversity"] != other.curves["diversity"], (
        f"{method.name}: seeds 0 and 1 give the same networks; is the model that is handed over used at all?"
    )


def check_weights_finite(method: Method, problem: Problem) -> None:
    """Every weight of every network that is given back is a finite number."""
    for number, weights in enumerate(problem.observe(method).members):
        bad = [name for name, value in weights.items() if not np.isfinite(value).all()]
        assert not bad, f"{method.name}: weights of network {number} are not finite: {', '.join(bad)}"
    problem.good_record(method)


def check_members_differ(method: Method, problem: Problem) -> None:
    """As many networks as are due, and no two of them alike in every weight."""
    members = problem.observe(method).members
    for a, b in combinations(range(len(members)), 2):
        same = all(np.array_equal(members[a][name], members[b][name]) for name in members[a])
        assert not same, f"{method.name}: networks {a} and {b} are one and the same"
    assert len(members) >= problem.due(method), f"{method.name}: {len(members)} networks, {problem.due(method)} due"
    problem.good_record(method)


CHECKS: tuple[Callable[[Method, Any], None], ...] = (
    contract.check_same_seed_same_record,
    check_other_seed_other_record,
    contract.check_test_split_out_of_reach,
    contract.check_budget_kept,
    contract.check_cost_counted,
    check_weights_finite,
    check_members_differ,
    contract.check_input_untouched,
    contract.check_described,
)


# ------------------------------------------------------------------------------------------- the instruments


def _watched(work: Any, seen: Observation, witness: Any, kept: dict[str, Any]) -> Callable[..., Any]:
    """`work` as the harness calls it, observed."""

    def members(model: nn.Module, trial: robustness.Trial) -> Any:
        before = instruments.state(model)
        kept.update(model=model, trial=trial, method=work)
        seen.found += witness.search(kept)
        products = Products(model)
        try:
            with products:
                found = work(model, trial)
                if isinstance(found, Iterator):  # networks one by one; one too many is told as such
                    found = list(islice(found, trial.members + 1))
            kept["members"] = found
            seen.members = [
                {name: value.detach().cpu().numpy().copy() for name, value in one.named_parameters()} for one in found
            ]
            return found
        finally:
            seen.own_forward, seen.own_backward = products.forward, products.backward
            after = instruments.state(model)
            keys = sorted(key for key in before | after if before.get(key) != after.get(key))
            seen.changed += [f"{key} ({before.get(key)} -> {after.get(key)})" for key in keys]

    return members


class Products(instruments.Products):
    """As its parent, but a backward pass is known by the gradient that it sends to a layer's inputs: a search for a
    perturbation asks for no weight's gradient. Every pass sends one through the layers behind the first."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            (rows, inner), columns = left.shape, right.shape[1]
            if (columns, inner) in self.shapes:
                self._add("forward", (columns, inner), rows)
            elif (inner, columns) in self.shapes:
                self._add("backward", (inner, columns), rows)
        return function(*args, **(kwargs or {}))
