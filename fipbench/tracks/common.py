"""What the tracks share: seeds that come from task and seed alone, data, the base network, the outcome."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import data, models
from fipbench.cache import once, tensor_digest
from fipbench.data.text import Text
from fipbench.errors import UserError
from fipbench.spec import Items, Job, Task, digest
from fipbench.training import Batch, Examples, Meter, cross_entropy, decay, fit, optimizer, stream


@dataclass
class Outcome:
    """What a track found out: the measured part of a record.

    `earlier_s` are the seconds of earlier processes of the same job whose work was not done again.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    items: dict[str, Items] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    base_wall_s: float = 0.0
    base_wait_s: float = 0.0
    earlier_s: float = 0.0
    parameters_stored: int = 0
    examples_stored: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)


def seed_for(job: Job, purpose: str) -> int:
    """A 63-bit seed from task, seed and purpose: never from the method, so that all methods start alike."""
    text = f"{job.task}/{job.task_version}/{job.seed}/{job.split}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(job: Job, purpose: str) -> torch.Generator:
    """A CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(job, purpose))


@dataclass(frozen=True)
class Split:
    """One data set of a task: what methods may see, what the harness scores on, and how many training examples
    were dropped because they stand in the test split."""

    train: Examples
    scoring: Examples
    dropped: int


def splits(task: Task, job: Job, cache: Path) -> list[Split]:
    """The task's data sets, in order, on the job's device.

    For a tuning job the task's validation examples are held out of the training split and scored on in place of the
    test split; they are the same for every seed and method.
    """
    found = []
    for train, test in _read(task, job, cache):
        train, dropped = data.without_repeats(train, test)
        if job.split == "validation":
            order = _validation_order(task, len(train.labels))
            held, index = order[: task.validation], order[task.validation :]
            test = Examples(train.inputs[held], train.labels[held])
            train = Examples(train.inputs[index], train.labels[index])
        if task.subset:
            if task.subset > len(train.labels):
                raise UserError(
                    f"task '{task.name}', field 'subset': {task.subset}, but there are {len(train.labels)} training "
                    "examples; lower it"
                )
            index = _drawn(f"{task.name}/subset", len(train.labels))[: task.subset]
            train = Examples(train.inputs[index], train.labels[index])
        found.append(Split(_to(train, job.device), _to(test, job.device), dropped))
    return found


def training_data(task: Task, job: Job, cache: Path) -> tuple[Examples, int]:
    """What a method may see of the task's one data set, and how many examples were dropped from it."""
    only = splits(task, job, cache)[0]
    return only.train, only.dropped


def scoring_data(task: Task, job: Job, cache: Path) -> Examples:
    """What the harness scores on: the test split, or the held-out validation examples of a tuning job."""
    return splits(task, job, cache)[0].scoring


def texts_of(task: Task, job: Job, cache: Path) -> list[dict[str, tuple[list[Text], Tensor]]]:
    """The texts or pairs and labels of each data set of a language task, by split."""
    sources = task.sources
    return [
        {
            split: data.load_texts(source, split, cache, job.data[data.key_of(split, number, len(sources))])
            for split in data.SPLITS
        }
        for number, source in enumerate(sources)
    ]


def bag_of_words(task: Task, job: Job, cache: Path) -> dict[str, float]:
    """`tfidf/J`: what TF-IDF with logistic regression scores on the J-th data set of a language task, which a
    network must beat to be worth its cost; nothing for other tasks and for tuning jobs."""
    if job.split != "test" or not any(source.is_text for source in task.sources):
        return {}
    from fipbench.data.bag_of_words import tfidf_accuracy

    read = texts_of(task, job, cache)
    found = {}
    for number, part in enumerate(read, start=1):
        (train, labels), (test, truth) = part["train"], part["test"]
        found[f"tfidf/{number}"] = tfidf_accuracy(train, labels.tolist(), test, truth.tolist())
    return found


def _read(task: Task, job: Job, cache: Path) -> list[tuple[Examples, Examples]]:
    """Training and test split of each data set; texts as token ids over one vocabulary, that of all training texts."""
    sources = task.sources
    if not any(source.is_text for source in sources):
        return [
            (
                data.load(source, "train", cache, job.data[data.key_of("train", number, len(sources))]),
                data.load(source, "test", cache, job.data[data.key_of("test", number, len(sources))]),
            )
            for number, source in enumerate(sources)
        ]
    model = task.model
    if model.weights:
        from fipbench.models import pretrained

        reader = pretrained.tokenizer_digest(model)
    else:
        reader = f"words {model.vocabulary}"

    def build() -> tuple[dict[str, Tensor], dict[str, Any]]:
        return _token_ids(task, texts_of(task, job, cache)), {}

    # Made once for a task and kept: reading the texts takes a job of the quick suite longer than an epoch.
    key = digest([job.data, [data.name_of(source) for source in sources], model.inputs, bool(model.truncate), reader])
    kept, _ = once(cache / "data", f"ids-{key[:16]}", build)

    def examples(number: int, split: str) -> Examples:
        return Examples(kept[f"{split}-{number}/ids"].long(), kept[f"{split}-{number}/labels"])

    return [(examples(number, "train"), examples(number, "test")) for number in range(len(sources))]


