"""The contract of the sparsity track, as plain functions: `check_*(method, problem)` raises AssertionError in words.

A method is a `fipbench.spec.Method` (from `fipbench.registry.load_method`), a problem a small task with folders to
work in. Zeros are counted by numpy on the weights that the method yielded; the other instruments are in
`fipbench.conformance.instruments`. A method is run once under them and three times without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from torch import nn

from fipbench import data, plan, registry, worker
from fipbench.conformance.instruments import Products, Witness, state, worker_settings
from fipbench.spec import Job, Method, Record, Ticket, equal
from fipbench.tracks import common, sparsity


@dataclass
class Yield:
    """What a method yielded, copied at that moment."""

    sparsity: Any
    weights: dict[str, np.ndarray]
    matrices: tuple[str, ...]


@dataclass
class Observation:
    """One run of a method under instruments; `error` is what ended it."""

    yields: list[Yield] = field(default_factory=list)
    own_forward: int = 0
    own_backward: int = 0
    found: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    error: Exception | None = None


class Problem:
    """A small task and folders of its own; remembers what it has seen of each method."""

    def __init__(self, task: Any, folder: Path) -> None:
        self.task = task
        self.folder = folder
        self.cache = folder / "cache"
        self.variant, self.digests = data.identify(task.data, self.cache)
        self._records: dict[Any, Record] = {}
        self._seen: dict[str, Any] = {}

    def job(self, method: Method, seed: int = 0) -> Job:
        """The method's job with its default parameters."""
        row = plan.Row(label=method.name, method=method, params=method.defaults, settings="default")
        return plan.make_job(self.task, row, seed, self.task.suites[0], "cpu", self.variant, self.digests)

    def record(self, method: Method, seed: int = 0, fresh: bool = False) -> Record:
        """The record of a run; a fresh one trains its own base network, too."""
        key = (method.target, seed, fresh)
        if key not in self._records:
            ticket = Ticket(
                job=self.job(method, seed),
                task=msgspec.to_builtins(self.task),
                target=method.target,
                results=str(self.folder / "results"),
                cache=str(self._apart() if fresh else self.cache),
            )
            self._records[key] = worker.run(ticket, lambda event: None)
        return self._records[key]

    def good_record(self, method: Method, seed: int = 0, fresh: bool = False) -> Record:
        """The record of a run that must have succeeded."""
        record = self.record(method, seed, fresh)
        why = record.error and f"{record.error.type}: {record.error.message} ({'; '.join(record.error.where[-2:])})"
        assert record.status == "ok", f"{method.name} failed with seed {seed}: {why}"
        return record

    def test_split(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, features) uint8 and labels of the test split."""
        examples = data.load(self.task.data, "test", self.cache, self.digests["test"])
        return examples.inputs.flatten(1).numpy(), examples.labels.numpy()

    def examples(self) -> int:
        """How many training examples a method is given."""
        return len(common.training_data(self.task, self._any_job(), self.cache)[0].labels)

    def levels(self, method: Method) -> tuple[float, ...]:
        """The sparsities that the method is asked for; a reference is asked for none."""
        return (0.0,) if method.role == "reference" else self.task.sparsities

    def observe(self, method: Method) -> Any:
        """One run of seed 0 under instruments."""
        if method.target not in self._seen:
            self._seen[method.target] = self._observe(method)
        return self._seen[method.target]

    def _observe(self, method: Method) -> Any:
        seen = Observation()
        work = registry.load_factory(method.target)(**method.defaults)
        job = self.job(method)
        watched = _watched(work, seen, Witness(*self.test_split()))
        with worker_settings(job.threads):
            try:
                sparsity.run(self.task, job, watched, self.cache, lambda text, share: None)
            except Exception as error:
                seen.error = error
        return seen

    def base_cost(self) -> tuple[int, int]:
        """Examples forward and backward that the shared base network took."""
        job = self._any_job()
        train, _ = common.training_data(self.task, job, self.cache)
        base = common.base_network(self.task, job, train, self.cache)
        return base.forward_examples, base.backward_examples

    def _any_job(self) -> Job:
        method = Method(name="none", track="sparsity", target="none:none", version="1", defaults={})
        return self.job(method)

    def _apart(self) -> Path:
        """A cache that holds the decoded data and nothing else."""
        apart = self.folder / f"apart{len(self._records)}"
        apart.mkdir()
        (apart / "data").symlink_to(self.cache / "data")
        return apart


# ------------------------------------------------------------------------------------------------ the checks


def check_same_seed_same_record(method: Method, problem: Problem) -> None:
    """Two runs from nothing give records that say the same (design rule 7)."""
    first = problem.good_record(method)
    again = problem.good_record(method, fresh=True)
    if not equal(first, again):
        differs = [n for n in ("metrics", "curves", "items") if getattr(first, n) != getattr(again, n)] or ["cost"]
        raise AssertionError(
            f"{method.name}: two runs with one seed differ in {', '.join(differs)}; "
            "draw from trial.generator and nothing else"
        )


def check_other_seed_other_record(method: Method, problem: Problem) -> None:
    """Another seed gives other networks: other answers, or other zeros, than the first seed's."""
    first, other = problem.good_record(method), problem.good_record(method, seed=1)
    assert first.id != other.id, f"{method.name}: two seeds have one id"
    # Distances are measured from the base network, so they differ whatever a method does: look at its networks.
    layers = [{k: v for k, v in r.curves.items() if k.startswith("layer/")} for r in (first, other)]
    assert first.items != other.items or layers[0] != layers[1], (
        f"{method.name}: seeds 0 and 1 give the same networks; is the model that is handed over used at all?"
    )


