"""Jobs through submitit: in this process, as processes of this machine, and through a stand-in for Slurm's programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections import Counter
from pathlib import Path

import psutil
import pytest
from clusters import PATH, Running, tickets
from workbench import gone

from fipbench import store
from fipbench.errors import UserError
from fipbench.executors import choice, local, node, slurm
from fipbench.spec import equal, id_of

PROGRAMS = ("sbatch", "srun", "squeue", "sacct", "scancel")


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.setattr(local, "preload", lambda *_: [])
    monkeypatch.setattr(local, "imports_of", lambda _: set())


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The folder of a Slurm that runs jobs here; nothing of it is left afterwards."""
    folder, programs = tmp_path / "fake", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    for name in PROGRAMS:
        shutil.copy(Path(__file__).parent / "fake_slurm" / "slurm", programs / name)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    yield folder
    for file in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), 9)


def run(given, cluster="slurm", **options):
    settings = {"workers": None, "timeout": 60, "look_s": 0.3, **options}
    workers, timeout = settings.pop("workers"), settings.pop("timeout")
    return Running(lambda watch: slurm.execute(given, workers, watch, timeout, cluster=cluster, **settings))


def calls(fake, name):
    return [line for line in (fake / "calls").read_text().splitlines() if line.startswith(name)]


def left(tmp_path):
    """What is in submitit's folders."""
    return sorted(p.name for p in (tmp_path / "results" / "slurm").glob("*/*"))


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_failures_and_limits_are_those_of_local(cluster, tmp_path):
    given = tickets(tmp_path, [("good", 0), ("dies", 0), ("deaf", 0)])
    found = run(given, cluster, timeout=2).wait()
    assert found.error is None and not found.notes and len(found.records) == 3
    assert sorted(e["id"] for e in found.events if e["event"] == "start") == sorted(id_of(t.job) for t in given)
    kept, problems = store.read(tmp_path / "results")
    assert not problems and {r.id: r for r in kept} == {r.id: r for r in found.records}
    if cluster == "local":
        assert len(left(tmp_path)) == 3 and all(name.endswith("_log.out") for name in left(tmp_path))
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "results").mkdir()
    wanted = {record.id: record for record in local.execute(given, 3, lambda event: None, 2)}
    assert {r.error.type for r in wanted.values() if r.error} == {"RuntimeError", "TimeoutError"}
    assert all(equal(record, wanted[record.id]) for record in found.records)


def test_an_array_a_log_a_job(fake, tmp_path):
    given = tickets(tmp_path, [("good", seed) for seed in range(3)], threads=2)
    found = run(given, workers=2, options={"partition": "long", "reservation": "ours"}).wait()
    assert found.error is None and [record.status for record in found.records] == ["ok"] * 3
    [call] = calls(fake, "sbatch")
    words = set(call.split()[1:])
    assert {"array=0-2%2", "cpus-per-task=2", "time=11", "partition=long", "reservation=ours", "nodes=1"} <= words
    assert "gpus-per-node" not in call
    assert left(tmp_path) == ["1000_0_0_log.out", "1000_1_0_log.out", "1000_2_0_log.out", "1000_submission.sh"]
    assert not list((tmp_path / "results" / ".locks").glob("run-*"))


def test_what_takes_the_same_is_an_array_and_a_gpu_is_asked_for(fake, tmp_path):
    given = [
        *tickets(tmp_path, [("good", 0), ("good", 1)]),
        *tickets(tmp_path, [("good", 2)], threads=2),
        *tickets(tmp_path, [("good", 3)], device="cuda"),
    ]
    assert len(run(given).wait().records) == 4
    said = [dict(word.partition("=")[::2] for word in call.split()[1:]) for call in calls(fake, "sbatch")]
    assert [(s.get("array"), s["cpus-per-task"], s.get("gpus-per-node")) for s in said] == [
        ("0-1%2", "1", None),
        (None, "2", None),
        (None, "1", "1"),
    ]


