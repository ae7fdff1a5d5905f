"""Examples and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fipbench.data.streamed import EncodedImages


class Batch(NamedTuple):
    """A minibatch. `inputs` are floats in [0, 1], `labels` as of `Examples`, `positions` rows of the data."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor


class Examples(NamedTuple):
    """Examples, both with n rows.

    `inputs` are uint8 (images as stored), float or token ids; in memory, but for images that are too many: there it is
    a `fipbench.data.streamed.EncodedImages`, which takes an index tensor as a tensor does and reads those rows.
    `labels` are classes, int64 of shape (n,), or where they are values on a scale the probabilities of its whole
    numbers, float32 of shape (n, k), as of `spread`.
    """

    inputs: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, images scaled from 0..255 to [0, 1]."""
        inputs = self.inputs[index]
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(255)
        return Batch(inputs, self.labels[index], index)

    def only(self, index: Tensor) -> Examples:
        """The examples at `index`, as examples; reads nothing from disk."""
        inputs: Any = self.inputs
        chosen: Any = inputs.only(index) if isinstance(inputs, EncodedImages) else inputs[index]
        return Examples(chosen, self.labels[index])


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


# So many batches are sorted together: enough for a batch's texts to be alike, few enough that no batch comes twice.
POOL = 50


class Stream(Iterator[Batch]):
    """Batches without end: each epoch a new order, the last incomplete batch of an epoch left out.

    With `lengths` of the examples, on the CPU, each batch's are alike: the order is sorted by length within pools of
    `POOL` batches, then the batches are shuffled.

    Taking the first raises ValueError where there are fewer examples than a batch.
    """

    def __init__(
        self, examples: Examples, batch_size: int, generator: torch.Generator, lengths: Tensor | None = None
    ) -> None:
        self.examples = examples
        self.positions = _positions(examples.labels, batch_size, generator, lengths)

    def __next__(self) -> Batch:
        return self.examples.batch(next(self.positions))

    def skip(self) -> None:
        """Leave one batch out; its examples are not read."""
        next(self.positions)


def stream(examples: Examples, batch_size: int, generator: torch.Generator, lengths: Tensor | None = None) -> Stream:
    """A `Stream` of these examples, its order drawn from the generator."""
    return Stream(examples, batch_size, generator, lengths)


def _positions(labels: Tensor, batch_size: int, generator: torch.Generator, lengths: Tensor | None) -> Iterator[Tensor]:
    n = len(labels)
    if n < batch_size:
        raise ValueError(f"a batch of {batch_size} needs as many examples, there are {n}")
    while True:
        order = torch.randperm(n, generator=generator)
        if lengths is not None:
            order = _alike(order[: n // batch_size * batch_size], lengths, batch_size, generator)
        order = order.to(labels.device)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def _alike(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """Full batches in another order: sorted by length within pools, then shuffled."""
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOL * batch_size)]
    batches = torch.cat(pools).view(-1, batch_size)
    return batches[torch.randperm(len(batches), generator=generator)].flatten()
