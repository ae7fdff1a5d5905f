"""Mode connectivity by Geo (Raghavan & Thomson, 2021, Algorithm 3): `fipbench.fip.geo` under the harness.

The walk goes from the first network towards the second, by steps that change the outputs on training examples as
little as the pull allows. The paper gives neither beta nor eta, so there is no published setting. Where the walk stops
short, the harness goes on in a straight line.
"""

import math

from fipbench.baselines._walk import affordable, drawn, flat, outputs_of

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
        weights = flat(first)
        distance = float((flat(second) - weights).norm())
        gram, step = cost(len(weights), examples, outputs_of(first, trial.train), weights.element_size())
        left = trial.meter.limit - trial.meter.passes
        steps = affordable(left, gram, step, refresh, start=examples)
        if steps < 1:
            raise ValueError(f"the budget allows no step of {gram + step} passes; take fewer examples than {examples}")
        inputs = drawn(trial.train, examples, trial.generator)
        with trial.products() as spend:
            found = geo(
                first,
                second,
                inputs if fresh else [next(inputs)],
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
