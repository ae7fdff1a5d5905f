"""Distances between the outputs of two networks, from logits, stable where softmax under- or overflows.

All take logits of shape (..., classes) and return one number an example (`reduction="none"`, shape (...)),
their mean or their sum. They are zero for equal outputs, never negative, and differentiable in `logits`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Distance = Callable[..., Tensor]


def euclidean(logits: Tensor, reference_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Euclidean distance of the logits, || z - z_ref ||_2; its gradient at zero is zero.

    Raises:
        ValueError: unknown reduction, or shapes that differ.
    """
    _same_shape(logits, reference_logits)
    return _reduce(torch.linalg.vector_norm(logits - reference_logits, dim=-1), reduction)


def squared_euclidean(logits: Tensor, reference_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Squared Euclidean distance of the logits: the quadratic form of the metric tensor, to second order
    (Nature Machine Intelligence 6, 2024, equation 2).

    Raises:
        ValueError: unknown reduction, or shapes that differ.
    """
    _same_shape(logits, reference_logits)
    return _reduce((logits - reference_logits).square().sum(-1), reduction)


def bhattacharyya(logits: Tensor, reference_logits: Tensor, reduction: str = "mean", epsilon: float = 0.0) -> Tensor:
    """Bhattacharyya distance of the softmax outputs, -log sum_k sqrt(p_k q_k); to second order Fisher/8.

    Near equality it is computed as -log(1 - H^2) with the squared Hellinger distance H^2, which loses no digits
    to cancellation; far from it as a log-sum-exp, which does not underflow.

    Args:
        epsilon: added under the square root, as the authors' public code does; above zero the distance of equal
            outputs is slightly negative. Leave it at zero unless that code is to be reproduced.

    Raises:
        ValueError: unknown reduction, or shapes that differ.
    """
    _same_shape(logits, reference_logits)
    log_p, log_q = logits.log_softmax(-1), reference_logits.log_softmax(-1)
    if epsilon:
        return _reduce(-((log_p + log_q).exp() + epsilon).sqrt().sum(-1).log(), reduction)
    hellinger = 0.5 * ((0.5 * log_p).exp() - (0.5 * log_q).exp()).square().sum(-1)
    near = -torch.log1p(-hellinger.clamp(max=0.5))
    far = -(0.5 * (log_p + log_q)).logsumexp(-1)
    return _reduce(torch.where(hellinger < 0.5, near, far), reduction)


def kl(logits: Tensor, reference_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Kullback-Leibler divergence from the reference, KL(reference || current), in nats.

    Raises:
        ValueError: unknown reduction, or shapes that differ.
    """
    _same_shape(logits, reference_logits)
    return _reduce(_kl(reference_logits.log_softmax(-1), logits.log_softmax(-1)), reduction)


def jensen_shannon(logits: Tensor, reference_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Jensen-Shannon divergence of the softmax outputs in nats, between 0 and log 2.

    Raises:
        ValueError: unknown reduction, or shapes that differ.
    """
    _same_shape(logits, reference_logits)
    log_p, log_q = logits.log_softmax(-1), reference_logits.log_softmax(-1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=logits.dtype))
    return _reduce(0.5 * (_kl(log_p, log_m) + _kl(log_q, log_m)), reduction)


DISTANCES: dict[str, Distance] = {
    "bhattacharyya": bhattacharyya,
    "euclidean": euclidean,
    "jensen_shannon": jensen_shannon,
    "kl": kl,
    "squared_euclidean": squared_euclidean,
}


def by_name(name: str) -> Distance:
    """The distance of that name.

    Raises:
        ValueError: there is none; lists those there are.
    """
    if name not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {name!r}")
    return DISTANCES[name]


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    # Rounding can leave a sum of cancelling terms at -1e-9; a divergence is not negative.
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0.0)


def _same_shape(logits: Tensor, reference_logits: Tensor) -> None:
    if logits.shape != reference_logits.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and reference {tuple(reference_logits.shape)} differ")


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ValueError(f"reduction must be none, mean or sum, got {reduction!r}")
