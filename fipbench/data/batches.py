"""Examples in memory and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A minibatch. `inputs` are floats in [0, 1], `labels` class indices, `positions` rows of the data."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor


class Examples(NamedTuple):
    """Examples in memory: `inputs` uint8 (images as stored) or float, `labels` int64, both with n rows."""

    inputs: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, images scaled from 0..255 to [0, 1]."""
        inputs = self.inputs[index]
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(255)
        return Batch(inputs, self.labels[index], index)


# So many batches are sorted together: enough for a batch's texts to be alike, few enough that no batch comes twice.
POOL = 50


def stream(
    examples: Examples, batch_size: int, generator: torch.Generator, lengths: Tensor | None = None
) -> Iterator[Batch]:
    """Batches without end: each epoch a new order, the last incomplete batch of an epoch left out.

    With `lengths` of the examples, on the CPU, each batch's are alike: the order is sorted by length within pools of
    `POOL` batches, then the batches are shuffled.

    Raises:
        ValueError: fewer examples than a batch.
    """
    n = len(examples.labels)
    if n < batch_size:
        raise ValueError(f"a batch of {batch_size} needs as many examples, there are {n}")
    while True:
        order = torch.randperm(n, generator=generator)
        if lengths is not None:
            order = _alike(order[: n // batch_size * batch_size], lengths, batch_size, generator)
        order = order.to(examples.labels.device)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield examples.batch(order[start : start + batch_size])


def _alike(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """Full batches in another order: sorted by length within pools, then shuffled."""
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOL * batch_size)]
    batches = torch.cat(pools).view(-1, batch_size)
    return batches[torch.randperm(len(batches), generator=generator)].flatten()
