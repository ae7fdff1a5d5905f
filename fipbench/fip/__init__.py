"""Functionally invariant paths as a library: needs torch, knows nothing of the harness.

from fipbench import fip
for sparsity, network in fip.sparsify(model, batches, [0.8, 0.9, 0.95], steps=500):
    ...
"""

from fipbench.fip import distance
from fipbench.fip.path import distance_walked, path_length
from fipbench.fip.sparse import PRESETS, sparsify

__all__ = ["PRESETS", "distance", "distance_walked", "path_length", "sparsify"]
