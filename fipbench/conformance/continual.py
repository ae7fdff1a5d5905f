"""The contract of the continual track, as plain functions: `check_*(method, problem)` raises AssertionError in words.

As `fipbench.conformance.sparsity`, which lends its instruments: weights are looked at by numpy, examples counted
by the matrix products that torch dispatched, and what a method can get hold of found by walking its objects: test
examples, those of tasks to come, and those of tasks that are past.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from fipbench import plan, registry
from fipbench.conformance import instruments
from fipbench.conformance import sparsity as contract
from fipbench.spec import Job, Method, equal
from fipbench.tracks import continual, continual_scores
from fipbench.tracks.parts import Part, stream_of


@dataclass
class Observation:
    """One run of a method under instruments; `error` is what ended it.

    `handed`: how many training examples of each task were in reach of anything that it was given, task by task; `held`:
    how many were in reach of the learner and its network afterwards.
    """

    ends: list[dict[str, np.ndarray]] = field(default_factory=list)
    start: dict[str, np.ndarray] = field(default_factory=dict)
    own_forward: int = 0
    own_backward: int = 0
    test: list[str] = field(default_factory=list)
    handed: list[list[int]] = field(default_factory=list)
    held: list[list[int]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    per_task: bool = False
    error: Exception | None = None


class Problem(contract.Problem):
    """A small stream of tasks and folders of its own; remembers what it has seen of each method."""

    task: Any

    def job(self, method: Method, seed: int = 0) -> Job:
        """The method's job with its default parameters and the task's one memory, if it has one."""
        params = dict(method.defaults)
        if "memory" in params:
            params["memory"] = self.task.memories[0]
        row = plan.Row(label=method.name, method=method, params=params, settings="default")
        return plan.make_job(self.task, row, seed, self.task.suites[0], "cpu", self.variant, self.digests)

    def good_record(self, method: Method, seed: int = 0, fresh: bool = False) -> Any:
        """The record of a run that must have succeeded, with and without the instruments."""
        record = super().good_record(method, seed, fresh)
        error = self.observe(method).error
        assert error is None, f"{method.name} failed under observation: {type(error).__name__}: {error}"
        return record

    def parts(self) -> list[Part]:
        """The tasks of the stream."""
        return stream_of(self.task, self._any_job(), self.cache)[0]

    def limit(self) -> int:
        """What the task allows, in passes."""
        epochs = [self.task.base.epochs] + [self.task.budget.epochs] * (len(self.task.stream.classes) - 1)
        plain = sum(2 * e * len(part.train.labels) for e, part in zip(epochs, self.parts(), strict=True))
        return int(plain * self.task.budget.factor)

    def memory(self, method: Method) -> int:
        """Examples a task that the method may keep."""
        return int(self.job(method).params.get("memory", 0))

    def base_cost(self) -> tuple[int, int]:
        """Examples forward and backward that the shared base network took: whole batches of the first task."""
        recipe = self.task.base
        passes = recipe.epochs * (len(self.parts()[0].train.labels) // recipe.batch_size) * recipe.batch_size
        return passes, passes

    def relearned(self, method: Method) -> int:
        """Examples of the first task that a plugin which watches it sees once more, and need not pay for twice."""
        work = registry.load_factory(method.target)(**self.job(method).params)
        return self.base_cost()[0] if getattr(work, "watches_first_task", False) else 0

    def _observe(self, method: Method) -> Any:
        seen = Observation()
        job = self.job(method)
        try:
            work = registry.load_factory(method.target)(**job.params)
            rows = [part.train.inputs.flatten(1).numpy() for part in self.parts()]
            watched = _watched(work, seen, Witness(*self.test_split(), rows))
            with instruments.worker_settings(job.threads), _no_probes():
                continual.run(self.task, job, watched, self.cache, lambda text, share: None)
        except Exception as error:
            seen.error = error
        return seen

    def _any_job(self) -> Job:
        return self.job(Method(name="none", track="continual", target="none:none", version="1", defaults={}))


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
    """Another seed gives other networks: other answers of the last one than the first seed's."""
    first, other = problem.good_record(method), problem.good_record(method, seed=1)
    assert first.id != other.id, f"{method.name}: two seeds have one id"
    last = f"matrix/class/{len(problem.task.stream.classes)}"
    assert first.items != other.items or first.curves[last] != other.curves[last], (
        f"{method.name}: seeds 0 and 1 give the same networks; is the model that is handed over used at all?"
    )


