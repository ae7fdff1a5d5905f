"""A plugin file of methods that behave, and of methods that misbehave in every way a method can."""

import copy
import os
import random
import signal
import sys

# Before this file imports anything heavy: what did the process that runs the job bring along?
LOADED = {name for name in ("torch", "torch._dynamo", "fipbench.tracks.sparsity") if name in sys.modules}

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from fipbench import pruning  # noqa: E402
from fipbench.methods import sparsity  # noqa: E402


def cut(model, level):
    """A copy of the model, pruned by magnitude."""
    return pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(pruning.prunable(model), level))


def as_it_should(model, sparsities, trial):
    yield from ((level, cut(model, level)) for level in sparsities)


# ---------------------------------------------------------------------------------------------- good ones


@sparsity()
def lean():
    return as_it_should


@sparsity()
def hungry():
    """Touches 300 MB and forgets them."""

    def prune(model, sparsities, trial):
        assert torch.ones(75_000_000).sum() > 0
        yield from as_it_should(model, sparsities, trial)

    return prune


@sparsity()
def talks():
    """Writes to both streams, by Python and past it."""

    def prune(model, sparsities, trial):
        print("heard on stdout")
        print('{"event": "exit", "id": "nobody", "code": 0}', flush=True)
        print("heard on stderr", file=sys.stderr)
        os.write(1, b"heard past Python\n")
        assert sys.stdin.read() == ""
        yield from as_it_should(model, sparsities, trial)

    return prune


@sparsity()
def by_luck():
    """Draws from the generators that Python, numpy and torch share; nobody should, many do."""

    def prune(model, sparsities, trial):
        for level in sparsities:
            network = cut(model, level)
            with torch.no_grad():
                for weight in pruning.prunable(network).values():
                    weight.mul_(1 + random.random() + float(np.random.rand()) + float(torch.rand(())))
                    order = sorted({"one", "two", "three", "four", "five"}, key=hash)
                    weight.mul_(1 + ["one", "two", "three", "four", "five"].index(order[0]))
            yield level, network

    return prune


@sparsity()
def asks_what_is_loaded():
    def prune(model, sparsities, trial):
        assert len(LOADED) == 3, sorted(LOADED)
        yield from as_it_should(model, sparsities, trial)

    return prune


# ----------------------------------------------------------------------------------------------- bad ones


@sparsity()
def raises():
    def prune(model, sparsities, trial):
        yield sparsities[0], cut(model, sparsities[0])
        raise ArithmeticError("the second level\nand what else there is to say")

    return prune


@sparsity()
def raises_at_once(*, rate: float = 0.5):
    raise ValueError(f"rate must be above 1, got {rate}")


@sparsity()
def makes_nothing():
    return None


@sparsity()
def returns_nothing():
    return lambda model, sparsities, trial: None


@sparsity()
def yields_networks_alone():
    return lambda model, sparsities, trial: (cut(model, level) for level in sparsities)


@sparsity()
def yields_states():
    return lambda model, sparsities, trial: ((level, cut(model, level).state_dict()) for level in sparsities)


@sparsity()
def yields_words():
    return lambda model, sparsities, trial: (("half", model) for level in sparsities)


@sparsity()
def yields_nan():
    def prune(model, sparsities, trial):
        for level, network in as_it_should(model, sparsities, trial):
            next(iter(pruning.prunable(network).values())).data[0, 0] = float("nan")
            yield level, network

    return prune


@sparsity()
def overflows():
    """Weights that are finite, outputs that are not, at the first level only."""

    def prune(model, sparsities, trial):
        for level, network in as_it_should(model, sparsities, trial):
            if level == sparsities[0]:
                for weight in pruning.prunable(network).values():
                    weight.data *= 1e36
            yield level, network

    return prune


@sparsity()
def one_zero_short():
    def prune(model, sparsities, trial):
        for level, network in as_it_should(model, sparsities, trial):
            weight = next(iter(pruning.prunable(network).values())).data
            weight[tuple((weight == 0).nonzero()[0])] = 1e-9
            yield level, network

    return prune


@sparsity()
def another_level():
    return lambda model, sparsities, trial: ((level / 2, cut(model, level / 2)) for level in sparsities)


@sparsity()
def stops_early():
    def prune(model, sparsities, trial):
        yield sparsities[0], cut(model, sparsities[0])

    return prune


@sparsity()
def goes_on():
    def prune(model, sparsities, trial):
        yield from as_it_should(model, sparsities, trial)
        yield 0.99, cut(model, 0.99)

    return prune


@sparsity()
def another_network():
    def prune(model, sparsities, trial):
        for level in sparsities:
            yield level, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    return prune


@sparsity()
def spends_too_much():
    def prune(model, sparsities, trial):
        trial.fit(copy.deepcopy(model), steps=trial.steps + 1, learning_rate=0.1)
        yield from as_it_should(model, sparsities, trial)

    return prune


@sparsity()
def exits():
    return lambda model, sparsities, trial: sys.exit("no more")


@sparsity()
def exits_hard():
    return lambda model, sparsities, trial: os._exit(0)


@sparsity()
def exits_hard_with_a_code():
    return lambda model, sparsities, trial: os._exit(7)


@sparsity()
def crashes():
    return lambda model, sparsities, trial: os.kill(os.getpid(), signal.SIGSEGV)


@sparsity()
def is_interrupted():
    def prune(model, sparsities, trial):
        raise KeyboardInterrupt

    return prune


@sparsity()
def cannot_be_quoted():
    """An error whose message is no text."""

    class Rude(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def prune(model, sparsities, trial):
        raise Rude

    return prune


@sparsity()
def speaks_in_surrogates():
    def prune(model, sparsities, trial):
        raise ValueError("\udc80 is no character")

    return prune
