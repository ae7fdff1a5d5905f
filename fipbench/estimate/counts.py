"""Parameters, FLOPs and memory of a network from torch's meta device, where tensors have shapes and no content."""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fipbench import models, stock
from fipbench.spec import Model

# Batches of two and of four: batch norm takes no batch of one, and two sizes tell what grows with the batch.
_SMALL, _LARGE = 2, 4
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


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

    With `microbatch` what is kept is still that of an example, and the backward pass computes it again.

    Raises:
        UserError: a field of the model is missing, or nothing here knows a pretrained network's sizes.
    """
    network = skeleton(spec)
    small, large = _measure(network, spec, _SMALL), _measure(network, spec, _LARGE)
    more = _LARGE - _SMALL
    forward, backward = (large[0] - small[0]) // more, (large[1] - small[1]) // more
    return Counts(
        parameters=sum(p.numel() for p in network.parameters()),
        forward_flops=forward,
        backward_flops=backward + (forward if spec.microbatch else 0),
        activation_bytes=(large[2] - small[2]) // more,
        widest_bytes=large[3] // _LARGE,
        layers=large[4],
    )


def skeleton(spec: Model) -> nn.Module:
    """The network on the meta device, not computed in parts; of a pretrained classifier of texts the transformer."""
    from fipbench.models.masked import MaskedLanguageModel

    with torch.device("meta"):
        if spec.name not in ("masked-lm", "transformer"):
            return untrained(msgspec.structs.replace(spec, microbatch=msgspec.UNSET))
        transformer = _transformer(spec, attn_implementation="eager")  # others' products are not counted
        return transformer if spec.name == "transformer" else MaskedLanguageModel(transformer, mask=0)


def untrained(spec: Model) -> nn.Module:
    """The task's network with random weights in place of pretrained ones, of which no file is needed.

    Raises:
        UserError: as of `count`.
    """
    if spec.name not in ("masked-lm", "transformer"):
        return models.build(msgspec.structs.replace(spec, weights=msgspec.UNSET), 0)
    from fipbench.models.compute import computed_as
    from fipbench.models.masked import MaskedLanguageModel
    from fipbench.models.pretrained import TextClassifier

    transformer = _transformer(spec)
    if spec.name == "masked-lm":
        return computed_as(MaskedLanguageModel(transformer, mask=0), spec)
    return computed_as(TextClassifier(transformer, int(transformer.config.pad_token_id or 0)), spec)


def _transformer(spec: Model, **options: Any) -> Any:
    """By the `config.json` at hand, or as the installed descriptions know the network's sizes."""
    from fipbench.compat import import_torchvision
    from fipbench.models import pretrained

    import_torchvision()
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

    masked = spec.name == "masked-lm"
    settings: dict[str, Any] = {**_NO_DROPOUT, **({} if masked else {"num_labels": spec.outputs})}
    _, folder = pretrained.place(spec)
    sizes: dict[str, Any] = {**stock.sizes_of(spec.weights or "")}
    if folder is None and sizes:
        config = AutoConfig.for_model(**sizes, **settings)
    else:
        folder = folder or pretrained.weights_folder(spec)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **settings)
    kind: Any = AutoModelForMaskedLM if masked else AutoModelForSequenceClassification
    return kind.from_config(config, **options)


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
