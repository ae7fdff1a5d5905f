"""The same records, whoever computes them beside whom, in which order, at once or bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from ordeal import assert_same, whole
from workbench import write_tiny

from fipbench import api, plan
from fipbench.spec import id_of

ZOO = Path(__file__).parents[1] / "executors" / "zoo.py"
# `by-luck` draws from the generators that everybody shares.
GOOD, BAD = "by-luck,lth,magnitude", "raises,crashes,exits-hard,spends-too-much"


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory, nursery):
    """The task, and the records of a run of one job at a time."""
    folder = tmp_path_factory.mktemp("one")
    task = write_tiny(folder)
    run = nursery.start(folder, *words(task, folder), "--workers", 1)
    assert run.wait() == 0, run.said
    return task, whole(folder / "results")


def words(task: Path, folder: Path, methods: str = GOOD, seeds: int = 2) -> list[object]:
    return [
        *("run", task, "--plugin", ZOO, "--methods", methods, "--seeds", seeds, "--results", folder / "results"),
    ]


@pytest.mark.parametrize("workers", [2, 4])
def test_over_workers(workers, one_by_one, nursery, tmp_path):
    """With a cache of their own: the shared base networks come out the same, too."""
    task, wanted = one_by_one
    run = nursery.start(tmp_path, *words(task, tmp_path), "--workers", workers)
    assert run.wait() == 0, run.said
    assert_same(whole(tmp_path / "results"), wanted)


def test_with_failing_jobs_beside(one_by_one, nursery, tmp_path):
    task, wanted = one_by_one
    run = nursery.start(tmp_path, *words(task, tmp_path, f"{BAD},{GOOD}"), "--workers", 3)
    assert run.wait() == 1, run.said
    found = whole(tmp_path / "results")
    assert sum(record.status == "failed" for record in found) == 8
    assert_same([record for record in found if record.status == "ok"], wanted)


def test_bit_by_bit(one_by_one, nursery, tmp_path):
    """One seed and one method more at a time, then all of it again: every record is made once."""
    task, wanted = one_by_one
    for methods, seeds in (("magnitude", 1), ("lth,magnitude", 1), (GOOD, 2)):
        run = nursery.start(tmp_path, *words(task, tmp_path, methods, seeds), "--workers", 2)
        assert run.wait() == 0, run.said
    assert run.said.startswith("4 jobs to compute, 2 in the store")
    assert_same(whole(tmp_path / "results"), wanted)


def test_in_the_other_order(one_by_one, tmp_path, monkeypatch):
    task, wanted = one_by_one
    monkeypatch.setenv("FIPBENCH_CACHE", str(tmp_path / "cache"))
    ask = api.request(str(task), methods=GOOD.split(","), plugins=[ZOO], seeds=2, results=tmp_path / "results")
    tickets, begun = plan.tickets(ask)[::-1], []
    api.execute(tickets, workers=1, watch=lambda e: begun.append(e["id"]) if e["event"] == "start" else None)
    assert begun == [id_of(ticket.job) for ticket in tickets]
    assert_same(whole(tmp_path / "results"), wanted)


def test_as_often_as_it_is_run(one_by_one, nursery, tmp_path):
    task, wanted = one_by_one
    for _ in range(2):
        run = nursery.start(tmp_path, *words(task, tmp_path), "--workers", 2, "--force")
        assert run.wait() == 0, run.said
        assert_same(whole(tmp_path / "results"), wanted)
