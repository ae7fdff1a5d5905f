"""Whether memory stays flat: of `fit` over optimiser steps, of FIP on the continual track over past tasks.

Peaks of processes that train for few steps and for many, or learn few tasks and many; what the examples that the tasks
store take is taken off, as a method may keep these.

python -m benchmarks.memory [--json]
"""

import os
import subprocess
import sys

import torch

from benchmarks import continual_step
from benchmarks.timing import Finding, main, peak
from fipbench import models
from fipbench.registry import find_methods, load_factory
from fipbench.spec import Model
from fipbench.training import Meter, fit, optimizer, stream

NETWORK = Model(name="mlp", inputs=(1, 28, 28), hidden=(1000, 1000), outputs=50)
BATCH = 64
STEPS, TASKS = (100, 1000), (2, 20)


def steps(count):
    """`fit` with the meter for so many steps, by Adam."""
    data = continual_step.images((1, 28, 28), 10 * BATCH, 1)
    model = Meter(limit=10**12).attach(models.build(NETWORK, 0))
    batches = stream(data, BATCH, torch.Generator().manual_seed(0))
    fit(model, batches, steps=count, optimizer=optimizer("adam", model.parameters(), 1e-3))
    return 0.0


def tasks(count):
    """FIP over so many tasks of ten steps; MB of the examples that it keeps."""
    model, given = models.build(NETWORK, 0), continual_step.trial()
    learn = load_factory(find_methods("continual")["fip"])(memory=continual_step.BATCH)
    for number in range(count):
        data = continual_step.images((1, 28, 28), 10 * BATCH, number)
        learn(model, continual_step.experience(number, data, 10 if number else 0), given)
    return sum(part.inputs.nbytes + part.labels.nbytes for part in given.kept.values()) / 1e6


WAYS = {"steps": steps, "tasks": tasks}


def peak_of(way, count):
    """Peak memory in MB of a process, without the examples it keeps."""
    command = [sys.executable, "-m", __spec__.name, way, str(count)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    whole, kept = map(float, done.stdout.split())
    return whole - kept


def measure(rounds):
    """Whether memory stays flat."""
    for way, (few, many), what in (
        ("steps", STEPS, "of `fit` from {} to {:,} optimiser steps"),
        ("tasks", TASKS, "of FIP from {} to {} tasks, without the examples stored"),
    ):
        small, large = (min(peak_of(way, count) for _ in range(rounds)) for count in (few, many))
        growth = 100 * (large / small - 1)
        yield Finding(
            what=f"growth of peak memory {what.format(few, many)}",
            value=growth,
            low=growth,
            high=growth,
            unit="%",
            most=2,
            clock="peak memory",
            details={f"peak at {few}, MB": small, f"peak at {many:,}, MB": large},
        )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        torch.set_num_threads(1)
        kept = WAYS[sys.argv[1]](int(sys.argv[2]))
        print(peak(), kept)
        raise SystemExit(0)
    raise SystemExit(main(measure, rounds=1))
