"""Parameters, FLOPs, examples, disk, memory and time of a task's methods, put together.

Counts come from torch's meta device, examples from the task's budget and, if calibrated, from a rehearsal of each
method; seconds from timing a few steps here, or from a device's data sheet at an assumed utilisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fipbench import stock
from fipbench.errors import UserError
from fipbench.estimate import devices, fits
from fipbench.estimate.calibrate import MOST_FLOPS, Asked, Calibration, Question, calibrate
from fipbench.estimate.counts import Counts, count
from fipbench.estimate.devices import Device
from fipbench.estimate.rehearsal import Spent
from fipbench.estimate.work import Work, as_trained, decoded_bytes, retraining, sizes_of, work
from fipbench.plan import Row
from fipbench.spec import ContinualTask, RobustnessTask, SparsityTask, Task

# Assumed where nothing was timed: what a process holds with its libraries, and what a GPU's own holds there.
LIBRARIES_BYTES = 450 * 10**6
# Read, checked against its digest and searched for repeats: seconds for each byte of decoded data.
READING_S = 2e-8
# Seconds that a thread takes to read, decode and cut a streamed image: a JPEG of 500 by 375, a common size in ImageNet.
DECODING_S = 6e-3
# Rows at a time in evaluation (`fipbench.training.predict`).
_EVALUATED = 1000
# What a record holds beside the correctness of items: metrics, curves, protocol, provenance.
_RECORD_BYTES = 10_000


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one task, for one seed.

    Attributes:
        known: how its examples are known: `rehearsed`, `cap` (no more than that) or `no cap` (a reference that was not
            rehearsed: as if trained anew on all tasks so far).
        seconds: the training of the shared base network included, as in records.
    """

    label: str
    memory: int | None
    known: str
    forward_examples: int
    backward_examples: int
    flops: float
    seconds: float
    memory_bytes: int


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a task takes.

    Attributes:
        counts: of the network; its FLOPs are those of an example in training, where texts have `tokens` on average (0:
            all have the length that the task says).
        base_s: seconds of one base network; a seed's jobs share as many as `work` says.
        state_bytes: parameters, gradients and optimiser state; `unfit` says why they exceed the device, or nothing.
        data_bytes, cache_bytes, records_bytes: on disk, the latter two for all seeds.
    """

    task: str
    device: str
    seeds: int
    calibrated: bool
    counts: Counts
    tokens: int
    work: Work
    lines: tuple[Line, ...]
    base_s: float
    state_bytes: int
    unfit: str
    data_bytes: int
    cache_bytes: int
    records_bytes: int

    @property
    def seconds(self) -> float:
        """Of all jobs and seeds one after the other; base networks are trained once a seed."""
        own = sum(line.seconds - self.base_s for line in self.lines)
        return self.seeds * (own + self.work.networks * self.base_s)


def estimate(
    task: Task, rows: Sequence[Row], *, seeds: int, cache: Path, device: str = "cpu", calibrated: bool = True
) -> Estimate:
    """What the rows take on the task, for seeds 0 .. seeds - 1.

    Raises:
        UserError: an unknown device, a data set whose size is not known, a pretrained network that is not at hand.
    """
    where = devices.device_named(device)
    sizes = sizes_of(task, cache)
    if sizes is None:
        names = ", ".join(source.repo for source in task.sources)
        raise UserError(f"task '{task.name}': the size of its data ({names}) is not known; set FIPBENCH_DATA")
    due, counts, trained = work(task, sizes), count(task.model), as_trained(task)
    learning = counts if trained is task else count(trained.model)
    alone = work(task, sizes, reference=True)
    unfit = fits.problem(task, counts.parameters, devices.memory_of(where), _named(where))
    found = None if unfit or not calibrated else _calibration(trained, rows, due, learning, where)
    step_s, forward_s = _speed(trained, learning, where, found)
    forward_s *= counts.forward_flops / learning.forward_flops
    base_s = due.base / task.budget.batch_size * step_s
    stored = sum(decoded_bytes(task, *pair) for pair in zip(task.sources, sizes, strict=True))
    streamed = [stock.about(source).bytes or 0 for source in task.sources if source.streamed]
    resident = found.resident_bytes if found and not where.rate else LIBRARIES_BYTES
    memory = resident + working_bytes(task, counts, due, stored)
    lines = []
    for number, row in enumerate(rows):
        rehearsed = found.spent[number] if found else None
        known, most = _bounded(task, row, due)
        spent = most
        if rehearsed and (known == "no cap" or rehearsed.forward + rehearsed.backward <= most.forward + most.backward):
            known, spent = "rehearsed", rehearsed
        passes_s = (spent.forward + spent.backward) / 2 / task.budget.batch_size * step_s
        own = alone if row.method.role == "reference" else due
        harness_s = (own.harness_forward + 2 * own.harness_backward) * forward_s + READING_S * stored
        forward, backward = round(due.base + spent.forward), round(due.base + spent.backward)
        decoded_s = (forward + own.harness_forward) * DECODING_S / task.threads if streamed else 0.0
        trained_s = spent.seconds if spent.seconds and not where.rate else passes_s
        seconds = base_s + harness_s + trained_s + decoded_s
        lines.append(
            Line(
                label=row.label,
                memory=int(row.params["memory"]) if "memory" in row.params else None,
                known=known,
                forward_examples=forward,
                backward_examples=backward,
                flops=float(forward) * learning.forward_flops + float(backward) * learning.backward_flops,
                seconds=seconds,
                memory_bytes=memory,
            )
        )
    snapshots = 1 + len(set(task.base.snapshots))
    return Estimate(
        task=task.name,
        device=where.name,
        seeds=seeds,
        calibrated=bool(found and found.step_s),
        counts=msgspec.structs.replace(
            counts, forward_flops=learning.forward_flops, backward_flops=learning.backward_flops
        ),
        tokens=0 if trained is task else trained.model.inputs[0],
        work=due,
        lines=tuple(lines),
        base_s=base_s,
        state_bytes=fits.state_bytes(task, counts.parameters),
        unfit=unfit,
        data_bytes=stored + sum(streamed),
        cache_bytes=seeds * due.networks * snapshots * counts.parameters * fits.FLOAT_BYTES,
        records_bytes=seeds * len(lines) * (_RECORD_BYTES + due.scored // 6),
    )


def _named(device: Device) -> str:
    return f"a {device.name}" if device.rate else "this machine"


def _calibration(task: Task, rows: Sequence[Row], due: Work, counts: Counts, device: Device) -> Calibration:
    from fipbench.code import imports_of
    from fipbench.tracks import preload

    flops = float(counts.forward_flops + counts.backward_flops)
    imported = {name for row in rows for name in imports_of(row.method.target)}
    return calibrate(
        Question(
            task=msgspec.to_builtins(task),
            train=due.train,
            rows=tuple(Asked(row.method.target, row.params, row.method.role) for row in rows),
            step_flops=flops * task.budget.batch_size,
            timed=not device.rate and 2 * flops <= MOST_FLOPS,
            preload=tuple(preload(task.track, task.model.name, imported)),
        )
    )


def _speed(task: Task, counts: Counts, device: Device, found: Calibration | None) -> tuple[float, float]:
    """Seconds of a training step, and of an example in evaluation."""
    step = float(counts.forward_flops + counts.backward_flops) * task.budget.batch_size
    if device.rate:
        rate, floor = device.rate * devices.UTILISATION, counts.layers * devices.LAYER_S
        return max(step / rate, floor), counts.forward_flops / rate + floor / _EVALUATED
    if found and found.step_s:
        return found.step_s, found.forward_s
    rate = devices.CPU_RATE * task.threads
    return step / rate + devices.CPU_STEP_S, counts.forward_flops / rate


def _bounded(task: Task, row: Row, due: Work) -> tuple[str, Spent]:
    """The most that the row may spend beside the base network."""
    if isinstance(task, ContinualTask) and row.method.role == "reference":
        again = float(retraining(task, due.train))
        return "no cap", Spent(forward=again, backward=again)
    left = due.cap / 2 - due.base
    return "cap", Spent(forward=left, backward=left)


def working_bytes(task: Task, counts: Counts, due: Work, data_bytes: int) -> int:
    """Bytes that a job takes beside its libraries: data, networks, the optimiser, activations."""
    # As read, without what repeats, and in the parts of a stream.
    copies = 3 + (len(due.train) - 1 if isinstance(task, ContinualTask) and task.stream.permutations else 0)
    # Base network, the method's own, what it learns from, the harness's, and weights at the last look.
    networks = 5 + (2 * task.members if isinstance(task, RobustnessTask) else 0)
    weights = counts.parameters * fits.FLOAT_BYTES * networks
    at_once = min(task.budget.batch_size, task.model.microbatch or task.budget.batch_size)
    # Of parts, gradients are there twice: a part's, and the sum so far.
    summed = counts.parameters * fits.FLOAT_BYTES if task.model.microbatch else 0
    batch = counts.activation_bytes * at_once + summed
    evaluated = 3 * counts.widest_bytes * min(task.model.microbatch or _EVALUATED, max(due.test))
    # The dense network's outputs on all training examples, which methods compare with, and on the test examples.
    kept = (sum(due.train) + 2 * max(due.test)) * task.model.outputs if isinstance(task, SparsityTask) else 0
    state = fits.state_bytes(task, counts.parameters)
    return kept * fits.FLOAT_BYTES + copies * data_bytes + weights + state + max(batch, evaluated)
