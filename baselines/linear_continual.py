"""The straight line between tasks, which the geodesic of Raghavan & Thomson (2021, Fig. 5) is compared with.

A network is trained on the new task alone, then goes straight towards the network of the tasks before, as far as the
new task bears it: `geodesic` without the metric, by the same rule of where to stop. No earlier data is kept. Which
network on their line the papers report is not printed.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE
from torch import nn

from fipbench.methods import Choice, LogUniform, continual

# At how many places of the line a network is looked at, and on how many training examples each.
LOOKS, EXAMPLES = 20, 256


@continual(
    version="1",
    search={"learning_rate": LEARNING_RATE, "slack": LogUniform(0.003, 0.3), "start": Choice(("initial", "old"))},
)
def linear_path(*, learning_rate: float = 0.003, slack: float = 0.02, start: str = "initial"):
    """A network of the new task goes straight towards the old tasks' as far as the new task allows.

    It keeps all but `slack` of its accuracy on the new task's training examples. `start`: from the first task's initial
    weights or from the old network is the new one trained."""

    def learn(model, experience, trial):
        if not experience.number:  # the first task has been learned already
            return model
        old = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        if start == "initial":
            model.load_state_dict(trial.first.initial)
        trial.fit(model, experience, learning_rate=learning_rate)
        new = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        known = experience.train
        asked = known.batch(torch.randperm(len(known.labels), generator=trial.generator)[:EXAMPLES])
        due, chosen = (1 - slack) * _right(model, asked), new
        for look in range(1, LOOKS + 1):
            point = torch.lerp(new, old, look / LOOKS)
            nn.utils.vector_to_parameters(point, model.parameters())
            if _right(model, asked) < due:
                break
            chosen = point
        nn.utils.vector_to_parameters(chosen, model.parameters())
        return model

    return learn


@torch.no_grad()
def _right(network, batch):
    """Share of a batch that is right."""
    was = network.training
    found = float((network.eval()(batch.inputs).argmax(1) == batch.labels).float().mean())
    network.train(was)
    return found
