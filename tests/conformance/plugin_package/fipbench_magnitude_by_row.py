"""Magnitude pruning in which each weight is measured against the longest of its neuron's."""

import copy

from fipbench import pruning
from fipbench.methods import Choice, sparsity


@sparsity(version="1", search={"power": Choice((0.5, 1.0))})
def magnitude_by_row(*, power: float = 1.0):
    def prune(model, sparsities, trial):
        weights = pruning.prunable(model)
        sizes = {n: w.abs() / w.abs().amax(1, keepdim=True) ** power for n, w in weights.items()}
        for level in sparsities:
            yield level, pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(sizes, level))

    return prune
