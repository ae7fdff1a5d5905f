"""Hard magnitude pruning on a ramp, shared by `gradual` and `gradual-distill`, which differ in their loss alone."""

import copy

from fipbench import pruning


def prune_on_ramp(model, sparsities, trial, loss, learning_rate, rule, ramp, scope):
    """Yield `(sparsity, network)` along one path; each level gets an equal share of the steps left.

    On the ramp the mask is drawn anew after every step (a zeroed weight may come back while its gradient lifts
    it above others); after it the mask stays.
    """
    steps = trial.steps // len(sparsities)
    network = copy.deepcopy(model)
    last = 0.0
    for level in sparsities:
        ramp_steps = round(ramp * steps)
        state = {"last": last, "level": level}

        def project(step, state=state, steps=steps):
            target = pruning.ramp(step + 1, steps, state["last"], state["level"], ramp)
            masks = pruning.magnitude_masks(pruning.prunable(network), target, scope=scope)
            pruning.apply(network, masks)

        trial.fit(network, steps=ramp_steps, learning_rate=learning_rate, rule=rule, loss=loss, after_step=project)
        masks = pruning.magnitude_masks(pruning.prunable(network), level, scope=scope)
        trial.fit(network, steps=steps - ramp_steps, learning_rate=learning_rate, rule=rule, loss=loss, masks=masks)
        yield level, copy.deepcopy(network)
        last = level