def check_test_split_out_of_reach(method: Method, problem: Problem) -> None:
    """Nothing that the method is handed, holds or gets hold of leads to the test split."""
    seen = problem.observe(method)
    assert not seen.found, f"{method.name}: the test split is in reach: {'; '.join(seen.found[:3])}"
    problem.good_record(method)


def check_budget_kept(method: Method, problem: Problem) -> None:
    """No more passes than the task allows, by the record and by an independent count."""
    limit = 2 * problem.task.budget.epochs * problem.examples()
    seen = problem.observe(method)
    spent = sum(problem.base_cost()) + seen.own_forward + seen.own_backward
    assert spent <= limit, f"{method.name}: spent {spent} passes, base network included; the task allows {limit}"
    cost = problem.good_record(method).cost
    recorded = cost.forward_examples + cost.backward_examples
    assert recorded <= limit, f"{method.name}: the record says {recorded} passes; the task allows {limit}"


def check_cost_counted(method: Method, problem: Problem) -> None:
    """The recorded cost is what an independent count of matrix products finds, plus the base network's."""
    seen = problem.observe(method)
    base = problem.base_cost()
    cost = problem.good_record(method).cost
    for kind, recorded, counted in (
        ("forward", cost.forward_examples, base[0] + seen.own_forward),
        ("backward", cost.backward_examples, base[1] + seen.own_backward),
    ):
        assert recorded == counted, (
            f"{method.name}: the record says {recorded} examples {kind}, but {counted} went through the matrices; "
            "call the model that is handed over, or a deepcopy of it, as model(inputs)"
        )


def check_weights_finite(method: Method, problem: Problem) -> None:
    """Every weight of every network that is yielded is a finite number."""
    seen = problem.observe(method)
    for one in seen.yields:
        bad = [name for name, value in one.weights.items() if not np.isfinite(value).all()]
        assert not bad, f"{method.name}: at sparsity {one.sparsity} weights are not finite: {', '.join(bad)}"
    problem.good_record(method)


def check_sparsity_exact(method: Method, problem: Problem) -> None:
    """Each level is yielded once, in order, with exactly the zeros that it is due (counted by numpy)."""
    seen = problem.observe(method)
    if method.role != "reference":
        for one in seen.yields:
            matrices = [one.weights[name] for name in one.matrices]
            total = sum(value.size for value in matrices)
            due = int(Fraction(str(float(one.sparsity))) * total + Fraction(1, 2))
            zeros = sum(int((value == 0).sum()) for value in matrices)
            assert zeros == due, f"{method.name}: {zeros} zeros of {total} at sparsity {one.sparsity}, not {due}"
    problem.good_record(method)
    got, levels = tuple(one.sparsity for one in seen.yields), problem.levels(method)
    assert got == levels, f"{method.name}: yielded sparsities {got}, asked for were {levels}"


def check_input_untouched(method: Method, problem: Problem) -> None:
    """The model that is handed over is the same afterwards: every bit, every mode, every flag."""
    seen = problem.observe(method)
    assert not seen.changed, f"{method.name}: changed the model that it was given: {'; '.join(seen.changed[:3])}"
    problem.good_record(method)


def check_described(method: Method, problem: Problem) -> None:
    """It says in a line what it is, its version names its code, and each searched default is within its law."""
    assert method.summary, f"{method.name}: has no docstring"
    assert "+" in method.version, f"{method.name}: version {method.version} does not name its code"
    for name, law in registry.load_factory(method.target).fipbench.search.items():
        assert law.admits(method.defaults[name]), f"{method.name}: default of {name} is outside its search"


CHECKS: tuple[Callable[[Method, Problem], None], ...] = (
    check_same_seed_same_record,
    check_other_seed_other_record,
    check_test_split_out_of_reach,
    check_budget_kept,
    check_cost_counted,
    check_weights_finite,
    check_sparsity_exact,
    check_input_untouched,
    check_described,
)


# ------------------------------------------------------------------------------------------- the instruments


def _watched(work: Any, seen: Observation, witness: Witness) -> Callable[..., Iterator[Any]]:
    """`work` as the harness calls it, with every step of its generator observed."""

    def prune(model: nn.Module, levels: tuple[float, ...], trial: sparsity.Trial) -> Iterator[Any]:
        before = state(model)
        seen.found += witness.search({"model": model, "sparsities": levels, "trial": trial, "method": work})
        products = Products(model)
        steps = iter(work(model, levels, trial))
        try:
            while True:
                with products:
                    try:
                        pair = next(steps)
                    except StopIteration:
                        return
                seen.yields.append(_yielded(pair))
                yield pair
                # By now the harness has put the test examples through the network.
                seen.found += witness.search(
                    {"method": work, "steps": steps, "network": pair, "trial": trial, "model": model}
                )
        finally:
            seen.own_forward, seen.own_backward = products.forward, products.backward
            after = state(model)
            keys = sorted(key for key in before | after if before.get(key) != after.get(key))
            seen.changed += [f"{key} ({before.get(key)} -> {after.get(key)})" for key in keys]

    return prune


def _yielded(pair: Any) -> Yield:
    sparsity_, network = pair
    weights = {name: value.detach().cpu().numpy().copy() for name, value in network.named_parameters()}
    # The networks of a problem are made of linear layers alone, so the matrices are what may be pruned.
    return Yield(sparsity_, weights, tuple(name for name, value in weights.items() if value.ndim == 2))
