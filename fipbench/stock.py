"""What tasks need besides code, data sets and pretrained weights: what is at hand, how large, under which licence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType

from fipbench import data
from fipbench.errors import UserError
from fipbench.reading import convert, read_toml
from fipbench.spec import About, Data, Model, Task, canonical


class _Weights(About, frozen=True, kw_only=True):
    """`config`: kind and sizes of the network as its `config.json` has them, for estimates without that file."""

    repo: str
    config: dict[str, str | int] | UnsetType = UNSET


@dataclass(frozen=True)
class Entry:
    """A data set or a file of pretrained weights, and the tasks that need it."""

    source: Data | Model
    tasks: tuple[str, ...]
    about: About

    @property
    def name(self) -> str:
        """The entry as a person would name it, with the configuration of a data set."""
        if isinstance(self.source, Model):
            return f"{self.source.weights} (weights)"
        return "/".join(part for part in (data.name_of(self.source), self.source.config) if part)

    @property
    def variants(self) -> dict[str, dict[str, str]]:
        """The known contents, by label: what is digested, and its SHA-256."""
        if isinstance(self.source, Model):
            return {"pinned": {"weights": self.source.sha256}} if self.source.sha256 else {}
        return {label: {"train": v.train, "test": v.test} for label, v in self.source.variants.items()}


@dataclass(frozen=True)
class State:
    """What is at hand of an entry; found out without decoding anything.

    Attributes:
        place: `embedded`, `mirror`, `cache` or `missing`; `folder`: of the mirror or cache.
        bytes: of the files at hand; `examples` by split.
        variant: the label of what is there, `unknown` if no task knows it, empty if nobody has looked yet.
        problem: what is wrong with the files, if that can be seen at once.
    """

    place: str
    folder: Path | None = None
    bytes: int = 0
    examples: dict[str, int] = field(default_factory=dict)
    variant: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Check:
    """What came of looking at an entry's content: `known`, `differs` or `cannot`, and why."""

    verdict: str
    text: str


def needed(tasks: Iterable[Task], folders: Sequence[Path] = ()) -> list[Entry]:
    """Data sets, then weights, that these tasks need; each once.

    Args:
        folders: where descriptions are looked for (`data/*.toml`, `weights/*.toml`) before the installed ones.

    Raises:
        UserError: a description breaks its schema.
    """
    about = _descriptions([Path(str(files("fipbench.tasks"))), *folders])
    sources: dict[bytes, Data | Model] = {}
    users: dict[bytes, list[str]] = {}
    for task in tasks:
        wanted: list[Data | Model] = [*task.sources, *([_bare(task.model)] if task.model.weights else [])]
        for source in wanted:
            if isinstance(source, Data) and source.about:
                about[_described(source)] = source.about
                source = msgspec.structs.replace(source, about=UNSET)
            key = canonical(source)
            sources[key] = source
            users.setdefault(key, []).append(task.name)
    entries = [
        Entry(source, tuple(dict.fromkeys(users[key])), about.get(_described(source), About()))
        for key, source in sources.items()
    ]
    return sorted(entries, key=lambda entry: isinstance(entry.source, Model))


def _bare(model: Model) -> Model:
    """As much of a model as says which weights it starts from."""
    return Model(name="", inputs=(1,), outputs=1, weights=model.weights, revision=model.revision, sha256=model.sha256)


def _described(source: Data | Model) -> tuple[str, ...]:
    """By what a source's description is found."""
    if isinstance(source, Model):
        return ("weights", source.weights or "")
    return ("data", source.repo or source.embedded, source.config, *([source.train] if source.train else []))


def about(source: Data) -> About:
    """What is known of a data set beyond its content, by its own word or the installed descriptions'."""
    return source.about or _installed().get(_described(source), About())


def sizes_of(weights: str) -> dict[str, str | int]:
    """Kind and sizes of a pretrained network by the installed descriptions; nothing where they do not say."""
    found = _installed().get(("weights", weights))
    return dict(found.config or {}) if isinstance(found, _Weights) else {}


@cache
def _installed() -> dict[tuple[str, ...], About]:
    return _descriptions([Path(str(files("fipbench.tasks")))])


def _descriptions(folders: Sequence[Path]) -> dict[tuple[str, ...], About]:
    found: dict[tuple[str, ...], About] = {}
    for folder in folders:
        for path in sorted(folder.glob("data/*.toml")):
            source: Data = convert(read_toml(path), Data, path)
            found[_described(source)] = source.about or About()
        for path in sorted(folder.glob("weights/*.toml")):
            weights: _Weights = convert(read_toml(path), _Weights, path)
            found["weights", weights.repo] = weights
    return found


