"""The same bits every time; and the names of what a GPU cannot do so."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_NAMED = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic(device: str) -> Iterator[set[str]]:
    """Run torch's deterministic algorithms; yields the names, as torch gives them, of those that are not.

    On a CPU there is no need of any, and torch raises RuntimeError instead. On a GPU some layers have none (the
    backward pass of adaptive average pooling, for one): they run, and are named.
    """
    found: set[str] = set()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    show = warnings.showwarning

    def noting(message: Warning | str, *where: object, **more: object) -> None:
        if named := _NAMED.match(str(message)):
            found.add(named[1])
        else:
            show(message, *where, **more)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        # Warnings come once a place; torch's all come from a few.
        warnings.filterwarnings("always", message=_NAMED.pattern)
        warnings.showwarning = noting
        yield found
