"""What `fipbench doctor` checks: whether this installation can run the suite, and what to do where it cannot."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path

from fipbench import cache, data, registry
from fipbench.errors import UserError

Check = tuple[str, bool, str]


def report(say: Callable[[str], object]) -> bool:
    """Say one line a check; whether all that the quick suite needs is well."""
    fine = True
    for name, good, text in (*_python(), *_code(), *_packages(), *_torch(), *_folders(), *_data(), *_methods()):
        say(f"{'ok  ' if good else 'FAIL'}  {name:12} {text}")
        fine &= good
    say("all is well" if fine else "something is amiss: see the lines marked FAIL")
    return fine


def _python() -> list[Check]:
    return [("python", sys.version_info >= (3, 11), f"{platform.python_version()} (3.11 or later needed)")]


def _code() -> list[Check]:
    """An editable install maps tasks and baselines to one checkout, whatever the path says of fipbench itself."""
    home = Path(str(files("fipbench")))
    for name in ("tasks", "baselines"):
        found = Path(str(files(f"fipbench.{name}")))
        if found.parent not in (home, home.parent):
            text = f"fipbench is that of {home}, its {name} those of {found}; install the one checkout that is meant"
            return [("code", False, text)]
    return [("code", True, str(home))]


def _packages() -> list[Check]:
    import re

    missing = []
    for line in requires("fipbench") or []:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        if "extra ==" in line:
            continue
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    text = (
        f"missing: {', '.join(missing)}; pip install -c constraints.txt ." if missing else "all dependencies installed"
    )
    return [("packages", not missing, text)]


def _torch() -> list[Check]:
    from fipbench.compat import import_torchvision

    try:
        import torch
    except ImportError as error:
        return [("torch", False, f"does not import ({error}); pip install -c constraints.txt .")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu only"
    checks = [("torch", True, f"{torch.__version__}, {device}")]
    try:
        checks.append(("torchvision", True, import_torchvision().__version__))
    except Exception as error:
        checks.append(("torchvision", False, f"does not import ({registry.one_line(error)})"))
    return checks


def _folders() -> list[Check]:
    checks = []
    for name, folder, remedy in (
        ("cache", cache.cache_dir(), "set FIPBENCH_CACHE"),
        ("results", cache.results_dir(), "set FIPBENCH_RESULTS or use --results"),
    ):
        try:
            checks.append((name, True, str(cache.writable(folder, remedy))))
        except UserError as error:
            checks.append((name, False, str(error)))
    return checks


def _data() -> list[Check]:
    mirror = os.environ.get("FIPBENCH_DATA")
    if mirror and not Path(mirror).is_dir():
        return [("data", False, f"FIPBENCH_DATA={mirror} is no folder; unset it to use the hub")]
    checks: list[Check] = [
        ("data", True, f"mirror {mirror}" if mirror else "no mirror (FIPBENCH_DATA); the hub is asked")
    ]
    tasks = [registry.read_task(name) for name in registry.task_files()]
    for suite in registry.SUITES:
        asked = [task for task in tasks if suite in task.suites]
        lacks = [{data.name_of(s) for s in t.sources if not data.present(s, cache.cache_dir())} for t in asked]
        text = f"data of {sum(not lack for lack in lacks)} of {len(asked)} tasks at hand"
        if names := sorted(set().union(*lacks)):
            text += f"; not here, so asked of the hub (`fipbench data list`): {', '.join(names)}"
        checks.append((suite, True, text))
    return checks


def _methods() -> list[Check]:
    checks = []
    for track in registry.TRACKS:
        names = registry.method_names(track)
        broken = []
        for name, target in registry.find_methods(track).items():
            try:
                registry.load_method(track, name, target)
            except UserError as error:
                broken.append(str(error))
        text = "; ".join(broken) or f"{len(names)} methods load"
        checks.append((track, not broken, text))
    return checks
