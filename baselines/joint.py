"""Joint training: the network that sees all tasks at once, from scratch; what the others are measured against."""

import copy

import torch
from fipbench.baselines._laws import LEARNING_RATE

from fipbench.methods import continual
from fipbench.training import Examples, fit, optimizer, stream


@continual(role="reference", search={"learning_rate": LEARNING_RATE})
def joint(*, learning_rate: float = 0.03, epochs: int = 0):
    """Trained from scratch on all tasks so far, with no limit on data kept or spent (`epochs` 0: the recipe's)."""
    seen: list[Examples] = []

    def learn(model, experience, trial):
        seen.append(experience.train)
        if experience.number == 0:
            return model
        together = Examples(torch.cat([e.inputs for e in seen]), torch.cat([e.labels for e in seen]))
        fresh, recipe = copy.deepcopy(model), trial.recipe
        fresh.load_state_dict(trial.first.initial)
        return fit(
            fresh,
            stream(together, trial.batch_size, trial.generator),
            steps=(epochs or recipe.epochs) * (len(together.labels) // trial.batch_size),
            optimizer=optimizer(
                recipe.optimizer, fresh.parameters(), learning_rate, recipe.momentum, recipe.weight_decay
            ),
            loss=trial.criterion.loss,
            clip=recipe.clip or 0.0,
        )

    return learn
