"""One-shot magnitude pruning of the trained network (Han et al., 2015, without their retraining)."""

import copy

from fipbench import pruning
from fipbench.methods import Choice, sparsity


@sparsity(version="1", search={"scope": Choice(("global", "layer"))})
def magnitude(*, scope: str = "layer"):
    def prune(model, sparsities, trial):
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level, scope=scope)
            yield level, pruning.apply(copy.deepcopy(model), masks)

    return prune
