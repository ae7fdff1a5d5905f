"""The exact step where even the Gram matrix is too large: the trust-region problem in a Krylov space."""

from __future__ import annotations

from torch import Tensor

from fipbench.fip.metric.lanczos import lanczos
from fipbench.fip.metric.operator import Metric
from fipbench.fip.solvers.exact import Step
from fipbench.fip.solvers.trust_region import multiplier


def krylov_step(
    metric: Metric,
    gradient: Tensor,
    *,
    radius: float,
    beta: float = 1.0,
    constraint: str = "sphere",
    steps: int = 50,
    tolerance: float = 1e-6,
) -> Step:
    """As `exact_step`, by products with g alone: the minimiser over the space of b, g b, ..., g^(steps - 1) b.

    It holds `steps` vectors of n numbers in double precision and costs a product with g for each of them.

    Args:
        steps: dimension of the Krylov space, at most; one more than g has different eigenvalues is always enough.
        tolerance: how large |(g + mu I) psi + b| / |b| may be.

    Source: Gould, Lucidi, Roma and Toint (SIAM J. Optim. 9, 1999), with full reorthogonalisation.

    Raises:
        ValueError: an option out of range, a gradient that is zero or of another shape, too few steps, or a sphere
            beyond the minimum of the quadratic model, where the least eigenvectors of g decide: of a regular g, or in
            the hard case, a gradient in the range of a singular one, in which the space lacks a null vector.
        FloatingPointError: the gradient or a product is not finite.
    """
    if not (beta > 0 and gradient.any()):
        raise ValueError("a Krylov space needs a gradient and a beta other than zero; see exact_step")
    b = metric.flatten(gradient).double() * (beta / 2)
    size = float(b.norm())
    found = lanczos(lambda v: metric.product(v).double(), b, steps)
    values, vectors = found.eigen()
    values, components = values.clamp(min=0), size * vectors[0]
    root = multiplier(values, components, 0.0, radius=radius, constraint=constraint, singular=False)
    if root.mu < 0 or root.missing:
        raise ValueError(
            "this radius is beyond the minimum of the quadratic model, where the least eigenvectors of g decide, which "
            "a Krylov space does not resolve (a regular g, or the hard case): take exact_step, or constraint='ball'"
        )
    along = vectors @ (-components / ((values - root.least) + root.shift))
    if (residual := found.left * abs(float(along[-1])) / size) > tolerance:
        raise ValueError(f"after {len(along)} steps the residual is {residual:.1e}, above {tolerance:.1e}; take more")
    vector = (found.basis.T @ along.to(found.basis)).to(metric.weights)
    slope = float(vector.double() @ gradient.detach().to(vector).double())
    return Step(vector, root.mu, root.case, metric.push(vector).cpu().double(), slope)
