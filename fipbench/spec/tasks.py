"""A task of each track, and the digest over everything in it that decides a result."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fipbench.spec.base import Name, Params, Positive, PositiveFloat, Spec, digest
from fipbench.spec.data import Data
from fipbench.spec.models import Budget, Model, Recipe

# What a task may be scored by, more being better, and what is measured beside it; as in `fipbench.metrics`.
SCORES: dict[str, tuple[str, ...]] = {
    "accuracy": (),
    "f1": ("accuracy",),
    "inverse_perplexity": ("perplexity", "accuracy"),
    "matthews_correlation": ("accuracy",),
    "pearson_spearman": ("pearson", "spearman"),
}
# Of these less is better: they are shown, and nothing is ranked by them.
_FALLING = ("perplexity",)
MEASURED = tuple(sorted({*SCORES, *(name for beside in SCORES.values() for name in beside)}))


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
    sets it says so in its name. `test_subset`: the same of the test split. `common`: parameters of every method that
    has them and for which the task says nothing else, such as the learning rate of a pretrained network. `without`:
    methods of the track, and variants of a task that this one extends, that are no rows unless they are asked for by
    name. `group_by_length`: batches are of texts of like length (`fipbench.data.batches.stream`).
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
    test_subset: Positive | UnsetType = UNSET
    common: Params = {}
    without: tuple[Name, ...] | UnsetType = UNSET
    group_by_length: bool | UnsetType = UNSET

    @property
    def sources(self) -> tuple[Data, ...]:
        """The task's data sets, in order."""
        return self.data if isinstance(self.data, tuple) else (self.data,)


class SparsityTask(Task, frozen=True, kw_only=True):
    """A task of the sparsity track.

    Attributes:
        sparsities: fractions of the prunable weights to be exactly zero.
        score: what the area is taken of, one of `SCORES`; accuracy if it is unset.
    """

    sparsities: Annotated[tuple[Annotated[float, Meta(gt=0, lt=1)], ...], Meta(min_length=1)]
    score: str | UnsetType = UNSET

    @property
    def scores(self) -> list[str]:
        """What is measured of every network, the task's score first."""
        score = self.score or "accuracy"
        return [score, *SCORES.get(score, ())]

    @property
    def headlines(self) -> list[str]:
        """Metrics by which the task's methods may be ranked."""
        ranking = [score for score in self.scores if score not in _FALLING]
        return ["area", *(f"{score}@{sparsity:g}" for score in ranking for sparsity in self.sparsities)]


class Stream(Spec, frozen=True, kw_only=True):
    """The order in which a continual task brings its data.

    Either `classes`, a partition of the labels of all sources together (the labels of a source are counted on
    from those of the source before it), or `permutations`, a number of fixed permutations of the pixels, of which
    the first is none. `score`: `class` (arg-max over all outputs), `task` (over the outputs of the example's own
    task), `domain` (all tasks share the outputs). `softmax`: `all` trains with the loss over all outputs,
    `task` over those of the example's own task. `optimizer`: unset, one begins with each task; `kept`, its state goes
    on from task to task.
    """

    classes: tuple[tuple[Annotated[int, Meta(ge=0)], ...], ...] = ()
    permutations: Annotated[int, Meta(ge=0)] = 0
    score: tuple[Literal["class", "task", "domain"], ...]
    softmax: Literal["all", "task"] = "all"
    optimizer: Literal["kept"] | UnsetType = UNSET

    @property
    def length(self) -> int:
        """Number of tasks in the stream."""
        return len(self.classes) or self.permutations


class Sketch(Spec, frozen=True, kw_only=True):
    """How the way through weight space is recorded: every point as a random projection (`fipbench.tracks.sketch`).

    Attributes:
        points: of each task after the first, evenly spread over the steps that are due on it, the last at its end.
        dimensions: numbers a point; a distance between two is known to 1/sqrt(2 dimensions) of it, one standard
            deviation.
    """

    points: Positive
    dimensions: Annotated[int, Meta(ge=2, le=1024)]


class ContinualTask(Task, frozen=True, kw_only=True):
    """A task of the continual track.

    Attributes:
        memories: numbers of examples a task that methods with a memory may keep; each is a row of its own.
        probes: test examples of each task by which the course of learning is recorded.
        budget: `epochs` of each task of the stream; the base network is the first task's.
        sketch: the first seed's records hold the way of the weights, for a picture; it changes no other number.
    """

    stream: Stream
    memories: tuple[Positive, ...]
    probes: Positive = 200
    sketch: Sketch | UnsetType = UNSET

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
        autoattack: so many of them, the first of the drawing, meet AutoAttack besides, which decides no headline.
    """

    epsilons: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(min_length=1)]
    steps: Positive
    step_size: PositiveFloat = 0.25
    restarts: Positive
    apgd_steps: Positive
    items: Annotated[int, Meta(ge=0)] = 0
    autoattack: Positive | UnsetType = UNSET


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


class CompositionTask(Task, frozen=True, kw_only=True):
    """A task of the composition track: learn the second of two data sets (CL) and make sparse (Co), in both orders.

    Attributes:
        sparsities: fractions of the prunable weights that are zero after a Co; each is an experiment of its own.
        repeat: the one of them at which both orders are gone through once more, with other data orders.
        memory: examples that may be kept of a data set that is past.
        budget: `epochs` of each operation, over the data set that the network learned last or is to learn.
    """

    sparsities: Annotated[tuple[Annotated[float, Meta(gt=0, lt=1)], ...], Meta(min_length=1)]
    repeat: Annotated[float, Meta(gt=0, lt=1)]
    memory: Positive

    @property
    def headlines(self) -> list[str]:
        """Metrics by which the task's methods may be ranked."""
        return ["average_accuracy"]


class ConnectivityTask(Task, frozen=True, kw_only=True):
    """A task of the connectivity track: a path between two networks, trained as `base` says from two seeds.

    Attributes:
        budget: both base networks included.
        points: places along the path, evenly spread and both ends included, at which it is measured.
        plane: of the first seed's path, accuracy at so many by so many places of the plane through it, for a picture.
    """

    points: Annotated[int, Meta(ge=3)] = 25
    plane: Annotated[int, Meta(ge=3)] | UnsetType = UNSET

    @property
    def headlines(self) -> list[str]:
        """Metrics by which the task's methods may be ranked."""
        return ["lowest_accuracy"]


TASK_TYPES: dict[str, type[Task]] = {
    "composition": CompositionTask,
    "connectivity": ConnectivityTask,
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
    "without",
)


def task_digest(task: Task, protocol_version: int) -> str:
    """Digest (12 hex digits) of everything in a task that decides what a job computes."""
    fields = {k: v for k, v in msgspec.to_builtins(task).items() if k not in _COSMETIC}
    said = ("variants", "about", "gated", "local")
    bare = [{k: v for k, v in source.items() if k not in said} for source in msgspec.to_builtins(task.sources)]
    fields["data"] = bare if isinstance(task.data, tuple) else bare[0]
    return digest({"protocol": protocol_version, **fields})[:12]
