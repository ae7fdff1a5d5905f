"""Going on inside a job: what a stopped job had done, for methods that can say what they hold.

A method that offers `state_dict() -> {name: Tensor}` and `load_state_dict(state)` goes on after the last task it
learned; any other starts its job again. The state holds all that the method needs beside the network; a network that
is given layers of its own cannot be restored. The record is the same as an undisturbed job's, to the bit.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fipbench.cache import read_kept, write_kept
from fipbench.spec import Job, id_of

# A job that is stopped loses at least so much; a shorter one is sooner done again than kept.
INTERVAL_S = 10.0


def offers_state(method: Any) -> bool:
    """Whether a method can be stopped and go on."""
    return callable(getattr(method, "state_dict", None)) and callable(getattr(method, "load_state_dict", None))


class Partial:
    """The unfinished work of one job, in one file of the cache; whoever holds the job's lock may use it."""

    def __init__(self, job: Job, cache: Path) -> None:
        self.path = cache / "partial" / f"{id_of(job)}.safetensors"
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts last saved; None if there are none that are whole."""
        from safetensors import SafetensorError

        try:
            return read_kept(self.path)
        except (OSError, ValueError, SafetensorError):
            return None

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep tensors and facts (JSON) in place of what was kept before, unless that is young."""
        if time.monotonic() - self._saved < INTERVAL_S:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_kept(self.path, {name: value.detach().cpu().clone() for name, value in tensors.items()}, facts)
        self._saved = time.monotonic()

    def drop(self) -> None:
        """The job is done."""
        self.path.unlink(missing_ok=True)


def everybodys_generators() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of the generators of torch, NumPy and Python, from which a method should not draw but may."""
    import numpy as np

    state: Any = np.random.get_state()
    kind, keys, *rest = state
    version, internal, gauss = random.getstate()
    tensors = {"generator/torch": torch.get_rng_state(), "generator/numpy": torch.from_numpy(keys.astype("int64"))}
    return tensors, {"numpy": [kind, *rest], "python": [version, list(internal), gauss]}


def restore_generators(tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Put them back into that state."""
    import numpy as np

    torch.set_rng_state(tensors["generator/torch"])
    kind, *rest = facts["numpy"]
    np.random.set_state((kind, tensors["generator/numpy"].numpy().astype("uint32"), *rest))
    version, internal, gauss = facts["python"]
    random.setstate((version, tuple(internal), gauss))
