"""An attack audit: what became of one record's robustness when it was attacked harder than its task does."""

from __future__ import annotations

from typing import Any

import msgspec

from fipbench.spec.base import Name, Spec, digest
from fipbench.spec.records import Items

SCHEMA = "fipbench.audit/1"
# Raise it when an audit attacks otherwise: one of an older version covers no request.
VERSION = 1
# From the weakest to the hardest.
STRENGTHS = ("default", "hard")
KINDS = ("gradient", "transfer", "query", "noise", "own")


class Tried(Spec, frozen=True, kw_only=True):
    """One attack at one radius.

    Attributes:
        kind: `gradient` goes through the whole vote, `transfer` through one network, `query` asks for outputs only,
            `noise` is random, `own` was made for the method.
        given: items that it was tried on, `fooled` how many of them it changed the vote of, `first` how many of these
            had stood up to the recorded attacks and to all before it.
        forward, backward: examples through the vote; of a single network they count as their share of it.
        refused: why its answer does not count; empty where it does.
    """

    attack: str
    kind: str
    epsilon: float
    given: int
    fooled: int
    first: int
    forward: int
    backward: int
    refused: str = ""


class Radius(Spec, frozen=True, kw_only=True):
    """The worst case in one ball.

    Attributes:
        recorded: accuracy as the record has it, `found` under all attacks of the record and of the audit.
        standing: which attacked items are right in that worst case.
        alone: accuracy under the attacks of one kind alone; `gradient` takes the recorded attacks in. Gradient attacks
            keep what they found at smaller radii, the others do not.
    """

    epsilon: float
    recorded: float
    found: float
    standing: Items
    alone: dict[str, float]


class Audit(Spec, frozen=True, kw_only=True):
    """What an audit of the record `id` found. `digest` finds corruption; it is no signature.

    Attributes:
        items_digest: of the record's `items`, which the network made again gave, too.
        strength: one of `STRENGTHS`, `settings`: its sizes; `own`: the method's own attacks that were tried.
        attacked: how many test items were.
        radii: those of the record, increasing.
        beyond: accuracy under PGD at larger radii, by radius; "1" allows any image.
        flat: share of the items that the vote has right at which a loss has no gradient at all, by loss.
        findings: what speaks against the recorded number, or against the attacks, in words.
        cost: CPU and wall seconds, of which `remade_s` CPU seconds made and checked the network again.
    """

    schema: str = SCHEMA
    version: int = VERSION
    id: str
    task: Name
    method: Name
    seed: int
    items_digest: str
    strength: str
    settings: dict[str, int]
    own: tuple[str, ...] = ()
    attacked: int
    radii: tuple[Radius, ...]
    beyond: dict[str, float]
    flat: dict[str, float]
    tried: tuple[Tried, ...]
    findings: tuple[str, ...] = ()
    cost: dict[str, float] = {}
    provenance: dict[str, Any] = {}
    digest: str = ""

    @property
    def attacks(self) -> int:
        """How many attacks there were at each radius."""
        return len({one.attack for one in self.tried if not one.refused})

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of an audit under the names that boards give them.

        `audited@E` is the worst case found, `audit_lowered@E` what it has over the recorded one (zero or less),
        `audit_square@E` and `audit_noise@E` are accuracies under those alone, `audit_unbounded` is that under PGD at
        radius 1; `audit_gradients` and `audit_queries` are what one test item met on average over the radii.
        """
        found: dict[str, float] = {}
        for radius in self.radii:
            at = f"@{radius.epsilon:g}"
            found[f"audited{at}"] = radius.found
            found[f"audit_lowered{at}"] = radius.found - radius.recorded
            for kind, name in (("query", "square"), ("noise", "noise")):
                if kind in radius.alone:
                    found[f"audit_{name}{at}"] = radius.alone[kind]
        if "1" in self.beyond:
            found["audit_unbounded"] = self.beyond["1"]
        cases = max(1, self.attacked * len(self.radii))
        inside = [one for one in self.tried if any(one.epsilon == radius.epsilon for radius in self.radii)]
        found["audit_gradients"] = sum(one.backward for one in inside) / cases
        found["audit_queries"] = sum(one.forward - one.backward for one in inside) / cases
        found["audit_attacks"] = float(self.attacks)
        return found


def sealed(audit: Audit) -> Audit:
    """The audit with its digest filled in."""
    return msgspec.structs.replace(audit, digest=audit_digest(audit))


def audit_digest(audit: Audit) -> str:
    """SHA-256 (hex) of the audit's content without the digest itself."""
    return digest(msgspec.structs.replace(audit, digest=""))


def same(a: Audit, b: Audit) -> bool:
    """Whether two audits say the same: cost and provenance may differ, nothing else may."""
    return _compared(a) == _compared(b)


def _compared(audit: Audit) -> str:
    return digest(msgspec.structs.replace(audit, cost={}, provenance={}, digest=""))


def covers(kept: Audit, strength: str, own: tuple[str, ...]) -> bool:
    """Whether an audit is at least as hard as one of this strength with these attacks of the method's own."""
    harder = STRENGTHS.index(kept.strength) >= STRENGTHS.index(strength)
    return kept.version == VERSION and harder and set(kept.own) >= set(own)
