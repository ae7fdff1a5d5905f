"""The step along a functionally invariant path, three ways: penalty, exact and ball (see docs/geometry.md).

The penalised gradient step needs nothing of this package: `fipbench.fip.invariance` is the term that it adds to a loss.

from fipbench.fip import solvers
step = solvers.exact_step(metric.gram(g), gradient, radius=0.01, beta=0.1)
found = solvers.ball_step(network, objective, radius=0.1, samples=8, steps=8, learning_rate=0.01)
"""

from fipbench.fip.solvers.ball import Ball, BallStep, ball_step
from fipbench.fip.solvers.exact import Spectrum, Step, exact_step
from fipbench.fip.solvers.krylov import krylov_step
from fipbench.fip.solvers.layers import LayerJacobian, LayerSpectrum, layer_jacobian
from fipbench.fip.solvers.trust_region import CONSTRAINTS, Multiplier, multiplier

__all__ = [
    "CONSTRAINTS",
    "Ball",
    "BallStep",
    "LayerJacobian",
    "LayerSpectrum",
    "Multiplier",
    "Spectrum",
    "Step",
    "ball_step",
    "exact_step",
    "krylov_step",
    "layer_jacobian",
    "multiplier",
]
