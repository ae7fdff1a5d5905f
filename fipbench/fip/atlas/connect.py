"""The members of an atlas as a graph whose edges are as long as the members are apart in weight space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fipbench.fip.atlas.plane import distances, inner_products
from fipbench.fip.atlas.storage import Index, open_atlas

EDGES = ("complete", "nearest", "path")


def graph(
    atlas: str | Path | Index,
    *,
    edges: str = "nearest",
    neighbours: int = 3,
    scores: Mapping[str, float] | None = None,
    members: Sequence[str] | None = None,
) -> Any:
    """A `networkx.Graph` with a node for each member and Euclidean distances as `weight` of its edges.

    The paper does not say which edges its graph has.

    Args:
        edges: `complete`: all pairs; `nearest`: each member and its `neighbours` nearest; `path`: a member and the one
            that it was made from, which is the set as it is connected by paths.
        scores: put on the nodes as `score`.

    Raises:
        AtlasError: as of `atlas.load`.
        ValueError: other edges, or fewer than one neighbour.
    """
    import networkx

    if edges not in EDGES:
        raise ValueError(f"edges must be one of {', '.join(EDGES)}, got {edges!r}")
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    found = atlas if isinstance(atlas, Index) else open_atlas(atlas)
    names = list(found.members) if members is None else list(members)
    apart = distances(inner_products(found, names))
    place = {name: n for n, name in enumerate(names)}
    drawn = networkx.Graph()
    for name in names:
        member = found.members[name]
        known = {} if scores is None else {"score": scores[name]}
        drawn.add_node(name, parent=member.parent, operation=member.operation, **known)
    for a, b in _pairs(found, names, place, apart, edges, neighbours):
        drawn.add_edge(names[a], names[b], weight=float(apart[a, b]))
    return drawn


def _pairs(
    found: Index, names: Sequence[str], place: Mapping[str, int], apart: np.ndarray, edges: str, neighbours: int
) -> set[tuple[int, int]]:
    if edges == "path":
        parents = [(n, place.get(found.members[name].parent)) for n, name in enumerate(names)]
        return {(n, parent) for n, parent in parents if parent is not None}
    if edges == "complete":
        return {(a, b) for a in range(len(names)) for b in range(a)}
    others = apart + np.where(np.eye(len(names), dtype=bool), np.inf, 0.0)
    nearest = others.argsort(1, kind="stable")[:, : min(neighbours, len(names) - 1)]
    return {(max(a, int(b)), min(a, int(b))) for a, row in enumerate(nearest) for b in row}
