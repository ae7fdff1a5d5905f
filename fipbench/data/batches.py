"""Examples in memory and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A minibatch. `inputs` are floats in [0, 1], `labels` as of `Examples`, `positions` rows of the data."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor


class Examples(NamedTuple):
    """Examples in memory, both with n rows.

    `inputs` are uint8 (images as stored), float or token ids; `labels` classes, int64 of shape (n,), or where they are
    values on a scale the probabilities of its whole numbers, float32 of shape (n, k), as of `spread`.
    """

    inputs: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, images scaled from 0..255 to [0, 1]."""
        inputs = self.inputs[index]
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(255)
        return Batch(inputs, self.labels[index], index)


def spread(values: Tensor, numbers: int) -> Tensor:
    """Probabilities of the whole numbers 0 .. numbers - 1 whose mean is each value: a value between two of them is
    shared out to both (Tai, Socher & Manning, 2015, section 3). A regression is thus trained and compared as a
    classifier is.

    Args:
        values: between 0 and numbers - 1, shape (n,); `numbers` is two or more.

    Returns:
        Shape (n, numbers), float32.
    """
    below = values.double().floor().clamp(max=numbers - 2)
    share = (values.double() - below)[:, None]
    column = below.long()[:, None]
    found = torch.zeros(len(values), numbers, dtype=torch.float64, device=values.device)
    return found.scatter_(1, column, 1 - share).scatter_(1, column + 1, share).float()


def stream(examples: Examples, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Batches without end: each epoch a new order, the last incomplete batch of an epoch left out.

    Raises:
        ValueError: fewer examples than a batch.
    """
    n = len(examples.labels)
    if n < batch_size:
        raise ValueError(f"a batch of {batch_size} needs as many examples, there are {n}")
    while True:
        order = torch.randperm(n, generator=generator).to(examples.labels.device)
        for start in range(0, n - batch_size + 1, batch_size):
            yield examples.batch(order[start : start + batch_size])
