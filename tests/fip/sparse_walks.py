"""Small networks, batches and walks that the tests of FIP-Sparse share."""

import torch
from torch import nn

from fipbench import fip

LEVELS = [0.5, 0.83, 0.95]
QUICK = {"steps": 12, "learning_rate": 0.01}


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mlp():
    # Odd sizes: the shares of single layers do not round to the share of the whole.
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 9), nn.ReLU(), nn.Linear(9, 3)).eval()


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
    )


def batches(*shape, n=4, seed=1):
    return [normal(*shape, seed=seed + i) for i in range(n)]


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def results(*args, **options):
    return [(level, state(network)) for level, network in fip.sparsify(*args, **options)]


def assert_equal_results(a, b):
    assert len(a) == len(b) > 0
    assert all(la == lb and same(wa, wb) for (la, wa), (lb, wb) in zip(a, b, strict=True))


def watched(model, *, inputs, wanted, level=0.5, **options):
    """The moving network's parameters at each of its calls, and the network yielded."""
    seen = []

    def forward(network, batch):
        seen.append({name: value.detach().clone() for name, value in network.named_parameters()})
        return network(batch)

    options = {"settle": 0.0, "ramp": 0.0} | options
    walk = fip.sparsify(model, [inputs], [level], forward=forward, reference=lambda batch: wanted, **options)
    ((_, network),) = list(walk)
    return seen, network
