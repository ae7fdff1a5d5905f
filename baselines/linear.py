"""The straight line between the two networks: what a path has to beat. A reference, not a contender."""

from fipbench.methods import connectivity


@connectivity(version="1", role="reference")
def linear():
    return lambda first, second, trial: [first, second]
