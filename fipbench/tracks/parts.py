"""The tasks of a stream: which examples of which data sets each has, what is seen of them and what is scored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from fipbench.errors import UserError
from fipbench.spec import ContinualTask, Job
from fipbench.tracks.common import splits
from fipbench.training import Examples


@dataclass(frozen=True)
class Part:
    """One task of the stream: its labels, what methods may see of it, what the harness scores on."""

    classes: tuple[int, ...]
    train: Examples
    scoring: Examples


def stream_of(task: ContinualTask, job: Job, cache: Path) -> tuple[list[Part], int]:
    """The tasks of the stream, and how many training examples were dropped from them.

    Raises:
        UserError: a class that the data does not have, or a task of less than a batch.
    """
    read = splits(task, job, cache)
    dropped = sum(split.dropped for split in read)
    classes = [int(torch.cat([split.train.labels, split.scoring.labels]).max()) + 1 for split in read]
    train = joined([split.train for split in read], classes)
    scoring = joined([split.scoring for split in read], classes)
    if task.stream.permutations:
        parts = [_permuted(task, number, train, scoring) for number in range(task.stream.permutations)]
    else:
        parts = [Part(classes, _only(train, classes), _only(scoring, classes)) for classes in task.stream.classes]
    batch = max(task.base.batch_size, task.budget.batch_size)
    for number, part in enumerate(parts, start=1):
        if absent := set(part.classes) - set(part.train.labels.tolist()):
            raise UserError(f"task '{task.name}', field 'stream.classes': the data has no class {min(absent)}")
        if len(part.train.labels) < batch:
            raise UserError(
                f"task '{task.name}', field 'budget.batch_size': a batch is {batch}, but task {number} of the stream "
                f"has {len(part.train.labels)} training examples"
            )
        if not len(part.scoring.labels):
            raise UserError(f"task '{task.name}', field 'validation': holds no example of task {number}; raise it")
    return parts, dropped


def joined(sources: list[Examples], classes: list[int]) -> Examples:
    """Data sets one after the other; labels are counted on by the number of classes of the sets before.

    Raises:
        UserError: inputs of different shapes.
    """
    shapes = {tuple(source.inputs.shape[1:]) for source in sources}
    if len(shapes) > 1:
        raise UserError(f"field 'data': inputs of different shapes ({', '.join(map(str, sorted(shapes)))})")
    labels, offset = [], 0
    for source, count in zip(sources, classes, strict=True):
        labels.append(source.labels + offset)
        offset += count
    return Examples(torch.cat([source.inputs for source in sources]), torch.cat(labels))


def _only(examples: Examples, classes: tuple[int, ...]) -> Examples:
    index = torch.isin(examples.labels, torch.tensor(classes, device=examples.labels.device)).nonzero().squeeze(1)
    return Examples(examples.inputs[index], examples.labels[index])


def _permuted(task: ContinualTask, number: int, train: Examples, scoring: Examples) -> Part:
    """All examples, their pixels in an order drawn from the task's name; the first task keeps them as they are."""
    classes = tuple(sorted(set(train.labels.tolist())))
    if number == 0:
        return Part(classes, train, scoring)
    seed = int.from_bytes(hashlib.sha256(f"{task.name}/permutation {number}".encode()).digest()[:7], "big")
    order = torch.randperm(train.inputs[0].numel(), generator=torch.Generator().manual_seed(seed))

    def shuffled(examples: Examples) -> Examples:
        shape = examples.inputs.shape
        return Examples(examples.inputs.flatten(1)[:, order.to(examples.inputs.device)].view(shape), examples.labels)

    return Part(classes, shuffled(train), shuffled(scoring))
