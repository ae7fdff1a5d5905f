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

from fipbench import data, metrics, models
from fipbench.cache import once, tensor_digest
from fipbench.data.batches import spread
from fipbench.data.text import Text
from fipbench.errors import UserError
from fipbench.spec import Items, Job, Recipe, Task, digest
from fipbench.tracks import carried
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
    were dropped because they stand in the test split. `rows`: which of the release's training split the methods may
    see, `scored` which of the split that is scored on."""

    train: Examples
    scoring: Examples
    dropped: int
    rows: Tensor
    scored: Tensor


def splits(task: Task, job: Job, cache: Path) -> list[Split]:
    """The task's data sets, in order, on the job's device.

    For a tuning job the task's validation examples are held out of the training split and scored on in place of the
    test split; they are the same for every seed and method.
    """
    return [_split(task, job, train, test) for train, test in _read(task, job, cache)]


def _split(task: Task, job: Job, train: Examples, test: Examples) -> Split:
    rows = data.without_repeats(train, test)
    dropped = len(train.labels) - len(rows)
    source, scored = test, torch.arange(len(test.labels))
    if job.split == "validation":
        order = _validation_order(task, len(rows))
        source, scored, rows = train, rows[order[: task.validation]], rows[order[task.validation :]]
    elif task.test_subset:
        scored = _part(task, "test_subset", task.test_subset, scored)
    if task.subset:
        rows = _part(task, "subset", task.subset, rows)
    seen, scoring = (_to(part, job.device) for part in (train.only(rows), source.only(scored)))
    return Split(seen, scoring, dropped, rows, scored)


def _part(task: Task, what: str, size: int, rows: Tensor) -> Tensor:
    """So many of the rows, drawn once for the task."""
    if size > len(rows):
        kind = "test" if what == "test_subset" else "training"
        raise UserError(
            f"task '{task.name}', field '{what}': {size}, but there are {len(rows)} {kind} examples; lower it"
        )
    return rows[_drawn(f"{task.name}/{what}", len(rows))[:size]]


def only_split(task: Task, job: Job, cache: Path) -> Split:
    """The task's one data set.

    Raises:
        UserError: fewer training examples than a batch, of which no network would learn anything, or a class for which
            the network has no output.
    """
    [only] = splits(task, job, cache)
    batch, seen = max(task.base.batch_size, task.budget.batch_size), len(only.train.labels)
    if seen < batch:
        held = f" beside the {task.validation} of 'validation'" if job.split == "validation" else ""
        raise UserError(
            f"task '{task.name}', field 'budget.batch_size': a batch is {batch}, but there are {seen} training "
            f"examples{held}"
        )
    labels = [part.labels for part in (only.train, only.scoring) if part.labels.ndim == 1]  # others are on a scale
    top = max((int(values.max()) for values in labels if len(values)), default=0)
    if top >= task.model.outputs:
        raise UserError(
            f"task '{task.name}', field 'model.outputs': the data has class {top}, the network {task.model.outputs} "
            "outputs, which count from 0"
        )
    return only


def training_data(task: Task, job: Job, cache: Path) -> tuple[Examples, int]:
    """What a method may see of the task's one data set, and how many examples were dropped from it."""
    only = only_split(task, job, cache)
    return only.train, only.dropped


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
    network must beat to be worth its cost, on the very examples that methods learn from and are scored on; for pairs
    with values on a scale the mean of both correlations with the cosine of their TF-IDF features. Nothing for other
    tasks, for a corpus and for tuning jobs."""
    if job.split != "test" or not any(source.is_text and not source.is_corpus for source in task.sources):
        return {}
    from fipbench.data.bag_of_words import tfidf_accuracy, tfidf_similarity

    found = {}
    read = zip(task.sources, texts_of(task, job, cache), splits(task, job, cache), strict=True)
    for number, (source, part, used) in enumerate(read, start=1):
        chosen = {split: (part[split], rows) for split, rows in (("train", used.rows), ("test", used.scored))}
        train, test = ([texts[i] for i in rows] for (texts, _), rows in chosen.values())
        labels, truth = (values[rows] for (_, values), rows in chosen.values())
        if not source.scale:
            found[f"tfidf/{number}"] = tfidf_accuracy(train, labels.tolist(), test, truth.tolist())
        elif source.second:
            alike = torch.from_numpy(tfidf_similarity(train, test))
            found[f"tfidf/{number}"] = (metrics.pearson(alike, truth) + metrics.spearman(alike, truth)) / 2
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
        labels = kept[f"{split}-{number}/labels"]
        if sources[number].scale:
            labels = spread(labels, model.outputs)
        return Examples(kept[f"{split}-{number}/ids"].long(), labels)

    return [(examples(number, "train"), examples(number, "test")) for number in range(len(sources))]


def _token_ids(task: Task, read: list[dict[str, tuple[list[Text], Tensor]]]) -> dict[str, Tensor]:
    """Token ids (int32) and labels of every split of every data set, as the task's network reads texts."""
    from fipbench.data import text
    from fipbench.models import masked, pretrained

    model = task.model
    # A pretrained network has its own.
    words = () if model.weights else (t for part in read for t in part["train"][0])
    known = text.vocabulary(words, model.vocabulary or 0)
    found: dict[str, Tensor] = {}
    for number, (source, part) in enumerate(zip(task.sources, read, strict=True)):
        for split, (texts, labels) in part.items():
            where = f"{data.name_of(source)}, {data.file_of(source, split)}"
            if source.is_corpus:
                ids, labels = masked.windows(model, [str(line) for line in texts], where=where)
                found |= {f"{split}-{number}/ids": ids.to(torch.int32), f"{split}-{number}/labels": labels}
                continue
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

    `wall_s` is what its training took whoever did it, `wait_s` how long this job waited to have it. `optimizer` is the
    state of the one that trained it, where that is kept.
    """

    network: nn.Module
    snapshots: dict[int, dict[str, Tensor]]
    forward_examples: int
    backward_examples: int
    wall_s: float
    wait_s: float
    digest: str
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def base_network(
    task: Task,
    job: Job,
    train: Examples,
    cache: Path,
    *,
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
    part: Any = None,
    purpose: str = "",
    keep_optimizer: bool = False,
) -> Base:
    """The network that every method of (task, seed) starts from: trained once, kept by content, shared.

    Args:
        loss: what it is trained with; `part` names it, and which part of the data `train` is, where it is not all.
        purpose: draws other weights and batches than the base network's, for a network beside it.
        keep_optimizer: the optimiser's state is kept with the weights.
    """
    recipe = task.base
    weights_seed = seed_for(job, f"{purpose} weights".strip())
    asked = time.monotonic()

    def build() -> tuple[dict[str, Tensor], dict[str, Any]]:
        began = time.monotonic()
        network = models.build(task.model, weights_seed).to(job.device)
        meter = Meter()
        if not recipe.epochs:
            _check_pretrained(task, network, weights_seed)
        tensors = {f"{_kept(recipe, 0)}/{k}": v.clone() for k, v in network.state_dict().items()}
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
                tensors |= {f"{_kept(recipe, epoch)}/{k}": v.clone() for k, v in network.state_dict().items()}
        if keep_optimizer:
            tensors |= {f"optimizer/{k}": v for k, v in carried.state_of(rule).items()}
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
        **({"optimizer": "kept"} if keep_optimizer else {}),
        "device": job.device,
        "threads": job.threads,
        "torch": str(torch.__version__),
    }
    tensors, facts = once(cache / "shared", f"{job.task}-s{job.seed}-{digest(parts)[:16]}", build)
    network = models.build(task.model, weights_seed)
    network.load_state_dict(_under(tensors, "final"))
    return Base(
        network=network.to(job.device),
        # A pretrained network that is not trained further is its own start.
        snapshots={e: _under(tensors, _kept(recipe, e)) for e in recipe.snapshots if e < max(1, recipe.epochs)},
        forward_examples=facts["forward"],
        backward_examples=facts["backward"],
        wall_s=facts["wall_s"],
        wait_s=time.monotonic() - asked,
        digest=tensor_digest(tensors),
        optimizer=_under(tensors, "optimizer"),
    )


def _kept(recipe: Recipe, epoch: int) -> str:
    """Under which name the weights after an epoch are kept."""
    return "final" if epoch == recipe.epochs else f"epoch{epoch}"


def _check_pretrained(task: Task, network: nn.Module, seed: int) -> None:
    """Refuse to take as trained a network of which another seed would make another."""
    other = models.build(task.model, seed ^ 1).state_dict()
    for name, value in network.state_dict().items():
        if not torch.equal(value.cpu(), other[name]):
            raise UserError(
                f"task '{task.name}', field 'base.epochs': 0 keeps the pretrained network as it is, but "
                f"{task.model.weights} has no {name} of this size, so it is random; train it, or name other weights"
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
