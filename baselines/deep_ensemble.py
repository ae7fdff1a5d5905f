"""Deep ensemble (Lakshminarayanan et al., 2017): networks trained alike from independent initial weights.

The base network is its first member. Adversarial training, an option of the paper, is left out: no method here sees
an attack.
"""

import torch

from fipbench.methods import Choice, LogUniform, robustness


@robustness(
    version="1",
    search={"learning_rate": LogUniform(3e-4, 0.1), "rule": Choice(("sgd", "adam"))},
)
def deep_ensemble(*, learning_rate: float = 0.03, rule: str = "sgd"):
    """Networks trained alike from independent initial weights."""
    return DeepEnsemble(learning_rate, rule)


class DeepEnsemble:
    """Yields the base network, then the others as each is trained; goes on after the last of them."""

    def __init__(self, learning_rate, rule):
        self.learning_rate, self.rule = learning_rate, rule
        self.steps = 0

    def __call__(self, model, trial):
        if not trial.finished:
            self.steps = trial.steps // (trial.members - 1)
            yield model
        for k in range(max(0, trial.finished - 1), trial.members - 1):
            yield trial.fit(trial.fresh(k), steps=self.steps, learning_rate=self.learning_rate, rule=self.rule)

    def state_dict(self):
        return {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state):
        self.steps = int(state["steps"])
