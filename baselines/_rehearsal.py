"""What replay, DER and FIP share: each step learns from a batch of the new task and a batch from memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.training import Batch, Examples

# (trial, logits of the kept batch, the batch, what was noted for it) -> what the memory adds to the loss
Term = Callable[[Any, Tensor, Batch, Tensor | None], Tensor]


@dataclass
class Rehearsal:
    """`learn(model, experience, trial)` of a method with a memory.

    Attributes:
        term: what a batch from memory adds to the loss; of several, each is given a batch of its own.
        noted: which outputs of the remembered examples the term is given: `task start` (of the network before each
            task, computed once a task), `stored` (of the network when the examples were stored), `second network` (as
            at the task's start, computed anew in every step by a frozen copy) or `nothing`.
        fitting: arguments of `trial.fit`.
    """

    term: Term | tuple[Term, ...]
    fitting: dict[str, Any]
    noted: str = "task start"
    memory: Examples | None = None
    targets: Tensor | None = field(default=None, repr=False)

    def __call__(self, model: nn.Module, experience: Any, trial: Any) -> None:
        if self.memory is not None:
            trial.fit(model, experience, loss=self._loss(model, trial), **self.fitting)
        new = trial.remember(experience)
        known = self.memory
        self.memory = new if known is None else Examples(*(torch.cat(pair) for pair in zip(known, new, strict=True)))
        if self.noted == "stored":
            outputs = trial.outputs(model, new)
            self.targets = outputs if self.targets is None else torch.cat([self.targets, outputs])

    def state_dict(self) -> dict[str, Tensor]:
        """What a job that was stopped needs, to go on after the last task it learned."""
        kept = {} if self.memory is None else {"inputs": self.memory.inputs, "labels": self.memory.labels}
        return kept if self.targets is None else {**kept, "targets": self.targets}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.memory = Examples(state["inputs"], state["labels"]) if "inputs" in state else None
        self.targets = state.get("targets")

    def _loss(self, model: nn.Module, trial: Any) -> Callable[[nn.Module, Batch], Tensor]:
        memory = self.memory
        frozen = copy.deepcopy(model).requires_grad_(False).eval() if self.noted == "second network" else None
        targets = trial.outputs(model, memory) if self.noted == "task start" else self.targets
        terms = self.term if isinstance(self.term, tuple) else (self.term,)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            kept = [trial.draw(memory) for _ in terms]
            sizes = [len(part.labels) for part in (batch, *kept)]
            logits = network(torch.cat([batch.inputs, *(part.inputs for part in kept)])).split(sizes)
            total = trial.criterion(logits[0], batch.labels)
            for term, out, part in zip(terms, logits[1:], kept, strict=True):
                wanted = targets[part.positions] if targets is not None else None
                if frozen is not None:
                    with torch.no_grad():
                        wanted = frozen(part.inputs)
                total = total + term(trial, out, part, wanted)
            return total

        return loss
