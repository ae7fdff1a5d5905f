"""`kill -9` at moments that nobody chose: what is left goes on to the very store of a run that nobody disturbed."""

from __future__ import annotations

import random
import time

import stand_in
from ordeal import KILLS, soak, whole
from workbench import write_tiny


def test_jobs_of_the_suite(nursery, tmp_path):
    """The program on a small task: data, base networks and records are made while it is killed."""
    task = write_tiny(tmp_path)
    words = ["run", task, "--methods", "lth,magnitude,random", "--seeds", 3, "--workers", 2]

    def start(folder):
        return nursery.start(folder, *words, "--results", folder / "results")

    calm = tmp_path / "calm"
    calm.mkdir()
    began = time.monotonic()
    run = start(calm)
    assert run.wait() == 0, run.said
    pause = (time.monotonic() - began) / 9
    print("\n" + soak(start, whole(calm / "results"), KILLS, pause, tmp_path, random.Random(20260)))


def test_stand_ins_by_the_dozen(light, tmp_path):
    """Jobs that take a hundredth of a second, so that many more deaths fall between their beginning and their end."""

    def start(folder):
        (folder / "results").mkdir(exist_ok=True)
        jobs = [("good", seed) for seed in range(24)]
        return light.start_stand_ins(folder, stand_in.tickets(folder / "results", jobs, seconds=0.01), workers=3)

    calm = tmp_path / "calm"
    calm.mkdir()
    began = time.monotonic()
    run = start(calm)
    assert run.wait() == 0 and run.said == "24 computed, 0 failed\n", run.said
    pause = (time.monotonic() - began) / 8
    print("\n" + soak(start, whole(calm / "results"), 5 * KILLS, pause, tmp_path, random.Random(20261)))
