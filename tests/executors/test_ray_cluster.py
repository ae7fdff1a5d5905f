"""A Ray cluster of two nodes on loopback: a worker is killed, a node is removed, the driver dies."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections import Counter
from pathlib import Path

import psutil
import pytest
from clusters import PATH, Running, tickets
from workbench import gone

from fipbench import api, plan, store
from fipbench.errors import UserError
from fipbench.executors import local, ray, ray_driver
from fipbench.spec import equal, id_of

ZOO = Path(__file__).with_name("zoo.py")
SIZES = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
NVIDIA_SMI = "#!/bin/sh\necho 40960\n"  # MiB


def ray_processes() -> list[psutil.Process]:
    """Descendants of this process that are Ray's or run its jobs."""
    found = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in found if "ray" in " ".join(p.cmdline()) or "fipbench.executors" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head with one CPU, and `second`, with two and a GPU: a job of two threads, or of a GPU, runs on that alone."""
    from ray.cluster_utils import Cluster

    beside = {p.pid for p in ray_processes()}  # what other tests keep
    programs = tmp_path_factory.mktemp("bin")
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(stat.S_IRWXU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        with pytest.MonkeyPatch.context() as nodes:
            nodes.setenv("PYTHONPATH", PATH)
            found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **SIZES})
            found.second = found.add_node(num_cpus=2, num_gpus=1, **SIZES)
            session = found.head_node.get_session_dir_path()
            yield found
            found.shutdown()
            shutil.rmtree(session)
    assert gone([p for p in ray_processes() if p.pid not in beside], within=20), ray_processes()


def run(cluster, given, **options):
    settings = {"workers": None, "timeout": None, "address": cluster.address, **options}
    return Running(
        lambda watch: ray.execute(given, settings.pop("workers"), watch, settings.pop("timeout"), **settings)
    )


def pids(folder: Path, name: str) -> list[int]:
    file = folder / f"{name}.pids"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def test_failures_and_limits_are_those_of_local(cluster, tmp_path, monkeypatch):
    """Who hangs is killed with all it started, who dies is recorded; the records are those that `local` makes."""
    given = tickets(tmp_path, [("good", 0), ("dies", 0), ("deaf", 0)])
    found = run(cluster, given, timeout=2).wait()
    assert found.error is None and not found.notes
    assert sorted(e["id"] for e in found.events if e["event"] == "start") == sorted(id_of(t.job) for t in given)
    for pid in [*pids(tmp_path, "deaf"), int((tmp_path / "grandchild.pid").read_text())]:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    kept, problems = store.read(tmp_path / "results")
    assert not problems and {r.id: r for r in kept} == {r.id: r for r in found.records}
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.setattr(local, "preload", lambda *_: [])
    monkeypatch.setattr(local, "imports_of", lambda _: set())
    wanted = {record.id: record for record in local.execute(given, 3, lambda event: None, 2)}
    assert {r.error.type for r in wanted.values() if r.error} == {"RuntimeError", "TimeoutError"}
    assert all(equal(record, wanted[record.id]) for record in found.records) and len(found.records) == 3


def test_a_worker_that_is_killed(cluster, tmp_path):
    """Its job dies with it and is given to another; nobody else's is."""
    given = tickets(tmp_path, [("sleeps", 0), ("good", 0)])
    found = run(cluster, given, workers=1)
    found.until(lambda: pids(tmp_path, "sleeps"))
    [first] = pids(tmp_path, "sleeps")
    job = psutil.Process(first)
    server, worker = job.parents()[:2]
    assert "fipbench.executors.server" in " ".join(server.cmdline()) and worker.cmdline()[0].startswith("ray::")
    (tmp_path / "hurry").touch()
    worker.kill()
    found.wait()
    assert found.error is None
    assert [record.status for record in found.records] == ["ok", "ok"]
    assert len(found.notes) == 1 and id_of(given[0].job) in found.notes[0] and "WorkerCrashedError" in found.notes[0]
    assert Counter((tmp_path / "computed").read_text().split()) == {id_of(given[0].job): 2, id_of(given[1].job): 1}
    assert gone([job], within=20) and pids(tmp_path, "sleeps") != [first]
    assert sorted(p.stem for p in (tmp_path / "results").glob("*.json")) == sorted(id_of(t.job) for t in given)


def test_a_job_that_ends_every_worker_is_a_failure(cluster, tmp_path):
    """And no reason to try for ever."""
    given = tickets(tmp_path, [("murders", 0), ("good", 0)])
    found = run(cluster, given).wait()
    assert found.error is None and len(found.notes) == 2
    of = {record.job.method: record for record in found.records}
    assert of["good"].status == "ok" and of["murders"].status == "failed"
    assert of["murders"].error.message.startswith("the job's process was lost 3 times with the worker or node")
    assert (tmp_path / "computed").read_text().split().count(id_of(given[0].job)) == 3
    assert store.get(tmp_path / "results", of["murders"].id) == of["murders"]


