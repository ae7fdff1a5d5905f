"""What an audit's numbers say against the recorded ones, or against the attacks themselves, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fipbench.audit.rounds import Compared
from fipbench.spec.audits import Audit, Radius, Tried

# Two kinds of attack are told apart by an exact sign test at this level.
ALPHA = 0.05
# From this share of the items on, a loss without a gradient is told of.
FLAT = 0.05
# Where any image is allowed, no more than this may be left right.
LEFT = 0.01
NAMES = {
    "query": "black box (Square)",
    "noise": "random noise",
    "transfer": "transfer from single networks",
    "own": "the method's own attack",
}


def findings(
    compared: Sequence[Compared],
    radii: Sequence[Radius],
    beyond: Mapping[str, float],
    flat: Mapping[str, float],
    tried: Sequence[Tried],
) -> list[str]:
    """All that is to be told, the gravest first; empty where nothing is."""
    beaten = [one for one in compared if one.only > one.only_gradient and _p(one) < ALPHA]
    found = [
        f"{NAMES[one.kind]} beats white box at ε {one.epsilon:g}: it fools {one.only} items that no gradient attack "
        f"does, and those fool {one.only_gradient} that it does not: gradients are masked"
        for one in beaten
        if one.kind != "own"
    ]
    found += [*_blind(flat), *_unbounded(radii, beyond)]
    found += [
        f"{NAMES[one.kind]} fools {one.only} item{'s' * (one.only != 1)} at ε {one.epsilon:g} that no gradient attack "
        "does"
        for one in compared
        if one.only and (one not in beaten or one.kind == "own")
    ]
    refused: dict[tuple[str, str], list[str]] = {}
    for one in tried:
        if one.refused:
            refused.setdefault((one.attack, one.refused), []).append(f"{one.epsilon:g}")
    found += [f"{name} was refused at ε {', '.join(at)}: {why}" for (name, why), at in refused.items()]
    return found


def _blind(flat: Mapping[str, float]) -> Iterator[str]:
    """Losses without a gradient at many items."""
    shown = {name: share for name, share in flat.items() if share >= FLAT}
    if len(shown) == len(flat) and shown:
        yield (
            f"no loss has a gradient at {min(shown.values()):.0%} of the items: the vote is flat there, and gradient "
            "attacks walk blind"
        )
    else:
        for name, share in shown.items():
            yield f"{name} has no gradient at {share:.0%} of the items: attacks on it alone walk blind there"


def _unbounded(radii: Sequence[Radius], beyond: Mapping[str, float]) -> Iterator[str]:
    """Gradient attacks that do not get better where they may do more."""
    if (left := beyond.get("1", 0.0)) > LEFT:
        yield f"at ε 1, where any image is allowed, gradient attacks leave {100 * left:.1f} % right: they fail here"
    for at, left in beyond.items():
        if radii and left > (near := radii[-1].alone["gradient"]):
            yield (
                f"at ε {at} PGD leaves more right ({100 * left:.1f} %) than gradient attacks do at ε "
                f"{radii[-1].epsilon:g} ({100 * near:.1f} %)"
            )


def _p(one: Compared) -> float:
    """One-sided p of the exact sign test: that so many or more of the items that tell the two apart are of one side."""
    n = one.only + one.only_gradient
    return sum(math.comb(n, k) for k in range(one.only, n + 1)) / 2**n


# ------------------------------------------------------------------------------------------- the verdict


def lines(audit: Audit) -> list[str]:
    """An audit as a person reads it: what was found at each radius, how hard it was tried, and the findings."""
    lowered = [radius for radius in audit.radii if radius.found < radius.recorded]
    verdict = f"lowered at {len(lowered)} of {len(audit.radii)} radii" if lowered else "confirmed at every radius"
    found = [f"{audit.id}: {verdict}"]
    for radius in audit.radii:
        here = [one for one in audit.tried if one.epsilon == radius.epsilon]
        items = round((radius.recorded - radius.found) * audit.attacked)
        by = ", ".join(f"{one.attack} {one.first}" for one in here if one.first)
        line = f"  ε {radius.epsilon:g}: {100 * radius.recorded:.2f} % recorded, {100 * radius.found:.2f} % found"
        alone = [f"{name} alone {100 * radius.alone[kind]:.2f} %" for kind, name in _KINDS if kind in radius.alone]
        found.append(
            f"{line}{f' ({items} of {audit.attacked} items; first by: {by})' if items else ''}; {'; '.join(alone)}"
        )
    found.append("  beyond, PGD: " + ", ".join(f"{100 * v:.2f} % at ε {at}" for at, v in audit.beyond.items()))
    numbers = audit.metrics
    cost = audit.cost
    found.append(
        f"  tried ({audit.strength}): {audit.attacks} attacks, {numbers['audit_gradients']:.0f} gradients and "
        f"{numbers['audit_queries']:.0f} further queries of the vote an item and radius; {cost.get('cpu_s', 0):.0f} s "
        f"of CPU, {cost.get('remade_s', 0):.0f} of them to make the network again and check it"
    )
    return found + [f"  finding: {text}" for text in audit.findings]


_KINDS = (("transfer", "transfer"), ("noise", "noise"), ("query", "Square"), ("own", "own"))
