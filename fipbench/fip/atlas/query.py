"""Asking an atlas with data: which member is best on examples that none was trained on?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.fip.atlas.storage import BASE, AtlasError, Index, check, fill, open_atlas

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Answer:
    """A member, and what it makes of the data: the mean loss of an example in nats, and the perplexity."""

    name: str
    loss: float
    perplexity: float


def query(
    atlas: str | Path | Index,
    network: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    members: Sequence[str] | None = None,
    reduction: str = "mean",
) -> list[Answer]:
    """All members by their perplexity on the data, the lowest first; of equals the one that came first.

    One member is in memory at a time: each is read into `network`, which holds the last one afterwards.

    Args:
        batches: of inputs and labels, (x, y) or longer; begun anew for each member, so no iterator.
        loss: `(network, batch) -> (n,)`, one number an example; cross-entropy of `network(x)` where it is not given. A
            masked language model is asked with its own.
        members: those that are asked; all where it is not given.
        reduction: `mean`, the exponential of the mean loss as the paper's text has it, or `sum`, as its formula is
            printed. The order of members is the same.

    Raises:
        AtlasError: as of `load`; or a member's loss is no number, which has no place in an order.
        ValueError: no examples, an iterator, or another reduction.
    """
    found = atlas if isinstance(atlas, Index) else open_atlas(atlas)
    if iter(batches) is batches:
        raise ValueError("the batches are read once for each member; give a list or a loader, which can begin anew")
    names = list(found.members) if members is None else list(members)
    check(found, BASE)
    answers = [score(fill(found, name, network), batches, loss=loss, reduction=reduction, name=name) for name in names]
    for answer in answers:
        if math.isnan(answer.loss):
            raise AtlasError(f"member '{answer.name}': its loss on these data is nan; leave it out by `members`")
    return sorted(answers, key=lambda answer: answer.loss)


@torch.no_grad()
def score(
    network: nn.Module, batches: Iterable[Any], *, loss: Loss | None = None, reduction: str = "mean", name: str = ""
) -> Answer:
    """One network's answer, in evaluation mode; arguments and errors as of `query`."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {reduction!r}")
    measure = loss or _cross_entropy
    was_training = network.training
    network.eval()
    total, count = 0.0, 0
    for batch in batches:
        losses = measure(network, batch).double()
        total, count = total + float(losses.sum()), count + losses.numel()
    network.train(was_training)
    if not count:
        raise ValueError("there are no examples to ask with")
    exponent = total / count if reduction == "mean" else total
    return Answer(name, total / count, math.exp(exponent) if exponent < 700 else math.inf)


def _cross_entropy(network: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(network(batch[0]), batch[1], reduction="none")
