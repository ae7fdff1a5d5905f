"""The nouns of the suite: Task, Method, Job, Record. Typed, frozen, hashed; no logic beyond their own identity."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

SCHEMA = "fipbench.record/1"

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9+-]*\Z", max_length=60)]
Positive = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Value = bool | int | float | str
Params = dict[str, Value]

# What a task may name. Their homes (`fipbench.models`, `fipbench.training`, `fipbench.data`) need torch, this does not.
MODELS = ("bert", "clip", "cnn", "mlp", "resnet", "transformer", "vgg", "vgg16", "vit")
OPTIMIZERS = ("sgd", "adam", "adamw")
EMBEDDED = ("digits", "star-reviews", "film-reviews")
# Scores of a classifier, as in `fipbench.metrics`.
SCORES = ("accuracy", "f1", "matthews_correlation")


def valid_name(name: str) -> bool:
    """Whether `name` can name a task or a method: lower-case letters, digits, hyphens and, as in der++, pluses."""
    return bool(re.fullmatch(r"[a-z0-9][a-z0-9+-]{0,59}", name))


def storable(value: object) -> bool:
    """Whether a record gives the value back as it was: floats finite, whole numbers of at most 63 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def canonical(value: Any) -> bytes:
    """JSON bytes that depend on content alone: keys sorted, floats as shortest round-trip."""
    return msgspec.json.encode(value, order="deterministic")


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything that is read from a file: frozen, and a field that is not known is an error.

    A field that may be unset is left out of digests then, so that a new one voids no older result.
    """


class Variant(Spec, frozen=True, kw_only=True):
    """One known release of a data set: SHA-256 over the decoded examples of each split, and what it is."""

    train: str
    test: str
    note: str = ""


class About(Spec, frozen=True, kw_only=True):
    """What is known of a data set or of pretrained weights beyond their content; it decides no result.

    Attributes:
        licence: an SPDX name, `research only`, or `not stated` where none could be established; `note`: by whom.
        bytes: of the release's files; `examples` of its splits. A variant may have others.
    """

    licence: str = "not stated"
    note: str = ""
    bytes: Positive | UnsetType = UNSET
    examples: dict[str, Positive] | UnsetType = UNSET


class Data(Spec, frozen=True, kw_only=True):
    """Where examples come from and which digests they must have.

    `repo` names a data set repository on the hub (or in a mirror laid out like it); `embedded` one that
    ships with a library or is made by one. Exactly one of them is set. `variants` are the known contents, by
    label. `kind`: `image` (the default) or `text`; `second`: the column of the other text, where examples are pairs.
    `test`: the split that is tested on where it is not the one of that name, as where its labels are hidden. `about`
    says under which licence it is and how large, for `fipbench data`.
    """

    repo: str = ""
    embedded: str = ""
    config: str = ""
    revision: str = ""
    input: str = "image"
    label: str = "label"
    kind: str | UnsetType = UNSET
    second: str | UnsetType = UNSET
    test: str | UnsetType = UNSET
    variants: dict[Name, Variant]
    about: About | UnsetType = UNSET

    @property
    def is_text(self) -> bool:
        """Whether the inputs are texts."""
        return self.kind == "text"


class Model(Spec, frozen=True, kw_only=True):
    """An architecture of `fipbench.models` by name, its inputs' shape and number of outputs.

    `channels`: of convolutions. A language model has `vocabulary` words (the most frequent of the training texts),
    `depth` layers of `width` with `heads` heads, and reads `inputs[0]` tokens; longer texts are an error unless
    `truncate` is true. A pretrained one has its `weights` from that hub repository at that `revision`; `sha256` is
    the digest of the file of weights. A vision transformer cuts images of `pixels` by `pixels` into patches of `patch`;
    `tower` is the name of an open_clip model.

    `precision`: `bfloat16` computes the network's layers in it, as autocast does; weights, outputs and losses stay in
    float32. `checkpoint`: a transformer's layers are computed again in the backward pass in place of being kept.
    """

    name: str
    inputs: tuple[Positive, ...]
    outputs: Positive
    hidden: tuple[Positive, ...] = ()
    mean: float = 0.0
    std: PositiveFloat = 1.0
    channels: tuple[Positive, ...] | UnsetType = UNSET
    vocabulary: Positive | UnsetType = UNSET
    width: Positive | UnsetType = UNSET
    depth: Positive | UnsetType = UNSET
    heads: Positive | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET
    weights: str | UnsetType = UNSET
    revision: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    pixels: Positive | UnsetType = UNSET
    patch: Positive | UnsetType = UNSET
    tower: str | UnsetType = UNSET
    precision: Literal["float32", "bfloat16"] | UnsetType = UNSET
    checkpoint: bool | UnsetType = UNSET


class Recipe(Spec, frozen=True, kw_only=True):
    """How the shared base network is trained. `snapshots`: epochs at which weights are kept for rewinding.

    `clip`: gradients are scaled to at most this norm. `decay`: after these fractions of the steps the learning rate
    falls to a tenth. Both here and wherever a method trains by `trial.fit` (`decay` unless it brings a schedule).
    """

    epochs: Positive
    batch_size: Positive
    optimizer: str = "sgd"
    learning_rate: PositiveFloat
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    snapshots: tuple[Annotated[int, Meta(ge=0)], ...] = (0,)
    clip: PositiveFloat | UnsetType = UNSET
    decay: tuple[Annotated[float, Meta(gt=0, lt=1)], ...] | UnsetType = UNSET


class Budget(Spec, frozen=True, kw_only=True):
    """What a method may spend, base network included, in epochs of training examples forward and backward.

    `factor`: the cap, as a multiple of those epochs, where methods may spend more than plain training does.
    """

    epochs: Positive
    batch_size: Positive
    factor: Annotated[float, Meta(ge=1)] | UnsetType = UNSET


class Published(Spec, frozen=True, kw_only=True):
    """A number that a publication gives for a method on this very protocol, to calibrate our version of it.

    Attributes:
        value: of `metric`, a fraction; `spread` as printed, of kind `spread_is` over `n` runs.
        margin: how far below `value` our mean may be and still pass.
        source: paper and table; `note`: where our protocol differs, the budget's fraction above all.
    """

    metric: str
    value: float
    spread: float | None = None
    spread_is: str = ""
    n: int | None = None
    margin: PositiveFloat
    source: str
    note: str = ""


class Task(Spec, frozen=True, kw_only=True):
    """What all tracks' tasks share. One TOML file each; the file's name is the task's.

    `subset`: how many training examples of each data set are used, drawn once; all of them if it is unset. A task that
    sets it says so in its name. `common`: parameters of every method that has them and for which the task says nothing
    else, such as the learning rate of a pretrained network.
    """

    name: Name
    title: str
    track: Name
    suites: Annotated[tuple[Name, ...], Meta(min_length=1)]
    version: Positive
    data: Data | tuple[Data, ...]
    model: Model
    base: Recipe
    budget: Budget
    validation: Positive
    headline: str
    threads: Positive = 1
    tuned: str = ""
    selection: str = ""
    searched: tuple[Name, ...] = ()
    methods: dict[Name, Params] = {}
    claims: tuple[str, ...] = ()
    published: dict[Name, Published] | UnsetType = UNSET
    subset: Positive | UnsetType = UNSET
    common: Params = {}

    @property
    def sources(self) -> tuple[Data, ...]:
        """The task's data sets, in order."""
        return self.data if isinstance(self.data, tuple) else (self.data,)


