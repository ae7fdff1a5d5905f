"""Operations on networks that chain: CL learns a data set, Co makes sparse, and their order matters.

from fipbench.fip.compose import CL, Co, Source, compose

data = {"yelp": Source(batches, memory), "imdb": Source(other_batches, other_memory)}
network = compose(CL("imdb"), Co(0.6), data=data, knows=("yelp",))(network)

CL is a FIP-CF step towards a data set (Nature Machine Intelligence 6, 2024, Algorithm 1), Co is FIP-Sparse to a
sparsity (Algorithm 2). Both keep the outputs of the network that they are given: CL on the memories of the data sets
that it knows, Co on those and on the data set that it learned last.

The paper's CLCo may mean that CL acts first (as one reads) or that Co does (as functions compose). Here operations act
in the order in which they are written, and names such as `cl-co` say the same; `order="function"` turns them round.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import pruning
from fipbench.fip.continual import invariance
from fipbench.fip.sparse import sparsify

ORDERS = ("reading", "function")


@dataclass(frozen=True)
class Source:
    """A data set as operations see it.

    Attributes:
        batches: of inputs and labels, (x, y) or longer; begun anew when they end.
        memory: inputs (m, ...) that may be kept of it once another is learned; None keeps none.
    """

    batches: Iterable[Any]
    memory: Tensor | None = None


@dataclass(frozen=True)
class State:
    """A network on its way: what it knows, the last learned last, and the seed of what is drawn next."""

    network: nn.Module
    knows: tuple[str, ...] = ()
    seed: int = 0


Data = Mapping[str, Source]


@dataclass(frozen=True)
class CL:
    """Learn a data set along a path on which the outputs on remembered inputs stay what they were.

    Every step goes down cross-entropy(batch) + strength * distance(f(memory, w), f(memory, w_start)).

    Attributes:
        data: the data set's name.
        keep_zeros: whether prunable weights that are zero stay so; the papers leave it open.
        rule: `sgd` (momentum 0.9), `adam` or `adamw`; `clip`: the largest norm of a gradient, 0 for none.
        strength, distance: as of `fipbench.fip.invariance`.
        batch_size: inputs drawn from the memories for each step.
    """

    data: str
    steps: int = 100
    learning_rate: float = 1e-3
    rule: str = "adam"
    strength: float = 1.0
    distance: str = "bhattacharyya"
    keep_zeros: bool = True
    clip: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 32

    def __call__(self, state: State, data: Data) -> State:
        """The network after it, a new module; `state.network` is left as it is.

        Raises:
            ValueError: no such data set, no batches, or an option outside its range.
        """
        network = copy.deepcopy(state.network)
        masks = _zeros_of(network) if self.keep_zeros else {}
        past = _memories(data, (name for name in state.knows if name != self.data))
        wanted = _outputs(network, past) if past is not None else None
        moved = invariance(self.distance)
        generator = torch.Generator().manual_seed(state.seed)
        optimizer = _optimizer(self.rule, network, self.learning_rate, self.weight_decay)
        was_training = network.training
        network.train()
        for _, batch in zip(range(self.steps), _endless(_of(data, self.data).batches), strict=False):
            x, y = batch[0], batch[1]
            kept = torch.empty(0, dtype=torch.int64)
            if past is not None:
                kept = torch.randperm(len(past), generator=generator)[: self.batch_size].to(x.device)
                x = torch.cat([x, past[kept]])
            logits, old = network(x).split([len(y), len(kept)])
            loss = nn.functional.cross_entropy(logits, y)
            if wanted is not None:
                loss = loss + self.strength * moved(old, wanted[kept])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip:
                nn.utils.clip_grad_norm_(network.parameters(), self.clip)
            optimizer.step()
            pruning.apply(network, masks)
        network.train(was_training)
        known = tuple(name for name in state.knows if name != self.data)
        return State(network, (*known, self.data), state.seed + 1)


@dataclass(frozen=True)
class Co:
    """Walk to a sparsity along a path on which the outputs stay what they were.

    Attributes:
        sparsity: the fraction of prunable weights that is exactly zero afterwards; at least as many as before.
        options: further arguments of `fipbench.fip.sparsify`.
        batch_size: inputs drawn from the memories for each step.
    """

    sparsity: float
    steps: int = 100
    learning_rate: float = 0.01
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 32

    def __call__(self, state: State, data: Data) -> State:
        """The network after it, a new module; `state.network` is left as it is.

        Raises:
            ValueError: a network that knows no data set, or what `sparsify` raises.
        """
        if not state.knows:
            raise ValueError("Co keeps outputs on the data sets that a network knows; name them in `knows`")
        generator = torch.Generator().manual_seed(state.seed)
        past = _memories(data, state.knows[:-1])
        start = copy.deepcopy(state.network).eval()

        def batches() -> Iterator[Tensor]:
            for batch in _endless(_of(data, state.knows[-1]).batches):
                if past is None:
                    yield batch[0]
                    continue
                kept = torch.randperm(len(past), generator=generator)[: self.batch_size].to(past.device)
                yield torch.cat([batch[0], past[kept]])

        zeros, total = pruning.zeros(start)
        [(_, network)] = sparsify(
            start,
            batches(),
            (self.sparsity,),
            steps=self.steps,
            learning_rate=self.learning_rate,
            begin=min(zeros / total, self.sparsity * (1 - 1e-9)),
            **self.options,
        )
        return replace(state, network=network.train(state.network.training), seed=state.seed + 1)


Operation = Callable[[State, Data], State]


@dataclass(frozen=True)
class Composition:
    """Operations that act one after the other."""

    operations: tuple[Operation, ...]
    data: Data
    knows: tuple[str, ...]
    seed: int = 0

    def __call__(self, network: nn.Module) -> nn.Module:
        """The network after all of them."""
        last = network
        for last in self.walk(network):  # noqa: B007 (the last one is wanted)
            pass
        return last

    def walk(self, network: nn.Module) -> Iterator[nn.Module]:
        """The network after each of them in turn; the given one is left as it is."""
        state = State(network, self.knows, self.seed)
        for operation in self.operations:
            state = operation(state, self.data)
            yield state.network


def compose(
    *operations: Operation, data: Data, knows: Iterable[str] = (), order: str = "reading", seed: int = 0
) -> Composition:
    """Operations as one: `compose(CL("imdb"), Co(0.6), data=data, knows=["yelp"])(network)` learns, then makes sparse.

    Args:
        data: the data sets by name.
        knows: those that the network to come has learned, in order.
        order: `reading`: the first operation acts first; `function`: the last one does, as in CL(Co(w)).
        seed: of what the operations draw from memory; each has another.

    Raises:
        ValueError: unknown order, or a data set in `knows` that is not there.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    known = tuple(knows)
    for name in known:
        _of(data, name)
    return Composition(operations if order == "reading" else operations[::-1], data, known, seed)


