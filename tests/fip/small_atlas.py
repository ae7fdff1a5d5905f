"""A small atlas and what its tests need beside it."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from fipbench.fip import atlas


def network(seed=0, width=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


def moved(net, seed, size=0.3):
    """A copy some way off, one matrix left where it was and one weight exactly zero."""
    found, drawing = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in found.named_parameters():
            if name != "3.weight":
                value.add_(size * torch.randn(value.shape, generator=drawing))
        found[0].weight[0, 0] = 0.0
        found[1].num_batches_tracked += seed
    return found


def batches(seed=9):
    drawing = torch.Generator().manual_seed(seed)
    return [(torch.randn(20, 4, generator=drawing), torch.randint(0, 3, (20,), generator=drawing)) for _ in range(3)]


def grow_seven(folder: Path) -> tuple[Path, dict[str, nn.Module]]:
    """An atlas of seven and its networks by name: two paths from the base."""
    base = network()
    nets = {"base": base}
    atlas.create(folder, base, about={"of": "nothing"})
    for number, (name, parent) in enumerate(
        [("cl/1", "base"), ("cl/2", "cl/1"), ("cl/3", "cl/2"), ("co/1", "base"), ("co/2", "co/1"), ("co-cl/1", "co/1")]
    ):
        nets[name] = moved(nets[parent], number + 1)
        atlas.add(folder, name, nets[name], parent=parent, operation="step")
    return folder, nets
