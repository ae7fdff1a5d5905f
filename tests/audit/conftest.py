"""One thread, and torch as it was; a store of two tiny records."""

from __future__ import annotations

import pytest
import torch
from audit_lab import SMALL, TINY
from workbench import jobs_in_process

from fipbench import api
from fipbench.audit import searches


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


@pytest.fixture
def small(monkeypatch):
    """Audits of both strengths that take a moment."""
    monkeypatch.setattr(searches, "SIZES", dict.fromkeys(searches.SIZES, SMALL))


@pytest.fixture(scope="session")
def votes(tmp_path_factory):
    """A results folder: `fge` with seeds 0 and 1, `single` with seed 0."""
    folder = tmp_path_factory.mktemp("votes")
    (folder / "tiny-vote.toml").write_text(TINY)
    task = str(folder / "tiny-vote.toml")
    with jobs_in_process():
        made = api.run(task, methods=["fge"], seeds=2, results=folder / "results").records
        made += api.run(task, methods=["single"], seeds=1, results=folder / "results").records
    assert {record.status for record in made} == {"ok"}
    return folder / "results"
