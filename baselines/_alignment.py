"""Which unit of one network is which of another: hidden units of a chain of layers in another order, and back.

For networks that are a chain of linear layers and convolutions with nothing between them but what treats all units
alike (ReLU, pooling, flattening). There a layer's units can be put in another order with the next layer's inputs, and
the network computes what it did.
"""

import copy

import torch
from torch import nn


def chain(network):
    """The names and layers of a chain, in order.

    Raises:
        ValueError: a layer that is none of a chain; says which.
    """
    layers = []
    for name, module in network.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        plain = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if plain:
            layers.append((name, module))
        elif any(isinstance(value, nn.Parameter) for value in own) or not _is_chained(network, name, module):
            raise ValueError(
                f"units can be put in order in a chain of linear layers and convolutions only; this network has "
                f"'{name}', a {type(module).__name__}: leave this method out, or take an mlp, a cnn or a vgg"
            )
    if len(layers) < 2:
        raise ValueError("the network has no hidden units")
    return layers


def _is_chained(network, name, module):
    """Whether it is the chain itself or a member of it: what has layers inside may call them in any order."""
    if module is network:
        return isinstance(network, nn.Sequential)
    return "." not in name and not list(module.children())


def blocks(layers):
    """Each layer's weights as (units, units of the layer before, what belongs to a pair of them), and its biases."""
    found, before = [], None
    for _, layer in layers:
        weight = layer.weight.detach().double()
        # Behind a flattening, each channel has the weights of all its places.
        weight = weight.flatten(2) if weight.ndim == 4 else weight
        units = weight.shape[1] if before is None else before
        found.append((weight.reshape(len(weight), units, -1), _bias(layer)))
        before = len(weight)
    return found


def _bias(layer):
    units = len(layer.weight)
    return torch.zeros(units, dtype=torch.float64) if layer.bias is None else layer.bias.detach().double()


@torch.no_grad()
def permuted(network, orders):
    """A copy whose hidden layer number l has at place i the unit that stood at `orders[l][i]`; the same function."""
    found = copy.deepcopy(network)
    layers = chain(found)
    for (_, layer), (_, following), order in zip(layers[:-1], layers[1:], orders, strict=True):
        layer.weight.copy_(layer.weight[order])
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[order])
        parts = following.weight.view(len(following.weight), len(order), -1)
        following.weight.copy_(parts[:, order].reshape(following.weight.shape))
    return found


def matched(gain):
    """The order that maximises the sum of gain[i, order[i]], shape (k, k)."""
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(gain.cpu().numpy(), maximize=True)[1])
