"""Other ways to compute a network than its own: in bfloat16, in parts, with layers computed again when they are needed.

They change what a step takes in time and memory, its numbers by rounding at most, and no name of a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fipbench.errors import UserError
from fipbench.spec import Model

Forward = Callable[[Tensor], Tensor]


def computed_as(network: nn.Module, spec: Model) -> nn.Module:
    """`network` itself, from now on computed as the task's model says; so are its copies.

    Raises:
        UserError: a network that cannot be computed so.
    """
    if spec.checkpoint:
        _checkpoint_layers(network, spec.name)
    if spec.precision == "bfloat16":
        _called(network, in_bfloat16)
    if spec.microbatch:
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
            raise UserError(
                f"field 'model.microbatch': '{spec.name}' has batch norm, whose statistics are of the whole batch; "
                "leave it out"
            )
        _called(network, partial(in_parts, size=spec.microbatch))
    return network


def in_bfloat16(forward: Forward, x: Tensor) -> Tensor:
    """What the network gives, in float32, its layers computed in bfloat16 where torch's autocast deems it safe."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        found = forward(x)
    return found.float()


def in_parts(forward: Forward, x: Tensor, size: int) -> Tensor:
    """What the network gives for a batch, `size` examples at a time.

    Of what the backward pass needs no part is kept: each is computed again when its turn comes (Chen et al., "Training
    deep nets with sublinear memory cost", 2016). So activations are those of one part, whatever loss is made of the
    outputs; a part's gradients stand beside the sum of the others'.
    """
    parts = x.split(size)
    if len(parts) == 1:
        return forward(x)
    if not torch.is_grad_enabled():
        return torch.cat([forward(part) for part in parts])
    return torch.cat([checkpoint(forward, part, use_reentrant=False) for part in parts])


def _called(network: nn.Module, way: Callable[[Forward, Tensor], Tensor]) -> None:
    """Give the network a class of its own, as torch's parametrizations do; a module around it would rename weights."""
    kind = type(network)

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return way(partial(kind.forward, self), x)

    network.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def _checkpoint_layers(network: nn.Module, name: str) -> None:
    able = [m for m in network.modules() if getattr(m, "supports_gradient_checkpointing", False)]
    if not able:
        raise UserError(f"field 'model.checkpoint': '{name}' cannot; bert, masked-lm, transformer and vit can")
    model: Any = able[0]
    # transformers has renamed it; the old name goes in its next major release.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
