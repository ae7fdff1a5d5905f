"""Curves of a record as they are written: most of a record's text, of which a table shows a small part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from fipbench.errors import UserError

Axes = dict[str, list[float]]

_axes = msgspec.json.Decoder(Axes)
_whole = msgspec.json.Decoder(dict[str, Axes])
_names = msgspec.json.Decoder(dict[str, msgspec.Raw])

# JSON that is known to be well-formed, of lists in objects in an object, and in the lists numbers of an exponent below
# a hundred: no float is out of range then, unless somebody writes three hundred digits.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_NUMBERS = rb"\[(?:[-.,0-9]++|[eE][-+]?\d\d?+(?!\d))*+\]"
_CURVE = rb"\{(?:" + _STRING + rb":" + _NUMBERS + rb",?)*+\}"
_PLAIN = re.compile(rb"\{(?:" + _STRING + rb":" + _CURVE + rb",?)*+\}")


class Curves(Mapping[str, Axes]):
    """A record's curves from their JSON, each decoded whenever it is asked for: text takes less memory than floats.

    Args:
        identity: of the record, for the message.

    Raises:
        UserError: on access, where they are no curves.
    """

    def __init__(self, written: bytes, identity: str) -> None:
        self._written = written
        self._identity = identity

    def __getitem__(self, name: str) -> Axes:
        try:
            return _axes.decode(self._by_name()[name])
        except msgspec.DecodeError as error:
            raise self._none(error) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name()

    def _by_name(self) -> dict[str, msgspec.Raw]:
        try:
            return _by_name(self._written)
        except msgspec.DecodeError as error:
            raise self._none(error) from None

    def _none(self, error: Exception) -> UserError:
        return UserError(f"record {self._identity}: its curves are none ({error}); remove it")

    def check(self) -> None:
        """Tell what is no curves. Decoding would, too, but takes five times as long.

        Raises:
            msgspec.DecodeError: something in it is no curve.
        """
        if not _PLAIN.fullmatch(self._written):
            self.decoded()

    def decoded(self) -> dict[str, Axes]:
        """All of them at once.

        Raises:
            msgspec.DecodeError: something in it is no curve.
        """
        return _whole.decode(self._written)


# A board looks at the seeds of a row one after another, and at each several times.
@lru_cache(maxsize=128)
def _by_name(written: bytes) -> dict[str, msgspec.Raw]:
    """Curves that are not decoded, by name."""
    return _names.decode(written)
