"""TOML as typed content; a mistake in it is one line that names the file, the field and what was meant."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from fipbench.errors import UserError


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        UserError: it cannot be read or is no TOML; names file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, nested too deep, or no path at all
        raise UserError(f"{path}: not valid TOML ({error})") from None


def convert(content: dict[str, Any], kind: Any, where: str | Path) -> Any:
    """`content` as `kind`.

    Raises:
        UserError: it is none; names `where` it stands (the file, and what of it), the field and what was expected.
    """
    try:
        return msgspec.convert(content, kind, strict=True)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$").removeprefix(".")
        odd = re.fullmatch(r"Object contains unknown field `(.*)`", what)
        hint = f"; {near}" if odd and (near := _nearest(odd[1], kind, place)) else ""
        raise UserError(f"{where}: {f'field {place!r}: ' if place else ''}{what}{hint}") from None


def _nearest(name: str, kind: Any, where: str) -> str:
    """The fields that may be meant by a name at a place in such content, as `did you mean`; empty if none is near."""
    from msgspec import inspect

    found: Any = inspect.type_info(kind)
    for step in re.findall(r"[^.\[\]]+", where):
        found = _below(found, step)
    near = get_close_matches(name, [field.encode_name for field in getattr(found, "fields", ())], n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _below(info: Any, step: str) -> Any:
    """What is at a field, a key or a place of a type; of a choice of types the first that has fields."""
    from msgspec import inspect

    known = {field.encode_name: field.type for field in getattr(info, "fields", ())}
    found = known.get(step) or getattr(info, "value_type", None) or getattr(info, "item_type", None)
    while isinstance(found, inspect.Metadata):
        found = found.type
    return next((kind for kind in getattr(found, "types", ()) if hasattr(kind, "fields")), found)
