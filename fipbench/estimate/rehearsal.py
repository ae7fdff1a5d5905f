"""A method's own share of the cap, found by letting it run on a few made-up batches under the harness's meter.

Nothing is learned by it: what counts is how many examples go forward and backward, and how long that takes. What a
method does once a task (Fisher information, outputs noted) is told from what it does each step by rehearsals of no
steps and of a few, with fewer examples and with more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import torch
from torch import nn

from fipbench import models
from fipbench.estimate.counts import is_text
from fipbench.spec import CompositionTask, ConnectivityTask, ContinualTask, Model, RobustnessTask, SparsityTask, Task
from fipbench.tracks import composition, composition_plan, connectivity, continual, robustness, sparsity
from fipbench.tracks.partial import Counted
from fipbench.training import Examples, Meter, stream

# Examples a task and steps a task of a rehearsal; training steps after the base network's in the other tracks.
ROWS, STEPS, ENOUGH = 2048, 4, 60
# Examples a task where that takes too long: what is done with no more than so many of them is then overrated.
FEW_ROWS = 256


class TooLong(Exception):
    """A rehearsal took longer than it may."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a method spends in one job, base network not included; seconds of the processor, 0 where not measured."""

    forward: float
    backward: float
    seconds: float = 0.0


Make = Callable[[], Any]


