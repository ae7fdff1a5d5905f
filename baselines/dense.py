"""The dense network itself: what there was before anything was pruned. A reference, not a contender."""

from fipbench.methods import sparsity


@sparsity(version="1", role="reference")
def dense():
    def keep(model, sparsities, trial):
        yield from ((level, model) for level in sparsities)

    return keep
