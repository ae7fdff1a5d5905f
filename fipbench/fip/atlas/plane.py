"""Where the members of an atlas lie: inner products and principal components, read a slice at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fipbench.fip.atlas.storage import BASE, AtlasError, Index, changed_part, check, open_atlas, reading


@dataclass(frozen=True)
class Plane:
    """Members in the space of their first principal components.

    Attributes:
        names: the members; `points`: their places, shape (members, components).
        explained: the share of the variance along each component.
    """

    names: tuple[str, ...]
    points: np.ndarray
    explained: np.ndarray


def inner_products(
    atlas: str | Path | Index, members: Sequence[str] | None = None, *, block_bytes: int = 1 << 26
) -> np.ndarray:
    """G_ij = <w_i - w_base, w_j - w_base> over all parameters, shape (members, members), in double precision.

    Summed slice by slice of each parameter: never more than about `block_bytes` of all members together are held (one
    row of a matrix of each, if that is more). Every file is read twice: once for its digest.

    Raises:
        AtlasError: as of `atlas.load`.
    """
    found = atlas if isinstance(atlas, Index) else open_atlas(atlas)
    names = list(found.members) if members is None else list(members)
    for name in {BASE, *names}:
        check(found, name)
    total = torch.zeros(len(names), len(names), dtype=torch.float64)
    with ExitStack() as stack:
        base = stack.enter_context(reading(found, BASE))
        files = [stack.enter_context(reading(found, name)) for name in names]
        changed = [set(file.keys()) if name != BASE else set() for name, file in zip(names, files, strict=True)]
        for key in found.parameters:
            holders = [n for n, keys in enumerate(changed) if key in keys]
            if not holders:
                continue
            _, shape = found.tensors[key]
            rows, width = (shape[0], int(np.prod(shape[1:]))) if shape else (1, 1)
            step = max(1, block_bytes // (8 * width * len(holders)))
            for start in range(0, rows, step):
                cut = slice(start, start + step)
                own = base.get_slice(key)[cut] if shape else base.get_tensor(key)
                parts = [files[n].get_slice(key)[cut] if shape else files[n].get_tensor(key) for n in holders]
                moved = torch.stack([changed_part(own, part).flatten() for part in parts])
                index = torch.tensor(holders)
                total[index[:, None], index] += moved @ moved.T
    return total.numpy()


def distances(products: np.ndarray) -> np.ndarray:
    """Euclidean distances between members, shape (members, members), from their inner products."""
    squares = np.diag(products)
    found = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0))
    np.fill_diagonal(found, 0.0)
    return found


def plane(
    atlas: str | Path | Index, members: Sequence[str] | None = None, *, components: int = 2, block_bytes: int = 1 << 26
) -> Plane:
    """The members' principal components, from inner products alone. A component's largest place is positive.

    Raises:
        AtlasError: as of `atlas.load`, or fewer members than components + 1.
    """
    found = atlas if isinstance(atlas, Index) else open_atlas(atlas)
    names = list(found.members) if members is None else list(members)
    if len(names) <= components:
        raise AtlasError(f"{found.folder}: {len(names)} members span no {components} components; add more")
    products = inner_products(found, names, block_bytes=block_bytes)
    mean = products.mean(0)
    centred = products - mean[:, None] - mean[None, :] + mean.mean()
    values, vectors = np.linalg.eigh(centred)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    points = vectors[:, :components] * np.sqrt(values[:components])
    largest = points[np.abs(points).argmax(0), np.arange(components)]
    return Plane(
        tuple(names), points * np.where(largest < 0, -1.0, 1.0), values[:components] / max(values.sum(), 1e-300)
    )
