"""The lottery ticket: iterative magnitude pruning with rewinding (Frankle & Carbin, 2019; open_lth's reading).

Each round removes at most `fraction` of the weights that are left, by global magnitude, sets the others back to
what they were at epoch `rewind` of the dense network's training, and trains again. Rounds meet every level
exactly. The first round prunes the shared dense network, whose training is the first round of the original.
"""

import copy
import math

import torch

from fipbench import pruning
from fipbench.methods import Choice, LogUniform, sparsity


@sparsity(
    version="1",
    search={
        "learning_rate": LogUniform(3e-4, 0.1),
        "rule": Choice(("sgd", "adam")),
        "fraction": Choice((0.2, 0.4, 0.6, 0.8)),
        "rewind": Choice((0, 1)),
    },
)
def lth(
    *,
    learning_rate: float = 0.004,
    rule: str = "adam",
    fraction: float = 0.4,
    rewind: int = 0,
    prune_output: bool = True,
):
    """`prune_output=False` leaves the last weight matrix dense, as open_lth does for this network; the zeros it
    lacks are taken elsewhere, so that the sparsity of the whole is the same."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")

    return LotteryTicket(learning_rate, rule, fraction, rewind, prune_output)


class LotteryTicket:
    """Yields the network of each level's last round; goes on after the last of them."""

    def __init__(self, learning_rate, rule, fraction, rewind, prune_output):
        self.fitting = {"learning_rate": learning_rate, "rule": rule}
        self.fraction, self.rewind, self.prune_output = fraction, rewind, prune_output
        self.steps, self.masks = 0, None

    def __call__(self, model, sparsities, trial):
        if self.rewind not in trial.snapshots:
            raise ValueError(f"rewind must be one of the epochs {sorted(trial.snapshots)}, got {self.rewind}")
        rounds = plan_rounds(sparsities, self.fraction)
        if not trial.finished:
            self.steps = trial.steps // len(rounds)
        protected = () if self.prune_output else tuple(pruning.prunable(model))[-1:]
        network = trial.last or model
        done = sparsities[trial.finished - 1] if trial.finished else 0.0
        for level in (one for one in rounds if one > done):
            self.masks = next_masks(pruning.prunable(network), level, self.masks, protected)
            network = copy.deepcopy(model)
            network.load_state_dict(trial.snapshots[self.rewind])
            trial.fit(network, steps=self.steps, masks=self.masks, **self.fitting)
            if level in sparsities:
                yield level, network

    def state_dict(self):
        return {"steps": torch.tensor(self.steps), **{f"mask/{name}": mask for name, mask in self.masks.items()}}

    def load_state_dict(self, state):
        self.steps = int(state["steps"])
        self.masks = {name.removeprefix("mask/"): mask for name, mask in state.items() if name != "steps"}


def plan_rounds(sparsities, fraction):
    """Sparsity after each round: every level is met, and no round removes more than `fraction` of what is left."""
    rounds, left = [], 1.0
    for level in sparsities:
        count = max(1, math.ceil(math.log((1 - level) / left) / math.log(1 - fraction) - 1e-6))
        step = ((1 - level) / left) ** (1 / count)
        rounds += [1 - left * step**i for i in range(1, count)] + [level]
        left = 1 - level
    return rounds


def next_masks(weights, level, masks, protected):
    """Masks at `level` of all weights, within earlier masks, that leave the protected tensors dense."""
    total = sum(w.numel() for w in weights.values())
    free = {name: w for name, w in weights.items() if name not in protected}
    size = sum(w.numel() for w in free.values())
    wanted = pruning.zeros_at(level, total)
    if wanted > size:
        raise ValueError(
            f"at sparsity {level:g} not even the output layer can stay dense: {wanted} zeros, {size} weights"
        )
    keep = None if masks is None else {name: masks[name] for name in free}
    found = pruning.magnitude_masks(free, wanted / size, keep=keep)
    return found | {name: weights[name].new_ones(weights[name].shape, dtype=bool) for name in protected}
