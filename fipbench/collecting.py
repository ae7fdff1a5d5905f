"""Python's collector of garbage kept from the many records that are in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects made, less those freed, before the collector walks the youngest; Python's own number is 700.
_SELDOM = 50_000


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
    """Within, the collector does not walk what there was before; what is made within is collected, but less often."""
    often = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_SELDOM, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)
        gc.unfreeze()
