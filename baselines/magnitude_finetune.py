"""Magnitude pruning in one shot, then fine-tuning of what is left (Han et al., 2015), for each level afresh.

Each level starts from the dense network and gets an equal share of the budget.
"""

import copy

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
    def prune(model, sparsities, trial):
        steps = trial.steps // len(sparsities)
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level, scope=scope)
            pruned = copy.deepcopy(model)
            trial.fit(pruned, steps=steps, learning_rate=learning_rate, rule=rule, masks=masks)
            yield level, pruned

    return prune
