"""Alignment by optimal transport (Singh & Jaggi, 2020, OTFusion), then the straight line; its middle is the fused
network.

Layer after layer, from the inputs on, the second network's units are transported onto the first's at the least sum of
distances: of their incoming weights, the layer before being aligned already, or of what they answer to the same
examples. Both networks have as many units and each unit the same mass; then an extreme point of the transport polytope
is 1/k times a permutation (Birkhoff), so that an assignment solves the transport problem exactly.
"""

import torch
from fipbench.baselines._alignment import blocks, chain, matched, permuted

from fipbench.methods import Choice, connectivity


@connectivity(version="1", search={"ground": Choice(("weights", "activations"))})
def fusion(*, ground: str = "activations", samples: int = 200):
    """The line to the second network with its units transported onto the first's, by activations or weights.

    `samples`: training examples of which activations are compared."""

    def path(first, second, trial):
        if ground == "weights":
            return [first, permuted(second, by_weights(first, second))]
        index = torch.randperm(len(trial.train.labels), generator=trial.generator)[:samples]
        inputs = trial.train.batch(index.to(trial.train.labels.device)).inputs
        return [first, permuted(second, by_activations(first, second, inputs))]

    return path


def by_weights(first, second):
    """The orders of the second network's hidden units by their incoming weights."""
    a, b = blocks(chain(first)), blocks(chain(second))
    orders = []
    for (into_a, bias_a), (into_b, bias_b) in zip(a[:-1], b[:-1], strict=True):
        if orders:
            into_b = into_b[:, orders[-1]]
        orders.append(transport(_with(into_a, bias_a), _with(into_b, bias_b)))
    return orders


def by_activations(first, second, inputs):
    """The same by what the units answer to these inputs, before the ReLU."""
    return [transport(x, y) for x, y in zip(_answers(first, inputs), _answers(second, inputs), strict=True)]


def transport(a, b):
    """The order of b's rows that takes them onto a's, shapes (k, d), at the least sum of Euclidean distances."""
    return matched(-torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"))


def _with(weights, bias):
    return torch.cat([weights.flatten(1), bias[:, None]], 1)


@torch.no_grad()
def _answers(network, inputs):
    """(units, examples and places) of each hidden layer."""
    found = []
    taps = [
        layer.register_forward_hook(lambda module, given, output: found.append(output.double().transpose(0, 1)))
        for _, layer in chain(network)
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    network(inputs)
    for tap in taps:
        tap.remove()
    for module, mode in modes.items():
        module.training = mode
    return [output.flatten(1) for output in found[:-1]]