def _token_ids(task: Task, read: list[dict[str, tuple[list[Text], Tensor]]]) -> dict[str, Tensor]:
    """Token ids (int32) and labels of every split of every data set, as the task's network reads texts."""
    from fipbench.data import text
    from fipbench.models import pretrained

    model = task.model
    known = text.vocabulary((t for part in read for t in part["train"][0]), model.vocabulary or 0)
    found: dict[str, Tensor] = {}
    for number, (source, part) in enumerate(zip(task.sources, read, strict=True)):
        for split, (texts, labels) in part.items():
            where = f"{data.name_of(source)}, {split}"
            ids = (
                pretrained.token_ids(model, texts, where=where)
                if model.weights
                else text.encode(texts, known, model.inputs[0], truncate=bool(model.truncate), where=where)
            )
            found |= {f"{split}-{number}/ids": ids.to(torch.int32), f"{split}-{number}/labels": labels}
    return found


def _validation_order(task: Task, n: int) -> Tensor:
    return _drawn(f"{task.name}/validation", n)


def _drawn(purpose: str, n: int) -> Tensor:
    """An order of n examples that depends on the purpose alone."""
    seed = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:7], "big")
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _to(examples: Examples, device: str) -> Examples:
    return Examples(examples.inputs.to(device), examples.labels.to(device))


@dataclass(frozen=True)
class Base:
    """The shared trained network: weights, earlier snapshots by epoch, and what it cost.

    `wall_s` is what its training took whoever did it, `wait_s` how long this job waited to have it.
    """

    network: nn.Module
    snapshots: dict[int, dict[str, Tensor]]
    forward_examples: int
    backward_examples: int
    wall_s: float
    wait_s: float
    digest: str


def base_network(
    task: Task,
    job: Job,
    train: Examples,
    cache: Path,
    *,
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
    part: Any = None,
    purpose: str = "",
) -> Base:
    """The network that every method of (task, seed) starts from: trained once, kept by content, shared.

    Args:
        loss: what it is trained with; `part` names it, and which part of the data `train` is, where it is not all.
        purpose: draws other weights and batches than the base network's, for a network beside it.
    """
    recipe = task.base
    weights_seed = seed_for(job, f"{purpose} weights".strip())
    asked = time.monotonic()

    def build() -> tuple[dict[str, Tensor], dict[str, Any]]:
        began = time.monotonic()
        network = models.build(task.model, weights_seed).to(job.device)
        meter = Meter()
        tensors = {f"epoch0/{k}": v.clone() for k, v in network.state_dict().items()}
        meter.attach(network)
        drawn = base_batches(task, job, train, purpose)
        steps = len(train.labels) // recipe.batch_size
        rule = optimizer(
            recipe.optimizer, network.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay
        )
        falling = decay(rule, recipe.decay or (), recipe.epochs * steps)
        for epoch in range(1, recipe.epochs + 1):
            fit(network, drawn, steps=steps, optimizer=rule, loss=loss, schedule=falling, clip=recipe.clip or 0.0)
            if epoch in recipe.snapshots or epoch == recipe.epochs:
                name = "final" if epoch == recipe.epochs else f"epoch{epoch}"
                tensors |= {f"{name}/{k}": v.clone() for k, v in network.state_dict().items()}
        facts = {"forward": meter.forward, "backward": meter.backward, "wall_s": time.monotonic() - began}
        return {k: v.cpu().contiguous() for k, v in tensors.items()}, facts

    parts = {
        "data": job.data,
        "split": job.split,
        "held_out": task.validation if job.split == "validation" else 0,
        "model": task.model,
        "base": recipe,
        "seed": [weights_seed, seed_for(job, f"{purpose} base batches".strip())],
        "part": part,
        **({"subset": task.subset} if task.subset else {}),
        **({"group_by_length": True} if task.group_by_length else {}),
        "device": job.device,
        "threads": job.threads,
        "torch": str(torch.__version__),
    }
    tensors, facts = once(cache / "shared", f"{job.task}-s{job.seed}-{digest(parts)[:16]}", build)
    network = models.build(task.model, weights_seed)
    network.load_state_dict(_under(tensors, "final"))
    return Base(
        network=network.to(job.device),
        snapshots={epoch: _under(tensors, f"epoch{epoch}") for epoch in recipe.snapshots if epoch < recipe.epochs},
        forward_examples=facts["forward"],
        backward_examples=facts["backward"],
        wall_s=facts["wall_s"],
        wait_s=time.monotonic() - asked,
        digest=tensor_digest(tensors),
    )


def base_batches(task: Task, job: Job, train: Examples, purpose: str = "") -> Iterator[Batch]:
    """The very batches that the base network is trained on."""
    return batches(task, train, task.base.batch_size, generator_for(job, f"{purpose} base batches".strip()))


def batches(task: Task, train: Examples, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    """The stream of batches that the task trains on: at random, or of texts of like length where it says so."""
    return stream(train, batch_size, generator, _lengths(task, train) if task.group_by_length else None)


def _lengths(task: Task, texts: Examples) -> Tensor:
    """Tokens of each text, on the CPU; padding does not count."""
    from fipbench.data.text import PAD
    from fipbench.models import pretrained

    ids = texts.inputs[:, 0] if texts.inputs.ndim == 3 else texts.inputs
    return (ids != (pretrained.padding(task.model) if task.model.weights else PAD)).sum(1).cpu()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}