def _of(data: Data, name: str) -> Source:
    if name not in data:
        raise ValueError(f"there is no data set {name!r}; there are: {', '.join(data) or 'none'}")
    return data[name]


def _memories(data: Data, names: Iterable[str]) -> Tensor | None:
    """What is kept of these data sets, one after the other."""
    parts = [memory for name in names if (memory := _of(data, name).memory) is not None and len(memory)]
    return torch.cat(parts) if parts else None


def _outputs(network: nn.Module, inputs: Tensor, chunk: int = 500) -> Tensor:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(part) for part in inputs.split(chunk)])
    network.train(was_training)
    return found


def _zeros_of(network: nn.Module) -> pruning.Masks:
    """Masks (true = kept) that leave out the weights that are zero; a tensor without zeros has none."""
    masks = {name: weight.detach() != 0 for name, weight in pruning.prunable(network).items()}
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _optimizer(rule: str, network: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if rule == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    if rule == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)
    if rule == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)
    raise ValueError(f"rule must be sgd, adam or adamw, got {rule!r}")


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    """`batches` over and over; an iterator that can be walked once only must be long enough."""
    if isinstance(batches, Iterator):
        for batch in batches:  # (`yield from` would close the caller's stream, with which another walk may go on)
            yield batch
        raise ValueError("the batches ended before the walk did; give a list or a loader, which can begin anew")
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("there are no batches")
