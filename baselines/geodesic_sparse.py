"""The sparse geodesic (Raghavan & Thomson, 2021, Algorithm 1): `fipbench.fip.geo_paths` under the harness.

Neither beta, eta nor n_s is printed; the defaults are ours.
"""

import copy

from fipbench.baselines._levels import LevelByLevel
from fipbench.baselines._walk import affordable, drawn, flat, outputs_of

from fipbench import pruning
from fipbench.fip.geo import cost
from fipbench.fip.geo_paths import sparse_geodesic
from fipbench.methods import Choice, LogUniform, sparsity


@sparsity(
    version="1",
    search={
        "beta": LogUniform(1e-6, 1e2),
        "stride": LogUniform(0.003, 0.1),
        "examples": Choice((8, 16, 32)),
        "space": Choice(("logits", "softmax", "fisher")),
        "n_s": Choice((5, 10, 20)),
        "scope": Choice(("global", "layer")),
    },
)
def geodesic(
    *,
    beta: float = 0.01,
    stride: float = 0.02,
    examples: int = 16,
    space: str = "logits",
    n_s: int = 10,
    scope: str = "global",
    steps: int = 200,
):
    """Geodesics towards the sparse hyperplane, aimed anew every `n_s` steps, at most `steps` for a level.

    `stride` is the length of a step as a share of the distance from the level before to the hyperplane."""

    def make(level):
        trial, network = level.trial, copy.deepcopy(level.network)
        weights = flat(network)
        near = copy.deepcopy(network)
        pruning.apply(near, pruning.magnitude_masks(pruning.prunable(near), level.sparsity, scope=scope))
        gram, step = cost(len(weights), examples, outputs_of(network, trial.train), weights.element_size())
        passes = 2 * trial.batch_size * level.steps - 1
        count = min(steps, affordable(passes, gram, step, start=examples, chunk=n_s))
        if count < 1:
            raise ValueError(f"the budget allows no step of {gram + step} passes; take fewer examples than {examples}")
        with trial.meter.paused():
            [(_, found)] = sparse_geodesic(
                network,
                drawn(trial.train, examples, trial.generator),
                (level.sparsity,),
                steps=count,
                n_s=n_s,
                scope=scope,
                beta=beta,
                eta=stride * float((flat(near) - weights).norm()),
                space=space,
                spend=trial.meter.spend,
            )
        return found

    return LevelByLevel(make)
