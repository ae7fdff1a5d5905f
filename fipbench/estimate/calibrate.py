"""A process of its own that times the task's network on this machine and rehearses its methods.

python -m fipbench.estimate.calibrate < question.json > answer.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import msgspec

from fipbench.errors import UserError
from fipbench.estimate.rehearsal import Spent
from fipbench.spec import TASK_TYPES, Params, Task

# Seconds of the processor that timing may take, and one method's rehearsal.
TIMING_S, REHEARSAL_S = 1.0, 6.0
# A rehearsal with the task's own network is made where it should take no longer than this; else with a smaller one.
OWN_S = 3.0
# A timed step of no more than this, for each thread; examples at a time in evaluation and under attack.
AFFORDABLE_FLOPS, _EVALUATED = 1e11, 300
# Steps timed as one, so that what a call of `fit` takes besides does not count.
_TOGETHER = 5
# A network is not timed where a step of two examples takes more than this.
MOST_FLOPS = 1e12


class Asked(msgspec.Struct, frozen=True):
    """A row of the task's board to be: where its method is, and with what."""

    target: str
    params: Params
    role: str


class Question(msgspec.Struct, frozen=True):
    """What is to be calibrated; `train`: examples of each part of the task; no rows rehearse none.

    `timed`: whether the network is.
    """

    task: dict[str, Any]
    train: tuple[int, ...]
    rows: tuple[Asked, ...]
    step_flops: float
    timed: bool
    preload: tuple[str, ...]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        step_s: of one training step of the task's batch; forward_s: of one example in evaluation; 0 where not timed.
        resident_bytes: of the process with all its libraries and before any work.
        spent: of each row; None where it could not be rehearsed.
    """

    step_s: float
    forward_s: float
    resident_bytes: int
    spent: tuple[Spent | None, ...]


def calibrate(question: Question) -> Calibration:
    """Ask a new process, so that threads and memory are those of a job.

    Raises:
        UserError: it died.
    """
    done = subprocess.run(
        # -P: a file in the user's folder must not stand in for a library.
        [sys.executable, "-P", "-m", "fipbench.estimate.calibrate"],
        input=msgspec.json.encode(question),
        capture_output=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"calibration failed ({said[-1][:160] if said else 'no reason given'}); use --no-calibrate")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Calibration)


def answer(question: Question) -> Calibration:
    """Time the network, then rehearse each row."""
    import importlib

    import psutil
    import torch

    from fipbench.determinism import deterministic

    for name in question.preload:
        module, _, attribute = name.partition(":")
        loaded = importlib.import_module(module)
        if attribute:
            getattr(loaded, attribute)()
    task = msgspec.convert(question.task, TASK_TYPES[question.task["track"]])
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    resident = psutil.Process().memory_info().rss
    with deterministic("cpu"):
        step_s, forward_s = _timed(task, question.step_flops) if question.timed else (0.0, 0.0)
        spent = [_rehearsed(task, row, question.train, step_s) for row in question.rows]
    return Calibration(step_s=step_s, forward_s=forward_s, resident_bytes=resident, spent=tuple(spent))


def _timed(task: Task, step_flops: float) -> tuple[float, float]:
    """Seconds of a training step and of an example in evaluation."""
    import torch

    from fipbench.estimate.counts import untrained
    from fipbench.estimate.rehearsal import made_up
    from fipbench.training import Meter, cross_entropy, fit, optimizer, predict, stream

    size, base = task.budget.batch_size, task.base
    # A batch that would take long is timed in part.
    affordable = int(size * AFFORDABLE_FLOPS * task.threads / max(step_flops, 1.0))
    taken = max(2, min(size, affordable))
    together = _TOGETHER if taken == size else 1
    network = Meter().attach(untrained(task.model))
    rule = optimizer(base.optimizer, network.parameters(), base.learning_rate, base.momentum, base.weight_decay)
    examples = made_up(task.model, 10 * taken, range(task.model.outputs))
    batches = stream(examples, taken, torch.Generator().manual_seed(0))

    def step() -> None:
        fit(network, batches, steps=together, optimizer=rule, loss=cross_entropy, clip=base.clip or 0.0)

    many = made_up(task.model, max(2, min(_EVALUATED, affordable)), range(task.model.outputs))
    step_s = _seconds(step, task.threads) * size / taken / together
    return step_s, _seconds(lambda: predict(network, many), task.threads) / len(many.labels)


def _seconds(work: Any, threads: int) -> float:
    """Median seconds: of the processor for one thread, whatever else the machine does; else of the wall."""
    clock = time.process_time if threads == 1 else time.perf_counter
    found: list[float] = []
    began = clock()
    work()
    while not found or (clock() - began < TIMING_S / 2 and len(found) < 200):
        start = clock()
        work()
        found.append(clock() - start)
    return sorted(found)[len(found) // 2]


def _rehearsed(task: Task, row: Asked, train: tuple[int, ...], step_s: float) -> Spent | None:
    """What the row's method will spend; None if its rehearsal failed or took too long."""
    from fipbench import registry
    from fipbench.estimate import rehearsal

    factory, memory = registry.load_factory(row.target), int(row.params.get("memory", 0))
    own = not task.model.weights and 0 < step_s * rehearsal.ENOUGH < OWN_S
    small = rehearsal.smaller(task.model)
    tries = [(task.model, rehearsal.ROWS), (small, rehearsal.ROWS), (small, rehearsal.FEW_ROWS)]
    for model, most in tries[not own :]:
        deadline = time.process_time() + REHEARSAL_S
        try:
            spent = rehearsal.rehearse(
                task, lambda: factory(**row.params), memory, row.role, train, model, deadline, most
            )
        except rehearsal.TooLong:
            continue
        except Exception:
            return None
        timed = model is not small and task.threads == 1
        return spent if timed else msgspec.structs.replace(spent, seconds=0.0)
    return None


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    print(msgspec.json.encode(answer(asked)).decode())
