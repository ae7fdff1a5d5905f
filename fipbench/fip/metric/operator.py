"""The metric tensor of weight space as an operator: g = J^T J of a network's outputs, by products alone.

J is the derivative of the stacked outputs of N examples, m each, by the n trainable weights: mN rows, n columns,
example after example. With `reduction="mean"` it carries a factor 1/sqrt(N), so that g is the mean over examples
(Nature Machine Intelligence 6, 2024, equation 2); with `"sum"` none, so that g is their sum, as in the authors' code.

Weights are one vector: the parameters that require a gradient, in the order of `named_parameters()`, each flattened
row by row.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fipbench.fip.path import Point

Forward = Callable[[nn.Module, Any], Tensor]

# What is differentiated. `fisher` is the embedding of distributions in a sphere, p -> 2 sqrt(p): the sum of squares of
# its changes is sum_k dp_k^2 / p_k, so its g is the Fisher information of the predicted distribution.
SPACES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(-1),
    "fisher": lambda logits: 2 * (0.5 * logits.log_softmax(-1)).exp(),
}


class _Called(nn.Module):
    """A network with the way of calling it, so that its weights can be replaced in the call."""

    def __init__(self, network: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.network = network
        self.call = forward

    def forward(self, inputs: Any) -> Tensor:
        return self.call(self.network, inputs) if self.call else self.network(inputs)


@dataclass(frozen=True, eq=False)
class Metric:
    """g at one point of weight space, for one batch; made by `metric_of`.

    Attributes:
        weights: where g is taken, shape (n,).
        names, shapes: the parameters that `weights` holds, in this order.
        examples, outputs: N and m.
        scale: the factor of J: 1/sqrt(N) or 1.
        chunk: examples that are differentiated at a time.
    """

    weights: Tensor
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    inputs: Any
    examples: int
    outputs: int
    scale: float
    space: str
    chunk: int
    called: _Called

    @property
    def size(self) -> int:
        """n, the number of weights: g is n x n."""
        return self.weights.numel()

    @property
    def rows(self) -> int:
        """mN, the number of rows of J."""
        return self.examples * self.outputs

    @property
    def rank_bound(self) -> int:
        """min(mN, n): g has at least n minus this many eigenvalues zero, whatever the weights."""
        return min(self.rows, self.size)

    def at(self, point: Point | Tensor) -> Metric:
        """g at another point: a network of the same weights' names and shapes, or a vector of shape (n,).

        Raises:
            ValueError: names or shapes differ; FloatingPointError: a weight is not finite.
        """
        return replace(self, weights=_finite_weights(self.flatten(point), self.names, self.shapes))

    def double(self) -> Metric:
        """The same g in double precision."""
        inputs = each_tensor(self.inputs, lambda x: x.double() if x.is_floating_point() else x)
        called = copy.deepcopy(self.called).double()
        return replace(self, weights=self.weights.double(), inputs=inputs, called=called)

    def flatten(self, point: Point | Tensor) -> Tensor:
        """The vector, shape (n,), of a network or of a mapping from names to tensors; a vector is checked.

        Raises:
            ValueError: a tensor is missing or of another shape, or there are tensors that the network has not.
        """
        if isinstance(point, Tensor):
            return self._vector(point, self.size, "a point or direction in weight space")
        given = dict(point.named_parameters()) if isinstance(point, nn.Module) else point
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in given:
                raise ValueError(f"the other network has no weights {name!r}")
            if given[name].shape != shape:
                raise ValueError(f"weights {name!r} have shape {tuple(given[name].shape)}, expected {tuple(shape)}")
        if unknown := given.keys() - {name for name, _ in self.called.network.named_parameters()}:
            raise ValueError(f"the other network has weights {min(unknown)!r}, which this one has not")
        return torch.cat([given[name].detach().flatten() for name in self.names]).to(self.weights)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters by name, views of a vector of shape (n,)."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        return {name: part.view(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def embedded(self, weights: Mapping[str, Tensor], inputs: Any) -> Tensor:
        """The outputs in `space` for some inputs, shape (examples, m), as a function that torch.func can transform."""
        named = {f"network.{name}": value for name, value in weights.items()}
        return SPACES[self.space](torch.func.functional_call(self.called, named, (inputs,))).flatten(1)

    def push(self, direction: Tensor) -> Tensor:
        """J v by forward mode: how the outputs change along a direction (n,); shape (mN,).

        Raises:
            ValueError: another shape; FloatingPointError: outputs or their change are not finite.
        """
        here = self.unflatten(self.weights)
        along = self.unflatten(self._vector(direction, self.size, "a point or direction in weight space"))
        changes = []
        with differentiable():
            for start, part in self._parts():
                values, change = torch.func.jvp(self._outputs_on(part), (here,), (along,))  # type: ignore[misc]
                _finite_outputs(values, start, "the outputs")
                _finite_outputs(change, start, "the change of the outputs")
                changes.append(change)
        return self.scale * torch.cat(changes).flatten()

    def pull(self, change: Tensor) -> Tensor:
        """J^T u by reverse mode: the gradient of <u, outputs> for u of shape (mN,); shape (n,).

        Raises:
            ValueError: another shape; FloatingPointError: outputs or gradient are not finite.
        """
        here = self.unflatten(self.weights)
        wanted = self._vector(change, self.rows, "a change of the outputs").view(self.examples, self.outputs)
        total = torch.zeros_like(self.weights)
        with differentiable():
            for start, part in self._parts():
                values, back = torch.func.vjp(self._outputs_on(part), here)  # type: ignore[misc]
                _finite_outputs(values, start, "the outputs")
                (gradient,) = back(wanted[start : start + len(values)])
                total += torch.cat([gradient[name].flatten() for name in self.names])
        return _finite_weights(self.scale * total, self.names, self.shapes, "the gradient by")

    def product(self, direction: Tensor) -> Tensor:
        """g v = J^T (J v), shape (n,); raises as `push` and `pull` do."""
        return self.pull(self.push(direction))

    def dual_product(self, change: Tensor) -> Tensor:
        """K u = J (J^T u), shape (mN,): the Gram matrix K has the eigenvalues of g that need not be zero."""
        return self.push(self.pull(change))

    def squared_speed(self, direction: Tensor) -> float:
        """<v, v>_g = |J v|^2, never negative."""
        return float(self.push(direction).double().square().sum())

    def inputs_of(self, examples: Tensor) -> Any:
        """The inputs of the examples with these numbers."""
        return each_tensor(self.inputs, lambda x: x.index_select(0, examples))

    def _outputs_on(self, part: Any) -> Callable[[Mapping[str, Tensor]], Tensor]:
        return lambda weights: self.embedded(weights, part)

    def _parts(self) -> Iterator[tuple[int, Any]]:
        for start in range(0, self.examples, self.chunk):
            yield start, each_tensor(self.inputs, lambda x, start=start: x[start : start + self.chunk])  # type: ignore[misc]

    def _vector(self, vector: Tensor, length: int, what: str) -> Tensor:
        if vector.shape != (length,):
            raise ValueError(f"{what} has shape ({length},), got {tuple(vector.shape)}")
        return vector.detach().to(self.weights)


def metric_of(
    network: nn.Module,
    inputs: Any,
    *,
    space: str = "logits",
    reduction: str = "mean",
    chunk: int = 64,
    forward: Forward | None = None,
) -> Metric:
    """The metric g = J^T J of a network's outputs on a batch, at the network's weights.

    The network is copied and called in evaluation mode (batch norm by its stored statistics, no dropout).

    Args:
        network: parameters that do not require a gradient are held fixed and are no coordinates.
        inputs: a tensor whose first axis counts examples, or a tuple or mapping of such tensors.
        space: outputs that are compared: `logits`, `softmax`, or `fisher` (2 sqrt of the softmax, whose g is the
            Fisher information; the Bhattacharyya distance is an eighth of it, to second order).
        reduction: `mean` or `sum` over the examples.
        chunk: examples that are differentiated at a time; bounds memory, changes nothing else.
        forward: `(network, inputs) -> logits` where `network(inputs)` is not it.

    Raises:
        ValueError: an option out of range, no weights to be trained, weights of several types, or inputs that do not
            agree in the number of examples.
        FloatingPointError: a weight or an output is not finite.
    """
    for name, value, known in (("space", space, tuple(SPACES)), ("reduction", reduction, ("mean", "sum"))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    counts = {len(x) for x in _leaves(inputs)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"inputs must hold the same number of examples, at least one, got {sorted(counts)}")
    called = _Called(copy.deepcopy(network), forward).eval()
    moving = {name: p.detach() for name, p in called.network.named_parameters() if p.requires_grad}
    if len(kinds := {(p.dtype, p.device) for p in moving.values()}) != 1:
        raise ValueError(
            "the network has no weights that require a gradient"
            if not kinds
            else f"weights must share one type and device, got {', '.join(sorted(f'{d} on {at}' for d, at in kinds))}"
        )
    names, shapes = tuple(moving), tuple(p.shape for p in moving.values())
    weights = _finite_weights(torch.cat([p.flatten() for p in moving.values()]), names, shapes)
    (examples,) = counts
    scale = 1 / math.sqrt(examples) if reduction == "mean" else 1.0
    found = Metric(weights, names, shapes, inputs, examples, 1, scale, space, chunk, called)
    with torch.no_grad():
        first = found.embedded(found.unflatten(weights), next(found._parts())[1])
    if len(first) != min(chunk, examples):
        raise ValueError(f"{min(chunk, examples)} examples gave {len(first)} outputs; one row an example is expected")
    return replace(found, outputs=first.shape[1])


@contextmanager
def differentiable() -> Iterator[None]:
    """Attention by plain operations: the fused kernels have neither forward mode nor second derivatives."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _finite_outputs(values: Tensor, start: int, what: str) -> None:
    """Values of shape (examples, m) of the chunk that starts at example `start`."""
    if not bool(values.isfinite().all()):
        first = start + int((~values.isfinite().all(1)).nonzero()[0])
        raise FloatingPointError(f"{what} at example {first} are not finite")


def _finite_weights(
    vector: Tensor, names: tuple[str, ...], shapes: tuple[torch.Size, ...], what: str = "the weights"
) -> Tensor:
    if not bool(vector.isfinite().all()):
        parts = vector.split([shape.numel() for shape in shapes])
        worst = next(name for name, part in zip(names, parts, strict=True) if not part.isfinite().all())
        raise FloatingPointError(f"{what} {worst!r} are not finite")
    return vector


def _leaves(inputs: Any) -> list[Tensor]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple | list) else [inputs]


def each_tensor(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The inputs with every tensor changed."""
    if isinstance(inputs, Mapping):
        return {name: change(x) for name, x in inputs.items()}
    return tuple(change(x) for x in inputs) if isinstance(inputs, tuple | list) else change(inputs)
