"""Masks and counts: which weights may be pruned, which are smallest, how many are zero. Needs torch only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]

_NOT_PRUNED = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._BatchNorm,
)

_NOT_PRUNED_NAMES = ("bias", "token", "embed")


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weight matrices and kernels by name: no biases, norms or embeddings; a tied weight once.

    A matrix that an output layer shares with an embedding is an embedding. So is a parameter that a module holds
    itself and calls a token, an embedding or a position, as vision transformers do.
    """
    found: dict[str, nn.Parameter] = {}
    others = (m for m in model.modules() if isinstance(m, _NOT_PRUNED))
    seen = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or parameter.ndim < 2 or any(word in name for word in _NOT_PRUNED_NAMES):
                continue
            seen.add(id(parameter))
            found[f"{prefix}.{name}" if prefix else name] = parameter
    return found


def zeros_at(sparsity: float, total: int) -> int:
    """How many of `total` weights are zero at that sparsity: s N, rounded to the nearest, halves up."""
    return int(sparsity * total + 0.5)


def smallest(magnitudes: Tensor, count: int) -> Tensor:
    """Mask of exactly the `count` smallest entries of a flat tensor; of equal entries the first ones.

    Exact, in a few passes: a sample brackets the threshold, and only what lies inside the bracket is ordered.

    Args:
        magnitudes: shape (n,), non-negative.
        count: between 0 and n.

    Returns:
        Boolean tensor of shape (n,) with `count` true entries.

    Raises:
        ValueError: `count` is outside 0 .. n.
    """
    n = magnitudes.numel()
    if not 0 <= count <= n:
        raise ValueError(f"count must be between 0 and {n}, got {count}")
    if count in (0, n):
        return torch.full_like(magnitudes, bool(count), dtype=torch.bool)
    threshold = _kth_smallest(magnitudes, count)
    mask = magnitudes <= threshold
    surplus = int(mask.count_nonzero()) - count
    if surplus:
        mask[(magnitudes == threshold).nonzero().squeeze(1)[-surplus:]] = False
    return mask


def _kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of a flat tensor (k from 1)."""
    n = values.numel()
    if n < 100_000:
        return _select(values, k)
    # About n^(2/3) samples balance the sorting of the sample against that of the bracket.
    sample = values[:: max(1, round(n ** (1 / 3)))].sort().values
    spread = 4 * (sample.numel() ** 0.5) / sample.numel()
    low = sample[max(0, int((k / n - spread) * sample.numel()))]
    high = sample[min(sample.numel() - 1, int((k / n + spread) * sample.numel()) + 1)]
    is_below = values < low
    below = int(is_below.count_nonzero())
    inside = values[is_below.logical_not_().logical_and_(values <= high)]
    if below < k <= below + inside.numel():
        return _select(inside, k - below)
    return _select(values, k)


def _select(values: Tensor, k: int) -> Tensor:
    # Not kthvalue, which takes quadratic time on falling values.
    return values.topk(k, largest=False, sorted=False).values.max()


def magnitude_masks(
    weights: Mapping[str, Tensor],
    sparsity: float,
    *,
    keep: Mapping[str, Tensor] | None = None,
    scope: str = "global",
) -> Masks:
    """Masks (true = kept) that leave out the smallest weights.

    Args:
        weights: tensors by name.
        sparsity: fraction of all entries to leave out; counts as in `zeros_at`.
        keep: earlier masks; entries they leave out stay out (and count).
        scope: `global` ranks all weights together, `layer` each tensor by itself; the whole count is then
            shared out to less than one entry of each tensor's own share.

    Raises:
        ValueError: no weights, unknown scope, or `keep` leaves out more than `sparsity` asks for.
    """
    if not weights:
        raise ValueError("there are no weights to prune")
    if scope not in ("global", "layer"):
        raise ValueError(f"scope must be 'global' or 'layer', got {scope!r}")
    masks: Masks = {}
    entries = due = 0
    with torch.no_grad():
        for names in [list(weights)] if scope == "global" else [[name] for name in weights]:
            flat = torch.cat([weights[name].flatten() for name in names]).abs_()
            entries, before = entries + flat.numel(), due
            due = zeros_at(sparsity, entries)
            if keep is not None:
                gone = ~torch.cat([keep[name].flatten() for name in names])
                if int(gone.sum()) > due - before:
                    raise ValueError(f"the given masks already leave out more than {sparsity:.4%}")
                flat.masked_fill_(gone, -1.0)
            parts = smallest(flat, due - before).logical_not_().split([weights[name].numel() for name in names])
            masks |= {name: part.view_as(weights[name]) for name, part in zip(names, parts, strict=True)}
    return masks


def random_masks(weights: Mapping[str, Tensor], sparsity: float, generator: torch.Generator) -> Masks:
    """Masks (true = kept) that leave out entries drawn at random; the same count as by magnitude."""
    noise = {name: torch.rand(w.shape, generator=generator).to(w.device) for name, w in weights.items()}
    return magnitude_masks(noise, sparsity)


def apply(model: nn.Module, masks: Masks) -> nn.Module:
    """Set the masked-out weights of `model` to exact zeros, in place; returns `model`."""
    with torch.no_grad():
        for name, parameter in prunable(model).items():
            if name in masks:
                parameter.masked_fill_(~masks[name], 0.0)
    return model


def zeros(model: nn.Module) -> tuple[int, int]:
    """How many prunable weights are exactly zero, and how many there are."""
    parameters = prunable(model).values()
    return sum(int((p == 0).sum()) for p in parameters), sum(p.numel() for p in parameters)


def ramp(step: int, steps: int, start: float, end: float, fraction: float) -> float:
    """Sparsity at a step: cubic from `start` to `end` in the first `fraction` of the steps, then constant.

    Source: Zhu & Gupta, "To prune, or not to prune", 2017, equation 1.
    """
    length = fraction * steps
    if step >= length:
        return end
    return end + (start - end) * (1 - step / length) ** 3
