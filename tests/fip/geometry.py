"""Small networks whose geometry is known, and dense Jacobians by numpy to compare with."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn


class Formula(nn.Module):
    """Outputs by a formula of one vector of weights and of the inputs."""

    def __init__(self, weights, formula):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.formula = formula

    def forward(self, x):
        return self.formula(self.w, x)


def product(*weights):
    """f = w1 w2 x."""
    return Formula(weights, lambda w, x: w[0] * w[1] * x)


def distribution(*weights):
    """Logits (w, 0), whatever the inputs: any distribution on one class more than there are weights."""
    return Formula(weights, lambda w, x: torch.cat([w, w.new_zeros(1)]).expand(len(x), -1))


def small_net(seed=0, dtype=torch.float64, inputs=4, hidden=6, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).to(dtype)


def batch(examples, inputs=4, seed=1, dtype=torch.float64):
    return torch.randn(examples, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def outputs_at(network, inputs, vector, kind="logits"):
    """The stacked outputs at a vector of weights, by numpy's softmax, without the library."""
    moved = copy.deepcopy(network).eval()
    with torch.no_grad():
        nn.utils.vector_to_parameters(torch.as_tensor(vector), [p for p in moved.parameters() if p.requires_grad])
        z = moved(inputs).flatten(1).double().numpy()
    if kind == "logits":
        return z.ravel()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return (p if kind == "softmax" else 2 * np.sqrt(p)).ravel()


def dense_jacobian(network, inputs, kind="logits", step=1e-5):
    """J by central differences, shape (mN, n), without any scale; good to about 1e-10 in double precision."""
    here = nn.utils.parameters_to_vector([p for p in network.parameters() if p.requires_grad]).detach().numpy()
    columns = []
    for i in range(len(here)):
        ahead, behind = here.copy(), here.copy()
        ahead[i] += step
        behind[i] -= step
        columns.append(
            (outputs_at(network, inputs, ahead, kind) - outputs_at(network, inputs, behind, kind)) / 2 / step
        )
    return np.stack(columns, axis=1)
