"""Attacks made for a method: found beside methods, not in them.

An adaptive attack is mostly written by somebody else than the method's author, and often later (Tramèr et al., 2020).
So it is no attribute of the method, whose code would change, and with it the identity of every record that the attack
is about: it is an entry point of the group `fipbench.attacks` that has the method's name, or a file for `--attack`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import registry
from fipbench.audit.searches import Search
from fipbench.code import code_digest
from fipbench.errors import ProtocolError, UserError

GROUP = "fipbench.attacks"
# What the function of an attack's file is called.
FUNCTION = "attack"

# (vote, inputs, labels, epsilon, generator) -> adversarial inputs
Attack = Callable[[nn.Module, Tensor, Tensor, float, torch.Generator], Any]


def named(method: str, files: Sequence[str | Path]) -> dict[str, Attack]:
    """The attacks that are installed for a method, and those of these files, by a name that holds their code's digest.

    Raises:
        UserError: one does not import, or holds no function.
    """
    found = {}
    for entry in sorted(_installed(method), key=lambda entry: entry.value):
        module, _, attribute = entry.value.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute or FUNCTION, None)
        except (Exception, SystemExit) as error:
            raise UserError(f"attack '{entry.value}' does not import: {registry.one_line(error)}") from None
        found[_name(entry.value, module)] = _checked(function, f"attack '{entry.value}'")
    for file in files:
        function = getattr(registry.plugin_module(str(file)), FUNCTION, None)
        found[_name(f"{Path(file).name}:{FUNCTION}", str(Path(file).absolute()))] = _checked(function, str(file))
    return found


def _installed(method: str) -> list[EntryPoint]:
    """Entry points are listed once a distribution, however often it is found on the path."""
    return list({entry.value: entry for entry in entry_points(group=GROUP, name=method)}.values())


def _name(shown: str, where: str) -> str:
    return f"{shown}+{code_digest(where)}"


def _checked(function: Any, where: str) -> Attack:
    if not callable(function):
        raise UserError(f"{where}: expected a function {FUNCTION}(vote, inputs, labels, epsilon, generator)")
    return function


def search(name: str, attack: Attack, vote: nn.Module) -> Search:
    """The attack as an audit runs it: told apart from the vote's own weights, which it must leave as they are."""

    def find(inputs: Tensor, labels: Tensor, epsilon: float, seed: int) -> Any:
        before = [weights.clone() for weights in vote.parameters()]
        try:
            # What is handed over is a copy: an attack that writes into its arguments spoils nothing.
            return attack(vote, inputs.clone(), labels.clone(), epsilon, torch.Generator().manual_seed(seed))
        finally:
            changed = _put_back(vote, before)
            vote.eval().requires_grad_(False)
            if changed:
                raise ProtocolError("changed the weights of the networks that it attacks")

    return Search(f"own: {name}", "own", find)


@torch.no_grad()
def _put_back(vote: nn.Module, before: Sequence[Tensor]) -> bool:
    """Give every weight its value of before; whether any had another."""
    changed = False
    for weights, value in zip(vote.parameters(), before, strict=True):
        if not torch.equal(weights, value):
            weights.copy_(value)
            changed = True
    return changed
