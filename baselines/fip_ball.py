"""FIP by sampling a ball (Nature Machine Intelligence 6, 2024, the text: points in an eps ball, then descent).

Every `descents` steps a ball is put around the weights, `samples` points are drawn in it and judged with the centre on
the batch at hand; from the best of them the next steps descend as `fip`'s do, kept within the ball. The objective is
that of `fip`: cross-entropy of the new batch + strength * distance of the outputs on memory from the reference's. The
paper gives none of these numbers; `reference` is the network at the ball's centre (`here`) or that before the task.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE, STRENGTH

from fipbench.fip.continual import invariance
from fipbench.fip.solvers.ball import Ball
from fipbench.methods import Choice, LogUniform, continual
from fipbench.training import Examples


@continual(
    search={
        "learning_rate": LEARNING_RATE,
        "strength": STRENGTH,
        "radius": LogUniform(0.01, 1.0),
        "distance": Choice(("bhattacharyya", "kl", "jensen_shannon", "squared_euclidean")),
        "reference": Choice(("here", "task start")),
    }
)
def fip_ball(
    *,
    learning_rate: float = 0.01,
    strength: float = 1.0,
    radius: float = 0.3,
    distance: str = "squared_euclidean",
    reference: str = "task start",
    samples: int = 8,
    descents: int = 8,
    memory: int = 10,
):
    """A path from ball to ball: the best of some random points, then descent that stays inside."""
    return _Balls(learning_rate, strength, radius, invariance(distance), reference, samples, descents)


class _Balls:
    """`learn(model, experience, trial)`; what is remembered is the trial's to keep."""

    def __init__(self, learning_rate, strength, radius, moved, reference, samples, descents):
        self.learning_rate, self.strength, self.radius, self.moved = learning_rate, strength, radius, moved
        self.anchored = reference == "task start"
        self.samples, self.descents = samples, descents

    def __call__(self, model, experience, trial):
        if trial.kept:
            memory = Examples(*(torch.cat(parts) for parts in zip(*trial.kept.values(), strict=True)))
            self._learn(model, experience, trial, memory)
        trial.remember(experience)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """Nothing is held from task to task."""

    def _learn(self, model, experience, trial, memory):
        wanted = trial.outputs(model, memory)
        ball, steps = None, 0

        def objective(network, batch, kept):
            sizes = [len(batch.labels), len(kept.labels)]
            new, old = network(torch.cat([batch.inputs, kept.inputs])).split(sizes)
            return trial.criterion(new, batch.labels) + self.strength * self.moved(old, wanted[kept.positions])

        def loss(network, batch):
            nonlocal ball, steps, wanted
            if steps % self.descents == 0:
                if steps and not self.anchored:
                    wanted = trial.outputs(network, memory)
                ball, kept = Ball.around(network, self.radius), trial.draw(memory)
                ball.scatter(network, lambda moved: objective(moved, batch, kept), self.samples, trial.generator)
            steps += 1
            return objective(network, batch, trial.draw(memory))

        trial.fit(
            model,
            experience,
            learning_rate=self.learning_rate,
            loss=loss,
            after_step=lambda _: ball.confine(model),
        )
