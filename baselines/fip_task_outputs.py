"""FIP-CF with its distance over the outputs that the example's loss is over (`stream.softmax = "task"`).

The papers do not say which outputs the distance is of. Where each task's loss is over its own outputs alone, nothing
binds an example's other outputs, and the softmax over all of them may lie mostly on those: keeping that constant need
not keep what is asked of the network. Here the distance is of the softmax over the outputs of the example's own task;
where the loss is over all outputs, this is `fip`.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE, STRENGTH
from fipbench.baselines._rehearsal import Rehearsal

from fipbench.fip.continual import invariance
from fipbench.methods import Choice, continual

_DISTANCES = ("bhattacharyya", "kl", "jensen_shannon", "squared_euclidean")


@continual(search={"learning_rate": LEARNING_RATE, "strength": STRENGTH, "distance": Choice(_DISTANCES)})
def fip_task_outputs(
    *, learning_rate: float = 0.003, strength: float = 1.0, distance: str = "bhattacharyya", memory: int = 10
):
    """FIP with a distance over the outputs of the example's own task."""
    moved = invariance(distance)

    def term(trial, logits, kept, noted):
        outputs_of = trial.criterion.outputs_of
        if outputs_of is not None:
            foreign = ~outputs_of[kept.labels]
            logits, noted = _without(logits, foreign), _without(noted, foreign)
        return strength * moved(logits, noted)

    return Rehearsal(term, {"learning_rate": learning_rate}, noted="task start")


def _without(logits, foreign):
    """Without probability on `foreign`, and without a difference there, which two minus infinities would not give."""
    return logits.masked_fill(foreign, torch.finfo(logits.dtype).min / 4)
