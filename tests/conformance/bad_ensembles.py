"""Methods of the robustness track that break the contract, one rule each, so that every check is seen to fail."""

import copy
import os
from contextlib import suppress

import torch
from sklearn.datasets import load_digits
from torch import nn

from fipbench.errors import BudgetExceeded
from fipbench.methods import robustness


def around(model, trial, generator=None):
    """The model and networks near it."""
    networks = [copy.deepcopy(model) for _ in range(trial.members)]
    with torch.no_grad():
        for network in networks[1:]:
            for p in network.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=generator or trial.generator))
    return networks


@robustness()
def unseeded():
    """Draws noise that no seed decides."""
    noise = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
    return lambda model, trial: around(model, trial, noise)


@robustness()
def deaf_to_the_seed():
    """Brings networks of its own."""

    def members(model, trial):
        noise = torch.Generator().manual_seed(0)
        networks = [copy.deepcopy(model) for _ in range(trial.members)]
        with torch.no_grad():
            for network in networks:
                for p in network.parameters():
                    p.copy_(torch.randn(p.shape, generator=noise))
        return networks

    return members


@robustness()
def holds_the_test_split():
    """Has loaded the digits by itself, all of them."""
    images = load_digits().images

    def members(model, trial):
        assert len(images)
        return around(model, trial)

    return members


HEARD = []


@robustness()
def listens_at_its_networks():
    """Keeps what is put through the networks that it gave back, or through any that knows their hooks."""

    def members(model, trial):
        networks = around(model, trial)
        for network in networks:
            network.register_forward_pre_hook(lambda module, inputs: HEARD.append(inputs[0].clone()))
        return networks

    return members


@robustness()
def overspends():
    """Trains twice as long as it may."""

    def members(model, trial):
        trial.fit(copy.deepcopy(model), steps=2 * trial.steps, learning_rate=0.01)
        return around(model, trial)

    return members


@robustness()
def overspends_in_silence():
    """Takes the limit off the meter, trains on, and puts meter and limit back."""

    def members(model, trial):
        limit, forward, backward = trial.meter.limit, trial.meter.forward, trial.meter.backward
        trial.meter.limit = 0
        trial.fit(copy.deepcopy(model), steps=400, learning_rate=0.01)
        trial.meter.limit, trial.meter.forward, trial.meter.backward = limit, forward, backward
        return around(model, trial)

    return members


@robustness()
def swallows_the_limit():
    """Tries again whenever it is told that the budget is spent."""

    def members(model, trial):
        for _ in range(400):
            with suppress(BudgetExceeded):
                trial.fit(copy.deepcopy(model), steps=1, learning_rate=0.01)
        return around(model, trial)

    return members


@robustness()
def uncounted_forward():
    """Calls `forward` past the hooks, so that the meter sees nothing."""

    def members(model, trial):
        for _ in range(3):
            model.forward(next(trial.batches).inputs)
        return around(model, trial)

    return members


@robustness()
def uncounted_attack():
    """Looks for perturbations with a network of its own making that has the weights of the given one."""

    def members(model, trial):
        bare = nn.Sequential(*copy.deepcopy(model)).requires_grad_(False)
        x = next(trial.batches).inputs.requires_grad_()
        torch.autograd.grad(bare(x).sum(), x)
        return around(model, trial)

    return members


@robustness()
def not_finite():
    """Has divided by zero somewhere."""

    def members(model, trial):
        networks = around(model, trial)
        with torch.no_grad():
            networks[1][-1].bias[0] = float("nan")
        return networks

    return members


@robustness()
def votes_twice():
    """Gives one network two votes."""

    def members(model, trial):
        networks = around(model, trial)
        return [*networks[:-1], copy.deepcopy(networks[0])]

    return members


@robustness()
def one_short():
    """Gives one network less than is due."""
    return lambda model, trial: around(model, trial)[:-1]


@robustness()
def trains_what_it_was_given():
    """Works on the network that it was given."""

    def members(model, trial):
        trial.fit(model, steps=2, learning_rate=0.01)
        return around(model, trial)

    return members


@robustness()
def leaves_it_in_eval():
    """Switches the given network to evaluation mode and leaves it there."""
    return lambda model, trial: around(model.eval(), trial)


@robustness()
def raises():
    """Does not get anywhere."""

    def members(model, trial):
        raise ArithmeticError("no way")

    return members
