"""What no type can say of a task: names that must exist, fields that must agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fipbench.errors import unknown
from fipbench.spec import (
    EMBEDDED,
    MODELS,
    OPTIMIZERS,
    SCORES,
    CompositionTask,
    ConnectivityTask,
    ContinualTask,
    Data,
    RobustnessTask,
    SparsityTask,
    Task,
    storable,
)

SUITES = {
    "quick": "a smoke test on small real data, minutes on two cores; no evidence",
    "standard": "real data at a size that a workstation can repeat",
    "paper": "the published experiments as published",
    "calibration": "baselines on a setting from a publication of their own, beside the published number",
}


def problems(task: Task) -> Iterator[tuple[str, str]]:
    """What no type can say of a task: (field, what is wrong with it)."""
    if any(bool(source.repo) == bool(source.embedded) for source in task.sources):
        yield "data", "expected one of 'repo' and 'embedded'"
    for source in task.sources:
        yield from _source_problems(source)
        if source.streamed:
            yield from _streamed_problems(task, source.streamed.crop)
    yield from _network_problems(task)
    yield from _track_problems(task)
    for label, published in (task.published or {}).items():
        allowed = getattr(task, "publishable", getattr(task, "headlines", [published.metric]))
        if published.metric not in allowed:
            yield f"published.{label}.metric", f"expected one of {', '.join(allowed)}"
    if isinstance(task, SparsityTask) and list(task.sparsities) != sorted(set(task.sparsities)):
        yield "sparsities", "expected strictly increasing fractions"
    if isinstance(task, SparsityTask) and task.score == "f1" and task.model.outputs != 2:
        yield "score", f"f1 is of two classes, the second the positive one; model.outputs is {task.model.outputs}"
    yield from _reading_problems(task)
    if isinstance(task, RobustnessTask) and task.model.outputs < 4:
        yield "model.outputs", f"expected four or more, which targeted APGD needs, got {task.model.outputs}"
    if isinstance(task, RobustnessTask) and list(task.attack.epsilons) != sorted(set(task.attack.epsilons)):
        yield "attack.epsilons", "expected strictly increasing radii"


def _track_problems(task: Task) -> Iterator[tuple[str, str]]:
    if isinstance(task, ContinualTask):
        yield from _stream_problems(task)
    elif isinstance(task, CompositionTask):
        yield from _composition_problems(task)
    elif isinstance(task.data, tuple):
        yield "data", f"a {task.track} task has one data set"
    elif task.budget.epochs < task.base.epochs:
        yield "budget.epochs", f"expected at least base.epochs ({task.base.epochs})"


def _source_problems(source: Data) -> Iterator[tuple[str, str]]:
    if source.second and source.kind != "text":
        yield "data.second", "pairs are of texts; set kind = 'text'"
    if source.scale and source.kind != "text":
        yield "data.scale", "real labels are of texts; set kind = 'text'"
    of_a_repository = ("second", "train", "test", "scale", "streamed")
    if source.embedded and (source.is_corpus or any(getattr(source, name) for name in of_a_repository)):
        named = ", ".join(f"'{name}'" for name in of_a_repository)
        yield "data", f"{named} and a corpus are of a repository; {source.embedded} is embedded"
    if (source.train or "train") == (source.test or "test"):
        yield "data.test", f"'{source.test or 'test'}' is what is trained on; name another split"
    if source.streamed and source.is_text:
        yield "data.streamed", "texts are held in memory; only images can be streamed"
    if source.streamed and source.streamed.crop > source.streamed.resize:
        yield "data.streamed.crop", f"expected at most data.streamed.resize ({source.streamed.resize})"


def _streamed_problems(task: Task, crop: int) -> Iterator[tuple[str, str]]:
    if not isinstance(task, SparsityTask):
        yield "data.streamed", f"a {task.track} task holds its images in memory; only a sparsity task need not"
    if task.model.inputs != (3, crop, crop):
        yield "model.inputs", f"expected [3, {crop}, {crop}], as data.streamed cuts images"


def _network_problems(task: Task) -> Iterator[tuple[str, str]]:
    model = task.model
    for field in ("mean", "std"):
        numbers = getattr(model, field)
        if isinstance(numbers, tuple) and model.name in ("bert", "mlp", "transformer"):
            yield f"model.{field}", f"expected one number; '{model.name}' knows no channels"
        elif isinstance(numbers, tuple) and len(numbers) != model.inputs[0]:
            yield f"model.{field}", f"expected a number, or one for each of {model.inputs[0]} channels"
    if isinstance(task, ConnectivityTask) and task.budget.epochs < 2 * task.base.epochs:
        yield "budget.epochs", f"expected at least twice base.epochs ({2 * task.base.epochs}), for two networks"
    if task.group_by_length and not any(source.is_text for source in task.sources):
        yield "group_by_length", "is of texts; leave it out"
    if not task.base.epochs and not (model.weights and isinstance(task, SparsityTask)):
        yield "base.epochs", "expected >= 1; 0 keeps a pretrained network as it is: model.weights of a sparsity task"


def _reading_problems(task: Task) -> Iterator[tuple[str, str]]:
    """Data, network and score have to be of one kind: classes, real numbers on a scale, or masked words."""
    score = task.score if isinstance(task, SparsityTask) else ""
    for source in task.sources:
        if source.scale and score != "pearson_spearman":
            yield "score", "labels that are real numbers (data.scale) need a sparsity task's 'pearson_spearman'"
        elif source.scale and task.model.outputs != source.scale + 1:
            yield "model.outputs", f"a scale from 0 to {source.scale} has {source.scale + 1} whole numbers; set as many"
        scored = score == "inverse_perplexity" or isinstance(task, CompositionTask)
        if source.is_corpus and (not scored or task.model.name != "masked-lm"):
            where = "a sparsity task with score 'inverse_perplexity' or a composition task"
            yield "data.kind", f"a corpus is for the model 'masked-lm' in {where}"
    if score == "pearson_spearman" and not all(source.scale for source in task.sources):
        yield "score", "correlations are with labels that are real numbers; set data.scale"
    reads_text = score == "inverse_perplexity" or task.model.name == "masked-lm"
    if reads_text and not all(source.is_corpus for source in task.sources):
        yield "data.kind", "words are masked in running text; set kind = 'corpus'"


def _stream_problems(task: ContinualTask) -> Iterator[tuple[str, str]]:
    stream = task.stream
    if bool(stream.classes) == bool(stream.permutations):
        yield "stream", "expected one of 'classes' and 'permutations'"
    if stream.length < 2:
        yield "stream", f"expected two tasks or more, got {stream.length}"
    seen: dict[int, int] = {}
    for number, classes in enumerate(stream.classes, start=1):
        for label in classes:
            if label in seen:
                yield "stream.classes", f"class {label} is in task {seen[label]} and in task {number}; drop one"
            if label >= task.model.outputs:
                yield "stream.classes", f"class {label} has no output; the model has {task.model.outputs}"
            seen[label] = number
    if not all(stream.classes) and stream.classes:
        yield "stream.classes", "a task without classes"
    scores = {"domain"} if stream.permutations else {"class", "task"}
    if not stream.score or not scores.issuperset(stream.score) or len(set(stream.score)) != len(stream.score):
        yield "stream.score", "expected 'class', 'task' or both with classes, 'domain' with permutations"
    if 0 not in task.base.snapshots:
        yield "base.snapshots", "expected 0 among them"
    if stream.permutations and (isinstance(task.data, tuple) or stream.softmax == "task"):
        yield "stream.permutations", "expected one data set and softmax 'all'"
    if list(task.memories) != sorted(set(task.memories)) or not task.memories:
        yield "memories", "expected strictly increasing numbers of examples"


def _composition_problems(task: CompositionTask) -> Iterator[tuple[str, str]]:
    if not isinstance(task.data, tuple) or len(task.data) != 2:
        yield "data", "a composition task has two data sets: the one that the network knows, and the one that it learns"
    if list(task.sparsities) != sorted(set(task.sparsities)):
        yield "sparsities", "expected strictly increasing fractions"
    if task.repeat not in task.sparsities:
        yield "repeat", f"expected one of the sparsities ({', '.join(f'{s:g}' for s in task.sparsities)})"


def check_names(task: Task, path: Path) -> None:
    """What a task names must exist; found out before anything is loaded that could tell."""
    named = [
        ("suite", "suites", task.suites, SUITES),
        ("embedded data set", "data.embedded", [d.embedded for d in task.sources if d.embedded], EMBEDDED),
        ("kind of data", "data.kind", [d.kind for d in task.sources if d.kind], ("image", "text", "corpus")),
        ("model", "model.name", [task.model.name], MODELS),
        ("optimizer", "base.optimizer", [task.base.optimizer], OPTIMIZERS),
        ("score", "score", task.scores[:1] if isinstance(task, SparsityTask) else [], SCORES),
        ("metric", "headline", [task.headline], getattr(task, "headlines", [task.headline])),
    ]
    for kind, field, names, known in named:
        for name in names:
            if name not in known:
                raise unknown(kind, name, known, where=f"in {path}, field '{field}'")


def not_storable(content: Any) -> str:
    """The first field below `content` with a number that no record can hold."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        if not storable(value):
            return str(key)
        if below := not_storable(value):
            return f"{key}.{below}"
    return ""
