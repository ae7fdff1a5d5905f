"""Definitions of what is measured."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from fipbench.spec import Items


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Fraction of examples whose largest output is the label's. Shapes (n, classes) and (n,)."""
    return float((outputs.argmax(1) == labels).double().mean())


def packed_correct(outputs: Tensor, labels: Tensor) -> Items:
    """Correctness of each example as packed bits (most significant first, base64)."""
    import numpy as np

    bits = np.packbits((outputs.argmax(1) == labels).cpu().numpy())
    return Items(count=len(labels), bits=base64.b64encode(bits.tobytes()).decode())


def area_under_sparsity(sparsities: Sequence[float], scores: Sequence[float]) -> float:
    """Mean score over a range of sparsities, on the axis -log10(1 - sparsity) on which pruning is plotted.

    The trapezoid rule over that axis, divided by its length; on it 90, 99 and 99.9 % are equally far apart. One
    level alone is its own mean.

    Raises:
        ValueError: no levels, levels that do not increase, or another number of scores.
    """
    if len(sparsities) != len(scores) or not sparsities:
        raise ValueError("needs as many scores as sparsities, and at least one")
    x = [-math.log10(1 - s) for s in sparsities]
    if any(b <= a for a, b in pairwise(x)):
        raise ValueError(f"sparsities must increase, got {list(sparsities)}")
    if len(x) == 1:
        return float(scores[0])
    area = sum((x[i + 1] - x[i]) * (scores[i + 1] + scores[i]) / 2 for i in range(len(x) - 1))
    return area / (x[-1] - x[0])
