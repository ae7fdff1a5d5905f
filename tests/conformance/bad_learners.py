"""Methods of the continual track that break the contract, one rule each, so that every check is seen to fail."""

import copy
import hashlib
import os
from contextlib import suppress

import numpy as np
import torch
from sklearn.datasets import load_digits

from fipbench.errors import BudgetExceeded
from fipbench.methods import continual
from fipbench.training import Examples


def noisy(model, generator):
    """The model with a little noise on its weights."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=generator))


@continual()
def unseeded():
    """Draws noise that no seed decides."""
    noise = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))

    def learn(model, experience, trial):
        if experience.number:
            noisy(model, noise)

    return learn


@continual()
def deaf_to_the_seed():
    """Brings a network of its own."""

    def learn(model, experience, trial):
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=noise))

    return learn


@continual()
def holds_the_test_split():
    """Has loaded the digits by itself, all of them."""
    images = load_digits().images

    def learn(model, experience, trial):
        assert len(images)

    return learn


@continual()
def knows_the_future():
    """Has loaded the digits by itself, and left out those that are for testing."""
    images = load_digits().data
    keys = np.array([hashlib.sha256(row.astype(np.uint8).tobytes()).hexdigest() for row in images])
    train = np.rint(images[np.argsort(keys)[597:]] * (255 / 16)).astype(np.uint8)

    def learn(model, experience, trial):
        assert len(train)

    return learn


@continual()
def hoards():
    """Keeps all that it has ever seen, and says nothing of a memory."""
    seen = []

    def learn(model, experience, trial):
        seen.append(experience.train)

    return learn


@continual()
def hoards_one_more(*, memory: int = 6):
    """Keeps one example more than it may."""
    seen = []

    def learn(model, experience, trial):
        kept, train = trial.remember(experience), experience.train
        fresh = next(row for row in train.inputs if not any(torch.equal(row, known) for known in kept.inputs))
        seen.append(Examples(torch.cat([kept.inputs, fresh[None]]), kept.labels))

    return learn


@continual()
def hoards_what_it_is_not_asked():
    """Keeps the batches that it was given, as the floats that they are."""
    seen = []

    def learn(model, experience, trial):
        seen.append(next(experience.batches).inputs)

    return learn


@continual()
def begins_early():
    """Trains on the first task, which has been learned already."""

    def learn(model, experience, trial):
        if experience.number == 0:
            noisy(model, trial.generator)

    return learn


@continual()
def overspends():
    """Trains many times as long as it may."""

    def learn(model, experience, trial):
        for _ in range(20):
            trial.fit(model, experience, learning_rate=0.001)

    return learn


@continual()
def overspends_in_silence():
    """Takes the limit off the meter, trains on, and puts meter and limit back."""

    def learn(model, experience, trial):
        limit, forward, backward = trial.meter.limit, trial.meter.forward, trial.meter.backward
        trial.meter.limit = 0
        for _ in range(20):
            trial.fit(model, experience, learning_rate=0.001)
        trial.meter.limit, trial.meter.forward, trial.meter.backward = limit, forward, backward

    return learn


@continual()
def swallows_the_limit():
    """Tries again whenever it is told that the budget is spent."""

    def learn(model, experience, trial):
        for _ in range(20):
            with suppress(BudgetExceeded):
                trial.fit(model, experience, learning_rate=0.001)

    return learn


@continual()
def uncounted_forward():
    """Calls `forward` past the hooks, so that the meter sees nothing."""

    def learn(model, experience, trial):
        model.forward(next(experience.batches).inputs)

    return learn


@continual()
def uncounted_in_a_pause():
    """Trains while the meter rests, as the harness does for its own evaluations."""

    def learn(model, experience, trial):
        with trial.meter.paused():
            trial.fit(model, experience, learning_rate=0.001)

    return learn


@continual()
def not_finite():
    """Has divided by zero somewhere."""

    def learn(model, experience, trial):
        network = copy.deepcopy(model)
        if experience.number == 1:
            with torch.no_grad():
                network[-1].bias[0] = float("nan")
        return network

    return learn


@continual()
def swaps_the_labels():
    """Works on the examples that it was given."""

    def learn(model, experience, trial):
        if experience.number == 1:
            experience.train.labels[:2] = experience.train.labels[:2].flip(0) + 1

    return learn


@continual()
def changes_the_start():
    """Works on the initial weights that all methods share."""

    def learn(model, experience, trial):
        trial.first.initial["6.bias"].zero_()

    return learn


@continual()
def raises():
    """Does not get anywhere."""

    def learn(model, experience, trial):
        raise ArithmeticError("no way")

    return learn
