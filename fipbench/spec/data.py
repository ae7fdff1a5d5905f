"""A data set: where its examples come from, which contents are known, and how large it is."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from fipbench.spec.base import Name, Positive, Spec

# What a task may name; they are made in `fipbench.data`.
EMBEDDED = ("digits", "star-reviews", "film-reviews")


class Variant(Spec, frozen=True, kw_only=True):
    """One known release of a data set: SHA-256 over the decoded examples of each split, and what it is."""

    train: str
    test: str
    note: str = ""


class About(Spec, frozen=True, kw_only=True):
    """What is known of a data set or of pretrained weights beyond their content; it decides no result.

    Attributes:
        licence: an SPDX name, `research only`, or `not stated` where none could be established; `note`: by whom.
        bytes: of the release's files; `examples` of its splits. A variant may have others. `words`: a corpus's.
        tokens: of a training text, or both of a pair, in BERT's uncased vocabulary with the special ones: at the 5th,
            15th, ... 95th of a hundred, for estimates.
    """

    licence: str = "not stated"
    note: str = ""
    bytes: Positive | UnsetType = UNSET
    examples: dict[str, Positive] | UnsetType = UNSET
    words: dict[str, Positive] | UnsetType = UNSET
    tokens: tuple[Positive, ...] | UnsetType = UNSET


class Streamed(Spec, frozen=True, kw_only=True):
    """How images that stay on disk are brought to one shape whenever they are read: RGB, the shorter side `resize`
    pixels long (bicubic), of that the middle `crop` by `crop`."""

    resize: Positive
    crop: Positive


class Data(Spec, frozen=True, kw_only=True):
    """Where examples come from and which digests they must have.

    `repo` names a data set repository on the hub (or in a mirror laid out like it); `embedded` one that
    ships with a library or is made by one. Exactly one of them is set. `variants` are the known contents, by
    label. `kind`: `image` (the default), `text`, or `corpus`, running text without labels, which a masked language
    model reads window by window; `second`: the column of the other text, where examples are pairs. `train`, `test`: the
    splits that are trained and tested on where they are not those of that name, as where labels are hidden. `scale`:
    labels are no classes but real numbers from 0 to this. `streamed`: images are too many for memory and are read as
    they are asked for (`fipbench.data.streamed`). `gated`: the hub gives it only to those who accepted its terms.
    `local`: no hub has it, a mirror alone. `about` says under which licence it is and how large, for `fipbench data`.
    """

    repo: str = ""
    embedded: str = ""
    config: str = ""
    revision: str = ""
    input: str = "image"
    label: str = "label"
    kind: str | UnsetType = UNSET
    second: str | UnsetType = UNSET
    train: str | UnsetType = UNSET
    test: str | UnsetType = UNSET
    streamed: Streamed | UnsetType = UNSET
    gated: bool | UnsetType = UNSET
    local: bool | UnsetType = UNSET
    scale: Positive | UnsetType = UNSET
    variants: dict[Name, Variant]
    about: About | UnsetType = UNSET

    @property
    def is_text(self) -> bool:
        """Whether the inputs are texts."""
        return self.kind in ("text", "corpus")

    @property
    def is_corpus(self) -> bool:
        """Whether it is running text without labels."""
        return self.kind == "corpus"
