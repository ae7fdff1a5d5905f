"""What composing costs and gives without paths: training and magnitude pruning (Han et al., 2015), in either order.

`finetune-magnitude` learns by fine-tuning and prunes in one shot with training after it; `replay-gradual` learns with
replay (Ratcliff, 1990) and prunes on a ramp (Zhu & Gupta, 2017); `naive` fine-tunes, and cuts without training.
"""

import torch
from torch import nn

from fipbench import pruning
from fipbench.methods import LogUniform, composition
from fipbench.training import cross_entropy

_RATE = LogUniform(1e-5, 1e-2)
# The share of an operation's steps in which the sparsity rises.
_RAMP = 0.5


@composition(search={"learning_rate": _RATE, "co_learning_rate": _RATE})
def finetune_magnitude(*, learning_rate: float = 1e-3, co_learning_rate: float = 1e-3):
    """Fine-tuning; magnitude pruning in one shot, then fine-tuning of what is left. Zeros are kept, no data are."""

    def operate(network, operation, trial):
        steps = trial.steps(2 * trial.batch_size)
        masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
        rate = learning_rate if operation.kind == "cl" else co_learning_rate
        return trial.fit(network, operation, steps=steps, learning_rate=rate, masks=masks)

    return operate


@composition(
    search={"learning_rate": _RATE, "strength": LogUniform(0.03, 30.0), "co_learning_rate": _RATE},
)
def replay_gradual(*, learning_rate: float = 1e-3, strength: float = 1.0, co_learning_rate: float = 1e-3):
    """Cross-entropy on a batch from memory beside the new one, in both operations; pruning on a cubic ramp."""

    def operate(network, operation, trial):
        memory = operation.memory
        rows = trial.batch_size + (0 if memory is None else min(trial.batch_size, len(memory.labels)))
        steps = trial.steps(2 * rows)

        def loss(model, batch):
            if memory is None:
                return cross_entropy(model, batch)
            kept = trial.draw(memory)
            sizes = [len(batch.labels), len(kept.labels)]
            new, old = model(torch.cat([batch.inputs, kept.inputs])).split(sizes)
            error = nn.functional.cross_entropy
            return error(new, batch.labels) + strength * error(old, kept.labels)

        if operation.kind == "cl":
            masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
            return trial.fit(network, operation, steps=steps, learning_rate=learning_rate, loss=loss, masks=masks)
        how = {"learning_rate": co_learning_rate, "loss": loss}
        climb = round(_RAMP * steps)

        def project(step):
            target = pruning.ramp(step + 1, steps, 0.0, operation.sparsity, _RAMP)
            pruning.apply(network, pruning.magnitude_masks(pruning.prunable(network), target))

        trial.fit(network, operation, steps=climb, after_step=project, **how)
        masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
        return trial.fit(network, operation, steps=steps - climb, masks=masks, **how)

    return operate


@composition(role="reference", search={"learning_rate": _RATE})
def naive(*, learning_rate: float = 1e-3):
    """Fine-tuning without regard to zeros, and magnitude pruning without training (`finetune-magnitude` does both)."""

    def operate(network, operation, trial):
        if operation.kind == "cl":
            steps = trial.steps(2 * trial.batch_size)
            return trial.fit(network, operation, steps=steps, learning_rate=learning_rate)
        masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
        return pruning.apply(network, masks)

    return operate
