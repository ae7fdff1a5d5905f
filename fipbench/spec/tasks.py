"""A task of each track, and the digest over everything in it that decides a result."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fipbench.spec.base import Fraction, Name, Params, Positive, PositiveFloat, Spec, digest

# What a task may name. Their homes (`fipbench.models`, `fipbench.training`, `fipbench.data`) need torch, this does not.
MODELS = ("bert", "clip", "cnn", "mlp", "resnet", "transformer", "vgg", "vgg16", "vit")
OPTIMIZERS = ("sgd", "adam", "adamw")
EMBEDDED = ("digits", "star-reviews", "film-reviews")
# Scores of a classifier, as in `fipbench.metrics`.
SCORES = ("accuracy", "f1", "matthews_correlation")


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
    `microbatch`: the network is computed for so many examples at a time, whatever the batch; see
    `fipbench.models.compute`.
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
    microbatch: Positive | UnsetType = UNSET


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
    else, such as the learning rate of a pretrained network. `group_by_length`: batches are of texts of like length
    (`fipbench.data.batches.stream`).
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
    group_by_length: bool | UnsetType = UNSET

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
