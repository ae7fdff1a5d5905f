"""Weights zeroed at random, then fine-tuned like `magnitude-finetune`: does it matter which weights go?

`finetune=False` gives random networks on the sparse hyperplane, to which the papers compare.
"""

import copy

from fipbench.baselines._levels import LevelByLevel

from fipbench import pruning
from fipbench.methods import Choice, LogUniform, sparsity


@sparsity(version="1", search={"learning_rate": LogUniform(3e-4, 0.1), "rule": Choice(("sgd", "adam"))})
def random_pruning(*, learning_rate: float = 0.008, rule: str = "adam", finetune: bool = True):
    def make(level):
        masks = pruning.random_masks(pruning.prunable(level.dense), level.sparsity, level.trial.generator)
        pruned = copy.deepcopy(level.dense)
        steps = level.steps if finetune else 0
        return level.trial.fit(pruned, steps=steps, learning_rate=learning_rate, rule=rule, masks=masks)

    return LevelByLevel(make)
