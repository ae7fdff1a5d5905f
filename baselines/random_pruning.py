"""Weights zeroed at random, then fine-tuned like `magnitude-finetune`: does it matter which weights go?

`finetune=False` gives random networks on the sparse hyperplane, to which the papers compare.
"""

import copy

from fipbench import pruning
from fipbench.methods import Choice, LogUniform, sparsity


@sparsity(version="1", search={"learning_rate": LogUniform(3e-4, 0.1), "rule": Choice(("sgd", "adam"))})
def random_pruning(*, learning_rate: float = 0.008, rule: str = "adam", finetune: bool = True):
    def prune(model, sparsities, trial):
        steps = trial.steps // len(sparsities) if finetune else 0
        for level in sparsities:
            masks = pruning.random_masks(pruning.prunable(model), level, trial.generator)
            pruned = copy.deepcopy(model)
            trial.fit(pruned, steps=steps, learning_rate=learning_rate, rule=rule, masks=masks)
            yield level, pruned

    return prune