class SparsityTask(Task, frozen=True, kw_only=True):
    """A task of the sparsity track.

    Attributes:
        sparsities: fractions of the prunable weights to be exactly zero.
        score: what the area is taken of, one of `SCORES`; accuracy if it is unset, and beside any other.
    """

    sparsities: Annotated[tuple[Annotated[float, Meta(gt=0, lt=1)], ...], Meta(min_length=1)]
    score: str | UnsetType = UNSET

    @property
    def scores(self) -> list[str]:
        """What is measured of every network, the task's score first."""
        return list(dict.fromkeys([self.score or "accuracy", "accuracy"]))

    @property
    def headlines(self) -> list[str]:
        """Metrics by which the task's methods may be ranked."""
        return ["area", *(f"{score}@{sparsity:g}" for score in self.scores for sparsity in self.sparsities)]


class Stream(Spec, frozen=True, kw_only=True):
    """The order in which a continual task brings its data.

    Either `classes`, a partition of the labels of all sources together (the labels of a source are counted on
    from those of the source before it), or `permutations`, a number of fixed permutations of the pixels, of which
    the first is none. `score`: `class` (arg-max over all outputs), `task` (over the outputs of the example's own
    task), `domain` (all tasks share the outputs). `softmax`: `all` trains with the loss over all outputs,
    `task` over those of the example's own task.
    """

    classes: tuple[tuple[Annotated[int, Meta(ge=0)], ...], ...] = ()
    permutations: Annotated[int, Meta(ge=0)] = 0
    score: tuple[Literal["class", "task", "domain"], ...]
    softmax: Literal["all", "task"] = "all"

    @property
    def length(self) -> int:
        """Number of tasks in the stream."""
        return len(self.classes) or self.permutations


