"""One module a family of tasks: what a method is given, what is measured, what the measures mean."""

from __future__ import annotations

import importlib
from types import ModuleType

# The protocol's version: raise it when a track measures or hands out anything differently.
PROTOCOL_VERSIONS = {"composition": 1, "connectivity": 1, "continual": 1, "robustness": 2, "sparsity": 1}

# What the process that forks jobs imports before: a track's own, and libraries that take seconds, where something in
# the run needs them. They import torchvision, hence the shim.
_TORCH = ("torch", "torch._dynamo", "safetensors.torch")
PRELOAD = {
    "composition": (*_TORCH, "fipbench.tracks.composition"),
    "connectivity": (*_TORCH, "fipbench.tracks.connectivity"),
    "continual": (*_TORCH, "fipbench.tracks.continual"),
    "robustness": (*_TORCH, "fipbench.tracks.robustness"),
    "sparsity": (*_TORCH, "fipbench.tracks.sparsity"),
}
HEAVY = {
    "avalanche": ("avalanche.training.plugins", "avalanche.training.templates", "avalanche.benchmarks"),
    "peft": ("peft.tuners.lora",),
    "torchattacks": ("torchattacks",),
    "transformers": ("transformers.models.bert.modeling_bert",),
}
_OF_TRACK = {"robustness": {"torchattacks"}}
_OF_MODEL = {name: {"transformers"} for name in ("bert", "masked-lm", "transformer")}


def preload(track: str, model: str, imported: set[str]) -> list[str]:
    """Modules to import before forking jobs of a track, on a model, by methods that import these packages."""
    needed = _OF_TRACK.get(track, set()) | _OF_MODEL.get(model, set()) | imported & HEAVY.keys()
    heavy = [module for name in sorted(needed) for module in HEAVY[name]]
    return [*PRELOAD[track], *(["fipbench.compat:import_torchvision"] if heavy else []), *heavy]


def load_track(name: str) -> ModuleType:
    """The track's module."""
    return importlib.import_module(f"fipbench.tracks.{name}")
