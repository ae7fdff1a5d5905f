"""Gradual magnitude pruning (Zhu & Gupta, 2017) with cross-entropy: the control for FIP's ramp.

Within each level the sparsity rises on the cubic ramp that FIP uses, by hard zeros instead of attraction, and
training goes on at the level's sparsity afterwards. Levels follow one another on one path.
"""

from fipbench.baselines._levels import LevelByLevel
from fipbench.baselines._ramp import prune_on_ramp

from fipbench.methods import Choice, LogUniform, Uniform, sparsity
from fipbench.training import cross_entropy


@sparsity(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "ramp": Uniform(0.0, 0.8),
        "scope": Choice(("global", "layer")),
    },
)
def gradual(*, learning_rate: float = 3e-4, rule: str = "adam", ramp: float = 0.5, scope: str = "global"):
    return LevelByLevel(lambda level: prune_on_ramp(level, cross_entropy, learning_rate, rule, ramp, scope))
