"""Magnitude pruning in one shot, then fine-tuning of what is left (Han et al., 2015), for each level afresh.

Each level starts from the dense network and gets an equal share of the budget.
"""

import copy

from fipbench.baselines._levels import LevelByLevel

from fipbench import pruning
from fipbench.methods import Choice, LogUniform, sparsity


@sparsity(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "scope": Choice(("global", "layer")),
    },
)
def magnitude_finetune(*, learning_rate: float = 0.03, rule: str = "adam", scope: str = "layer"):
    def make(level):
        masks = pruning.magnitude_masks(pruning.prunable(level.dense), level.sparsity, scope=scope)
        pruned = copy.deepcopy(level.dense)
        return level.trial.fit(pruned, steps=level.steps, learning_rate=learning_rate, rule=rule, masks=masks)

    return LevelByLevel(make)
