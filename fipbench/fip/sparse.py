"""FIP-Sparse: a path from a dense network to sparse ones along which the outputs stay what they were.

Source: Nature Machine Intelligence 6 (2024), Algorithm 2; the authors' public code where it differs.
Each step goes down the gradient of

    distance(f(x, w), f(x, w_dense)) + strength * attraction(w, w_p)

where w_p is w with its smallest weights set to zero, held constant in the gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import pruning
from fipbench.fip import distance as distances

# The paper's listed settings (lambda 1, Adam, eta 0.01) and its pseudo-code: norm of w - w_p, every target
# reached from the dense network, a final projection (without which no weight is ever exactly zero).
# The public code: summed Bhattacharyya distance with an epsilon, half the squared norm with lambda 0.1, and a
# step of fixed length 0.01 along the gradient, ended when w is within 0.01 of w_p.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "distance": "bhattacharyya",
        "reduction": "mean",
        "attraction": "norm",
        "strength": 1.0,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "ramp": 0.0,
        "settle": 0.0,
        "start": "dense",
    },
    "authors-code": {
        "distance": "bhattacharyya",
        "reduction": "sum",
        "epsilon": 1e-10,
        "attraction": "squared",
        "strength": 0.1,
        "optimizer": "unit",
        "learning_rate": 0.01,
        "ramp": 0.0,
        "settle": 0.0,
        "start": "dense",
        "tolerance": 0.01,
    },
}


def sparsify(
    model: nn.Module,
    batches: Iterable[Any],
    sparsities: Sequence[float],
    *,
    steps: int,
    distance: str = "bhattacharyya",
    reduction: str = "mean",
    epsilon: float = 0.0,
    attraction: str = "norm",
    strength: float = 1.0,
    optimizer: str = "adam",
    learning_rate: float = 0.01,
    ramp: float = 0.0,
    settle: float = 0.2,
    start: str = "previous",
    begin: float = 0.0,
    scope: str = "global",
    project_every: int = 1,
    tolerance: float = 0.0,
    reference: Callable[[Any], Tensor] | None = None,
    forward: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Iterator[tuple[float, nn.Module]]:
    """Walk from `model` to each sparsity in turn; `model` itself is never changed.

    Args:
        model: the dense network w_dense; all its calls are in the mode (train or eval) in which it comes.
        batches: inputs x, or tuples whose first entry is x; begun anew when it ends. Labels are not used.
        sparsities: fractions of the prunable weights (`fipbench.pruning.prunable`) to be exactly zero, increasing.
        steps: gradient steps a level.
        distance: a name in `fip.distance.DISTANCES`; `reduction` over the batch is `mean` or `sum`;
            `epsilon` only with `bhattacharyya`.
        attraction: what pulls w to w_p: `squared` (half of ||w - w_p||^2) or `norm` (||w - w_p||).
        strength: its weight (lambda of Algorithm 2).
        optimizer: `adam`, `sgd` (momentum 0.9), or `unit`: a step of length `learning_rate` along the gradient.
        ramp: fraction of a level's steps in which the target sparsity rises (cubic) from the last level's.
        settle: fraction of a level's steps, at its end, taken on the sparse hyperplane itself: w is projected,
            zeros are held, and only the output distance is walked down. 0 is the published algorithm, whose
            only projection is the last act of a level.
        start: `previous` continues from the last level's network, `dense` walks each level from `model`; the optimiser
            is a new one at every level.
        begin: the sparsity from which the first ramp rises; the walks to several levels are those to one after another.
        scope: magnitudes are ranked `global`ly or by `layer`.
        project_every: steps between two computations of w_p.
        tolerance: a level ends early when ||w - w_p|| at the full target falls below this.
        reference: dense outputs of a batch where they are known already; else a frozen copy computes them.
        forward: `(network, batch) -> logits` where `network(x)` is not it.

    Yields:
        `(sparsity, network)`: a new module each time, in the mode of `model`, with exactly
        `pruning.zeros_at(sparsity, N)` zeros among the N prunable weights unless a kept weight is zero itself.
        Frozen parameters stay frozen and where they are; frozen prunable weights are counted and projected.

    Raises:
        ValueError: an option outside its range, no batches, nothing to prune, or sparsities that do not increase.
    """
    _check(
        sparsities,
        steps,
        reduction,
        attraction,
        optimizer,
        ramp,
        settle,
        start,
        begin,
        strength,
        project_every,
        tolerance,
    )
    measure = _measure(distance, reduction, epsilon)
    call = forward or _first_input
    if reference is None:
        reference = _frozen_reference(model, call)
    source = _endless(batches)
    settle_steps = round(settle * steps)
    moving = copy.deepcopy(model)
    last = begin
    for level in sparsities:
        if start == "dense":
            moving.load_state_dict(model.state_dict())
            last = begin
        walker = _Walker(moving, optimizer, learning_rate)
        for step in range(steps - settle_steps):
            target = pruning.ramp(step, steps, last, level, ramp)
            if step % project_every == 0:
                masks, drawn_at = pruning.magnitude_masks(walker.weights, target, scope=scope), target
            batch = next(source)
            wanted = reference(batch)
            walker.backward(measure(call(moving, batch), wanted))
            off = walker.attract(masks, attraction, strength)
            walker.step()
            if drawn_at == level and off < tolerance:
                break
        masks = pruning.magnitude_masks(walker.weights, level, scope=scope)
        pruning.apply(moving, masks)
        if settle_steps:
            walker = _Walker(moving, optimizer, learning_rate)
        for _ in range(settle_steps):
            batch = next(source)
            wanted = reference(batch)
            walker.backward(measure(call(moving, batch), wanted))
            walker.hold(masks)
            walker.step()
        last = level
        yield level, copy.deepcopy(moving)


class _Walker:
    """The moving network's prunable weights and the rule by which they step."""

    def __init__(self, network: nn.Module, rule: str, learning_rate: float) -> None:
        self.weights = pruning.prunable(network)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.unit = rule == "unit"
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(self.parameters, lr=learning_rate)
            if rule == "adam"
            else torch.optim.SGD(self.parameters, lr=learning_rate, momentum=0.9 if rule == "sgd" else 0.0)
        )

    def backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    @torch.no_grad()
    def attract(self, masks: pruning.Masks, attraction: str, strength: float) -> float:
        """Add the gradient of the attraction: w - w_p, which is w where it is to vanish and 0 elsewhere.

        Returns || w - w_p ||_2 before the step."""
        names = list(self.weights)
        off = [w.detach().masked_fill(masks[n], 0.0) for n, w in self.weights.items()]
        length = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(off))))
        scale = strength if attraction == "squared" else strength / max(length, 1e-12)
        for name, pull in zip(names, off, strict=True):
            weight = self.weights[name]
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.add_(pull, alpha=scale)
        return length

    @torch.no_grad()
    def hold(self, masks: pruning.Masks) -> None:
        """Keep what is zero at zero: no gradient there (the optimiser starts with no momentum)."""
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.masked_fill_(~masks[name], 0.0)

    @torch.no_grad()
    def step(self) -> None:
        if self.unit:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            length = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
            torch._foreach_mul_(gradients, 1.0 / max(length, 1e-12))
        self.optimizer.step()


