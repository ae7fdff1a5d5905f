"""Functionally invariant paths as a library: needs torch, knows nothing of the harness.

from fipbench import fip
for sparsity, network in fip.sparsify(model, batches, [0.8, 0.9, 0.95], steps=500):
    ...

`FIPPlugin` learns along such a path in Avalanche's loop; it alone needs avalanche-lib, which is imported when it is
asked for.
"""

from __future__ import annotations

from typing import Any

from fipbench.fip import distance
from fipbench.fip.continual import PRESETS as CONTINUAL_PRESETS
from fipbench.fip.continual import invariance
from fipbench.fip.ensemble import PRESETS as ENSEMBLE_PRESETS
from fipbench.fip.ensemble import ensemble
from fipbench.fip.path import distance_walked, path_length
from fipbench.fip.sparse import PRESETS, sparsify

__all__ = [
    "CONTINUAL_PRESETS",
    "ENSEMBLE_PRESETS",
    "PRESETS",
    "FIPPlugin",
    "distance",
    "distance_walked",
    "ensemble",
    "invariance",
    "path_length",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    if name == "FIPPlugin":
        from fipbench.fip.plugin import FIPPlugin

        return FIPPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
