"""Growing an atlas: by one process or several, going on where one that was killed left off."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fipbench.fip.atlas.storage import AtlasError, add, load, open_atlas, stem_of


@dataclass(frozen=True)
class Shoot:
    """A member to be.

    Attributes:
        make: the parent's network to this one's; it must not change what it is given.
    """

    name: str
    parent: str
    operation: str
    make: Callable[[nn.Module], nn.Module]


def grow(
    folder: str | Path,
    shoots: Sequence[Shoot],
    network: nn.Module,
    *,
    poll_s: float = 0.2,
    tick: Callable[[str], Any] | None = None,
) -> int:
    """Add the members that are not there yet, parents first; returns how many this process added.

    Any number of processes may do so with the same list: each takes a member that no other is at, and all return when
    the last is there. A member that was being made when its process died is made anew by another.

    Args:
        network: of the atlas's shape, into which parents are loaded; its weights are not used.
        poll_s: seconds between two looks where others are at all that is due.
        tick: called with the name of each member that was added.

    Raises:
        AtlasError: a name that is none, a parent that is neither a member nor in the list before, or a bad file.
    """
    from filelock import FileLock, Timeout

    place = Path(folder)
    known = set(open_atlas(place).members)
    stems = {shoot.name: stem_of(shoot.name) for shoot in shoots}
    for shoot in shoots:
        if shoot.parent not in known:
            raise AtlasError(f"{place}: '{shoot.name}' needs '{shoot.parent}' before it; put it first in the list")
        known.add(shoot.name)
    locks = place / ".locks"
    locks.mkdir(exist_ok=True)
    network, added = copy.deepcopy(network), 0
    while True:
        there = open_atlas(place).members
        due = [shoot for shoot in shoots if shoot.name not in there]
        if not due:
            return added
        before = added
        for shoot in due:
            if shoot.parent not in open_atlas(place).members:
                continue
            try:
                with FileLock(locks / f"{stems[shoot.name]}.lock", timeout=0):
                    if shoot.name in open_atlas(place).members:
                        continue
                    made = shoot.make(load(place, shoot.parent, network))
                    add(place, shoot.name, made, parent=shoot.parent, operation=shoot.operation)
            except Timeout:
                continue
            added += 1
            if tick is not None:
                tick(shoot.name)
        if added == before:
            time.sleep(poll_s)
