"""Methods of the composition track that break its contract, one rule each."""

import copy
import os
import tempfile
from pathlib import Path

import msgspec
import torch

from fipbench import data, pruning
from fipbench.methods import composition
from fipbench.spec import Data

_HELD = []


def _plain(network, operation, trial, steps=None, **how):
    masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
    count = trial.steps(2 * trial.batch_size) if steps is None else steps
    return trial.fit(network, operation, steps=count, learning_rate=0.01, masks=masks, **how)


@composition()
def unseeded():
    """Noise from the operating system."""

    def operate(network, operation, trial):
        found = _plain(network, operation, trial)
        with torch.no_grad():
            list(found.parameters())[-1].add_(0.1 * torch.randn(1, generator=torch.Generator().manual_seed(_entropy())))
        return found

    return operate


def _entropy():
    return int.from_bytes(os.urandom(6), "big")


@composition()
def deaf_to_the_seed():
    """The same network whatever it is given."""

    def operate(network, operation, trial):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        masks = pruning.magnitude_masks(pruning.prunable(network), operation.sparsity)
        return pruning.apply(network, masks)

    return operate


@composition()
def holds_the_test_split():
    """Reads it for itself."""
    test = _test_split(Data(embedded="digits", variants={}))

    def operate(network, operation, trial):
        return _plain(network, operation, trial, after_step=lambda step: len(test))

    return operate


def _test_split(digits):
    with tempfile.TemporaryDirectory() as folder:
        _, digests = data.identify(digits, Path(folder), allow_unknown=True)
        return data.load(digits, "test", Path(folder), digests["test"]).inputs.clone()


@composition()
def overspends_in_silence():
    """Trains on after taking the meter's limit away."""

    def operate(network, operation, trial):
        trial.meter.limit *= 2
        return _plain(network, operation, trial)

    return operate


@composition()
def uncounted():
    """Calls the network's `forward`, not the network."""

    def operate(network, operation, trial):
        network.forward(next(operation.batches).inputs)
        return _plain(network, operation, trial)

    return operate


@composition()
def not_finite():
    """One weight is none."""

    def operate(network, operation, trial):
        found = _plain(network, operation, trial)
        with torch.no_grad():
            list(found.parameters())[-1][0] = float("nan")
        return found

    return operate


@composition()
def one_zero_short():
    """Leaves one weight more than is due."""

    def operate(network, operation, trial):
        found = _plain(network, operation, trial)
        if operation.kind == "co":
            weight = next(iter(pruning.prunable(found).values()))
            with torch.no_grad():
                weight.view(-1)[(weight.view(-1) == 0).nonzero()[0]] = 0.5
        return found

    return operate


@composition()
def remembers_the_last():
    """Starts from what it gave back before."""

    def operate(network, operation, trial):
        found = _plain(network, operation, trial)
        with torch.no_grad():
            for value in _HELD[-1:]:
                list(found.parameters())[-1].add_(value)
        _HELD.append(1.0 + len(_HELD))
        return found

    return operate


@composition()
def undescribed():
    return lambda network, operation, trial: copy.deepcopy(network)


undescribed.fipbench = msgspec.structs.replace(undescribed.fipbench, summary="")


@composition()
def raises():
    """Divides by zero."""

    def operate(network, operation, trial):
        raise ArithmeticError("no way")

    return operate
