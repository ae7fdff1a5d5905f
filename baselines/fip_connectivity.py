"""Mode connectivity by Geo (geodesics2021, Algorithm 3): `fipbench.fip.geo` under the harness.

The walk goes from the first network towards the second, by steps that change the outputs on training examples as
little as the pull allows. The paper gives neither beta nor eta, so there is no published setting. Where the walk stops
short, the harness goes on in a straight line.
"""

import math

import torch

from fipbench.fip.geo import cost, geo
from fipbench.methods import Choice, LogUniform, connectivity

# So many of a walk's points are the path; between them it is straight.
POINTS = 100


@connectivity(
    version="1",
    search={
        "beta": LogUniform(1e-6, 1e2),
        "stride": LogUniform(0.003, 0.1),
        "examples": Choice((16, 32, 64)),
        "space": Choice(("logits", "softmax", "fisher")),
        "fresh": Choice((True, False)),
    },
)
def fip(
    *,
    beta: float = 0.01,
    stride: float = 0.01,
    examples: int = 32,
    space: str = "logits",
    fresh: bool = True,
    refresh: int = 1,
):
    """A geodesic from the first network towards the second, with the metric of training examples.

    `stride` is the length of a step as a share of the distance between the networks; `fresh` draws other examples each
    time that the metric is taken, which is every `refresh` steps."""

    def path(first, second, trial):
        weights = [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in (first, second)]
        distance = float((weights[1] - weights[0]).norm())
        outputs = _outputs(first, trial)
        gram, step = cost(len(weights[0]), examples, outputs, weights[0].element_size())
        left = trial.meter.limit - trial.meter.passes - 2 * examples
        steps = _affordable(left, gram, step, refresh)
        if steps < 1:
            raise ValueError(f"the budget allows no step of {gram + step} passes; take fewer examples than {examples}")
        drawn = _inputs(trial, examples)
        with trial.products() as spend:
            found = geo(
                first,
                second,
                drawn if fresh else [next(drawn)],
                steps,
                beta=beta,
                eta=stride * distance,
                refresh=refresh,
                keep=math.ceil(steps / POINTS),
                space=space,
                spend=spend,
            )
        return found.networks(first)

    return path


def _affordable(left, gram, step, refresh):
    """Steps for which the passes suffice, when g is taken anew at every `refresh`-th (0: once)."""
    if not refresh:
        return max(0, left - gram) // step
    rounds, rest = divmod(max(0, left), gram + refresh * step)
    return rounds * refresh + max(0, rest - gram) // step


@torch.no_grad()
def _outputs(network, trial):
    return network(trial.train.batch(torch.zeros(1, dtype=torch.long)).inputs).shape[1]


def _inputs(trial, count):
    """Training examples without end, so many at a time, each time drawn anew."""
    n = len(trial.train.labels)
    while True:
        index = torch.randperm(n, generator=trial.generator)[:count]
        yield trial.train.batch(index.to(trial.train.labels.device)).inputs
