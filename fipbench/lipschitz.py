"""How much a network's outputs can change with its inputs: a lower and an upper bound of its Lipschitz constant.

The constant is the least L with |f(x) - f(x')| <= L |x - x'| for all inputs: Euclidean norms on both sides, f the
logits in evaluation mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.models import ChannelsLast, Normalize
from fipbench.models.preactivation import Bottleneck
from fipbench.models.residual import Block

# The greatest slope of an activation; GELU's is at sqrt 2, SiLU's at 2.3994, both rounded up.
_SLOPES = {nn.ReLU: 1.0, nn.Tanh: 1.0, nn.Identity: 1.0, nn.Sigmoid: 0.25, nn.GELU: 1.129, nn.SiLU: 1.09985}
# What rearranges its input, or in evaluation mode passes it on.
_PASSING = (nn.Flatten, nn.Dropout, nn.Dropout2d, ChannelsLast)
# A convolution's map is written down as a matrix up to so many entries.
_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bound of a Lipschitz constant; `layers` are the factors of the upper one, by name, in order."""

    lower: float
    upper: float
    layers: dict[str, float]


def bounds(network: nn.Module, inputs: Tensor, *, chunk: int = 64) -> Bounds:
    """Both bounds: `lower` on the inputs, `upper` over all there are.

    Raises:
        ValueError: as `lower` and `upper` do.
    """
    factors = upper(network, tuple(inputs.shape[1:]))
    return Bounds(lower(network, inputs, chunk=chunk), math.prod(factors.values()), factors)


def lower(network: nn.Module, inputs: Tensor, *, chunk: int = 64) -> float:
    """The largest spectral norm of the Jacobian d logits / d x on the inputs, shape (N, ...): no constant is below it.

    Costs one pass forward and, for each output, one backward.

    Raises:
        ValueError: no inputs; FloatingPointError: outputs or gradients that are not finite.
    """
    if not len(inputs):
        raise ValueError("there are no inputs")
    modes = {module: module.training for module in network.modules()}
    network.eval()
    found = 0.0
    try:
        for start in range(0, len(inputs), chunk):
            x = inputs[start : start + chunk].detach().clone().requires_grad_(True)
            with torch.enable_grad():
                outputs = network(x).flatten(1)
                rows = [
                    torch.autograd.grad(outputs[:, k].sum(), x, retain_graph=True)[0].flatten(1).double()
                    for k in range(outputs.shape[1])
                ]
            jacobian = torch.stack(rows, 1)
            if not bool(jacobian.isfinite().all()):
                raise FloatingPointError(f"gradients of inputs {start} to {start + len(x) - 1} are not all finite")
            found = max(found, float(torch.linalg.matrix_norm(jacobian, 2).max()))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found


def upper(network: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """An upper bound of each layer's Lipschitz constant, by name; that of the whole is at most their product.

    For chains (`nn.Sequential`) of linear layers, convolutions, batch norm by its stored statistics, pooling, dropout,
    activations and the suite's residual blocks: its networks but the transformers. A linear layer's is its spectral
    norm; a convolution's that of its map, or where this is large the kernel's as a matrix times the root of the number
    of windows that share an input; a residual block's is the sum of both ways.

    Args:
        shape: of one input, without the axis of examples.

    Source: Szegedy et al. ("Intriguing properties of neural networks", 2014), section 4.3.

    Raises:
        ValueError: a layer that cannot be bounded, such as attention, or batch norm that keeps no statistics.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            first = next(network.parameters(), torch.zeros(1))
            return _chain(network, "", torch.zeros(1, *shape).to(first))[0]
    finally:
        for module, mode in modes.items():
            module.training = mode


def _chain(module: nn.Module, name: str, x: Tensor) -> tuple[dict[str, float], Tensor]:
    """Factors of a module and of all in it, and what it makes of an input of that shape."""
    if not isinstance(module, nn.Sequential):
        return {name or type(module).__name__: _factor(module, name, x)}, module(x)
    found: dict[str, float] = {}
    for part, layer in module.named_children():
        inner, x = _chain(layer, f"{name}.{part}" if name else part, x)
        found |= inner
    return found, x


def _factor(module: nn.Module, name: str, x: Tensor) -> float:
    """The bound of one layer at inputs shaped as `x`, (1, ...)."""
    if type(module) in _SLOPES:
        return _SLOPES[type(module)]
    if isinstance(module, nn.LeakyReLU):
        return max(1.0, abs(module.negative_slope))
    if isinstance(module, _PASSING):
        return 1.0
    if isinstance(module, Normalize):
        return float((1 / torch.as_tensor(module.std).double()).abs().max())
    if isinstance(module, nn.Linear):
        return _norm(module.weight)
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
        return _convolution(module, x)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None:
        scale = 1.0 if module.weight is None else module.weight.double().abs()
        return float((scale / (module.running_var.double() + module.eps).sqrt()).max())
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        size = _pair(module.kernel_size)
        shared = _shared(size, _pair(module.stride), _pair(getattr(module, "dilation", 1)))
        # Of a mean of k numbers the square is at most that of the numbers over k.
        return math.sqrt(shared / (math.prod(size) if isinstance(module, nn.AvgPool2d) else 1))
    if isinstance(module, nn.AdaptiveAvgPool2d) and _pair(module.output_size) == (1, 1):
        return 1 / math.sqrt(x[0, 0].numel())
    if isinstance(module, Bottleneck):
        return sum(math.prod(_chain(way, name, x)[0].values()) for way in (module.inside, module.shortcut))
    if isinstance(module, Block):
        inside = nn.Sequential(module.conv1, module.bn1, module.relu, module.conv2, module.bn2)
        return math.prod(_chain(inside, name, x)[0].values()) + math.prod(_chain(module.shortcut, name, x)[0].values())
    raise ValueError(
        f"layer {name or 'network'!r}, {type(module).__name__}: no upper bound is known; only the lower bound, "
        "`lower`, is to be had for this network"
    )


def _convolution(module: nn.Conv2d, x: Tensor) -> float:
    windows = _shared(module.kernel_size, module.stride, module.dilation)
    kernels = module.weight.view(module.groups, module.out_channels // module.groups, -1)
    bound = math.sqrt(windows) * max(_norm(kernel) for kernel in kernels)
    entries = x[0].numel() * module(x)[0].numel()
    if entries > _ENTRIES:
        return bound
    basis = torch.eye(x[0].numel()).to(x).view(-1, *x.shape[1:])
    without_bias = module(basis) - module(torch.zeros_like(basis[:1]))
    return min(bound, _norm(without_bias.flatten(1)))


def _shared(size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> int:
    """How many windows can have an input in common: places of a window that are a whole number of strides apart."""
    steps = (s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True))
    return math.prod(math.ceil(k / step) for k, step in zip(size, steps, strict=True))


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.detach().double(), 2))


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