def test_arrays_no_larger_than_slurm_takes(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_MOST", "2")
    given = tickets(tmp_path, [("good", seed) for seed in range(4)])
    found = run(given).wait()
    assert found.error is None and len(found.records) == 4
    assert [call.split("array=")[1].split()[0] for call in calls(fake, "sbatch")] == ["0-3%4", "0-1%2", "0-1%2"]


def test_jobs_that_slurm_refuses(fake, tiny, tmp_path, call):
    """One line, which has Slurm's own words; nothing is begun, nothing is left."""
    answer = call(
        *("run", tiny(), "--methods", "magnitude", "--seeds", 2, "--device", "cpu", "--results", tmp_path / "results"),
        *("--executor", "slurm", "--timeout", 60, "--slurm", "partition=nowhere"),
    )
    assert answer.error.startswith("Slurm refused the jobs: sbatch: error: Invalid partition name specified")
    assert len(calls(fake, "sbatch")) == 1 and not left(tmp_path)
    assert not list((tmp_path / "results").glob("*.json")) and not list((tmp_path / "results" / "slurm").iterdir())


def test_a_node_that_dies(fake, tmp_path):
    """Slurm says that it was the node: the job is submitted again, and computed once more."""
    given = tickets(tmp_path, [("sleeps", 0), ("good", 0)])
    found = run(given)
    found.until((tmp_path / "sleeps.pids").exists)
    job = psutil.Process(int((tmp_path / "sleeps.pids").read_text()))
    (tmp_path / "hurry").touch()
    (fake / "1000_0.state").write_text("NODE_FAIL")
    os.killpg(int((fake / "1000_0.pid").read_text()), 9)
    found.wait()
    assert found.error is None and sorted(record.status for record in found.records) == ["ok", "ok"]
    assert len(found.notes) == 1 and found.notes[0].startswith(f"{id_of(given[0].job)}: NODE_FAIL")
    assert Counter((tmp_path / "computed").read_text().split()) == {id_of(given[0].job): 2, id_of(given[1].job): 1}
    assert gone([job], within=20)


def test_a_job_that_slurm_ends_is_a_failure(fake, tmp_path):
    given = tickets(tmp_path, [("sleeps", 0), ("good", 0)])
    found = run(given)
    found.until((tmp_path / "sleeps.pids").exists)
    (fake / "1000_0.state").write_text("OUT_OF_MEMORY")
    os.killpg(int((fake / "1000_0.pid").read_text()), 9)
    found.wait()
    of = {record.job.method: record for record in found.records}
    assert found.error is None and not found.notes and of["good"].status == "ok"
    assert of["sleeps"].error.message.startswith(
        "the job's process ended without a record (job 1000_0, OUT_OF_MEMORY; see"
    )
    assert store.get(tmp_path / "results", of["sleeps"].id) == of["sleeps"]


def test_a_run_that_is_interrupted_cancels_its_jobs(fake, tmp_path):
    given = tickets(tmp_path, [("good", 0), ("sleeps", 0)])
    going = slurm.execute(given, None, lambda event: None, 60, look_s=0.3)
    assert next(going).job.method == "good"
    going.close()
    assert calls(fake, "scancel") == ["scancel 1000_1"]
    assert [record.job.method for record in store.read(tmp_path / "results")[0]] == ["good"]


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = run(tickets(tmp_path, [("good", 0)])).wait()
    assert isinstance(found.error, UserError)
    assert str(found.error).startswith("Slurm refused the jobs: no srun and sbatch on the PATH")


@pytest.mark.parametrize(
    ("given", "timeout", "expected"),
    [
        (None, 3600, 70),
        (None, 30, 11),
        ("90", 3600, 90),
        ("90", None, 90),
        (None, None, "pass --timeout SECONDS or --slurm time=MINUTES"),
        ("1-00:00:00", 60, "--slurm time=1-00:00:00: expected minutes"),
        ("0", None, "expected minutes"),
        ("5", 3600, r"would end jobs before --timeout 3600"),
    ],
)
def test_the_limit_that_slurm_gets(given, timeout, expected):
    """Minutes: beside the job's own limit there is time to start and to wait."""
    if isinstance(expected, int):
        assert slurm._minutes(given, timeout) == expected
        return
    with pytest.raises(UserError, match=expected):
        slurm._minutes(given, timeout)


def test_a_node_that_does_not_share_the_folders(tmp_path, monkeypatch):
    given = tickets(tmp_path, [("good", 0)])
    with node.marked(given) as marks:
        pass  # the files are gone now, as on a machine that has another folder of that name
    monkeypatch.setattr(node, "marked", lambda _: contextlib.nullcontext(marks))
    found = run(given, "debug").wait()
    assert isinstance(found.error, UserError) and not found.records
    assert f"{tmp_path / 'results'} is not the folder of that name on the machine that started the run" in str(
        found.error
    )


def test_a_node_that_does_not_share_the_locks(tmp_path, monkeypatch):
    """It is said once, and the run goes on."""
    given = tickets(tmp_path, [("good", 0), ("good", 1)])
    with node.marked(given) as marks:
        pass
    for mark in marks:
        Path(mark).touch()  # there, and locked by nobody as far as this machine can tell
    monkeypatch.setattr(node, "marked", lambda _: contextlib.nullcontext(marks))
    found = run(given, "debug").wait()
    assert found.error is None and [record.status for record in found.records] == ["ok", "ok"]
    assert len(found.notes) == 1 and "locks do not reach from machine to machine" in found.notes[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "salt"], "unknown executor 'salt'"),
        (["--address", "here:1"], "--address: is of --executor ray"),
        (["--slurm", "partition=x"], "--slurm: is of --executor slurm"),
        (["--executor", "slurm", "--slurm", "partition"], "--slurm partition: expected KEY=VALUE"),
        (
            ["--executor", "slurm", "--timeout", 9],
            "--device auto: what the cluster's nodes have cannot be seen from here",
        ),
        (["--executor", "slurm", "--device", "cpu"], "a job needs a limit; pass --timeout"),
        (
            ["--executor", "slurm", "--device", "cpu", "--timeout", 9, "--slurm", "array=1-9"],
            "--slurm array: is set by",
        ),
        (["--executor", "ray", "--device", "cpu", "--address", "nowhere"], "expected host:port of the cluster's head"),
        (
            ["--executor", "ray", "--device", "cpu", "--address", "127.0.0.1:1"],
            "no Ray cluster at 127.0.0.1:1: Connection ref",
        ),
    ],
)
def test_mistakes(words, said, tiny, call):
    assert said in call("run", tiny(), "--methods", "magnitude", "--seeds", 1, *words).error


def test_without_its_library_an_executor_names_the_extra(tiny, call, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    for name, library in (("ray", "ray"), ("slurm", "submitit")):
        expected = f"--executor {name}: {library} is not installed; pip install 'fipbench[{name}]'"
        assert call("run", tiny(), "--executor", name).error == expected


def test_what_a_node_is_told(monkeypatch):
    """Where data come from; no password."""
    for name in ("FIPBENCH_DATA", "HF_ENDPOINT", "HF_TOKEN", "FIPBENCH_SECRET", "ELSE"):
        monkeypatch.setenv(name, "x")
    told = node.environment()
    assert {"FIPBENCH_DATA", "HF_ENDPOINT"} <= set(told) and not {"HF_TOKEN", "FIPBENCH_SECRET", "ELSE"} & set(told)
