"""Methods that break the contract, one rule each, so that every check is seen to fail."""

import copy
import os
from contextlib import suppress

import torch
from sklearn.datasets import load_digits
from torch import nn

from fipbench import pruning
from fipbench.errors import BudgetExceeded
from fipbench.methods import sparsity


def cut(model, level):
    """A copy of the model, pruned by magnitude."""
    return pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(pruning.prunable(model), level))


@sparsity()
def unseeded():
    """Draws noise that no seed decides."""

    def prune(model, sparsities, trial):
        noise = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
        for level in sparsities:
            masks = pruning.random_masks(pruning.prunable(model), level, noise)
            yield level, pruning.apply(copy.deepcopy(model), masks)

    return prune


@sparsity()
def deaf_to_the_seed():
    """Brings a network of its own."""

    def prune(model, sparsities, trial):
        mine = copy.deepcopy(model)
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in mine.parameters():
                p.copy_(torch.randn(p.shape, generator=noise))
        yield from ((level, cut(mine, level)) for level in sparsities)

    return prune


@sparsity()
def holds_the_test_split():
    """Has loaded the digits by itself, all of them."""
    images = load_digits().images

    def prune(model, sparsities, trial):
        assert len(images)
        yield from ((level, cut(model, level)) for level in sparsities)

    return prune


@sparsity()
def listens_at_the_network():
    """Keeps what is put through the network that it yielded."""
    heard = []

    def prune(model, sparsities, trial):
        for level in sparsities:
            network = cut(model, level)
            network.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].clone()))
            yield level, network

    return prune


@sparsity()
def overspends():
    """Trains twice as long as it may."""

    def prune(model, sparsities, trial):
        network = copy.deepcopy(model)
        trial.fit(network, steps=2 * trial.steps, learning_rate=0.01)
        yield from ((level, cut(network, level)) for level in sparsities)

    return prune


@sparsity()
def overspends_in_silence():
    """Takes the limit off the meter, trains on, and puts meter and limit back."""

    def prune(model, sparsities, trial):
        limit, forward, backward = trial.meter.limit, trial.meter.forward, trial.meter.backward
        trial.meter.limit = 0
        network = copy.deepcopy(model)
        trial.fit(network, steps=400, learning_rate=0.01)
        trial.meter.limit, trial.meter.forward, trial.meter.backward = limit, forward, backward
        yield from ((level, cut(network, level)) for level in sparsities)

    return prune


@sparsity()
def uncounted_forward():
    """Calls `forward` past the hooks, so that the meter sees nothing."""

    def prune(model, sparsities, trial):
        for _ in range(3):
            model.forward(next(trial.batches).inputs)
        yield from ((level, cut(model, level)) for level in sparsities)

    return prune


@sparsity()
def uncounted_copy():
    """Trains a network of its own making that has the weights of the given one."""

    def prune(model, sparsities, trial):
        bare = nn.Sequential(*copy.deepcopy(model))
        trial.fit(bare, steps=3, learning_rate=0.01)
        network = copy.deepcopy(model)
        network.load_state_dict(bare.state_dict())
        yield from ((level, cut(network, level)) for level in sparsities)

    return prune


@sparsity()
def not_finite():
    """Has divided by zero somewhere."""

    def prune(model, sparsities, trial):
        for level in sparsities:
            network = cut(model, level)
            with torch.no_grad():
                network[-1].bias[0] = float("nan")
            yield level, network

    return prune


@sparsity()
def one_zero_short():
    """Lets one weight live that should not."""

    def prune(model, sparsities, trial):
        for level in sparsities:
            network = cut(model, level)
            with torch.no_grad():
                weight = network[-1].weight
                weight.view(-1)[(weight.view(-1) == 0).nonzero()[0]] = 1e-30
            yield level, network

    return prune


@sparsity()
def one_level_short():
    """Stops before the last level."""

    def prune(model, sparsities, trial):
        yield from ((level, cut(model, level)) for level in sparsities[:-1])

    return prune


@sparsity()
def prunes_in_place():
    """Works on the model that it was given."""

    def prune(model, sparsities, trial):
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level)
            yield level, pruning.apply(model, masks)

    return prune


@sparsity()
def leaves_it_in_eval():
    """Switches the given model to evaluation mode and leaves it there."""

    def prune(model, sparsities, trial):
        model.eval()
        yield from ((level, cut(model, level)) for level in sparsities)

    return prune


@sparsity()
def freezes_it():
    """Asks for no gradients of the given model's last layer any more."""

    def prune(model, sparsities, trial):
        model[-1].requires_grad_(False)
        yield from ((level, cut(model, level)) for level in sparsities)

    return prune


@sparsity()
def raises():
    """Does not get anywhere."""

    def prune(model, sparsities, trial):
        raise ArithmeticError("no way")
        yield

    return prune


@sparsity()
def swallows_the_limit():
    """Tries again whenever it is told that the budget is spent."""

    def prune(model, sparsities, trial):
        for _ in range(400):
            with suppress(BudgetExceeded):
                trial.fit(copy.deepcopy(model), steps=1, learning_rate=0.01)
        yield from ((level, cut(model, level)) for level in sparsities)

    return prune