def state(entry: Entry, cache: Path) -> State:
    """What is at hand of an entry; asks no network and decodes nothing.

    Raises:
        UserError: FIPBENCH_DATA or FIPBENCH_MODELS names no folder.
    """
    if isinstance(entry.source, Model):
        return _weights_state(entry.source)
    place, folder = data.place(entry.source, cache)
    if place == "missing":
        return State(place)
    noted = data.noted(entry.source, cache)
    variant = data.variant_of(entry.source, noted) if noted else ""
    if folder is None:
        if place == "embedded":
            return State(place, examples=dict(entry.about.examples or {}), variant=variant)
        kept = {split: data.kept_file(entry.source, split, cache) for split in data.SPLITS}
        kept = {split: file for split, file in kept.items() if file.is_file()}
        size = sum(file.stat().st_size for file in kept.values())
        if entry.source.streamed:
            size = entry.about.bytes or size  # the images are among the hub's own files
        return State(place, None, size, {split: _kept_rows(file) for split, file in kept.items()}, variant)
    found = {split: data.split_files(entry.source, folder, split) for split in data.SPLITS}
    lacking = ", ".join(f"{data.file_of(entry.source, split)}-*.parquet" for split, parts in found.items() if not parts)
    try:
        examples = {split: sum(map(_rows, parts)) for split, parts in found.items() if parts}
    except UserError as error:
        return State(place, folder, problem=str(error))
    size = sum(file.stat().st_size for parts in found.values() for file in parts)
    return State(place, folder, size, examples, variant, f"{folder}: holds no {lacking}" if lacking else "")


def _rows(file: Path) -> int:
    """Rows of a Parquet file, by its footer."""
    import pyarrow
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(file).num_rows)
    except (pyarrow.ArrowException, OSError):
        raise UserError(f"{file}: no Parquet file; copy it again from where it came") from None


def _kept_rows(file: Path) -> int:
    """Examples in a file of decoded data, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as content:
            return int(content.get_slice("labels").get_shape()[0])
    except (SafetensorError, OSError):
        return 0  # damaged: it will be made again


def _weights_state(model: Model) -> State:
    from fipbench.models import pretrained

    place, folder = pretrained.place(model)
    if folder is None:
        return State(place)
    try:
        size = sum(file.stat().st_size for file in pretrained.files_of(model, folder))
    except UserError as error:
        return State(place, folder, problem=str(error))
    return State(place, folder, size)


def fetch(entry: Entry, cache: Path) -> str:
    """Get what an entry needs into the hub's cache, unless it is at hand; returns what was done, in words.

    Raises:
        UserError: it cannot be had, or is none of the known variants; names what gets it.
    """
    found = state(entry, cache)
    if found.place != "missing":
        return f"already there ({where(found)})"
    if isinstance(entry.source, Model):
        from fipbench.models import pretrained

        return f"fetched into {pretrained.weights_folder(entry.source)}"
    label, _ = data.identify(entry.source, cache)
    return f"fetched into {cache}, variant {label}"


def where(found: State) -> str:
    """Where an entry is, in words."""
    return {
        "embedded": "part of the installation",
        "mirror": f"mirror {found.folder}",
        "cache": f"cache {found.folder}" if found.folder else "cache",
        "missing": "missing",
    }[found.place]


def on_hub(entry: Entry) -> bool:
    """Whether `fetch` can get what is missing; else a mirror has to bring it."""
    return isinstance(entry.source, Model) or not entry.source.local


def remedy(entry: Entry) -> str:
    """What gets an entry that is missing."""
    return "`fipbench data fetch` gets it" if on_hub(entry) else "no hub has it, a mirror has to bring it"


def verify(entry: Entry, cache: Path) -> Check:
    """Whether what is at hand is what the tasks know; data are decoded again, weights digested again."""
    if state(entry, cache).place == "missing":
        return Check("cannot", f"missing; {remedy(entry)}")
    try:
        label, digests = _looked_at(entry, cache)
    except UserError as error:
        return Check("differs", str(error))
    said = ", ".join(f"{what} {value[:12]}" for what, value in digests.items())
    if label != data.UNKNOWN:
        return Check("known", f"variant {label}: {said}")
    if not entry.variants:
        return Check("cannot", f"no digest is pinned: {said}")
    known = ", ".join(entry.variants)
    return Check("differs", f"{said} is none of the known variants ({known}); get the pinned release")


def _looked_at(entry: Entry, cache: Path) -> tuple[str, dict[str, str]]:
    if isinstance(entry.source, Data):
        return data.examined(entry.source, cache)
    from fipbench.models import pretrained

    folder = pretrained.place(entry.source)[1]
    assert folder is not None  # the caller has seen that it is there
    pretrained.files_of(entry.source, folder)
    digests = {"weights": pretrained.digest_in(entry.source, folder)}
    return next((label for label, known in entry.variants.items() if known == digests), data.UNKNOWN), digests
