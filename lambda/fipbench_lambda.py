"""Lambda: the smallest weights are taken, the others trained on. Put your method in its place."""

import copy

from fipbench import pruning
from fipbench.methods import LogUniform, sparsity


@sparsity(search={"learning_rate": LogUniform(1e-4, 0.3)})
def lambda(*, learning_rate: float = 0.01):
    """Lambda: magnitude pruning, to begin with."""

    def prune(model, sparsities, trial):
        network = copy.deepcopy(model)  # the shared dense network, which has to stay as it is
        steps = trial.steps // len(sparsities)
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(network), level)
            trial.fit(network, steps=steps, learning_rate=learning_rate, masks=masks)
            yield level, copy.deepcopy(network)

    return prune
