"""The base network alone: what a vote has to beat. A reference, not a contender."""

from fipbench.methods import robustness


@robustness(version="1", role="reference")
def single():
    return lambda model, trial: [model]
