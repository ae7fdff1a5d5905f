"""torchvision beside a torch of another build.

The torchvision on PyPI is built for CUDA; beside a CPU-only torch its compiled operators do not load, and
`import torchvision` fails with "operator torchvision::nms does not exist". Declaring the schemas of the two
operators that it touches at import is enough for everything the suite uses of it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

# The library must outlive the declarations.
_declared: list[Any] = []


def import_torchvision() -> ModuleType:
    """torchvision, with the missing operators declared where, and only where, they are missing."""
    import importlib

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import sys

    import torch

    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    return importlib.import_module("torchvision")
