"""FIP-CF: learn a new task along a path on which the outputs for remembered inputs stay what they were.

Source: Nature Machine Intelligence 6 (2024), Algorithm 1; the authors' public code where it differs. A step goes down
the gradient of

    cross-entropy(new batch) + strength * distance(f(memory, w), f(memory, w_start))

where w_start is the network before the new task. Its outputs on the memory are numbers by then: they are computed
once a task, and no second network is run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fipbench.fip import distance as distances

# The two-task list of the paper: lambda 1, Adam, eta 0.01, weight decay 2e-4; it names no distance and no reduction.
# The public notebook (MNIST, then Fashion-MNIST): summed Bhattacharyya distance with an epsilon, a frozen copy of the
# network run beside, SGD 1e-3 with momentum 0.9.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "distance": "bhattacharyya",
        "strength": 1.0,
        "fitting": {"rule": "adam", "learning_rate": 0.01, "weight_decay": 2e-4},
    },
    "authors-code": {
        "distance": "bhattacharyya",
        "reduction": "sum",
        "epsilon": 1e-10,
        "strength": 1.0,
        "fitting": {"rule": "sgd", "learning_rate": 1e-3, "weight_decay": 0.0},
        "second_network": True,
    },
}


def invariance(
    distance: str = "bhattacharyya", *, reduction: str = "mean", epsilon: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """How far outputs have moved: `(logits, reference_logits) -> scalar`, both of shape (n, outputs).

    Args:
        distance: a name in `fip.distance.DISTANCES`.
        reduction: `mean` or `sum` over the batch; the sum weighs n times as much (the public code's).
        epsilon: under the square root of the Bhattacharyya distance, as in the public code.

    Raises:
        ValueError: unknown distance or reduction, or an epsilon with another distance.
    """
    measure = distances.by_name(distance)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {reduction!r}")
    options: dict[str, Any] = {"reduction": reduction}
    if epsilon:
        if distance != "bhattacharyya":
            raise ValueError(f"epsilon belongs to the Bhattacharyya distance, not to {distance}")
        options["epsilon"] = epsilon
    return lambda logits, reference: measure(logits, reference, **options)
