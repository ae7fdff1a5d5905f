"""Hard magnitude pruning on a ramp, shared by `gradual` and `gradual-distill`, which differ in their loss alone."""

import copy

from fipbench import pruning


def prune_on_ramp(level, loss, learning_rate, rule, ramp, scope):
    """The network of one level, from that of the level before.

    On the ramp the mask is drawn anew after every step (a zeroed weight may come back while its gradient lifts
    it above others); after it the mask stays.
    """
    network = copy.deepcopy(level.network)
    ramp_steps = round(ramp * level.steps)
    how = {"learning_rate": learning_rate, "rule": rule, "loss": loss}

    def project(step):
        target = pruning.ramp(step + 1, level.steps, level.before, level.sparsity, ramp)
        pruning.apply(network, pruning.magnitude_masks(pruning.prunable(network), target, scope=scope))

    level.trial.fit(network, steps=ramp_steps, after_step=project, **how)
    masks = pruning.magnitude_masks(pruning.prunable(network), level.sparsity, scope=scope)
    return level.trial.fit(network, steps=level.steps - ramp_steps, masks=masks, **how)
