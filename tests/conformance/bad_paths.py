"""Methods of the connectivity track that break the contract, one rule each, so that every check is seen to fail."""

import copy
import os

import torch
from sklearn.datasets import load_digits

from fipbench.methods import connectivity


def shaken(network, generator, by=0.01):
    found = copy.deepcopy(network)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return found


@connectivity()
def unseeded():
    """Draws noise that no seed decides."""
    noise = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
    return lambda first, second, trial: [shaken(first, noise, 0.3), second]


@connectivity()
def holds_the_test_split():
    """Has loaded the digits by itself, all of them."""
    images = load_digits().images

    def path(first, second, trial):
        assert len(images)
        return [second]

    return path


@connectivity()
def overspends():
    """Trains for one step more than there is."""

    def path(first, second, trial):
        trial.fit(copy.deepcopy(first), steps=trial.steps + 1, learning_rate=0.01)
        return [second]

    return path


@connectivity()
def products_for_nothing():
    """Looks at its data where nothing is counted, and tells of none."""

    def path(first, second, trial):
        with trial.products():
            first(next(trial.batches).inputs)
        return [second]

    return path


@connectivity()
def not_finite():
    """Divides by zero on the way."""

    def path(first, second, trial):
        middle = copy.deepcopy(first)
        with torch.no_grad():
            middle[2].weight.div_(0.0)
        return [first, middle, second]

    return path


@connectivity()
def goes_round():
    """Comes back to where it began."""
    return lambda first, second, trial: [first, shaken(first, trial.generator), first]


@connectivity()
def trains_what_it_was_given():
    """Trains the second network itself."""

    def path(first, second, trial):
        trial.fit(second, steps=1, learning_rate=0.01)
        return [second]

    return path


@connectivity()
def raises():
    """Raises."""

    def path(first, second, trial):
        raise ArithmeticError("no way")

    return path
