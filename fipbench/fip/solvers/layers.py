"""J of a network of linear layers, held layer by layer: K and products with J without another pass through the network.

The row of J for output k of example i holds, for a layer with inputs a_i and outputs z_i, the outer product of d_ik =
d f_k / d z_i with a_i. So J is known by the a and the d: N in + mN out numbers a layer, where J has mN in out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.fip.metric.operator import SPACES


@dataclass(frozen=True, eq=False)
class _Layer:
    """Inputs (N, in) and derivatives (N, m, out) of a layer, and where its weights are in the vector of all."""

    inputs: Tensor
    derivatives: Tensor
    weight: slice | None
    bias: slice | None


class _Call:
    """A linear layer as it was called: inputs and outputs, and whether anyone has written to them since."""

    def __init__(self, layer: nn.Linear, inputs: Tensor, outputs: Tensor) -> None:
        self.layer, self.inputs, self.outputs = layer, inputs, outputs
        self.versions = inputs._version, outputs._version

    def plain(self, examples: int) -> bool:
        unchanged = self.versions == (self.inputs._version, self.outputs._version)
        return unchanged and self.inputs.ndim == 2 and len(self.inputs) == examples


@dataclass(frozen=True, eq=False)
class LayerSpectrum:
    """The eigensystem of K = J J^T of a `LayerJacobian`: as `fipbench.fip.metric.Gram`, for `exact_step`."""

    metric: LayerJacobian
    values: Tensor
    vectors: Tensor
    floor: float


@dataclass(frozen=True, eq=False)
class LayerJacobian:
    """J at one point of weight space for one batch; made by `layer_jacobian`.

    Attributes:
        size: n, the number of weights that require a gradient, in the order of `named_parameters()`.
        outputs: in the space that is compared, shape (N, m).
        scale: the factor of J: 1/sqrt(N) or 1.
        spend: told of the examples (forward, backward) that a product is worth.
    """

    size: int
    outputs: Tensor
    scale: float
    layers: tuple[_Layer, ...]
    spend: Callable[[int, int], Any]

    @property
    def rows(self) -> int:
        """mN, the number of rows of J."""
        return self.outputs.numel()

    def push(self, direction: Tensor) -> Tensor:
        """J v for v of shape (n,); shape (mN,). As many operations as N examples forward, and counted as those."""
        self.spend(len(self.outputs), 0)
        direction = direction.to(self.outputs)
        total = torch.zeros_like(self.outputs)
        for layer in self.layers:
            change = torch.zeros_like(layer.derivatives[:, 0])
            if layer.weight is not None:
                change = layer.inputs @ direction[layer.weight].view(-1, layer.inputs.shape[1]).T
            if layer.bias is not None:
                change = change + direction[layer.bias]
            total += torch.einsum("nko,no->nk", layer.derivatives, change)
        return self.scale * total.flatten()

    def pull(self, change: Tensor) -> Tensor:
        """J^T u for u of shape (mN,); shape (n,). Counted as N examples backward."""
        self.spend(0, len(self.outputs))
        change = change.to(self.outputs).view_as(self.outputs)
        vector = change.new_zeros(self.size)
        for layer in self.layers:
            along = torch.einsum("nk,nko->no", change, layer.derivatives)
            if layer.weight is not None:
                vector[layer.weight] = (along.T @ layer.inputs).flatten()
            if layer.bias is not None:
                vector[layer.bias] = along.sum(0)
        return self.scale * vector

    def spectrum(self) -> LayerSpectrum:
        """The eigensystem of K, summed over the layers, in double precision on the CPU."""
        total = torch.zeros(self.rows, self.rows, dtype=torch.float64)
        m = self.outputs.shape[1]
        for layer in self.layers:
            alike = torch.zeros(len(self.outputs), len(self.outputs)).to(layer.inputs.double())
            if layer.weight is not None:
                alike += layer.inputs.double() @ layer.inputs.double().T
            if layer.bias is not None:
                alike += 1
            rows = layer.derivatives.flatten(0, 1).double()
            total += ((rows @ rows.T) * alike.repeat_interleave(m, 0).repeat_interleave(m, 1)).cpu()
        values, vectors = torch.linalg.eigh(self.scale**2 * total)
        kept = min(self.rows, self.size)
        values, vectors = values.flip(0)[:kept].clamp(min=0), vectors.flip(1)[:, :kept]
        floor = self.rows * torch.finfo(self.outputs.dtype).eps * float(values[0])
        return LayerSpectrum(self, values, vectors, floor)


def layer_jacobian(
    network: nn.Module,
    inputs: Tensor,
    *,
    space: str = "logits",
    reduction: str = "mean",
    spend: Callable[[int, int], Any] = lambda forward, backward: None,
) -> LayerJacobian:
    """J of a network whose weights are those of linear layers, called once each on (examples, features).

    The network itself is called, in evaluation mode: N examples forward and mN backward, which whatever counts its
    calls sees. No weight is changed and no gradient is left behind.

    Args:
        inputs: shape (N, ...).
        space, reduction: as of `fipbench.fip.metric.metric_of`.
        spend: called with examples (forward, backward) for every product later: these do not go through the network.

    Raises:
        ValueError: an option out of range, or a network that is made of something else; names it and what to use.
        FloatingPointError: outputs or derivatives are not finite.
    """
    if space not in SPACES or reduction not in ("mean", "sum"):
        raise ValueError(
            f"space must be one of {', '.join(SPACES)} and reduction mean or sum, got {space}, {reduction}"
        )
    calls: list[_Call] = []
    handles = [
        module.register_forward_hook(lambda module, args, out: calls.append(_Call(module, args[0].detach(), out)))
        for module in network.modules()
        if isinstance(module, nn.Linear)
    ]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.enable_grad():
            outputs = SPACES[space](network.eval()(inputs))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    places = _places(network)
    calls = [call for call in calls if any(parameter in places for parameter in call.layer.parameters())]
    _check_made_of(network, calls, len(inputs), places)
    derivatives = _derivatives(outputs, [call.outputs for call in calls])
    if not bool(torch.stack([t.isfinite().all() for t in (outputs, *derivatives)]).all()):
        raise FloatingPointError("the outputs of the network, or their derivatives, are not finite")
    layers = tuple(
        _Layer(call.inputs, found, places.get(call.layer.weight), places.get(call.layer.bias))
        for call, found in zip(calls, derivatives, strict=True)
    )
    scale = 1 / math.sqrt(len(inputs)) if reduction == "mean" else 1.0
    return LayerJacobian(sum(p.numel() for p in places), outputs.detach(), scale, layers, spend)


def _places(network: nn.Module) -> dict[Any, slice]:
    """Where each parameter that requires a gradient is in the vector of all."""
    found, begin = {}, 0
    for parameter in network.parameters():
        if parameter.requires_grad:
            found[parameter] = slice(begin, begin + parameter.numel())
            begin += parameter.numel()
    return found


def _check_made_of(network: nn.Module, calls: list[_Call], examples: int, places: dict[Any, slice]) -> None:
    times: dict[Any, int] = {}
    for call in calls:
        for parameter in call.layer.parameters():
            times[parameter] = times.get(parameter, 0) + (1 if call.plain(examples) else 2)
    for name, parameter in network.named_parameters():
        if parameter in places and times.get(parameter) != 1:
            raise ValueError(
                f"weights {name!r} are not those of a linear layer that is called once on (examples, features) "
                "and not changed in place; take metric.metric_of and metric.gram"
            )


def _derivatives(outputs: Tensor, of: list[Tensor]) -> list[Tensor]:
    """d outputs / d each of the layers' outputs, shape (N, m, out): an output at a time for all examples at once."""
    columns = []
    for k in range(outputs.shape[1]):
        chosen = torch.zeros_like(outputs)
        chosen[:, k] = 1
        columns.append(torch.autograd.grad(outputs, of, chosen, retain_graph=True))
    return [torch.stack(column, 1) for column in zip(*columns, strict=True)]
