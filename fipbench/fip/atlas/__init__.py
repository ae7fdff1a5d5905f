"""Path-connected networks on disk: a set that is grown along paths, drawn as a graph, and asked with data.

from fipbench.fip import atlas

found = atlas.create("networks", base, about={"model": "small BERT"})
atlas.add("networks", "cl/1", network, parent="base", operation="CL imdb")
ranking = atlas.query("networks", network, batches)   # one member in memory at a time

Source: Nature Machine Intelligence 6 (2024), "Generating path-connected sets", Fig. 6c; there is no public code of it.
Needs networkx beside torch, and nothing of the harness. `fipbench.fip.atlas.pictures` needs matplotlib besides.
"""

from fipbench.fip.atlas.connect import EDGES, graph
from fipbench.fip.atlas.grow import Shoot, grow
from fipbench.fip.atlas.plane import Plane, inner_products, plane
from fipbench.fip.atlas.query import Answer, query, score
from fipbench.fip.atlas.storage import Index, Member, add, create, load, open_atlas

__all__ = [
    "EDGES",
    "Answer",
    "Index",
    "Member",
    "Plane",
    "Shoot",
    "add",
    "create",
    "graph",
    "grow",
    "inner_products",
    "load",
    "open_atlas",
    "plane",
    "query",
    "score",
]
