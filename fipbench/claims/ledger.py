"""The ledger of published numbers: one typed row each, read from TOML, checked before anything is compared.

A folder holds one file a paper (rows by id, and the paper itself), `studies.toml` (the published experiments, and which
task and methods of ours answer to them) and `planned.toml` (tasks and methods that rows name and that are not built).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from fipbench import reading
from fipbench.errors import UserError
from fipbench.protocol import not_storable
from fipbench.spec import Name, Positive, PositiveFloat, Spec

Kind = Literal["value", "order", "trend", "fact", "cost"]
Track = Literal["continual", "sparsity", "robustness", "composition", "connectivity", "geometry", "background"]
Reason = Literal[
    "arithmetic", "axis", "background", "figure", "gap", "hardware", "other-work", "protocol", "size", "theory"
]
Label = Annotated[str, Meta(min_length=1)]

# Why a row is not testable. The row's note says what exactly, where that is not plain.
REASONS: dict[Reason, str] = {
    "arithmetic": "worked out from other rows or known of a public data set; nothing of its own to measure",
    "axis": "only the ticks of a figure's axis are known, not the values drawn",
    "background": "said of the field, not of an experiment in the paper",
    "figure": "the numbers are in a figure, table image or supplement that the text does not give",
    "gap": "the paper leaves open what must be known to measure it",
    "hardware": "time on a machine that is not at hand; the records hold the cost on ours",
    "other-work": "said in an abstract of other work, without the experiment behind it",
    "protocol": "a setting of the experiment, not a result",
    "size": "a count of parameters, which the architecture fixes; the note has that of the task's network",
    "theory": "a mathematical statement; a proof settles it, not a run",
}
# Rows that state no result of the paper's own; of the others a result is stated that no record could settle.
NO_RESULT: frozenset[Reason] = frozenset({"arithmetic", "background", "other-work", "protocol", "size", "theory"})


class Paper(Spec, frozen=True, kw_only=True):
    """A publication. `source`: a DOI, an arXiv number or a title to search for."""

    title: str
    source: str
    year: Positive


class Several(Spec, frozen=True, kw_only=True):
    """A number of a record made of several metrics: their least, most or mean; `each`: all of them must hold."""

    least: tuple[str, ...] = ()
    most: tuple[str, ...] = ()
    mean: tuple[str, ...] = ()
    each: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """All of them."""
        return self.least + self.most + self.mean + self.each


class Claim(Spec, frozen=True, kw_only=True):
    """A published number, order, trend, fact or cost: a row of the ledger. Its id is the table's name in the file.

    Attributes:
        at: table, figure or section. `study`: the experiment, in `studies.toml`.
        method, model, metric: as published; `model` where it is not the study's, `unit` of `value`.
        value: as printed; a text where it is no number. With `to` it is a range. `bound`: `about`, or a bound.
        spread: behind ±; `spread_is`: `sd`, or `unstated` (read as one). `n`: runs behind it.
        setting: protocol fields of this row alone.
        ours: the metric of our records; curves are read as `NAME@PLACE`. `also`: others that may be meant.
        better: the direction that is good. `margin`: half the width of the band, where the default is not right.
        relation: of an order, how `method` stands to `than` (by `than_ours`, where that is another metric); of a trend,
            how the metric goes `along` these methods.
        untestable: why no record could settle it.
        conflicts: rows that say otherwise of the same thing; named in both.
        derived: rows that this one follows from; it stands in no table of the paper.
    """

    at: str
    study: Name
    kind: Kind
    metric: str
    method: str = ""
    model: str = ""
    unit: str = ""
    value: float | str | UnsetType = UNSET
    to: float | UnsetType = UNSET
    bound: Literal["exact", "about", "at-least", "at-most"] = "exact"
    spread: PositiveFloat | UnsetType = UNSET
    spread_is: Literal["", "sd", "unstated"] = ""
    n: Positive | UnsetType = UNSET
    setting: dict[str, Any] = field(default_factory=dict)
    ours: str | Several = ""
    also: tuple[str, ...] = ()
    better: Literal["", "higher", "lower", "neither"] = ""
    margin: PositiveFloat | UnsetType = UNSET
    relation: Literal["", "above", "below", "alike", "rising", "falling"] = ""
    than: str = ""
    than_ours: str = ""
    along: tuple[str, ...] = ()
    untestable: Reason | Literal[""] = ""
    conflicts: tuple[Name, ...] = ()
    derived: tuple[Name, ...] = ()
    note: str = ""
    id: str = ""
    paper: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of ours that the row names, those that decide first."""
        main = (self.ours,) if isinstance(self.ours, str) else self.ours.metrics
        return tuple(metric for metric in (*main, self.than_ours, *self.also) if metric)

    @property
    def compared(self) -> tuple[str, ...]:
        """Every published method whose record the row needs."""
        return tuple(dict.fromkeys(name for name in (self.method, self.than, *self.along) if name))


