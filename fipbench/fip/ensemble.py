"""FIP ensembles: networks along a path on which the outputs stay what they were, to vote together.

Source: Nature Machine Intelligence 6 (2024), Algorithm 3 and the paragraph on selection. The printed loop starts at
w_t and steps down the gradient of distance(f(x, w), f(x, w_t)). There both are zero, so it never leaves w_t, and away
from it the distance only pulls back. What takes the network off is not printed. Here it is a kick, a random step of a
given length; then the distance pulls the outputs, not the weights, back to what they were. Kick and pull alternate,
each pair from where the last one ended, and the path is the sequence of the networks after each pull.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.fip import distance as distances
from fipbench.fip.continual import invariance
from fipbench.fip.sparse import _endless, _first_input, _frozen_reference

# The listed eta 0.01, epsilon 0.3 and delta 35, with the printed step, perturbation and reference. What is not printed
# is a reading: delta is a sum over the listed minibatch of 100, the only one that softmax outputs can reach, so the
# distance is summed in the step, too, and delta is 0.35 an example; the distance is the public code's; the start is
# the first network of the path, as in the printed loop; kick and number of networks are the library's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "distance": "bhattacharyya",
        "reduction": "sum",
        "optimizer": "plain",
        "learning_rate": 0.01,
        "include_start": True,
        "selection": "threshold",
        "epsilon": 0.3,
        "delta": 0.35,
    },
}

Forward = Callable[[nn.Module, Any], Tensor]


def ensemble(
    model: nn.Module,
    batches: Iterable[Any],
    members: int,
    *,
    steps: int,
    kicks: int | None = None,
    kick: str = "rotate",
    radius: float = 1.0,
    distance: str = "bhattacharyya",
    reduction: str = "mean",
    optimizer: str = "adam",
    learning_rate: float = 0.003,
    task_weight: float = 0.0,
    include_start: bool = True,
    selection: str = "spaced",
    epsilon: float = 0.1,
    delta: float = 0.35,
    probes: int = 2,
    generator: torch.Generator | None = None,
    reference: Callable[[Any], Tensor] | None = None,
    forward: Forward | None = None,
) -> list[nn.Module]:
    """`members` networks from a path that starts at `model`, in the order of the path; `model` is never changed.

    Args:
        model: the start w_t; all its calls are in the mode (train or eval) in which it comes.
        batches: tuples that begin with inputs x and labels, or inputs alone where no labels are needed (`task_weight`
            0 and `selection` `spaced` or `narrow`); begun anew when they end.
        steps: gradient steps after each kick.
        kicks: how many networks the path has beside its start; by default as many as are needed. More of them make
            members further apart, or give the selection something to choose from.
        kick: `layer`: each parameter tensor is moved by `radius` times its own norm; `rotate`: and is then scaled
            back to that norm, so that weights do not grow along the path; `global`: all are moved as one vector.
        radius: length of a kick relative to the norm of what is moved, in a uniformly random direction.
        distance: a name in `fip.distance.DISTANCES`, between the outputs and those of the start; `reduction` over
            the batch is `mean` or `sum`.
        optimizer: `adam`, `sgd` (momentum 0.9), or `plain`: the printed step down the gradient.
        task_weight: weight of the mean cross-entropy in what is walked down; 0 is the paper's undirected path.
        include_start: whether the start is the first network of the path and may be a member.
        selection: which networks of the path are members.
            `spaced`: evenly along it.
            `threshold`: evenly among those with H <= `delta` (Algorithm 3); while they are too few, `delta` is raised.
            `narrow`: those with the smallest mean plus standard deviation of h under random perturbations (paragraph).
            `validation`: those with the smallest cross-entropy under signed-gradient perturbations.
        epsilon: of these perturbations, in the L-infinity norm: one step along the sign of the gradient of the
            network's own cross-entropy at x, or uniform in the ball.
        delta: greatest mean of h over the probed examples, h being the distance of an example's outputs for perturbed
            and clean inputs.
        probes: batches on which a selection is made, the same for every network.
        generator: of kicks and random perturbations, on the CPU; by default torch's own.
        reference: outputs of the start for a batch where they are known already; else a frozen copy computes them.
        forward: `(network, batch) -> logits` where `network(x)` is not it; the selections replace batch[0].

    Raises:
        ValueError: an option outside its range, fewer networks on the path than members, or no batches.
    """
    if kicks is None:
        kicks = members - include_start
    _check(members, steps, kicks + include_start, probes, radius, epsilon, delta, task_weight)
    for name, value, known in (
        ("kick", kick, ("layer", "rotate", "global")),
        ("optimizer", optimizer, ("adam", "sgd", "plain")),
        ("selection", selection, ("spaced", "threshold", "narrow", "validation")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    measure = invariance(distance, reduction=reduction)
    call = forward or _first_input
    known_outputs = reference or _frozen_reference(model, call)
    source = _endless(batches)

    def loss(network: nn.Module, batch: Any) -> Tensor:
        logits = call(network, batch)
        kept = measure(logits, known_outputs(batch))
        return kept + task_weight * nn.functional.cross_entropy(logits, batch[1]) if task_weight else kept

    moving = copy.deepcopy(model)
    path = [copy.deepcopy(model)] if include_start else []
    for _ in range(kicks):
        _kick(moving, kick, radius, generator)
        rule = _optimizer(moving, optimizer, learning_rate)
        for _ in range(steps):
            rule.zero_grad(set_to_none=True)
            loss(moving, next(source)).backward()
            rule.step()
        path.append(copy.deepcopy(moving))
    if selection == "spaced":
        return [path[i] for i in _evenly(len(path), members)]
    measure_each = partial(distances.by_name(distance), reduction="none")
    drawn = [next(source) for _ in range(probes)]
    noise = [_noise(batch, epsilon, generator) for batch in drawn] if selection == "narrow" else []
    scores = [_score(network, drawn, noise, selection, epsilon, call, measure_each) for network in path]
    return [path[i] for i in _chosen(scores, members, delta if selection == "threshold" else None)]


@torch.no_grad()
def _kick(network: nn.Module, kind: str, radius: float, generator: torch.Generator | None) -> None:
    """Move the weights by `radius` times their norm in a random direction."""
    weights = [p for p in network.parameters() if p.requires_grad]
    ways = [torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) for p in weights]
    pairs = list(zip(weights, ways, strict=True))
    groups = [pairs] if kind == "global" else [[pair] for pair in pairs]
    for group in groups:
        length = torch.stack([p.norm() for p, _ in group]).norm()
        drawn = torch.stack([way.norm() for _, way in group]).norm()
        for p, way in group:
            p.add_(way * (radius * length / drawn))
            if kind == "rotate":
                p.mul_(length / p.norm().clamp(min=torch.finfo(p.dtype).tiny))


def _optimizer(network: nn.Module, name: str, learning_rate: float) -> torch.optim.Optimizer:
    weights = [p for p in network.parameters() if p.requires_grad]
    if name == "adam":
        return torch.optim.Adam(weights, lr=learning_rate)
    return torch.optim.SGD(weights, lr=learning_rate, momentum=0.9 if name == "sgd" else 0.0)


def _score(
    network: nn.Module,
    batches: list[Any],
    noise: list[Tensor],
    selection: str,
    epsilon: float,
    call: Forward,
    measure: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """How much perturbed inputs change what a network says: smaller is better."""
    found = []
    for number, batch in enumerate(batches):
        if selection == "narrow":
            with torch.no_grad():
                found.append(measure(call(network, _with_inputs(batch, noise[number])), call(network, batch)))
            continue
        x = _inputs(batch).clone().requires_grad_()
        logits = call(network, _with_inputs(batch, x))
        [gradient] = torch.autograd.grad(nn.functional.cross_entropy(logits, batch[1]), x)
        with torch.no_grad():
            perturbed = call(network, _with_inputs(batch, x + epsilon * gradient.sign()))
            if selection == "threshold":
                found.append(measure(perturbed, logits))
            else:
                found.append(nn.functional.cross_entropy(perturbed, batch[1], reduction="none"))
    values = torch.cat(found).double()
    return float(values.mean() + values.std(correction=0)) if selection == "narrow" else float(values.mean())


def _chosen(scores: list[float], members: int, delta: float | None) -> list[int]:
    """The members' places on the path: the best, or with `delta` evenly among those that are good enough."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    if delta is None:
        return sorted(order[:members])
    enough = max(members, sum(score <= delta for score in scores))
    accepted = sorted(order[:enough])
    return [accepted[i] for i in _evenly(len(accepted), members)]