def _check(
    sparsities: Sequence[float],
    steps: int,
    reduction: str,
    attraction: str,
    optimizer: str,
    ramp: float,
    settle: float,
    start: str,
    begin: float,
    strength: float,
    project_every: int,
    tolerance: float,
) -> None:
    if any(not 0 < s < 1 for s in sparsities) or list(sparsities) != sorted(set(sparsities)):
        raise ValueError(f"sparsities must increase between 0 and 1, got {list(sparsities)}")
    if not 0 <= begin < 1 or any(s <= begin for s in sparsities):
        raise ValueError(f"begin must lie between 0 and the first sparsity, got {begin}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= ramp <= 1 or not 0 <= settle <= 1 or ramp + settle > 1:
        raise ValueError(f"ramp and settle must be fractions with a sum of at most 1, got {ramp} and {settle}")
    if project_every < 1:
        raise ValueError(f"project_every must be at least 1, got {project_every}")
    if strength < 0 or tolerance < 0:
        raise ValueError(f"strength and tolerance must not be negative, got {strength} and {tolerance}")
    for name, value, known in (
        ("reduction", reduction, ("mean", "sum")),
        ("attraction", attraction, ("squared", "norm")),
        ("optimizer", optimizer, ("adam", "sgd", "unit")),
        ("start", start, ("previous", "dense")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _measure(name: str, reduction: str, epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    function = distances.by_name(name)
    options: dict[str, Any] = {"reduction": reduction}
    if epsilon:
        if name != "bhattacharyya":
            raise ValueError(f"epsilon belongs to the Bhattacharyya distance, not to {name}")
        options["epsilon"] = epsilon
    return lambda logits, wanted: function(logits, wanted, **options)


def _first_input(network: nn.Module, batch: Any) -> Tensor:
    return network(batch[0] if isinstance(batch, tuple | list) else batch)


def _frozen_reference(model: nn.Module, call: Callable[[nn.Module, Any], Tensor]) -> Callable[[Any], Tensor]:
    frozen = copy.deepcopy(model).requires_grad_(False)

    def reference(batch: Any) -> Tensor:
        with torch.no_grad():
            return call(frozen, batch)

    return reference


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    """`batches` over and over; an iterator that can be walked once only simply ends."""
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
