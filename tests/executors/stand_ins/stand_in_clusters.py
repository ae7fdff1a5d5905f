"""Mishaps of jobs on clusters, beside those of tests/faults/stand_in.py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil


def _murders(folder: Path) -> None:
    """Ends what started the process that started this job: the worker of the cluster."""
    psutil.Process().parents()[1].send_signal(signal.SIGKILL)
    time.sleep(60)


def _meets(folder: Path) -> None:
    """Goes on when two such jobs are at work at once."""
    (folder / f"met-{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    end = time.monotonic() + 30
    while len(list(folder.glob("met-*"))) < 2:
        assert time.monotonic() < end, "nobody came"
        time.sleep(0.05)


MISHAPS = {"murders": _murders, "meets": _meets}