class ContinualTask(Task, frozen=True, kw_only=True):
    """A task of the continual track.

    Attributes:
        memories: numbers of examples a task that methods with a memory may keep; each is a row of its own.
        probes: test examples of each task by which the course of learning is recorded.
        budget: `epochs` of each task of the stream; the base network is the first task's.
    """

    stream: Stream
    memories: tuple[Positive, ...]
    probes: Positive = 200

    @property
    def headlines(self) -> list[str]:
        """Metrics by which the task's methods may be ranked."""
        return [f"average_accuracy/{score}" for score in self.stream.score]


class Attack(Spec, frozen=True, kw_only=True):
    """How members are attacked, in the L-infinity ball on inputs in [0, 1].

    Attributes:
        epsilons: radii, increasing.
        steps: of PGD, each of `step_size` times the radius; `restarts`: random starts of the white-box PGD.
        apgd_steps: of APGD.
        items: test examples attacked, the first so many of a fixed drawing; 0 means all.
    """

    epsilons: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(min_length=1)]
    steps: Positive
    step_size: PositiveFloat = 0.25
    restarts: Positive
    apgd_steps: Positive
    items: Annotated[int, Meta(ge=0)] = 0


class RobustnessTask(Task, frozen=True, kw_only=True):
    """A task of the robustness track: `members` networks that vote, under attack."""

    members: Annotated[int, Meta(ge=2)]
    attack: Attack

    @property
    def headlines(self) -> list[str]:
        """Metrics by which the task's methods may be ranked."""
        return [f"robust@{epsilon:g}" for epsilon in self.attack.epsilons]

    @property
    def publishable(self) -> list[str]:
        """Metrics for which a published number may stand."""
        return ["clean", *self.headlines]


TASK_TYPES: dict[str, type[Task]] = {
    "continual": ContinualTask,
    "robustness": RobustnessTask,
    "sparsity": SparsityTask,
}

# Fields of a task that do not change what a job computes; settings reach a job through its parameters.
_COSMETIC = (
    "title",
    "suites",
    "claims",
    "methods",
    "tuned",
    "selection",
    "searched",
    "headline",
    "name",
    "published",
    "common",
)


def task_digest(task: Task, protocol_version: int) -> str:
    """Digest (12 hex digits) of everything in a task that decides what a job computes."""
    fields = {k: v for k, v in msgspec.to_builtins(task).items() if k not in _COSMETIC}
    said = ("variants", "about")
    bare = [{k: v for k, v in source.items() if k not in said} for source in msgspec.to_builtins(task.sources)]
    fields["data"] = bare if isinstance(task.data, tuple) else bare[0]
    return digest({"protocol": protocol_version, **fields})[:12]


class Search(Spec, frozen=True, kw_only=True):
    """How settings were searched; the head of a tuned file."""

    task: Name
    task_digest: str
    split: str
    objective: str
    trials: Positive
    seeds: Positive
    budget_epochs: Positive
    law: str


