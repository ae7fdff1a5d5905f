"""Errors that a person is meant to read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Of names that might be meant no more are told in a line.
_SHOWN = 60


class UserError(Exception):
    """The user's mistake: one line that names the file, the field and the remedy. Exit code 2."""


class BudgetExceeded(RuntimeError):
    """A method used more training examples than its task allows."""


class ProtocolError(RuntimeError):
    """A method broke the contract of its track (wrong sparsity, missing level, non-finite weights, ...)."""


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """The error for a name that is not there, with the nearest ones that are."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known[:_SHOWN]) or 'none'}{more}"
    return UserError(f"unknown {kind} '{name}'{f' {where}' if where else ''}: {hint}")