def check_test_split_out_of_reach(method: Method, problem: Problem) -> None:
    """Nothing that the method is handed, holds or gets hold of leads to the test split."""
    seen = problem.observe(method)
    assert not seen.test, f"{method.name}: the test split is in reach: {'; '.join(seen.test[:3])}"
    problem.good_record(method)


def check_later_tasks_out_of_reach(method: Method, problem: Problem) -> None:
    """Nor to an example of a task that is still to come."""
    for number, counts in enumerate(problem.observe(method).handed):
        later = sum(counts[number + 1 :])
        assert not later, f"{method.name}: at task {number + 1} {later} examples of later tasks are in reach"
    problem.good_record(method)


def check_memory_kept(method: Method, problem: Problem) -> None:
    """Of a task that is past no more examples are in reach than the memory allows; what is stored is on the record."""
    record, seen = problem.good_record(method), problem.observe(method)
    if method.role == "reference":
        return
    memory = problem.memory(method)
    # What led to the first task's data while it was learned does so no longer when the second one is given.
    past = [(number, counts[: number + 1]) for number, counts in enumerate(seen.held) if number]
    past += [(number - 1, counts[:number]) for number, counts in enumerate(seen.handed)]
    for number, counts in sorted(past):
        for task, count in enumerate(counts):
            assert count <= memory, (
                f"{method.name}: after task {number + 1} it holds {count} examples of task {task + 1}; the memory is "
                f"{memory} (keep what trial.remember gives)"
            )
    stored = memory * len(problem.task.stream.classes)
    assert record.cost.examples_stored == stored, f"{method.name}: {record.cost.examples_stored} stored, not {stored}"


def check_first_network_kept(method: Method, problem: Problem) -> None:
    """After the first task the network is the one that was given: all methods go on from there.

    One with a network for each task (`network_for`) may make the first one's."""
    seen = problem.observe(method)
    problem.good_record(method)
    same = seen.per_task or all(np.array_equal(seen.ends[0][name], value) for name, value in seen.start.items())
    assert same, f"{method.name}: the first task has been learned already, but its network was changed"


def check_budget_kept(method: Method, problem: Problem) -> None:
    """No more passes than the task allows, by the record and by an independent count."""
    seen, limit = problem.observe(method), problem.limit()
    if method.role != "reference":
        spent = sum(problem.base_cost()) + seen.own_forward + seen.own_backward - 2 * problem.relearned(method)
        assert spent <= limit, f"{method.name}: spent {spent} passes, base network included; the task allows {limit}"
        cost = problem.good_record(method).cost
        recorded = cost.forward_examples + cost.backward_examples
        assert recorded <= limit, f"{method.name}: the record says {recorded} passes; the task allows {limit}"
    problem.good_record(method)


def check_cost_counted(method: Method, problem: Problem) -> None:
    """The recorded cost is what an independent count of matrix products finds, plus the base network's."""
    seen, again = problem.observe(method), problem.relearned(method)
    base, cost = problem.base_cost(), problem.good_record(method).cost
    for kind, recorded, counted in (
        ("forward", cost.forward_examples, base[0] + seen.own_forward - again),
        ("backward", cost.backward_examples, base[1] + seen.own_backward - again),
    ):
        assert recorded == counted, (
            f"{method.name}: the record says {recorded} examples {kind}, but {counted} went through the matrices; "
            "call the model that is handed over, or a deepcopy of it, as model(inputs)"
        )


def check_weights_finite(method: Method, problem: Problem) -> None:
    """Every weight of every network that is returned is a finite number."""
    for number, weights in enumerate(problem.observe(method).ends, start=1):
        bad = [name for name, value in weights.items() if not np.isfinite(value).all()]
        assert not bad, f"{method.name}: after task {number} weights are not finite: {', '.join(bad)}"
    problem.good_record(method)


def check_data_untouched(method: Method, problem: Problem) -> None:
    """What it is given is the same afterwards, bit by bit: each task's examples, the weights before the first."""
    seen = problem.observe(method)
    assert not seen.changed, f"{method.name}: changed what it was given: {'; '.join(seen.changed[:3])}"
    problem.good_record(method)


def check_described(method: Method, problem: Problem) -> None:
    """It says in a line what it is, its version names its code, and each searched default is within its law."""
    contract.check_described(method, problem)
    law = registry.load_factory(method.target).fipbench.search
    assert "memory" not in law, f"{method.name}: the memory is the task's to say, not the search's"


CHECKS: tuple[Callable[[Method, Problem], None], ...] = (
    check_same_seed_same_record,
    check_other_seed_other_record,
    check_test_split_out_of_reach,
    check_later_tasks_out_of_reach,
    check_memory_kept,
    check_first_network_kept,
    check_budget_kept,
    check_cost_counted,
    check_weights_finite,
    check_data_untouched,
    check_described,
)


