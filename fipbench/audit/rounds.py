"""Attacks on one vote, radius by radius, and the count of what they found and took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import attacks, metrics, registry
from fipbench.attacks import MeanSoftmax
from fipbench.audit import searches
from fipbench.audit.searches import Search
from fipbench.errors import ProtocolError
from fipbench.spec.audits import Radius, Tried
from fipbench.training import Meter

# Radii beyond the recorded ones: so many times the largest, and that which allows any image.
FARTHER, ANYTHING = 2.0, 1.0


@dataclass(frozen=True)
class Compared:
    """Attacks of one kind against gradient attacks at one radius: items that only one of the two fools."""

    epsilon: float
    kind: str
    only: int
    only_gradient: int


@dataclass
class Bout:
    """A vote under attack.

    Attributes:
        inputs, labels: the attacked items; `right`: which of them the vote has right unattacked, shape (n,).
        networks: all that an attack may call, for the count.
        gradient, worst: which items stand under the gradient attacks, and under all, up to the radius reached.
    """

    vote: MeanSoftmax
    inputs: Tensor
    labels: Tensor
    networks: Sequence[nn.Module]
    seed: int
    tick: Callable[[str, float], Any] = lambda text, share: None
    tried: list[Tried] = field(default_factory=list)
    radii: list[Radius] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.right = attacks.correct(self.vote, self.inputs, self.labels)
        self.gradient, self.worst = self.right.clone(), self.right.clone()
        self.meter = Meter()
        for network in self.networks:
            self.meter.attach(network)

    def at(self, epsilon: float, recorded: Tensor, found: Sequence[Search]) -> None:
        """Try all searches in the ball of that radius, which must be larger than those before.

        Args:
            recorded: which items stood in the record's own worst case, shape (n,).
        """
        self.gradient &= recorded
        self.worst &= recorded
        alone: dict[str, Tensor] = {}
        for n, search in enumerate(found):
            self.tick(f"{search.name}, ε {epsilon:g}", n / len(found))
            if search.kind == "gradient":
                fooled = self.run(search, epsilon, self.gradient)
                self.gradient &= ~fooled
            else:
                fooled = self.run(search, epsilon, self.right)
                alone[search.kind] = alone.get(search.kind, self.right) & ~fooled
            self.worst &= ~fooled
        for kind, standing in alone.items():
            only, other = int((self.gradient & ~standing).sum()), int((standing & ~self.gradient).sum())
            self.compared.append(Compared(epsilon, kind, only, other))
        shares = {kind: _share(standing) for kind, standing in {"gradient": self.gradient, **alone}.items()}
        self.radii.append(
            Radius(
                epsilon=epsilon,
                recorded=_share(recorded),
                found=_share(self.worst),
                standing=metrics.packed(self.worst),
                alone=shares,
            )
        )

    def beyond(self, epsilon: float, found: Sequence[Search]) -> float:
        """Accuracy under these searches alone in a ball of that radius, each on what those before it left."""
        standing = self.right.clone()
        for search in found:
            standing &= ~self.run(search, epsilon, standing, counted=False)
        return _share(standing)

    def run(self, search: Search, epsilon: float, given: Tensor, counted: bool = True) -> Tensor:
        """Which of the given items the search fools, shape (n,); each restart is spared what those before it fooled."""
        fooled = torch.zeros_like(given)
        refused = ""
        before = self.meter.forward, self.meter.backward
        for restart in range(search.restarts):
            left = (given & ~fooled).nonzero().squeeze(1)
            if not len(left):
                break
            seed = attacks.derived(self.seed, "audit", search.name, f"{epsilon:g}", restart)

            def find(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int = seed) -> Tensor:
                return searches.contained(inputs, search.find(inputs, labels, epsilon, seed), epsilon)

            try:
                answer = attacks.in_chunks(find, self.vote, self.inputs[left], self.labels[left])
            except ProtocolError as error:
                refused = str(error)
            except Exception as error:  # one that fails costs the others nothing
                refused = registry.one_line(error)
            if refused:
                fooled = torch.zeros_like(given)
                break
            fooled[left] = ~attacks.correct(self.vote, answer, self.labels[left])
        members = len(self.vote.members)
        self.tried.append(
            Tried(
                attack=search.name,
                kind=search.kind,
                epsilon=epsilon,
                given=int(given.sum()),
                fooled=int(fooled.sum()),
                first=int((fooled & self.worst).sum()) if counted else 0,
                forward=round((self.meter.forward - before[0]) / members),
                backward=round((self.meter.backward - before[1]) / members),
                refused=refused,
            )
        )
        return fooled

    def flat(self) -> dict[str, float]:
        """Share of the items that the vote has right at which the gradient of a loss is zero in every pixel."""
        chosen = self.right.nonzero().squeeze(1)
        inputs, labels = self.inputs[chosen], self.labels[chosen]
        found = {}
        for name, loss in (("cross-entropy", searches.cross_entropy), ("margin", searches.margin)):
            slope = searches.gradients(self.vote, inputs, labels, loss)
            found[name] = _share(slope.flatten(1).abs().amax(1) == 0) if len(chosen) else 0.0
        return found


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
