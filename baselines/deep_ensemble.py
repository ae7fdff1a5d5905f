"""Deep ensemble (Lakshminarayanan et al., 2017): networks trained alike from independent initial weights.

The base network is its first member. Adversarial training, an option of the paper, is left out: no method here sees
an attack.
"""

from fipbench.methods import Choice, LogUniform, robustness


@robustness(
    version="1",
    search={"learning_rate": LogUniform(3e-4, 0.1), "rule": Choice(("sgd", "adam"))},
)
def deep_ensemble(*, learning_rate: float = 0.03, rule: str = "sgd"):
    """Networks trained alike from independent initial weights."""

    def members(model, trial):
        others = [trial.fresh(k) for k in range(trial.members - 1)]
        steps = trial.steps // len(others)
        return [
            model,
            *(trial.fit(network, steps=steps, learning_rate=learning_rate, rule=rule) for network in others),
        ]

    return members
