"""A learned quadratic Bezier curve (Garipov et al., 2018): phi(t) = (1 - t)^2 w_1 + 2 t (1 - t) theta + t^2 w_2.

Each step draws t uniformly from [0, 1] and descends the loss at phi(t) by theta, which starts half-way.
"""

import copy

import torch

from fipbench.methods import Choice, LogUniform, connectivity

# Of the curve; between them the path is straight.
POINTS = 33


@connectivity(version="1", search={"learning_rate": LogUniform(3e-4, 0.3), "rule": Choice(("sgd", "adam"))})
def bezier(*, learning_rate: float = 0.03, rule: str = "sgd"):
    """A quadratic Bezier curve whose control point is trained to lower the mean loss along it."""

    def path(first, second, trial):
        a, b = (dict(network.named_parameters()) for network in (first, second))
        control = copy.deepcopy(first)
        with torch.no_grad():
            for name, theta in control.named_parameters():
                theta.copy_((a[name] + b[name]) / 2)

        def loss(network, batch):
            t = float(torch.rand((), generator=trial.generator))
            here = {
                name: between(a[name].detach(), theta, b[name].detach(), t)
                for name, theta in network.named_parameters()
            }
            outputs = torch.func.functional_call(network, here, (batch.inputs,))
            return torch.nn.functional.cross_entropy(outputs, batch.labels)

        trial.fit(control, steps=trial.steps, learning_rate=learning_rate, rule=rule, loss=loss)
        theta = dict(control.named_parameters())
        for number in range(1, POINTS - 1):
            point = copy.deepcopy(first)
            with torch.no_grad():
                for name, weight in point.named_parameters():
                    weight.copy_(between(a[name], theta[name], b[name], number / (POINTS - 1)))
            yield point
        yield second

    return path


def between(a, theta, b, t):
    """The curve at t, from a at 0 to b at 1."""
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * theta + t**2 * b
