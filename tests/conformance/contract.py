"""The contract of the sparsity track, as plain functions: `check_*(method, problem)` raises AssertionError in words.

A method is a `fipbench.spec.Method` (from `fipbench.registry.load_method`), a problem a small task with folders to
work in. Nothing here needs pytest, so a command of the suite can hold an author's method to the same checks:

    problem = Problem(task, Path(folder))
    for check in CHECKS:
        check(method, problem)

What the checks know they measure themselves: zeros are counted by numpy on the weights that the method yielded,
examples by the matrix products that torch dispatched, and the way to the test split by walking the objects that the
method was handed. A method is run once under these instruments and three times without.
"""

from __future__ import annotations

import gc
import hashlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from fipbench import data, plan, registry, worker
from fipbench.spec import Job, Method, Record, SparsityTask, Ticket, equal
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

    def __init__(self, task: SparsityTask, folder: Path) -> None:
        self.task = task
        self.folder = folder
        self.cache = folder / "cache"
        self.variant, self.digests = data.identify(task.data, self.cache)
        self._records: dict[Any, Record] = {}
        self._seen: dict[str, Observation] = {}

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

    def observe(self, method: Method) -> Observation:
        """One run of seed 0 under instruments."""
        if method.target not in self._seen:
            self._seen[method.target] = self._observe(method)
        return self._seen[method.target]

    def _observe(self, method: Method) -> Observation:
        seen = Observation()
        work = registry.load_factory(method.target)(**method.defaults)
        job = self.job(method)
        watched = _watched(work, seen, Witness(*self.test_split()))
        with _worker_settings(job.threads):
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
        before = _state(model)
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
            after = _state(model)
            keys = sorted(key for key in before | after if before.get(key) != after.get(key))
            seen.changed += [f"{key} ({before.get(key)} -> {after.get(key)})" for key in keys]

    return prune


def _yielded(pair: Any) -> Yield:
    sparsity_, network = pair
    weights = {name: value.detach().cpu().numpy().copy() for name, value in network.named_parameters()}
    # The networks of a problem are made of linear layers alone, so the matrices are what may be pruned.
    return Yield(sparsity_, weights, tuple(name for name, value in weights.items() if value.ndim == 2))


def _state(model: nn.Module) -> dict[str, str]:
    """Every bit of a model's tensors, its modes and flags, as text."""
    state = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        state[f"tensor {name}"] = hashlib.sha256(value.detach().cpu().numpy().tobytes()).hexdigest()[:8]
        state[f"requires_grad {name}"] = str(value.requires_grad)
    for name, module in model.named_modules():
        state[f"training {name}"] = str(module.training)
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        state[f"hooks {name}"] = str(hooks)
    return state