def test_jobs_that_need_little_of_a_gpu_share_it(cluster, tmp_path):
    """Of 40 GiB, twice 10 GiB with half as much again: two on one GPU, which both see. Unknown sizes share none."""
    given = tickets(tmp_path, [("meets", 0), ("meets", 1)], device="cuda")
    found = run(cluster, given, gpu_bytes={given[0].job.task: 10 * 2**30}).wait()
    assert found.error is None and [record.status for record in found.records] == ["ok", "ok"]
    assert [file.read_text() for file in tmp_path.glob("met-*")] == ["0", "0"]


def test_a_node_that_is_removed(cluster, tmp_path):
    """Its job waits for a node that can run it, and is done there; with no such node the run ends, and says why."""
    given = tickets(tmp_path, [("sleeps", 0)], threads=2)
    found = run(cluster, given)
    found.until(lambda: pids(tmp_path, "sleeps"))
    job = psutil.Process(pids(tmp_path, "sleeps")[0])
    cluster.remove_node(cluster.second, allow_graceful=False)
    found.until(lambda: found.notes)
    assert "NodeDiedError" in found.notes[0]
    (tmp_path / "hurry").touch()
    node = cluster.add_node(num_cpus=2, **SIZES)
    found.wait()
    assert found.error is None and [record.status for record in found.records] == ["ok"]
    assert (tmp_path / "computed").read_text().split() == [id_of(given[0].job)] * 2
    assert gone([job], within=20)

    (tmp_path / "hurry").unlink()
    (tmp_path / "sleeps.pids").unlink()
    given = tickets(tmp_path, [("good", 1), ("sleeps", 1)], threads=2)
    found = run(cluster, given, workers=1, patience=2)
    found.until(lambda: pids(tmp_path, "sleeps"))
    cluster.remove_node(node, allow_graceful=False)
    found.wait()
    assert isinstance(found.error, UserError)
    assert str(found.error) == "for 2 s no node could run what is left (1 of 1 CPU and 0 GPU there)"
    assert [record.job.method for record in store.read(tmp_path / "results")[0] if record.job.seed] == ["good"]
    with pytest.raises(
        UserError, match=r"a job needs 2 CPU, which no node of the cluster has \(1 of 1 CPU and 0 GPU\)"
    ):
        list(ray.execute(given, None, lambda event: None, address=cluster.address))


@pytest.mark.parametrize(
    ("each", "there", "expected"),
    [(10, 40, 0.5), (20, 40, 1), (1, 100, 1 / 8), (16, 100, 0.25), (1, 12, 1 / 8), (50, 40, 1), (0, 40, 1), (10, 0, 1)],
)
def test_the_share_of_a_gpu(each, there, expected):
    """A power of two, no more than eight jobs, each with half as much again as it is thought to take."""
    assert ray_driver.share(each * 2**30, there * 2**30) == expected
    assert expected == 1 or each * 1.5 <= there * expected


def test_a_cluster_that_goes_away(cluster, tmp_path):
    """The process that speaks to Ray is ended, as by Ray where the head is gone: one line, and what is done is kept."""
    given = tickets(tmp_path, [("good", 0), ("sleeps", 0)])
    found = run(cluster, given, workers=1)
    found.until(lambda: pids(tmp_path, "sleeps"))
    job = psutil.Process(pids(tmp_path, "sleeps")[0])
    [driver] = [p for p in psutil.Process().children() if "fipbench.executors.ray_driver" in p.cmdline()]
    driver.send_signal(signal.SIGKILL)
    found.wait()
    assert isinstance(found.error, UserError)
    assert str(found.error).startswith(f"the Ray cluster at {cluster.address} is gone (see ") and "\n" not in str(
        found.error
    )
    assert [record.job.method for record in store.read(tmp_path / "results")[0]] == ["good"]
    assert gone([job], within=30)
    (tmp_path / "hurry").touch()
    todo = api.missing(given)[0]
    assert [ticket.job.method for ticket in todo] == ["sleeps"]
    assert [record.status for record in run(cluster, todo).wait().records] == ["ok"]


def test_the_same_records_on_a_cluster_of_this_machine(cluster, tiny, tmp_path, monkeypatch):
    """Started for the run and gone after it; also for a method that draws from the generators that all share."""
    monkeypatch.setenv("PYTHONPATH", "")  # no stand-ins
    ask = {"methods": ["by-luck"], "plugins": [ZOO], "seeds": 1}
    before = {p.pid for p in ray_processes()}
    there = api.run(str(tiny()), executor="ray", results=tmp_path / "there", **ask)
    assert {p.pid for p in ray_processes()} <= before
    monkeypatch.setenv("FIPBENCH_CACHE", str(tmp_path / "cache"))  # base networks are trained anew
    here = api.run(str(tiny()), results=tmp_path / "here", **ask)
    assert [r.status for r in here.records] == ["ok"]
    assert all(equal(one, other) for one, other in zip(there.records, here.records, strict=True))
    assert all(set(plan.provenance()) <= set(record.provenance) for record in there.records)
    assert api.run(str(tiny()), executor="ray", results=tmp_path / "there", **ask).computed == 0
