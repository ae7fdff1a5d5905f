"""Snapshot ensemble (Huang et al., 2017): one network whose learning rate is annealed and raised again and again.

The base network is the first snapshot; each further one ends a cosine cycle from `learning_rate` to zero that starts
at the snapshot before it. It was chosen over SWAG (Maddox et al., 2019) as the second ensemble in weight space: where
a network fits its training data, as on the digits, the iterates from which SWAG takes its covariance all but stand
still, and its members would be one network.
"""

import copy
import math

from fipbench.methods import Choice, LogUniform, robustness


@robustness(
    version="1",
    search={"learning_rate": LogUniform(3e-4, 0.1), "rule": Choice(("sgd", "adam"))},
)
def snapshot(*, learning_rate: float = 0.03, rule: str = "sgd"):
    """Members at the ends of cosine cycles of the learning rate."""

    def members(model, trial):
        cycle = trial.steps // (trial.members - 1)
        found = [model]
        network = copy.deepcopy(model)

        def keep(step):
            if step % cycle == cycle - 1:
                found.append(copy.deepcopy(network))

        trial.fit(
            network,
            steps=cycle * (trial.members - 1),
            learning_rate=learning_rate,
            rule=rule,
            schedule=lambda step: cosine(step, cycle),
            after_step=keep,
        )
        return found

    return members


def cosine(step, cycle):
    """The rate of the step (from 0) as a factor of the highest: the paper's equation 2 with t = step + 1."""
    return 0.5 * (math.cos(math.pi * (step % cycle) / cycle) + 1)