def rehearse(
    task: Task,
    make: Make,
    memory: int,
    role: str,
    train: Sequence[int],
    model: Model,
    deadline: float,
    most: int = ROWS,
) -> Spent:
    """What the method that `make` makes will spend on the task with `train` examples a part.

    Args:
        model: the task's own, or a smaller one of its kind (the passes are the same, the seconds are not).
        deadline: by `time.process_time`.
        most: examples a task of the stream.

    Raises:
        TooLong: it is not done by then.
        Exception: whatever the method raises.
    """
    if isinstance(task, ContinualTask):
        if role == "reference":
            return _reference(task, make, train, model, deadline)
        return _continual(task, make, memory, train, model, deadline, most)
    if isinstance(task, CompositionTask):
        return _composition(task, make, train, model, deadline)
    assert isinstance(task, SparsityTask | RobustnessTask | ConnectivityTask)
    size = task.budget.batch_size
    trained = task.base.epochs * _bases(task)
    left = max(1, task.budget.epochs - trained)
    rows = min(size * -(-ENOUGH // left), train[0] // size * size)
    spent = _by_budget(task, make, role, rows, model, deadline)
    return _times(spent, train[0] / rows)


def made_up(spec: Model, rows: int, classes: Sequence[int]) -> Examples:
    """`rows` times the same random input, in the memory of one, with the labels in turn."""
    generator = torch.Generator().manual_seed(0)
    if is_text(spec):
        one = torch.randint(1, spec.vocabulary or 100, (1, *spec.inputs), generator=generator)
    else:
        one = torch.randint(0, 256, (1, *spec.inputs), generator=generator, dtype=torch.uint8)
    labels = torch.tensor(list(classes))[torch.arange(rows) % len(classes)]
    return Examples(one.expand(rows, *spec.inputs), labels)


def smaller(spec: Model) -> Model:
    """A network of the same kind that takes next to no time."""
    if is_text(spec):
        return Model(name="bert", inputs=spec.inputs, outputs=spec.outputs, vocabulary=100, width=8, depth=1, heads=2)
    if spec.name in ("vit", "clip"):
        few = Model(name="vit", inputs=spec.inputs, outputs=spec.outputs, width=8, depth=1, heads=2, pixels=16, patch=8)
        return msgspec.structs.replace(few, mean=spec.mean, std=spec.std)
    changed: dict[str, Any] = {"hidden": tuple(min(16, n) for n in spec.hidden)}
    if spec.channels:
        changed["channels"] = tuple(min(4, n) for n in spec.channels)
    if spec.name == "resnet" and spec.depth:
        changed["depth"] = 1
    return msgspec.structs.replace(spec, **changed)


def _meter(deadline: float, limit: int = 0, spent: tuple[int, int] = (0, 0)) -> Meter:
    def watch(share: float) -> None:
        if time.process_time() > deadline:
            raise TooLong

    meter = Meter(limit, spent)
    meter.tick = watch
    return meter


def _since(meter: Meter, before: tuple[int, int, float]) -> Spent:
    forward, backward, began = before
    return Spent(
        forward=meter.forward - forward, backward=meter.backward - backward, seconds=time.process_time() - began
    )


def _times(spent: Spent, factor: float) -> Spent:
    return Spent(forward=spent.forward * factor, backward=spent.backward * factor, seconds=spent.seconds * factor)


def _line(low: Spent, high: Spent, at: float) -> Spent:
    """On the line through `low` (at 0) and `high` (at 1); nothing is less than none."""
    pairs = zip(msgspec.structs.astuple(low), msgspec.structs.astuple(high), strict=True)
    forward, backward, seconds = (max(0.0, a + (b - a) * at) for a, b in pairs)
    return Spent(forward=forward, backward=backward, seconds=seconds)


def _sum(parts: Sequence[Spent]) -> Spent:
    rows = [msgspec.structs.astuple(part) for part in parts]
    forward, backward, seconds = (float(sum(column)) for column in zip(*rows, strict=True))
    return Spent(forward=forward, backward=backward, seconds=seconds)


def _continual(
    task: ContinualTask,
    make: Make,
    memory: int,
    train: Sequence[int],
    model: Model,
    deadline: float,
    most: int,
) -> Spent:
    """Of every task of the stream: once a task, on a line in its examples, and in proportion to its steps."""
    many = [min(n, max(most, 2 * memory)) for n in train]
    few = [max(task.budget.batch_size, memory, n // 2) for n in many]
    run = partial(_stream, task, make, memory, model, deadline)
    idle, more = run(many, [0] * len(many)), run(many, [STEPS] * len(many))
    less = run(few, [0] * len(few)) if any(a < b for a, b in zip(many, train, strict=True)) else idle
    total = []
    for number, rows in enumerate(train):
        epochs, size = (
            (task.budget.epochs, task.budget.batch_size) if number else (task.base.epochs, task.base.batch_size)
        )
        a, b = few[number], many[number]
        once = _line(less[number], idle[number], (rows - a) / (b - a)) if rows > b > a else idle[number]
        each = _line(idle[number], more[number], epochs * (rows // size) / STEPS)
        total += [once, _less(each, idle[number])]
    return _sum(total)


def _less(spent: Spent, other: Spent) -> Spent:
    pairs = zip(msgspec.structs.astuple(spent), msgspec.structs.astuple(other), strict=True)
    forward, backward, seconds = (max(0.0, a - b) for a, b in pairs)
    return Spent(forward=forward, backward=backward, seconds=seconds)


def _reference(task: ContinualTask, make: Make, train: Sequence[int], model: Model, deadline: float) -> Spent:
    """It may train as it likes: one batch a task and two, all epochs, and on that line."""
    size = max(task.budget.batch_size, task.base.batch_size)
    found = []
    for batches in (1, 2):
        steps = [(task.budget.epochs if number else task.base.epochs) * batches for number in range(len(train))]
        found.append(_sum(_stream(task, make, 0, model, deadline, [batches * size] * len(train), steps)))
    return _line(found[0], found[1], sum(train) / len(train) / size - 1)


def _stream(
    task: ContinualTask,
    make: Make,
    memory: int,
    model: Model,
    deadline: float,
    rows: Sequence[int],
    steps: Sequence[int],
) -> list[Spent]:
    """What each task of a made-up stream took; the base network is that of `steps[0]` steps."""
    classes = task.stream.classes or (tuple(range(model.outputs)),) * task.stream.length
    network = models.build(model, 0)
    first = made_up(model, rows[0], classes[0])
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    batches = partial(_batches, first, task.base.batch_size)
    criterion = continual.Criterion(None)
    rule = continual.optimizer(
        task.base.optimizer,
        network.parameters(),
        task.base.learning_rate,
        task.base.momentum,
        task.base.weight_decay,
    )
    continual.fit(network, batches(), steps=steps[0], optimizer=rule, loss=criterion.loss, clip=task.base.clip or 0.0)
    meter = _meter(deadline)
    trial = continual.Trial(
        batch_size=task.budget.batch_size,
        recipe=task.base,
        memory=memory,
        generator=torch.Generator().manual_seed(0),
        meter=meter,
        first=continual.First(initial=initial, batches=batches, steps=steps[0]),
        criterion=criterion,
        drawing=lambda purpose: torch.Generator().manual_seed(0),
        tasks=len(rows),
    )
    learn = continual._learner(make())
    meter.attach(network)
    found = []
    for number, (n, count) in enumerate(zip(rows, steps, strict=True)):
        part = made_up(model, n, classes[number])
        own = _batches(part, task.budget.batch_size)
        before = meter.forward, meter.backward, time.process_time()
        learn(network, continual.Experience(number, classes[number], part, own, count if number else 0), trial)
        found.append(_since(meter, before))
    return found


def _batches(examples: Examples, size: int) -> Any:
    return stream(examples, size, torch.Generator().manual_seed(0))


def _bases(task: Task) -> int:
    """Base networks that a job's budget pays for."""
    return 2 if isinstance(task, ConnectivityTask) else 1


def _composition(task: CompositionTask, make: Make, train: Sequence[int], model: Model, deadline: float) -> Spent:
    """One operation of each kind with fewer examples: as many of them as the task has, in proportion to the budget."""
    size, half = task.budget.batch_size, model.outputs // 2
    network, known, found = models.build(model, 0), {}, []
    for step in composition_plan.steps_of(task):
        # A network that is sparse already makes no other work of learning.
        kind = (step.kind, step.source)
        if kind not in known:
            # The memory is there once, whatever the examples: it may not swamp them.
            least = max(size * -(-ENOUGH // task.budget.epochs), 2 * task.memory)
            rows = min(train[step.source], least) // size * size
            meter = _meter(deadline, composition_plan.passes_of(task, step, [rows, rows]))
            examples = made_up(model, rows, range(half) if step.source == 0 else range(half, model.outputs))
            kept = composition.Memory(made_up(model, task.memory, range(half))) if step.remembers else None
            operation = composition.Operation(step.kind, step.sparsity, examples, _batches(examples, size), kept)
            trial = composition.Trial(size, task.base, torch.Generator().manual_seed(0), meter)
            before = 0, 0, time.process_time()
            make()(meter.attach(composition.unhooked(network)), operation, trial)
            known[kind] = _times(_since(meter, before), train[step.source] / rows)
        found.append(known[kind])
    return _sum(found)


def _by_budget(
    task: SparsityTask | RobustnessTask | ConnectivityTask,
    make: Make,
    role: str,
    rows: int,
    model: Model,
    deadline: float,
) -> Spent:
    """A job with that many examples: budget, base network and all that goes by the data shrink alike."""
    train = made_up(model, rows, range(model.outputs))
    base = task.base.epochs * rows * _bases(task)
    meter = _meter(deadline, 2 * task.budget.epochs * rows, (base, base))
    network = models.build(model, 0)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    given: dict[str, Any] = {
        "train": train,
        "batches": Counted(_batches(train, task.budget.batch_size)),
        "batch_size": task.budget.batch_size,
        "recipe": task.base,
        "generator": torch.Generator().manual_seed(0),
        "meter": meter,
    }
    method = make()
    meter.attach(network)
    before = meter.forward, meter.backward, time.process_time()
    if isinstance(task, SparsityTask):
        snapshots = {epoch: weights for epoch in task.base.snapshots if epoch < max(1, task.base.epochs)}
        levels = (0.0,) if role == "reference" else task.sparsities
        for _ in method(network, levels, sparsity.Trial(snapshots=snapshots, **given)):
            pass
    elif isinstance(task, ConnectivityTask):
        other = meter.attach(models.build(model, 1))
        for _ in method(network, other, connectivity.Trial(**given)):
            pass
    else:
        fresh: Callable[[int], nn.Module] = lambda k: meter.attach(models.build(model, k + 1))  # noqa: E731
        for _ in method(network, robustness.Trial(members=task.members, fresh=fresh, **given)):
            pass
    return _since(meter, before)