# ------------------------------------------------------------------------------------------- the instruments


def _watched(work: Any, seen: Observation, witness: Witness) -> Callable[..., Any]:
    """`work` as the harness calls it, observed around every task."""
    learn = continual._learner(work)
    seen.per_task = hasattr(learn, "network_for")
    counters: list[Products] = []

    def task(model: nn.Module, experience: continual.Experience, trial: continual.Trial) -> Any:
        if not counters:
            counters.append(Products(model))
            seen.start = _weights(model)
        given = {"model": model, "experience": experience, "trial": trial, "method": work, "learn": learn}
        seen.handed.append(witness.in_reach(given, seen.test))
        before = _prints(experience, trial)
        try:
            with counters[0]:
                returned = learn(model, experience, trial)
        finally:
            seen.own_forward, seen.own_backward = counters[0].forward, counters[0].backward
            now = _prints(experience, trial)
            seen.changed += [f"{name} of task {experience.number + 1}" for name in before if before[name] != now[name]]
        seen.ends.append(_weights(model if returned is None else returned))
        after = {"method": work, "learn": learn, "model": model, "returned": returned}
        seen.held.append(witness.in_reach(after, seen.test))
        return returned

    for name in ("network", "network_for"):
        if hasattr(learn, name):
            setattr(task, name, getattr(learn, name))
    return task


def _weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def _prints(experience: continual.Experience, trial: continual.Trial) -> dict[str, str]:
    """Digests of what a method is given to read."""

    def digest(value: Tensor) -> str:
        return hashlib.sha256(value.numpy().tobytes()).hexdigest()

    initial = {f"the initial {name}": digest(value) for name, value in trial.first.initial.items()}
    return {"the inputs": digest(experience.train.inputs), "the labels": digest(experience.train.labels), **initial}


@contextmanager
def _no_probes() -> Iterator[None]:
    """The harness's own evaluations within a task, left out: their products are not the method's."""
    honest = continual_scores._is_probed
    continual_scores._is_probed = lambda step: False
    try:
        yield
    finally:
        continual_scores._is_probed = honest


class Products(instruments.Products):
    """Counts examples by matrix products, whatever the batches' sizes but those of the layers' outputs.

    A product with a layer's own matrix hands a gradient down, one of its shape makes of what was handed down last the
    gradient of its weights, though a batch may be as large as another layer's input. Both are one pass backward; each
    without the other is one as well, as where derivatives are asked for and no gradient of the weights. Of a layer that
    is frozen no gradient is made: a product of its shape is an update that is added to it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.handed: dict[tuple[int, ...], int] = {}
        self.matrices = {tuple(p.shape): p for p in model.parameters() if p.ndim == 2}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ != "mm":
            return super().__torch_dispatch__(function, types, args, kwargs)
        left, right = args
        if (layer := tuple(right.shape)) in self.shapes:
            self.handed[layer] = len(left)
            self._add("backward", layer, len(left))
        elif (layer := (left.shape[0], right.shape[1])) in self.shapes:
            if self.handed.pop(layer, None) != left.shape[1] and self.matrices[layer].requires_grad:
                self._add("backward", layer, left.shape[1])
        else:
            return super().__torch_dispatch__(function, types, args, kwargs)
        return function(*args, **(kwargs or {}))


class Witness(instruments.Witness):
    """Knows the test split, and the training examples of every task, of which it counts those that can be reached."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray, tasks: list[np.ndarray]) -> None:
        super().__init__(inputs, labels)
        self.tasks = [{row.tobytes() for row in task} for task in tasks]
        self.known = set().union(*self.tasks)
        self.hits: set[bytes] = set()

    def in_reach(self, roots: dict[str, Any], test: list[str]) -> list[int]:
        """Different training examples in reach, by task; ways to the test split are added to `test`."""
        self.hits = set()
        test += self.search(roots)
        return [len(self.hits & task) for task in self.tasks]

    def _array(self, value: np.ndarray, what: str) -> str:
        if value.dtype.kind in "fiu" and value.size and value.size % self.width == 0:
            rows = np.nan_to_num(value.reshape(-1, self.width))
            # As pixels, or as pixels in [0, 1].
            for form in [np.rint(rows), np.rint(rows * 255)] if value.dtype.kind == "f" else [rows]:
                self.hits |= {row.tobytes() for row in form.clip(0, 255).astype(np.uint8)} & self.known
        return super()._array(value, what)
