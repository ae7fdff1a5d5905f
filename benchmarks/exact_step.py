"""The exact step of a network of 1.5 million weights, through the Gram matrix, against the whole Jacobian.

64 examples of 10 outputs: 640 rows. J as a whole takes 640 x 1.5 million numbers, 3.8 GB; the Gram matrix sums it in
blocks, and `layer_jacobian` keeps its factors. Both steps are checked: their length, one against the other, and
(g + mu I) psi = -b by products with g. The target is on memory: the peak of this process, less what it took before.

python -m benchmarks.exact_step [--json]
"""

import time
from itertools import pairwise

import torch
from torch import nn

from benchmarks.timing import Finding, main, peak
from fipbench.fip import metric, solvers

EXAMPLES, OUTPUTS, RADIUS, BETA = 64, 10, 0.05, 0.1
HIDDEN = (1000, 700)


def network():
    """784-1000-700-10: 1,492,710 weights."""
    torch.manual_seed(0)
    sizes = (784, *HIDDEN, OUTPUTS)
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def measure(rounds):
    """Memory of the exact step, against the whole Jacobian."""
    model = network()
    inputs = torch.rand(EXAMPLES, 784, generator=torch.Generator().manual_seed(1))
    g = metric.metric_of(model, inputs)
    gradient = torch.randn(g.size, generator=torch.Generator().manual_seed(2)) / g.size**0.5
    g.product(gradient)  # so that what torch loads for it is no part of the measurement
    before = peak()
    began = time.process_time()
    held = solvers.layer_jacobian(model, inputs).spectrum()
    by_layers = solvers.exact_step(held, gradient, radius=RADIUS, beta=BETA)
    layers_s, layers_mb = time.process_time() - began, peak() - before
    began = time.process_time()
    step = solvers.exact_step(metric.gram(g), gradient, radius=RADIUS, beta=BETA)
    gram_s, gram_mb = time.process_time() - began, peak() - before
    b = BETA / 2 * gradient
    residual = float((g.product(step.vector) + step.mu * step.vector + b).norm() / b.norm())
    apart = float((step.vector - by_layers.vector).norm()) / RADIUS
    length = abs(float(step.vector.double().norm()) / RADIUS - 1)
    assert residual < 1e-3 and apart < 1e-3 and length < 1e-5, (residual, apart, length)
    whole = g.rows * g.size * g.weights.element_size() / 1e6
    share = gram_mb / whole
    yield Finding(
        what="memory of the exact step of 1.5 million weights, 640 rows, through the Gram matrix",
        against="the whole Jacobian",
        value=share,
        low=share,
        high=share,
        most=0.5,
        clock="peak memory",
        details={
            "by layers, CPU s": layers_s,
            "by layers, MB more": layers_mb,
            "Gram matrix, CPU s": gram_s,
            "Gram matrix, MB more": gram_mb,
            "whole Jacobian, MB": whole,
            "residual": residual,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
