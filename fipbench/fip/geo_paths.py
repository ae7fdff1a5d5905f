"""What geodesics2021 walks with Geo: to the sparse hyperplane, to an earlier task's network, between two modes.

Options of `geo` (beta, eta, refresh, stopping rules, the outputs that g compares) are passed on by all three.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import nn

from fipbench import pruning
from fipbench.fip.geo import GeoPath, geo, with_weights


def sparse_geodesic(
    network: nn.Module,
    inputs: Iterable[Any],
    sparsities: Sequence[float],
    *,
    steps: int,
    n_s: int = 10,
    scope: str = "global",
    **options: Any,
) -> Iterator[tuple[float, nn.Module]]:
    """Sparse networks at the ends of walks towards the hyperplane H_p of weights with a share p of zeros.

    The target is the projection of where the walk stands (its smallest weights set to zero), taken anew every `n_s`
    steps; the walk ends on H_p, or after `steps` steps, and then is projected. The next level goes on from there. Geo's
    steps have a length, so the hyperplane is met to within one of them at best.

    Args:
        network: the trained network; it is not changed.
        inputs: batches for g, as of `geo`.
        sparsities: shares of the prunable weights to be zero, increasing.
        steps: most steps for each of them.
        scope: `global` or `layer`, as of `fipbench.pruning.magnitude_masks`.

    Yields:
        (sparsity, network) with exactly that many zeros.

    Raises:
        ValueError: as of `geo` and `magnitude_masks`; FloatingPointError: the network is not finite.

    Source: geodesics2021, Algorithm 1. H_p is printed as ||w||_0 = np/100 and described as p % of zeros; it is the
    latter here. Structured pruning is Geo with another target.
    """
    if n_s < 1 or steps < 1:
        raise ValueError(f"steps and n_s must be at least 1, got {steps} and {n_s}")
    batches = iter(inputs if isinstance(inputs, Iterator) else cycle(inputs))
    moving = copy.deepcopy(network)
    for sparsity in sparsities:
        left, arrived = steps, False
        while left and not arrived:
            target = _projected(moving, sparsity, scope)
            path = geo(moving, target, batches, min(n_s, left), keep=min(n_s, left), **options)
            moving = with_weights(moving, path.metric, path.points[-1])
            arrived = path.reached
            if path.stopped in ("oscillation", "not finite"):
                break
            left -= min(n_s, left)
        moving = _projected(moving, sparsity, scope)
        yield sparsity, copy.deepcopy(moving)


def cf_geodesic(
    new: nn.Module,
    old: nn.Module,
    inputs: Iterable[Any],
    steps: int,
    *,
    accept: Callable[[nn.Module], bool] | None = None,
    every: int = 1,
    **options: Any,
) -> tuple[nn.Module, GeoPath]:
    """A network between a new task's and an earlier one: the end of a walk from the new one under its task's metric.

    Args:
        new: trained on the new task; `inputs` are that task's.
        old: good at the tasks before; the target.
        accept: whether a network on the way still serves; the last point before the first that does not is taken.
            Without it, the end.
        every: `accept` is asked at every so-manieth step, and at the end.

    Returns:
        The network, a copy of `new` with other weights, and the whole path.

    Raises:
        ValueError, FloatingPointError: as of `geo`.

    Source: geodesics2021, Algorithm 2. How its "best network" on the path is chosen, and on which data, is not said;
    without data of earlier tasks it can only be what the new task bears.
    """
    path = geo(new, old, inputs, steps, keep=every, **options)
    chosen = path.points[0 if accept else -1]
    if accept:
        for point in path.points[1:]:
            if not accept(with_weights(new, path.metric, point)):
                break
            chosen = point
    return with_weights(new, path.metric, chosen), path


def connect_modes(
    first: nn.Module, second: nn.Module, inputs: Iterable[Any], steps: int, **options: Any
) -> tuple[list[nn.Module], GeoPath]:
    """The networks on a walk from one trained network towards another, under the metric of their one task.

    The last is the second network only where the path was `reached`.

    Raises:
        ValueError, FloatingPointError: as of `geo`.

    Source: geodesics2021, Algorithm 3.
    """
    path = geo(first, second, inputs, steps, **options)
    return list(path.networks(first)), path


@torch.no_grad()
def _projected(network: nn.Module, sparsity: float, scope: str) -> nn.Module:
    """A copy on the sparse hyperplane, the smallest weights at zero."""
    found = copy.deepcopy(network)
    return pruning.apply(found, pruning.magnitude_masks(pruning.prunable(found), sparsity, scope=scope))
