"""What a job has to do, from its task alone: its examples, the cap, the base network, the harness's own passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fipbench import stock
from fipbench.data.sizes import Size, size_of
from fipbench.spec import CompositionTask, ConnectivityTask, ContinualTask, Data, RobustnessTask, SparsityTask, Task
from fipbench.tracks import composition_plan

# Pieces of BERT's vocabulary to a word of WikiText, as measured on its validation split (225,018 to 217,646 words);
# another corpus has more. A window has two more tokens, its start and its end.
PIECES, ENDS = 1.03, 2


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Examples that go through networks for one job, beside what the method itself does with them.

    Attributes:
        train, test: rows that each task of the stream has (one entry outside the continual track).
        base: examples that the base network is trained on, forward and as many backward.
        cap: passes, forward and backward together, base network included, that the budget allows; 0 for no cap.
        harness_forward, harness_backward: examples that the harness itself scores or attacks with: nobody's cost, but
            time. Attacks at their most: an example that is fooled early is spared the rest.
        networks: base networks that the task trains a seed.
        scored: items a record holds the correctness of.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    base: int
    cap: int
    harness_forward: int = 0
    harness_backward: int = 0
    networks: int = 1
    scored: int = 0


def sizes_of(task: Task, cache: Path) -> list[Size] | None:
    """Sizes of the task's data sets; None unless all are known. A corpus has windows, by its number of words."""
    found = [
        _windows(task, source) if source.is_corpus else size_of(source, cache, stock.about(source).examples or None)
        for source in task.sources
    ]
    known = [size for size in found if size is not None]
    return known if len(known) == len(found) else None


def _windows(task: Task, source: Data) -> Size | None:
    if not (words := stock.about(source).words):
        return None
    pieces = task.model.inputs[0] - ENDS
    return Size(train=int(words["train"] * PIECES / pieces), test=int(words["test"] * PIECES / pieces))


def as_trained(task: Task) -> Task:
    """The task with texts of the length that its training batches have on average, where that is known.

    A pretrained network cuts a batch to its longest text. Batches of like lengths have the mean of the texts' lengths;
    in others the expected longest of as many draws from the stated ten is taken. Evaluation reads as the data come.
    """
    stated = [stock.about(source).tokens for source in task.sources]
    if task.model.name != "transformer" or not all(stated):
        return task
    most, drawn = task.model.inputs[0], 1 if task.group_by_length else task.budget.batch_size
    longest = [_expected_longest([min(n, most) for n in tokens], drawn) for tokens in stated if tokens]
    model = msgspec.structs.replace(task.model, inputs=(round(sum(longest) / len(longest)),))
    return msgspec.structs.replace(task, model=model)


def _expected_longest(rising: Sequence[int], draws: int) -> float:
    """Mean of the largest of that many draws from the numbers, each as likely as the others."""
    n = len(rising)
    return sum(value * (((i + 1) / n) ** draws - (i / n) ** draws) for i, value in enumerate(rising))


def cap_of(task: Task, sizes: Sequence[Size]) -> int:
    """Passes, forward and backward together and base network included, that the budget of one job allows.

    Needs no torch. A reference of the continual track has no cap.
    """
    if isinstance(task, CompositionTask):
        return composition_plan.cap_of(task, [task.subset or size.train for size in sizes])
    if not isinstance(task, ContinualTask):
        return 2 * task.budget.epochs * (task.subset or sizes[0].train)
    return int(2 * _plain(task, parts_of(task, sizes, "train")) * (task.budget.factor or 1))


def work(task: Task, sizes: Sequence[Size], *, reference: bool = False) -> Work:
    """The work of one job of the task; for a `reference` the harness attacks one network, not all members."""
    if isinstance(task, ContinualTask):
        return _continual(task, sizes)
    if isinstance(task, CompositionTask):
        return _composition(task, sizes)
    train, test = task.subset or sizes[0].train, task.test_subset or sizes[0].test
    base = task.base.epochs * _full(train, task.base.batch_size)
    found = Work(train=(train,), test=(test,), base=base, cap=cap_of(task, sizes))
    if isinstance(task, RobustnessTask):
        from fipbench.attacks import AUTO_GUESSES, AUTO_STEPS, AUTO_TARGETS

        items = min(task.attack.items or test, test)
        members = 1 if reference else task.members
        radii = len(task.attack.epsilons)
        searched = items * members * radii * _queries(task)
        # Of AutoAttack its gradients, and its guesses, which are forward passes alone.
        auto = min(task.attack.autoattack or 0, items) * members * radii
        aims = min(AUTO_TARGETS, task.model.outputs - 1)
        climbed = auto * AUTO_STEPS * (1 + 2 * aims)
        transferred = items * radii * task.attack.steps
        scored = 2 * members * test + items
        return msgspec.structs.replace(
            found,
            harness_forward=searched + transferred + scored + climbed + auto * AUTO_GUESSES,
            harness_backward=searched + transferred + climbed,
            networks=2,
            scored=test + items * radii,
        )
    if isinstance(task, ConnectivityTask):
        # Both networks are base networks, and their cost is the method's.
        return msgspec.structs.replace(found, base=2 * base, harness_forward=(task.points + 2) * test, scored=test)
    if isinstance(task, SparsityTask):
        levels = len(task.sparsities)
        return msgspec.structs.replace(found, harness_forward=(1 + levels) * test, scored=levels * test)
    return found