class Found(Spec, frozen=True, kw_only=True):
    """What the search found for one method: its best parameters, and what they were best of.

    `score` and `default_score` are means of the objective, `best_of` the best score after each trial, `failed` the
    trials that failed, `examples_spent` all training examples of all trials, `version` the code that was searched.
    """

    params: Params
    version: str
    score: float
    default_score: float
    trial: int
    trials: Positive
    failed: int
    examples_spent: int
    best_of: tuple[float, ...]


class Tuned(Spec, frozen=True, kw_only=True):
    """A file of settings, as `fipbench tune` writes it."""

    search: Search
    methods: dict[Name, Found]


class Method(Spec, frozen=True, kw_only=True):
    """A method as found: its name, where its factory is, its defaults. `target` is `module:attribute` or a file."""

    name: Name
    track: Name
    target: str
    version: str
    defaults: Params
    search: dict[str, Any] = {}
    role: str = "method"
    settings: str = "default"
    summary: str = ""
    origin: str = "fipbench"


class Job(Spec, frozen=True, kw_only=True):
    """One method on one task with one seed. `id_of(job)` is its identity."""

    task: Name
    task_version: int
    task_digest: str
    track: Name
    method: Name
    method_version: str
    params: Params
    seed: Annotated[int, Meta(ge=0)]
    suite: str
    device: str
    split: str = "test"
    threads: int = 1
    data_variant: str
    data: dict[str, str]
    label: Name
    role: str = "method"
    settings: str = "default"


# Not part of identity: the same computation under another heading.
_LABELS = ("suite", "label", "role", "settings", "data_variant")


def id_of(job: Job) -> str:
    """The job's identity: task, method and seed to read, and a digest over all that decides its result."""
    fields = {k: v for k, v in msgspec.to_builtins(job).items() if k not in _LABELS}
    return f"{job.task}--{job.method}--s{job.seed}--{digest(fields)[:16]}"


class Cost(Spec, frozen=True, kw_only=True):
    """What a job spent. Examples and `wall_s` include the shared base network; memory is of the job's process."""

    wall_s: float = 0.0
    forward_examples: int = 0
    backward_examples: int = 0
    peak_memory_bytes: int = 0
    parameters_stored: int = 0
    examples_stored: int = 0


class Failure(Spec, frozen=True, kw_only=True):
    """Why a job failed: the exception's type, one line, and where (file:line in function, innermost last)."""

    type: str
    message: str
    where: tuple[str, ...] = ()


class Items(Spec, frozen=True, kw_only=True):
    """Correctness of each test item: base64 of bits packed most significant first, and how many there are."""

    count: int
    bits: str


class Record(Spec, frozen=True, kw_only=True):
    """The result of one job. `digest` finds corruption; it is no signature."""

    schema: str = SCHEMA
    id: str
    job: Job
    protocol: dict[str, Any]
    status: str
    error: Failure | None = None
    metrics: dict[str, float] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    items: dict[str, Items] = {}
    notes: tuple[str, ...] = ()
    cost: Cost = Cost()
    provenance: dict[str, Any] = {}
    digest: str = ""


def sealed(record: Record) -> Record:
    """The record with its digest filled in."""
    return msgspec.structs.replace(record, digest=record_digest(record))


def record_digest(record: Record) -> str:
    """SHA-256 (hex) of the record's content without the digest itself."""
    return digest(msgspec.structs.replace(record, digest=""))


def equal(a: Record, b: Record) -> bool:
    """Whether two records say the same: time, memory, provenance and an error's place in the code may differ,
    nothing else may."""
    return _compared(a) == _compared(b)


def _compared(record: Record) -> bytes:
    cost = msgspec.structs.replace(record.cost, wall_s=0.0, peak_memory_bytes=0)
    error = record.error and (record.error.type, record.error.message)
    measured = [record.metrics, record.curves, record.items, record.notes, cost]
    return canonical([record.schema, record.id, record.job, record.protocol, record.status, error, *measured])


class Ticket(Spec, frozen=True, kw_only=True):
    """All that a worker needs to run one job, in a process that shares nothing with the one that planned it."""

    job: Job
    task: dict[str, Any]
    target: str
    results: str
    cache: str
    force: bool = False
    provenance: dict[str, Any] = {}
