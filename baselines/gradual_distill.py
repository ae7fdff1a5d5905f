"""Gradual magnitude pruning that keeps the dense network's outputs: the control for where FIP's gain comes from.

The ramp is `gradual`'s, the loss FIP's own output distance; what is missing of FIP is the attraction alone.
"""

from fipbench.baselines._levels import LevelByLevel
from fipbench.baselines._ramp import prune_on_ramp

from fipbench.fip import distance as distances
from fipbench.methods import Choice, LogUniform, Uniform, sparsity


@sparsity(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "ramp": Uniform(0.0, 0.8),
        "scope": Choice(("global", "layer")),
        "distance": Choice(("bhattacharyya", "kl", "jensen_shannon", "euclidean", "squared_euclidean")),
    },
)
def gradual_distill(
    *,
    learning_rate: float = 0.001,
    rule: str = "adam",
    ramp: float = 0.5,
    scope: str = "global",
    distance: str = "bhattacharyya",
):
    measure = distances.by_name(distance)

    def make(level):
        def loss(network, batch):
            return measure(network(batch.inputs), level.wanted[batch.positions])

        return prune_on_ramp(level, loss, learning_rate, rule, ramp, scope)

    return LevelByLevel(make, outputs=True)
