"""`fit`: the one training loop of the suite, and the meter that counts what a method spends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from fipbench.data.batches import Batch, Examples, stream
from fipbench.errors import BudgetExceeded

__all__ = ["Batch", "Examples", "Meter", "cross_entropy", "decay", "fit", "optimizer", "predict", "stream"]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of a batch."""
    return nn.functional.cross_entropy(model(batch.inputs), batch.labels)


def optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """An optimiser by name: `sgd`, `adam` or `adamw`.

    Raises:
        ValueError: another name.
    """
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    # All tensors in one call: the same numbers to the bit, sooner where there are many small ones.
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)
    raise ValueError(f"optimizer must be sgd, adam or adamw, got {name!r}")


def decay(
    rule: torch.optim.Optimizer, fractions: Sequence[float], steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """The schedule by which the learning rate falls to a tenth after each of these fractions of `steps`, if any."""
    if not fractions:
        return None
    ends = [round(fraction * steps) for fraction in fractions]
    return torch.optim.lr_scheduler.LambdaLR(rule, lambda step: 0.1 ** sum(step >= end for end in ends))


def fit(
    model: nn.Module,
    batches: Iterator[Batch],
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    after_step: Callable[[int], Any] | None = None,
    clip: float = 0.0,
) -> nn.Module:
    """Train `model` in place for `steps` optimiser steps; returns it in the mode it came in.

    Args:
        batches: a stream of at least `steps` batches; exactly `steps` are taken.
        loss: `(model, batch) -> scalar`.
        after_step: called with the number of the step just done, from 0.
        clip: above zero, gradients are scaled to at most this Euclidean norm.
    """
    was_training = model.training
    model.train()
    parameters = list(model.parameters())
    for step, batch in zip(range(steps), batches, strict=False):
        optimizer.zero_grad(set_to_none=True)
        loss(model, batch).backward()
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if after_step is not None:
            after_step(step)
    return model.train(was_training)


class Meter:
    """Counts examples through a model, forward and backward, and stops a method at its limit.

    `limit` is in passes: an example forward is one, backward another. Attached to a model it follows every
    `copy.deepcopy` of it (the copies share the meter), so a method cannot lose it by copying.
    """

    def __init__(self, limit: int = 0, spent: tuple[int, int] = (0, 0)) -> None:
        self.limit = limit
        self.forward, self.backward = spent
        self.tick: Callable[[float], Any] | None = None
        self._paused = 0
        self._last = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Meter:
        return self

    @property
    def passes(self) -> int:
        """Passes so far, forward and backward."""
        return self.forward + self.backward

    def steps(self, batch_size: int) -> int:
        """How many training steps of that batch size the limit still allows."""
        return max(0, self.limit - self.passes) // (2 * batch_size)

    def attach(self, model: nn.Module) -> nn.Module:
        """Count every later call of `model` and its copies; returns `model`."""
        model.register_forward_hook(self, with_kwargs=True)
        return model

    def spend(self, forward: int, backward: int) -> None:
        """Count examples of work that does not go through the model: by whoever keeps derivatives and computes with
        them, or calls a functional copy, of which `torch.func` shows the hooks a part only. It counts while `paused`,
        too: whoever tells what was spent means it."""
        self.forward += forward
        self.backward += backward
        self._check()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The harness's own evaluations cost a method nothing."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._paused:
            return
        # A loss among the outputs is one number, but of a whole batch.
        batches = (t for t in _tensors((args, kwargs, output)) if t.ndim)
        count = next((t.shape[0] for t in batches), 1)
        self.forward += count
        self._check()
        outputs = [t for t in _tensors(output) if t.requires_grad]
        if outputs:
            register_multi_grad_hook(outputs, lambda gradient: self._backward(count), mode="any")

    def _backward(self, count: int) -> None:
        self.backward += count
        self._check()

    def _check(self) -> None:
        if self.limit and self.passes > self.limit:
            raise BudgetExceeded(f"more than the task's {self.limit} passes (examples forward plus backward)")
        if self.tick is not None and (now := time.monotonic()) - self._last > 0.25:
            self._last = now
            self.tick(self.passes / self.limit if self.limit else 0.0)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


@torch.no_grad()
def predict(model: nn.Module, examples: Examples, batch_size: int = 1000) -> Tensor:
    """Outputs of `model` in evaluation mode for all examples, shape (n, outputs); the mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    n = len(examples.labels)
    index = torch.arange(n, device=examples.labels.device)
    found = torch.empty(0)
    for start in range(0, n, batch_size):
        part = model(examples.batch(index[start : start + batch_size]).inputs)
        if not start:
            found = part.new_empty((n, *part.shape[1:]))
        found[start : start + len(part)] = part
    for module, mode in modes.items():
        module.training = mode
    return found