@contextmanager
def _worker_settings(threads: int) -> Iterator[None]:
    """What the worker sets, put back afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


class Products(TorchDispatchMode):
    """Counts examples by the matrix products that torch dispatches, whoever asked for them.

    A product with a layer's (in, out) matrix on its right is that layer's forward pass of as many examples as the
    left one has rows; a product of that layer's shape is its weights' gradient, summed over the examples. The
    layers of a problem have shapes unlike each other's and unlike any batch. Of all layers the busiest counts.

    Gradients of single examples are outer products, all in one. The tangents of forward mode are two more products with
    each layer, as many as a backward pass has, and count as one.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.shapes = {tuple(p.shape) for p in model.parameters() if p.ndim == 2}
        self.counts: dict[tuple[str, tuple[int, ...]], int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            (rows, inner), columns = left.shape, right.shape[1]
            if (columns, inner) in self.shapes:
                tangent = forward_ad._current_level >= 0 and name == "mm"
                self._add("tangent" if tangent else "forward", (columns, inner), rows)
            elif (inner, columns) in self.shapes:
                pass  # a gradient handed down through a layer's own matrix
            elif (rows, columns) in self.shapes:
                self._add("backward", (rows, columns), inner)
            elif (columns, rows) in self.shapes:
                self._add("backward", (columns, rows), inner)
        elif name == "bmm" and args[0].shape[2] == 1 and (shape := (args[0].shape[1], args[1].shape[2])) in self.shapes:
            self._add("backward", shape, len(args[0]))
        return function(*args, **(kwargs or {}))

    def _add(self, kind: str, shape: tuple[int, ...], count: int) -> None:
        self.counts[kind, shape] = self.counts.get((kind, shape), 0) + count

    def _most(self, kind: str) -> int:
        return max((count for (k, _), count in self.counts.items() if k == kind), default=0)

    @property
    def forward(self) -> int:
        """Examples forward."""
        return self._most("forward")

    @property
    def backward(self) -> int:
        """Examples backward, or as tangents."""
        return self._most("backward") + self._most("tangent") // 2


class Witness:
    """Knows the test split, and recognises it in whatever can be reached from an object.

    It follows references as the garbage collector sees them: attributes, containers, closures, the variables of
    suspended generators. Of modules it enters the suite's own alone, since through `sys.modules` all is in reach.
    """

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.count, self.width = inputs.shape
        self.labels = labels
        self.rows = {row.tobytes() for row in inputs}

    def search(self, roots: dict[str, Any]) -> list[str]:
        """What of the test split is reachable from the roots, and by which way."""
        found: list[str] = []
        ways: dict[int, str] = {}
        todo: list[tuple[Any, str]] = []
        # The witness, the reader and their frames are no part of what a method sees.
        own = {id(self), id(self.__dict__), id(roots), id(found), id(ways), id(todo)}
        foreign = {id(m.__dict__) for n, m in sys.modules.items() if m is not None and not _of_suite(n)}
        for name, root in roots.items():
            todo.append((root, name))
            # A method's own module is part of what it holds.
            foreign.discard(id(getattr(root, "__globals__", None)))
        while todo:
            value, way = todo.pop()
            if id(value) in ways or id(value) in own or id(value) in foreign:
                continue
            ways[id(value)] = way
            if isinstance(value, types.ModuleType) and not _of_suite(value.__name__):
                continue
            if isinstance(value, types.FrameType):
                continue
            if what := self._recognised(value):
                found.append(f"{way}: {what}")
                continue
            for part in gc.get_referents(value):
                if not isinstance(part, int | float | str | bool | None):
                    todo.append((part, f"{way} > {_name_of(value, part)}" if len(way) < 200 else way))
            if isinstance(value, Tensor) and value.is_leaf and value.grad is not None:
                todo.append((value.grad, f"{way} > grad"))
        return found

    def _recognised(self, value: Any) -> str:
        if isinstance(value, Tensor):
            whole = torch.empty(0, dtype=value.dtype).set_(value.detach().untyped_storage())
            return self._array(whole.numpy(), f"tensor {tuple(value.shape)}") or self._array(value.detach().numpy(), "")
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            base = value.base if isinstance(value.base, np.ndarray) else value
            return self._array(base, f"array {value.shape}") or self._array(value, f"array {value.shape}")
        if isinstance(value, bytes | bytearray) and len(value) >= self.width:
            hit = any(row in value for row in list(self.rows)[:50])
            return f"{len(value)} bytes with test inputs" if hit else ""
        return ""

    def _array(self, value: np.ndarray, what: str) -> str:
        if value.size == self.labels.size and value.dtype.kind in "iu" and (value.ravel() == self.labels).all():
            return f"{what} is the test labels"
        if value.ndim and value.shape[0] == self.count and value.size == self.count * self.width:
            return f"{what} has the shape of the test inputs"
        if value.size < self.width or value.size % self.width:
            return ""
        rows = value.reshape(-1, self.width)
        if value.dtype.kind == "b":
            return ""
        if value.dtype.kind == "f":
            # As pixels, as pixels in [0, 1], or by another scale that ends at white.
            rows = np.nan_to_num(rows)
            top = float(np.abs(rows).max(initial=0)) or 1.0
            tried = [np.rint(rows * scale).clip(0, 255) for scale in {1.0, 255.0, 255 / top}]
        else:
            tried = [rows]
        hits = max(sum(row.tobytes() in self.rows for row in form.astype(np.uint8)) for form in tried)
        return f"{what} holds {hits} rows of the test inputs" if hits else ""


def _of_suite(name: str) -> bool:
    return name == "fipbench" or name.startswith("fipbench.")


def _name_of(owner: Any, part: Any) -> str:
    """How a person would call the way from an object to one of its parts."""
    if isinstance(owner, dict):
        return next((str(k) for k, v in owner.items() if v is part), "key")
    return type(part).__name__
