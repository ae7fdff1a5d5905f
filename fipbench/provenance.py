"""Commit, versions and hardware of this process, as records keep them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any


@cache
def provenance() -> dict[str, Any]:
    """Commit, versions and hardware of this process, as records keep them."""
    return {
        "commit": _commit(),
        "versions": _versions(),
        "hardware": _hardware(),
        "platform": platform.platform(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("fipbench", "torch", "numpy", "scikit-learn", "datasets", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit() -> str:
    """The commit of the checkout that this package is run from, with `+changes` where it has any."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return "installed"
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        paths = ["fipbench", "baselines", "tasks"]
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", *paths],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _hardware() -> dict[str, Any]:
    import psutil

    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return {"cpu": name, "cores": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total}