def _continual(task: ContinualTask, sizes: Sequence[Size]) -> Work:
    train, test = parts_of(task, sizes, "train"), parts_of(task, sizes, "test")
    looks = sum(probes(task.budget.epochs * (n // task.budget.batch_size)) for n in train[1:])
    probed = sum(min(task.probes, n) for n in test)
    return Work(
        train=train,
        test=test,
        base=task.base.epochs * _full(train[0], task.base.batch_size),
        cap=cap_of(task, sizes),
        # The untrained network, and the one after each task, on all test items.
        harness_forward=looks * probed + (1 + len(train)) * sum(test),
        scored=len(task.stream.score) * sum(test),
    )


def _composition(task: CompositionTask, sizes: Sequence[Size]) -> Work:
    train = tuple(task.subset or size.train for size in sizes)
    test = tuple(task.test_subset or size.test for size in sizes)
    ends = 2 * len(task.sparsities)
    return Work(
        train=train,
        test=test,
        base=task.base.epochs * _full(train[0], task.base.batch_size),
        cap=cap_of(task, sizes),
        harness_forward=(1 + len(composition_plan.steps_of(task))) * sum(test),
        scored=ends * sum(test),
    )


def _plain(task: ContinualTask, train: Sequence[int]) -> int:
    """Examples that fine-tuning takes through the whole stream."""
    epochs = [task.base.epochs] + [task.budget.epochs] * (len(train) - 1)
    return sum(e * n for e, n in zip(epochs, train, strict=True))


def retraining(task: ContinualTask, train: Sequence[int]) -> int:
    """Examples of training anew, after every task, on all tasks so far: for a reference, which has no cap."""
    return sum(task.budget.epochs * sum(train[:number]) for number in range(2, len(train) + 1))


def probes(steps: int) -> int:
    """How many of the first `steps` steps the harness looks at a learning network, step 0 included."""
    from fipbench.tracks.continual_scores import _is_probed

    return 1 + sum(_is_probed(step) for step in range(1, steps + 1))


def parts_of(task: ContinualTask, sizes: Sequence[Size], split: str) -> tuple[int, ...]:
    """Rows of each task of the stream; classes are taken to be of one size where their sizes are not known."""
    rows = [getattr(size, split) for size in sizes]
    part = task.subset if split == "train" else task.test_subset
    drawn = [min(part, n) if part else n for n in rows]
    if task.stream.permutations:
        return (sum(drawn),) * task.stream.permutations
    labels = [getattr(size, f"{split}_labels") for size in sizes]
    if all(labels):
        counts: dict[int, float] = {}
        offset = 0
        for found, all_of_them, taken in zip(labels, rows, drawn, strict=True):
            counts |= {offset + label: n * taken / all_of_them for label, n in found.items()}
            offset += max(found) + 1
        return tuple(round(sum(counts.get(c, 0) for c in classes)) for classes in task.stream.classes)
    if len(task.stream.classes) == len(drawn):
        return tuple(drawn)
    number = sum(len(classes) for classes in task.stream.classes)
    return tuple(sum(drawn) * len(classes) // number for classes in task.stream.classes)


def decoded_bytes(task: Task, source: Data, size: Size) -> int:
    """A data set once decoded: from its files, or as bytes of pixels (tokens of four bytes) and labels. Of images that
    stay on disk their digests and labels."""
    if source.streamed:
        return size.kept_bytes or (size.train + size.test) * (32 + 8)
    each = 1
    for extent in task.model.inputs:
        each *= extent
    return size.kept_bytes or (size.train + size.test) * (each * (4 if source.is_text else 1) + 8)


def _queries(task: RobustnessTask) -> int:
    """Gradients of an example that the white-box attacks take at one radius, at most."""
    from fipbench.attacks import TARGETS

    attack = task.attack
    return attack.restarts * attack.steps + (1 + min(TARGETS, task.model.outputs - 1)) * attack.apgd_steps


def _full(rows: int, batch: int) -> int:
    """Rows in an epoch's full batches."""
    return rows // batch * batch