class Study(Spec, frozen=True, kw_only=True):
    """A published experiment, and what of ours answers to it.

    Attributes:
        model: as published.
        tasks: of ours; the first is the paper's own protocol and settles its rows, others are looked at besides.
        labels: published method -> labels of ours; the first decides, the verdicts of others are shown beside it.
        protocol: fields of a task that must be as here, or its records are of another experiment; `false` for a field
            that must not be set. `scale`: fields in which a task may be smaller, and its verdicts are called so then.
        variants: contents of the data that are the paper's own.
        memory: examples a task that methods which store some must have stored.
        reading: how ambiguities of the paper are read here.
    """

    title: str
    track: Track
    model: str = ""
    tasks: tuple[Name, ...] = ()
    labels: dict[Label, Annotated[tuple[Name, ...], Meta(min_length=1)]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    scale: dict[str, Any] = field(default_factory=dict)
    variants: tuple[Name, ...] = ("official",)
    memory: Positive | UnsetType = UNSET
    reading: str = ""


class PlannedTask(Spec, frozen=True, kw_only=True):
    """A task that rows name and that is not built. `methods`: labels that it will have beside its track's methods."""

    title: str
    track: Track
    methods: tuple[Name, ...] = ()


class Planned(Spec, frozen=True, kw_only=True):
    """What rows may name though it is not built: tasks, and methods by label with what they are."""

    tasks: dict[Name, PlannedTask] = field(default_factory=dict)
    methods: dict[Name, str] = field(default_factory=dict)


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All rows by id, in the order of the files, and what they refer to."""

    folder: Path
    papers: dict[str, Paper]
    studies: dict[str, Study]
    planned: Planned
    claims: dict[str, Claim]

    def file_of(self, claim: Claim) -> Path:
        """Where the row stands."""
        return self.folder / f"{claim.paper}.toml"


def published() -> Path:
    """The folder of the ledger that comes with fipbench."""
    return Path(str(files("fipbench"))) / "published"


def load(folder: str | Path | None = None) -> Ledger:
    """The ledger in a folder (default: the one that comes with fipbench), every row checked.

    Raises:
        UserError: a file that is missing or no TOML, a field that is unknown, of another type or not finite, an id that
            stands twice, or a row that names what does not exist; one line with file, row and field.
    """
    from fipbench.claims.checks import check

    place = published() if folder is None else Path(folder)
    if not (place / "studies.toml").is_file():
        raise UserError(f"{place}: holds no ledger: no studies.toml in it")
    studies = _table(place / "studies.toml", Study, "study")
    planned = Planned()
    if (place / "planned.toml").is_file():
        planned = _checked(reading.read_toml(place / "planned.toml"), Planned, place / "planned.toml")
    papers: dict[str, Paper] = {}
    claims: dict[str, Claim] = {}
    for path in sorted(place.glob("*.toml")):
        if path.name in ("studies.toml", "planned.toml"):
            continue
        content = reading.read_toml(path)
        if "paper" not in content:
            raise UserError(f"{path}: field 'paper': a file of rows says first what publication it is of")
        papers[path.stem] = _checked(content.pop("paper"), Paper, f"{path}: 'paper'")
        for name, row in content.items():
            claim = _row(row, name, path)
            if name in claims:
                other = place / f"{claims[name].paper}.toml"
                raise UserError(f"{path}: row '{name}': the id stands in {other} already; ids are unique and stay")
            claims[name] = claim
    ledger = Ledger(folder=place, papers=papers, studies=studies, planned=planned, claims=claims)
    check(ledger)
    return ledger


def _row(row: Any, name: str, path: Path) -> Claim:
    where = f"{path}: row '{name}'"
    if isinstance(row, dict):
        for name_of in ("id", "paper"):
            if name_of in row:
                raise UserError(f"{where}: field '{name_of}': is given by the table's name and the file's; drop it")
    return msgspec.structs.replace(_checked(row, Claim, where), id=name, paper=path.stem)


def _table(path: Path, kind: Any, what: str) -> dict[str, Any]:
    return {name: _checked(row, kind, f"{path}: {what} '{name}'") for name, row in reading.read_toml(path).items()}


def _checked(content: Any, kind: Any, where: str | Path) -> Any:
    """`content` as `kind`, every number in it finite."""
    if isinstance(content, dict) and (odd := not_storable(content)):
        raise UserError(f"{where}: field '{odd}': expected a finite number")
    return reading.convert(content, kind, where)
