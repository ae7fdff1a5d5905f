"""Runs that start at once; see `nursery`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from nursery import PRELOAD, Nursery


@pytest.fixture(scope="session")
def nursery(cache_dir) -> Iterator[Nursery]:
    """For runs of the whole program."""
    found = Nursery(*PRELOAD)
    yield found
    found.close()


@pytest.fixture(scope="session")
def light(cache_dir) -> Iterator[Nursery]:
    """For runs of stand-ins, which need no torch."""
    found = Nursery("fipbench.api", "fipbench.worker", "fipbench.executors.server", "stand_in")
    yield found
    found.close()
