"""The instruments of the contracts: what they know they measure themselves.

Examples are counted by the matrix products that torch dispatched, and the way to the test split is found by walking the
objects that a method was handed.
"""

from __future__ import annotations

import gc
import hashlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode


def state(model: nn.Module) -> dict[str, str]:
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
def worker_settings(threads: int) -> Iterator[None]:
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
