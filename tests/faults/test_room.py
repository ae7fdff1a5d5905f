"""A disk without room, and folders that must not be written: said clearly, nothing lost, and on once it is over."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ordeal import assert_same, whole
from workbench import PROGRAM

METHODS = ["--methods", "magnitude,random,dense", "--seeds", "1", "--workers", "1"]

# In a name space of its own, where a user may mount: fills a small disk, runs, makes room, runs again.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=300k none "$1" || exit 70
shift; disk="$1"; shift
mkdir "$disk/results"
"$@" --results "$disk/results" --methods dense || exit 71
head -c 1000000 /dev/zero > "$disk/ballast" 2>/dev/null
rm -rf "$disk/results/logs"
"$@" --results "$disk/results"; echo "code while full: $?" >&2
cp -r "$disk/results" "$FULL"
rm "$disk/ballast"
"$@" --results "$disk/results" || exit 72
cp -r "$disk/results" "$AFTER"
"""


def may_mount() -> bool:
    """Whether a user may mount here, in a name space of its own; many systems forbid it."""
    try:
        done = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def full_disk(nursery, task: Path, folder: Path) -> tuple[Path, Path, int, str]:
    """The store while the disk was full and after; exit code and words of the run that met the full disk."""
    disk = folder / "disk"
    disk.mkdir()
    environment = {**os.environ, "FULL": str(folder / "full"), "AFTER": str(folder / "after")}
    words = ["unshare", "-Urm", "sh", "-c", ON_A_SMALL_DISK, "sh", disk, disk, PROGRAM, "run", task, *METHODS]
    done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done
    *said, last = done.stderr.splitlines()
    return folder / "full", folder / "after", int(last.removeprefix("code while full: ")), "\n".join(said)


def files_of_four_kilobytes(nursery, task: Path, folder: Path) -> tuple[Path, Path, int, str]:
    """The same where no file may grow beyond what the check at the start needs: the records do not fit."""
    results = folder / "after"
    words = ["run", task, "--results", results, *METHODS]
    first = nursery.start(folder, *words, "--methods", "dense")
    assert first.wait() == 0, first.said
    limited = nursery.start(folder, *words, file_size=4096)
    limited.wait()
    shutil.copytree(results, folder / "full")
    rest = nursery.start(folder, *words)
    assert rest.wait() == 0, rest.said
    return folder / "full", results, limited.code, limited.said


@pytest.mark.parametrize("way", [files_of_four_kilobytes, *([full_disk] if may_mount() else [])])
def test_no_room(way, nursery, tiny, tmp_path):
    task = tiny(sparsities="[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]")
    full, after, code, said = way(nursery, task, tmp_path)
    error = said.splitlines()[-1]
    assert code == 2 and error.startswith("error: ") and "cannot write here" in error and "--results" in error, said
    assert "Traceback" not in said
    [kept] = whole(full)
    assert kept.job.method == "dense" and not list(full.rglob("*.tmp"))
    assert [record.job.method for record in whole(after)] == ["dense", "magnitude", "random"]
    assert (full / f"{kept.id}.json").read_bytes() == (after / f"{kept.id}.json").read_bytes()


@pytest.fixture
def closed():
    """`closed(folder)` takes away its write permission until the test is over."""
    folders: list[Path] = []

    def close(folder: Path) -> None:
        folders.append(folder)
        folder.chmod(0o555)

    yield close
    for folder in folders:
        folder.chmod(0o755)


def test_a_results_folder_that_must_not_be_written(nursery, tiny, results, closed, tmp_path):
    words = ["run", tiny(), "--results", results, *METHODS]
    assert nursery.start(tmp_path, *words, "--methods", "dense").wait() == 0
    kept = whole(results)
    closed(results)
    run = nursery.start(tmp_path, *words, bound=True)
    assert run.wait() == 2
    assert run.said.startswith("error: ") and run.said.count("\n") == 1
    assert str(results) in run.said and "Permission denied" in run.said and "--results" in run.said
    # What only reads needs no permission.
    boards = nursery.start(tmp_path, "leaderboard", "--results", results, "--out", tmp_path / "boards", bound=True)
    assert boards.wait() == 0 and (tmp_path / "boards" / "tiny.md").exists(), boards.said
    assert_same(whole(results), kept)
    results.chmod(0o755)
    assert nursery.start(tmp_path, *words, bound=True).wait() == 0 and len(whole(results)) == 3


CLOSING = """
import os
from fipbench.methods import sparsity

@sparsity()
def closing():
    def prune(model, sparsities, trial):
        os.chmod({folder!r}, 0o555)
        raise ValueError("this is lost")
        yield
    return prune
"""


def test_a_folder_that_closes_during_a_run(nursery, tiny, results, closed, tmp_path):
    """A job takes the permission away: its record has nowhere to go, and the run says so."""
    plugin = tmp_path / "closing.py"
    plugin.write_text(CLOSING.format(folder=str(results)))
    words = ["run", tiny(), "--plugin", plugin, "--seeds", 1, "--workers", 1, "--results", results]
    run = nursery.start(tmp_path, *words, "--methods", "closing,dense", bound=True)
    assert run.wait() == 2, run.said
    closed(results)
    assert f"error: {results}: cannot write here (Permission denied)" in run.said and "Traceback" not in run.said
    kept = whole(results)
    assert [record.job.method for record in kept] == ["dense"]  # a reference, which comes first
    results.chmod(0o755)
    rest = nursery.start(tmp_path, *words, "--methods", "dense,magnitude", bound=True)
    assert rest.wait() == 0, rest.said
    assert_same([record for record in whole(results) if record.job.method == "dense"], kept)


def test_a_cache_without_room(nursery, tiny, results, tmp_path):
    """The base network cannot be kept: the job fails, says why and where, and succeeds once there is room."""
    small, large = (
        tiny("small"),
        tiny("large", model='{ name = "mlp", inputs = [1, 8, 8], hidden = [99], outputs = 10 }'),
    )
    words = ["--methods", "dense", "--seeds", 1, "--results", results]
    assert nursery.start(tmp_path, "run", small, *words).wait() == 0  # decodes the data
    run = nursery.start(tmp_path, "run", large, *words, file_size=8192)
    assert run.wait() == 1, run.said
    assert "File too large" in run.said and str(tmp_path / "cache" / "shared") in run.said
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    rest = nursery.start(tmp_path, "run", large, *words)
    assert rest.wait() == 0, rest.said
    assert [record.status for record in whole(results)] == ["ok", "ok"]
