"""Several runs on one results folder, and locks whose holder died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from ordeal import KILLS, assert_same, whole

from fipbench import store
from fipbench.cache import once

# Says in FOLDER/computed, with one line a job, that it was computed; a line is written whole.
COUNTED = """
import copy, os
from fipbench import pruning
from fipbench.methods import sparsity

@sparsity()
def counted(*, part: int = 0):
    def prune(model, sparsities, trial):
        handle = os.open({file!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{{part}} {{next(iter(model.state_dict().values())).sum().item()}}\\n".encode())
        os.close(handle)
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level)
            yield level, pruning.apply(copy.deepcopy(model), masks)
    return prune
"""
SEEDS = 3 if KILLS < 50 else 12
VARIANTS = "".join(f"\n[methods.part{n}]\nuse = 'counted'\npart = {n}\n" for n in range(1, 4))


@pytest.mark.parametrize("runs", [4] if KILLS < 50 else [2, 4])
def test_every_job_is_computed_once(runs, nursery, tiny, tmp_path):
    """All runs start at once, on folders that are not there yet, and all of them have all the records."""
    plugin = tmp_path / "counted.py"
    plugin.write_text(COUNTED.format(file=str(tmp_path / "computed")))
    words = ["run", tiny(more=VARIANTS), "--plugin", plugin, "--methods", "part1,part2,part3", "--seeds", SEEDS]
    results, alone = tmp_path / "results", tmp_path / "alone"
    together = [nursery.start(tmp_path, *words, "--workers", 2, "--results", results) for _ in range(runs)]
    assert [run.wait() for run in together] == [0] * runs, [run.said for run in together]
    for run in together:
        assert "tiny: " in run.said and not {"Traceback", "warning", "error"} & set(run.said.split())
    jobs = Counter((tmp_path / "computed").read_text().splitlines())
    assert len(jobs) == 3 * SEEDS and set(jobs.values()) == {1}
    found = whole(results)
    assert len(found) == 3 * SEEDS and {record.status for record in found} == {"ok"}
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(list((tmp_path / "cache" / "shared").glob("*.safetensors"))) == SEEDS
    last = nursery.start(tmp_path, *words, "--workers", 1, "--results", alone)
    assert last.wait() == 0, last.said
    assert_same(found, whole(alone))


HOLDER = """
import sys, time
from pathlib import Path
from fipbench import cache, store

def wait():
    print("held", flush=True)
    time.sleep(3600)

folder = Path(sys.argv[2])
if sys.argv[1] == "job":
    with store.lock(folder, "a"):
        wait()
else:
    cache.once(folder, "a", wait)
"""


@pytest.mark.parametrize("kind", ["job", "shared work"])
def test_a_dead_holders_lock_is_free(kind, tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, kind, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        if kind == "job":
            from filelock import Timeout

            with pytest.raises(Timeout), store.lock(tmp_path, "a").acquire(timeout=0.1):
                pass
        os.kill(holder.pid, signal.SIGKILL)
    began = time.monotonic()
    if kind == "job":
        with store.lock(tmp_path, "a").acquire(timeout=60):
            pass
    else:
        assert once(tmp_path, "a", lambda: ({}, {"made": "again"})) == ({}, {"made": "again"})
    assert time.monotonic() - began < 30
