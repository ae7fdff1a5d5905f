"""The geodesic against forgetting (Raghavan & Thomson, 2021, Algorithm 2): `fipbench.fip.geo_paths` under the harness.

A network is trained on the new task alone, then walks towards the network of the tasks before, under the new task's
metric; no earlier data is kept. Neither beta, eta nor the number of steps is printed, nor how the network on the path
is chosen; here it is the last that keeps `slack` of its accuracy on the new task's training examples.
"""

import copy
import math

import torch
from fipbench.baselines._laws import LEARNING_RATE
from fipbench.baselines._walk import affordable, drawn, flat, outputs_of

from fipbench.fip.geo import cost
from fipbench.fip.geo_paths import cf_geodesic
from fipbench.methods import Choice, LogUniform, continual

# How many networks on the walk are looked at, and on how many training examples each.
LOOKS, EXAMPLES = 20, 256


@continual(
    version="1",
    search={
        "learning_rate": LEARNING_RATE,
        "beta": LogUniform(1e-6, 1e2),
        "slack": LogUniform(0.003, 0.3),
        "start": Choice(("initial", "old")),
        "space": Choice(("logits", "softmax", "fisher")),
    },
)
def geodesic(
    *,
    learning_rate: float = 0.003,
    beta: float = 0.01,
    slack: float = 0.02,
    walk: float = 2.0,
    start: str = "initial",
    space: str = "logits",
    examples: int = 16,
    steps: int = 50,
):
    """A network of the new task walks towards the old tasks' as far as the new task allows.

    `walk`: passes that it may take, as a multiple of those of the new task's training, half of them to look at networks
    on the way; at most `steps` steps. `start`: from the first task's initial weights (as printed: a random network) or
    from the old network is the new one trained."""

    def learn(model, experience, trial):
        if not experience.number:  # the first task has been learned already
            return trial.fit(model, experience, learning_rate=learning_rate)
        old = copy.deepcopy(model)
        if start == "initial":
            model.load_state_dict(trial.first.initial)
        trial.fit(model, experience, learning_rate=learning_rate)
        known, passes = experience.train, round(walk * 2 * trial.batch_size * experience.steps)
        size = min(EXAMPLES, len(known.labels), passes // 2 // (LOOKS + 2))
        asked = known.batch(torch.randperm(len(known.labels), generator=trial.generator)[:size])
        gram, step = cost(len(flat(model)), examples, outputs_of(model, known), flat(model).element_size())
        count = min(steps, affordable(passes - (LOOKS + 2) * size - 1, gram, step, start=examples))
        if count < 1 or size < 1:
            raise ValueError(f"{passes} passes allow no step of the walk; take fewer examples than {examples}")
        with trial.meter.paused():
            hits = _hits(model, asked, trial)
            found, _ = cf_geodesic(
                model,
                old,
                drawn(known, examples, trial.generator),
                count,
                accept=lambda network: _hits(network, asked, trial) >= (1 - slack) * hits,
                every=math.ceil(count / LOOKS),
                beta=beta,
                eta=float((flat(old) - flat(model)).norm()) / count,
                space=space,
                spend=trial.meter.spend,
            )
        model.load_state_dict(found.state_dict())
        return model

    return learn


@torch.no_grad()
def _hits(network, batch, trial):
    """Share of a batch that is right; its examples are told."""
    trial.meter.spend(len(batch.labels), 0)
    was = network.training
    found = float((network.eval()(batch.inputs).argmax(1) == batch.labels).float().mean())
    network.train(was)
    return found
