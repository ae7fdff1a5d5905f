"""Jobs that hang and runs that meet: what executor, locks and store do, with stand-ins for the computation."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter

import psutil
import pytest
import stand_in
from ordeal import KILLS, assert_same, family, whole
from workbench import alive

HUNG = ["sleeps", "deaf", "stopped", "busy"]


@pytest.fixture(scope="module")
def hung(light, tmp_path_factory):
    """All that hang beside two that do not, in one run with a limit of time."""
    folder = tmp_path_factory.mktemp("hung")
    (folder / "results").mkdir()
    jobs = [("good", 0), *((name, 0) for name in HUNG), ("dies", 0), ("good", 1)]
    tickets = stand_in.tickets(folder / "results", jobs, folder=str(folder))
    run = light.start_stand_ins(folder, tickets, workers=8, timeout=3)
    assert run.wait() == 1, run.said
    return folder, run, {(r.job.method, r.job.seed): r for r in whole(folder / "results")}


@pytest.mark.parametrize("name", HUNG)
def test_who_hangs_is_killed_and_recorded_as_failed(name, hung):
    folder, _, of = hung
    record = of[name, 0]
    assert (record.status, record.error.type, record.metrics) == ("failed", "TimeoutError", {})
    assert record.error.message.startswith("no end within 3 s (--timeout); the job's process and what it had started")
    pids = [int(pid) for pid in (folder / f"{name}.pids").read_text().split()]
    pids += [int((folder / "grandchild.pid").read_text())] if name == "deaf" else []
    assert len(pids) == (3 if name == "deaf" else 1)
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert not alive(psutil.Process(pid)), pid


def test_the_others_go_on(hung):
    _, run, of = hung
    assert run.said.startswith("7 computed, 5 failed")
    assert [of["good", seed].status for seed in (0, 1)] == ["ok", "ok"]
    assert of["dies", 0].error.type == "RuntimeError" and "SIGKILL" in of["dies", 0].error.message


def test_a_failure_by_time_is_tried_again_and_the_limit_is_no_part_of_identity(light, hung):
    folder, _, of = hung
    (folder / "hurry").touch()
    tickets = stand_in.tickets(folder / "results", [("good", 0), ("sleeps", 0)], folder=str(folder))
    for expected in ("1 computed, 0 failed\n", "0 computed, 0 failed\n"):
        run = light.start_stand_ins(folder, tickets, workers=2, timeout=600)
        assert run.wait() == 0 and run.said == expected
    now = {record.id: record for record in whole(folder / "results")}
    assert now[of["sleeps", 0].id].status == "ok" and now[of["good", 0].id] == of["good", 0]


def test_who_ends_in_time_is_left_alone(light, tmp_path):
    """The limit is of each job, not of the run: nine jobs of half a second, one by one, with a limit of four seconds,
    which leaves a busy machine room."""
    (tmp_path / "results").mkdir()
    tickets = stand_in.tickets(tmp_path / "results", [("good", seed) for seed in range(9)], seconds=0.5)
    run = light.start_stand_ins(tmp_path, tickets, workers=1, timeout=4)
    assert run.wait() == 0 and run.said == "9 computed, 0 failed\n"


@pytest.mark.parametrize("runs", [2, 4])
def test_runs_that_share_a_folder_compute_every_job_once(runs, light, tmp_path):
    (tmp_path / "results").mkdir()
    jobs = [("good", seed) for seed in range(20 if KILLS < 50 else 200)]
    tickets = stand_in.tickets(tmp_path / "results", jobs, seconds=0.005, counted=str(tmp_path / "computed"))
    # Each begins at another end of the list, so that they meet in the middle.
    orders = [tickets[k:] + tickets[:k] for k in range(0, len(tickets), len(tickets) // runs)][:runs]
    together = [light.start_stand_ins(tmp_path, order, workers=3) for order in orders]
    assert [run.wait() for run in together] == [0] * runs, [run.said for run in together]
    assert set(Counter((tmp_path / "computed").read_text().split()).values()) == {1}
    found = whole(tmp_path / "results")
    assert len(found) == len(jobs) and not list(tmp_path.rglob("*.tmp"))
    (tmp_path / "alone").mkdir()
    alone = stand_in.tickets(tmp_path / "alone", jobs, seconds=0.005, counted=str(tmp_path / "computed"))
    assert light.start_stand_ins(tmp_path, alone, workers=1).wait() == 0
    assert_same(found, whole(tmp_path / "alone"))


def until(said, *runs):
    """Wait until `said()` is true; fail if a run has ended meanwhile."""
    while not said():
        assert not [run.said for run in runs if run.poll() is not None]
        time.sleep(0.01)


def test_a_job_that_waits_for_another_run_is_not_late_and_its_death_voids_nothing(light, tmp_path):
    """No failure is written over the other run's result, or in its place while it is being made."""
    results = tmp_path / "results"
    results.mkdir()
    tickets = stand_in.tickets(results, [("sleeps", 0)], folder=str(tmp_path))
    one = light.start_stand_ins(tmp_path, tickets, workers=1)
    until((tmp_path / "sleeps.pids").exists, one)
    two = light.start_stand_ins(tmp_path, tickets, workers=1, timeout=0.2)  # of a job at work, not of one that waits
    until(lambda: family(two.pid)[1], one, two)
    time.sleep(1)
    assert two.poll() is None
    family(two.pid)[1][0].send_signal(signal.SIGKILL)
    assert two.wait() == 1 and two.said == "1 computed, 1 failed\n"
    assert not list(results.glob("*.json"))
    family(one.pid)[1][0].send_signal(signal.SIGKILL)
    assert one.wait() == 1
    assert [(record.status, record.error.type) for record in whole(results)] == [("failed", "RuntimeError")]
    (tmp_path / "hurry").touch()
    assert light.start_stand_ins(tmp_path, tickets, workers=1).wait() == 0
    assert [record.status for record in whole(results)] == ["ok"]


def test_a_good_result_of_another_run_outlives_the_death_of_ones_own_job(light, tmp_path):
    """The other run was done between the death and its record: the result is taken, no failure is reported."""
    from fipbench import store, worker
    from fipbench.executors import local

    results = tmp_path / "results"
    results.mkdir()
    [ticket] = stand_in.tickets(results, [("good", 0)])
    good = stand_in.run(ticket, lambda event: None)
    store.write(results, good)
    assert local._record(ticket, -signal.SIGKILL, None) == good
    assert local.kept(results, worker.crashed(ticket, RuntimeError("the job's process died"))).status == "failed"
    assert store.get(results, good.id) == good
