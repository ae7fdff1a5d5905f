"""The script that grows an atlas of a task's networks: how many there are, what it says and draws, and going on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fipbench.fip import atlas

SCRIPT = Path(__file__).parents[2] / "examples" / "grow_atlas.py"


@pytest.fixture(scope="module")
def grow(cache_dir):
    def run(folder, *more):
        options = ["--steps", "1", "--sparsities", "0.3,0.6", "--items", "20", *more]
        found = subprocess.run(
            [sys.executable, str(SCRIPT), str(folder), *options],
            env={**os.environ, "FIPBENCH_CACHE": str(cache_dir)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    return run


def test_paths_of_both_orders_are_grown_asked_and_drawn(grow, tmp_path):
    said = grow(tmp_path, "--stretches", "2")
    members = {name: member.parent for name, member in atlas.open_atlas(tmp_path).members.items()}
    assert members == {
        "base": "",
        "cl/1": "base",
        "cl/2": "cl/1",
        "cl-co/0.3": "cl/2",
        "cl-co/0.6": "cl-co/0.3",
        "co/0.3": "base",
        "co/0.6": "co/0.3",
        "co-cl/0.3": "co/0.3",
        "co-cl/0.6": "co/0.6",
    }
    assert "9 members" in said and said.count("has the lowest perplexity") == 2
    for name in ("paths", "graph", "queries"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 5000 and (tmp_path / f"{name}.png").exists()
    again = grow(tmp_path, "--stretches", "2")
    assert "cl/1\n" not in again and again.splitlines()[1:3] == said.splitlines()[9:11]


def test_every_network_of_a_path_can_be_a_start(grow, tmp_path):
    """1 + T + S + 2 T S networks."""
    assert f"{1 + 1 + 2 + 2 * 1 * 2} members" in grow(tmp_path, "--stretches", "1", "--every")
    assert {"cl-co/1/0.6", "co-cl/0.6/1"} <= set(atlas.open_atlas(tmp_path).members)
