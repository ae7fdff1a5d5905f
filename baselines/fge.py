"""Fast geometric ensembling (Garipov et al., 2018): one network on a triangular learning rate, members at its minima.

From the base network the rate falls from `learning_rate` to `low` times it in the first half of a cycle, and rises
again in the second; the network is a member at the middle of each cycle. The base network itself is none.
"""

import copy

from fipbench.methods import Choice, LogUniform, robustness


@robustness(
    version="1",
    search={"learning_rate": LogUniform(3e-4, 0.1), "rule": Choice(("sgd", "adam")), "low": LogUniform(0.003, 1.0)},
)
def fge(*, learning_rate: float = 0.03, rule: str = "sgd", low: float = 0.01):
    """Members at the minima of a cyclical learning rate. The published VGG16 runs have one rate (`low` 1), those of
    the residual networks fall to a fifth of it."""
    if not 0 < low <= 1:
        raise ValueError(f"low must lie between 0 and 1, got {low}")

    def members(model, trial):
        cycle = cycle_length(trial.steps, trial.members)
        found = []

        def keep(step):
            if step % cycle == cycle // 2 - 1:
                found.append(copy.deepcopy(network))

        network = copy.deepcopy(model)
        trial.fit(
            network,
            steps=cycle * (trial.members - 1) + cycle // 2,
            learning_rate=learning_rate,
            rule=rule,
            schedule=lambda step: triangle(step, cycle, low),
            after_step=keep,
        )
        return found

    return members


def cycle_length(steps, members):
    """The longest even cycle of which `members` - 1 whole ones and the first half of another fit into `steps`."""
    cycle = int(2 * steps / (2 * members - 1)) // 2 * 2
    if cycle < 2:
        raise ValueError(f"{steps} steps are too few for {members} cycles of two steps or more")
    return cycle


def triangle(step, cycle, low):
    """The rate of the step (from 0) as a factor of the highest: the paper's section 4 with i = step + 1.

    t = (mod(i - 1, c) + 1) / c; then (1 - 2t) + 2t low up to the middle, (2 - 2t) low + (2t - 1) after it.
    """
    t = (step % cycle + 1) / cycle
    return (1 - 2 * t) + 2 * t * low if t <= 0.5 else (2 - 2 * t) * low + (2 * t - 1)
