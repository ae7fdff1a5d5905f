"""Python's collector of garbage kept from the many records that are in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def off() -> Iterator[None]:
    """Within, nothing is collected: for what makes many objects and no cycles, which the collector would walk again
    and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def aside() -> Iterator[None]:
    """Within, the collector does not walk what there was before; what is made within is collected as ever."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
