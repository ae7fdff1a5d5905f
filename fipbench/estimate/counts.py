"""Parameters, FLOPs and memory of a network from torch's meta device, where tensors have shapes and no content."""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fipbench import models
from fipbench.spec import Model

# Batches of two and of four: batch norm takes no batch of one, and two sizes tell what grows with the batch.
_SMALL, _LARGE = 2, 4


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What one network takes.

    Attributes:
        parameters: scalars in its weights and biases.
        forward_flops, backward_flops: of one example; two for a multiplication and an addition. Matrix products,
            convolutions and attention only, as torch's counter has them; gradients of weights, none of the inputs.
        activation_bytes: what autograd keeps of one example until the backward pass.
        widest_bytes: the largest output of a layer for one example.
        layers: calls of modules without children in a forward pass.
    """

    parameters: int
    forward_flops: int
    backward_flops: int
    activation_bytes: int
    widest_bytes: int
    layers: int


def count(spec: Model) -> Counts:
    """Counts of the network that the task names; nothing of its size is allocated.

    Raises:
        UserError: a field of the model is missing, or a pretrained network's files are not there.
    """
    network = skeleton(spec)
    small, large = _measure(network, spec, _SMALL), _measure(network, spec, _LARGE)
    more = _LARGE - _SMALL
    return Counts(
        parameters=sum(p.numel() for p in network.parameters()),
        forward_flops=(large[0] - small[0]) // more,
        backward_flops=(large[1] - small[1]) // more,
        activation_bytes=(large[2] - small[2]) // more,
        widest_bytes=large[3] // _LARGE,
        layers=large[4],
    )


def skeleton(spec: Model) -> nn.Module:
    """The network on the meta device; of a pretrained one its architecture alone, from its `config.json`."""
    with torch.device("meta"):
        if not spec.weights or spec.name in ("vit", "clip"):  # these say their sizes themselves
            return models.build(msgspec.structs.replace(spec, weights=msgspec.UNSET), 0)
        from fipbench.compat import import_torchvision

        import_torchvision()
        from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

        from fipbench.models.masked import MaskedLanguageModel
        from fipbench.models.pretrained import weights_folder

        config = AutoConfig.from_pretrained(weights_folder(spec), trust_remote_code=False, local_files_only=True)
        if spec.name == "masked-lm":
            network = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
            return MaskedLanguageModel(network, mask=0)
        config.num_labels = spec.outputs
        return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def is_text(spec: Model) -> bool:
    """Whether the network reads token ids."""
    return spec.name in ("bert", "masked-lm", "transformer")


def count_parameters(spec: Model) -> int:
    """Parameters of the network alone; errors as of `count`."""
    return sum(p.numel() for p in skeleton(spec).parameters())


def _measure(network: nn.Module, spec: Model, batch: int) -> tuple[int, int, int, int, int]:
    """FLOPs forward and backward, bytes kept for the backward pass, widest output, calls of layers."""
    if is_text(spec):
        inputs = torch.zeros((batch, *spec.inputs), dtype=torch.int64, device="meta")
    else:
        inputs = torch.empty((batch, *spec.inputs), device="meta")
    own = {id(p) for p in network.parameters()}
    kept: dict[int, Tensor] = {}
    widest, calls = 0, 0

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def note(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal widest, calls
        calls += 1
        if isinstance(output, Tensor):
            widest = max(widest, output.numel() * output.element_size())

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                output = network(inputs)
            forward = counter.get_total_flops()
            logits = output if isinstance(output, Tensor) else output.logits
            logits.sum().backward()
            total = counter.get_total_flops()
    finally:
        for hook in hooks:
            hook.remove()
        network.zero_grad(set_to_none=True)
    bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return forward, total - forward, bytes_kept, widest, calls
