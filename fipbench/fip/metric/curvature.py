"""Scalar curvature of the weight space of small networks (at most 300 weights), and of a surface of losses.

g + mu I is the metric that w -> (outputs, sqrt(mu) w) takes from Euclidean space. So the equation of Gauss gives the
curvature from second derivatives of the outputs alone: with II the part of them that is normal to the tangent space,

    S = |trace II|^2 - |II|^2,    trace and norm over weights taken by (g + mu I)^-1.

A sphere of radius r in three dimensions has S = 2 / r^2. All is in double precision. One of the abstracts of ETH Zurich
speaks of the curvature of a surface of losses, without a formula; that of a graph is in any textbook (do Carmo,
"Riemannian geometry").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fipbench.fip.metric.geodesic import _flat_outputs, _prepared
from fipbench.fip.metric.gram import BLOCK_BYTES, jacobian
from fipbench.fip.metric.operator import Metric, differentiable


@dataclass(frozen=True)
class Curvature:
    """Scalar curvature of g + mu I at a point.

    Attributes:
        value: twice the Gaussian curvature where there are two weights, zero where there is one.
        mu: the regularisation that was used.
        regularised: whether it was put in because g is singular, and not asked for. The value then depends on it.
    """

    value: float
    mu: float
    regularised: bool


def scalar_curvature(metric: Metric, *, mu: float = 0.0) -> Curvature:
    """The scalar curvature at the metric's weights.

    Raises:
        ValueError: more than 300 weights, a batch too large, or mu out of range.
        FloatingPointError: outputs or derivatives are not finite, or g + mu I is singular in double precision.
    """
    fine, used, regularised = _prepared(metric, mu)
    n = fine.size
    first = jacobian(fine)
    factor, failed = torch.linalg.cholesky_ex(first.T @ first + used * torch.eye(n, dtype=torch.float64))
    if bool(failed):
        raise FloatingPointError("g is singular in double precision: give a larger mu")
    # An orthonormal basis of the tangent space: columns of the inverse of the factor's transpose.
    basis = torch.linalg.solve_triangular(factor, torch.eye(n, dtype=torch.float64), upper=False).T
    along = first @ basis
    tangential = torch.zeros(n, n, n, dtype=torch.float64)
    whole = 0.0
    at_once = max(1, BLOCK_BYTES // (8 * n * n * fine.outputs))
    for start in range(0, fine.examples, at_once):
        numbers = torch.arange(start, min(start + at_once, fine.examples))
        with differentiable():
            second = torch.func.jacfwd(torch.func.jacrev(_flat_outputs(fine, numbers)))(fine.weights)
        second = basis.T @ second @ basis
        rows = slice(start * fine.outputs, start * fine.outputs + len(second))
        tangential += torch.einsum("kij,kr->ijr", second, along[rows])
        whole += _gauss(second, dim=0)
    value = whole - _gauss(tangential, dim=2)
    if not torch.isfinite(torch.tensor(value)):
        raise FloatingPointError("the second derivatives of the outputs are not finite")
    return Curvature(value, used, regularised)


def curvature_of_graph(gradient: Tensor, hessian: Tensor) -> float:
    """Scalar curvature of the surface (w, L(w)) in Euclidean space of one dimension more.

    Args:
        gradient, hessian: of L at a point, shapes (n,) and (n, n).

    Raises:
        ValueError: other shapes.
    """
    n = len(gradient)
    if gradient.shape != (n,) or hessian.shape != (n, n):
        raise ValueError(f"expected shapes (n,) and (n, n), got {tuple(gradient.shape)} and {tuple(hessian.shape)}")
    slope, bend = gradient.double(), hessian.double()
    beta = 1 + float(slope @ slope)
    trace = float(bend.trace())
    turned = bend @ slope
    ricci = trace * float(slope @ turned) - float(turned @ turned)
    return (trace**2 - float(bend.square().sum())) / beta - 2 * ricci / beta**2


def _gauss(forms: Tensor, dim: int) -> float:
    """Squared trace less squared norm of quadratic forms, summed over those that are numbered by `dim`."""
    every = forms.movedim(dim, 0)
    traces = every.diagonal(dim1=1, dim2=2).sum(1)
    return float(traces.square().sum() - every.square().sum())
