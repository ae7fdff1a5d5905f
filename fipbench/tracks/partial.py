"""Going on inside a job: what a stopped job had done, for methods that can say what they hold.

A method that offers `state_dict() -> {name: Tensor}` and `load_state_dict(state)` goes on after the last task it
learned, the last member or sparsity it yielded; any other starts its job again. The state holds all that the method
needs beside the networks; a network that is given layers of its own cannot be restored. The record is the same as an
undisturbed job's, to the bit.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fipbench.cache import read_kept, write_kept
from fipbench.data.batches import Batch
from fipbench.spec import Job, digest, id_of

# A job that is stopped loses at least so much; a shorter one is sooner done again than kept.
INTERVAL_S = 10.0


def offers_state(method: Any) -> bool:
    """Whether a method can be stopped and go on."""
    return callable(getattr(method, "state_dict", None)) and callable(getattr(method, "load_state_dict", None))


class Counted(Iterator[Batch]):
    """A stream of batches that knows how many were taken."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches = batches
        self.taken = 0

    def __next__(self) -> Batch:
        self.taken += 1
        return next(self.batches)

    def skip_to(self, taken: int) -> None:
        """Leave out those that an earlier process took."""
        skip = getattr(self.batches, "skip", self.batches.__next__)
        while self.taken < taken:
            self.taken += 1
            skip()


class Partial:
    """The unfinished work of one job, in one file of the cache; whoever holds the job's lock may use it."""

    def __init__(self, job: Job, cache: Path) -> None:
        # Half a job by one version and half by another would be nobody's number.
        made_by = digest([version("fipbench"), version("torch")])[:8]
        self.path = cache / "partial" / f"{id_of(job)}-{made_by}.safetensors"
        # Seconds that earlier processes of the job spent on what was kept.
        self.earlier_s = 0.0
        self._began = self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts last saved; None if there are none that are whole."""
        from safetensors import SafetensorError

        try:
            tensors, facts = read_kept(self.path)
        except (OSError, ValueError, SafetensorError):
            return None
        self.earlier_s = float(facts["wall_s"])
        # In the order in which they were: what is summed over them is rounded alike.
        return {name: tensors[name] for name in facts["names"]}, facts

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep tensors and facts (JSON) in place of what was kept before, unless that is young."""
        if time.monotonic() - self._saved < INTERVAL_S:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        facts = {**facts, "names": list(tensors), "wall_s": self.earlier_s + time.monotonic() - self._began}
        write_kept(self.path, {name: value.detach().cpu().clone() for name, value in tensors.items()}, facts)
        self._saved = time.monotonic()

    def drop(self) -> None:
        """The job is done."""
        self.path.unlink(missing_ok=True)


def under(tensors: dict[str, Tensor], group: str, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of one group by their own names, on a device."""
    return {k.removeprefix(f"{group}/"): v.to(device) for k, v in tensors.items() if k.startswith(f"{group}/")}


def state_of(trial: Any, **groups: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The groups of tensors, what a trial's meter has counted, and the state of all generators that a method may draw
    from: the trial's, and those of torch, NumPy and Python, from which it should not but may."""
    import numpy as np

    state: Any = np.random.get_state()
    kind, keys, *rest = state
    version, internal, gauss = random.getstate()
    tensors = {f"{group}/{name}": value for group, found in groups.items() for name, value in found.items()}
    tensors |= {
        "generator/choices": trial.generator.get_state(),
        "generator/torch": torch.get_rng_state(),
        "generator/numpy": torch.from_numpy(keys.astype("int64")),
    }
    return tensors, {
        "spent": [trial.meter.forward, trial.meter.backward],
        "numpy": [kind, *rest],
        "python": [version, list(internal), gauss],
    }


def restore(trial: Any, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Put meter and generators back into that state."""
    import numpy as np

    generators = under(tensors, "generator")
    trial.generator.set_state(generators["choices"])
    torch.set_rng_state(generators["torch"])
    kind, *rest = facts["numpy"]
    np.random.set_state((kind, generators["numpy"].numpy().astype("uint32"), *rest))
    version, internal, gauss = facts["python"]
    random.setstate((version, tuple(internal), gauss))
    trial.meter.forward, trial.meter.backward = facts["spent"]