def _evenly(n: int, count: int) -> list[int]:
    """`count` of n places, the last among them and the first if more than one."""
    if n == count:
        return list(range(n))
    return [round(i * (n - 1) / (count - 1)) for i in range(count)]


def _inputs(batch: Any) -> Tensor:
    return batch[0] if isinstance(batch, tuple | list) else batch


def _with_inputs(batch: Any, inputs: Tensor) -> Any:
    """The batch with other inputs; what follows them stays."""
    return (inputs, *batch[1:]) if isinstance(batch, tuple | list) else inputs


def _noise(batch: Any, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """The batch's inputs, each moved within the ball."""
    x = _inputs(batch)
    drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return x + epsilon * (2 * drawn - 1)


def _check(
    members: int,
    steps: int,
    networks: int,
    probes: int,
    radius: float,
    epsilon: float,
    delta: float,
    task_weight: float,
) -> None:
    if members < 2:
        raise ValueError(f"an ensemble needs two members or more, got {members}")
    if steps < 0 or probes < 1:
        raise ValueError(f"steps must not be negative and probes at least 1, got {steps} and {probes}")
    if networks < members:
        raise ValueError(f"a path of {networks} networks has no {members} members; raise kicks")
    if radius <= 0:
        raise ValueError(f"radius must be above zero, got {radius}: without a kick the path never leaves its start")
    if epsilon <= 0 or delta < 0 or task_weight < 0:
        raise ValueError(
            f"epsilon must be above zero, delta and task_weight not below it, got {epsilon}, {delta} and {task_weight}"
        )
