"""One module a family of tasks: what a method is given, what is measured, what the measures mean."""

from __future__ import annotations

import importlib
from types import ModuleType

# The protocol's version: raise it when a track measures or hands out anything differently.
PROTOCOL_VERSIONS = {"continual": 1, "robustness": 1, "sparsity": 1}

# What a worker imports before it forks.
_TORCH = ("torch", "torch._dynamo", "safetensors.torch")
PRELOAD = {
    "continual": (*_TORCH, "fipbench.tracks.continual"),
    "robustness": (*_TORCH, "fipbench.tracks.robustness"),
    "sparsity": (*_TORCH, "fipbench.tracks.sparsity"),
}


def load_track(name: str) -> ModuleType:
    """The track's module."""
    return importlib.import_module(f"fipbench.tracks.{name}")
