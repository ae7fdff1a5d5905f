"""What the walks by Geo share: how many steps a budget pays, and training examples on which g is taken."""

import torch


def affordable(passes, gram, step, refresh=1, start=0, chunk=0):
    """Steps that so many passes pay, when g costs `gram` at every `refresh`-th step (0: once) and a step `step`.

    With `chunk`, every so-manieth step begins a walk of its own, which costs `start` and takes g anew.
    """
    if chunk:
        whole, rest = divmod(max(0, passes), start + chunk * (gram + step))
        return whole * chunk + max(0, rest - start) // (gram + step)
    passes -= start
    if not refresh:
        return max(0, passes - gram) // step
    rounds, rest = divmod(max(0, passes), gram + refresh * step)
    return rounds * refresh + max(0, rest - gram) // step


def drawn(examples, count, generator):
    """Inputs without end, so many of these examples at a time, each time drawn anew."""
    n = len(examples.labels)
    while True:
        index = torch.randperm(n, generator=generator)[:count]
        yield examples.batch(index.to(examples.labels.device)).inputs


@torch.no_grad()
def outputs_of(network, examples):
    """How many outputs the network has; costs one example forward."""
    return network(examples.batch(torch.zeros(1, dtype=torch.long)).inputs).shape[1]


def flat(network):
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])
