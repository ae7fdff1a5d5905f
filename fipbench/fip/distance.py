"""Distances between the outputs of two networks, from logits, stable where softmax under- or overflows.

All take logits of shape (..., classes) and return one number an example (`reduction="none"`, shape (...)),
their mean or their sum. They are zero for equal outputs, never negative, and differentiable in `logits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

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
    log_p, log_q = reference_logits.log_softmax(-1), logits.log_softmax(-1)
    return _reduce(_relative_entropy(log_p.exp(), log_q.exp(), log_q - log_p), reduction)


def jensen_shannon(logits: Tensor, reference_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Jensen-Shannon divergence of the softmax outputs in nats, between 0 and log 2.

    Raises:
        ValueError: unknown reduction, or shapes that differ.
    """
    _same_shape(logits, reference_logits)
    log_p, log_q = logits.log_softmax(-1), reference_logits.log_softmax(-1)
    p, q, log_ratio = log_p.exp(), log_q.exp(), log_q - log_p
    # log m - log p and log m - log q of the mixture m = (p + q) / 2: exactly zero where p = q.
    from_p = -nn.functional.logsigmoid(-log_ratio) - math.log(2)
    from_q = -nn.functional.logsigmoid(log_ratio) - math.log(2)
    m = 0.5 * (p + q)
    return _reduce(0.5 * (_relative_entropy(p, m, from_p) + _relative_entropy(q, m, from_q)), reduction)


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


def _relative_entropy(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
    """KL(p || q) with d = log q - log p, as the sum of p (e^d - 1 - d) = q - p - p d.

    The added q - p sums to nothing, but leaves no term negative and, where p = q, value and gradient exactly zero:
    an optimiser that scales gradients up would make steps of their rounding.
    """
    small = log_ratio.clamp(-0.5, 0.5)
    near = p * (small.expm1() - small)
    return torch.where(log_ratio.abs() < 0.5, near, q - p - p * log_ratio).sum(-1)


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
