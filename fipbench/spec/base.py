"""What the nouns have in common: strict reading, names, and digests that depend on content alone."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9+-]*\Z", max_length=60)]
Positive = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Value = bool | int | float | str
Params = dict[str, Value]


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
    return msgspec.json.encode(value, order="deterministic", enc_hook=_plain)


def builtins(value: Any) -> Any:
    """The value as dictionaries with strings for keys, lists, strings and numbers."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)


def _plain(value: Any) -> dict[Any, Any]:
    """A mapping of another type, such as curves that are decoded when they are asked for, as a dictionary."""
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"no JSON of {type(value).__name__}")


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything that is read from a file: frozen, and a field that is not known is an error.

    A field that may be unset is left out of digests then, so that a new one voids no older result.
    """
