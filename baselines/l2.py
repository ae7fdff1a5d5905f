"""A quadratic penalty towards the weights after each earlier task, every weight alike.

The control of elastic weight consolidation in Kirkpatrick et al. (2017, Fig. 2A): what of its protection is owed to
Fisher information, and what to staying near. The loss on a task gains strength / 2 * |w - w*|^2, summed over the
earlier tasks, where w* are the weights after that task. No earlier data are kept.
"""

from dataclasses import dataclass
from typing import Any

import torch
from fipbench.baselines._laws import LEARNING_RATE
from torch import Tensor, nn

from fipbench.methods import LogUniform, continual


@continual(search={"learning_rate": LEARNING_RATE, "strength": LogUniform(1e-4, 100.0)})
def l2(*, learning_rate: float = 0.003, strength: float = 0.01):
    """Every weight is held alike near its values after the earlier tasks."""
    return _L2(learning_rate, strength)


@dataclass
class _L2:
    """`center`: the mean of the weights after the `tasks` learned so far, shape (weights,).

    Quadratics around several points add up to one around their mean, as many times as strong, and a constant.
    """

    learning_rate: float
    strength: float
    center: Tensor | None = None
    tasks: int = 0

    def __call__(self, model: nn.Module, experience: Any, trial: Any) -> None:
        def loss(network: nn.Module, batch: Any) -> Tensor:
            away = nn.utils.parameters_to_vector(network.parameters()) - self.center
            return trial.criterion.loss(network, batch) + self.strength / 2 * self.tasks * away.square().sum()

        trial.fit(model, experience, learning_rate=self.learning_rate, loss=loss if self.tasks else None)
        learned = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        self.tasks += 1
        self.center = learned if self.center is None else torch.lerp(self.center, learned, 1 / self.tasks)

    def state_dict(self) -> dict[str, Tensor]:
        """What a job that was stopped needs, to go on after the last task it learned."""
        return {} if self.center is None else {"center": self.center, "tasks": torch.tensor(self.tasks)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        if state:
            self.center, self.tasks = state["center"], int(state["tasks"])
