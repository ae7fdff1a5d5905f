"""What every method has to keep, whoever wrote it: `fipbench check` and the suite's own tests hold methods to it.

    for finding in examine("my_method.py"):
        print(finding.method, finding.check, finding.wrong or "kept")

The contract of a track is a module of its name, with functions `check_*(method, problem)` that raise AssertionError in
words.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fipbench import registry
from fipbench.errors import UserError
from fipbench.spec import Method

# Layers whose sizes are unlike each other's and any batch's, since examples are counted by the shapes of products; of
# the first, they divide by ten, too. A composition has the same images twice, with labels of their own.
TASKS = {
    "composition": """\
title   = "A tiny composition on the real digits"
track   = "composition"
suites  = ["quick"]
version = 1
data    = ["digits", "digits"]
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [25, 14], outputs = 20, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 24, learning_rate = 0.05 }
budget  = { epochs = 1, batch_size = 24 }
memory     = 40
subset     = 480
sparsities = [0.5]
repeat     = 0.5
validation = 300
headline   = "average_accuracy"
""",
    "connectivity": """\
title   = "Two tiny networks on the real digits"
track   = "connectivity"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [25, 14], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 1, batch_size = 32, learning_rate = 0.05 }
budget  = { epochs = 4, batch_size = 32 }
validation = 300
headline   = "lowest_accuracy"
points     = 5
""",
    "continual": """\
title   = "Three tasks of two digits"
track   = "continual"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [25, 14], outputs = 10, mean = 0.305, std = 0.376 }
stream  = { classes = [[0, 1], [2, 3], [4, 5]], score = ["class", "task"] }
base    = { epochs = 2, batch_size = 16, learning_rate = 0.01, snapshots = [0] }
budget  = { epochs = 1, batch_size = 16, factor = 6 }
memories   = [6]
probes     = 40
validation = 300
headline   = "average_accuracy/class"
""",
    "robustness": """\
title   = "A tiny vote on the real digits"
track   = "robustness"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [25, 14], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05 }
budget  = { epochs = 6, batch_size = 32 }
validation = 300
headline   = "robust@0.05"
members    = 3
attack     = { epsilons = [0.02, 0.05], steps = 3, restarts = 1, apgd_steps = 3, items = 40 }
""",
    "sparsity": """\
title   = "A tiny problem on the real digits"
track   = "sparsity"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [25, 14], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05, snapshots = [0, 1] }
budget  = { epochs = 6, batch_size = 32 }
validation = 300
headline   = "area"
sparsities = [0.5, 0.9]
""",
}


@dataclass(frozen=True)
class Finding:
    """One check of one method; `wrong` says in words what was found, and is empty where nothing was."""

    track: str
    method: str
    check: str
    meaning: str
    wrong: str = ""


def problem(track: str, folder: Path) -> Any:
    """The small task of a track by which methods are tried, and room to work in."""
    file = folder / "tiny.toml"
    file.write_text(TASKS[track], encoding="utf-8")
    return importlib.import_module(f"fipbench.conformance.{track}").Problem(registry.read_task(str(file)), folder)


def examine(what: str, track: str = "") -> Iterator[Finding]:
    """Try the methods of a file, or the installed ones of a name, on small tasks, check by check.

    A method that does not run at all is told once, by a finding called `runs`, and not tried further.

    Raises:
        UserError: there is no such file or method, also not in that track; the file does not import; Python runs
            with -O, which leaves the checks out.
    """
    if not __debug__:
        raise UserError("python -O leaves the checks out; run without it")
    for method in find(what, track):
        with tempfile.TemporaryDirectory(prefix="fipbench-check-") as folder:
            yield from _findings(method, Path(folder))


def find(what: str, track: str = "") -> list[Method]:
    """The methods that are meant, each as its track knows it; errors of `examine`."""
    if track and track not in registry.TRACKS:
        raise UserError(f"--track {track}: expected {', '.join(registry.TRACKS)}")
    tracks = (track,) if track else registry.TRACKS
    known = {name for one in tracks for name in registry.method_names(one)}
    if what.endswith(".py") or (what not in known and os.path.isdir(what)):
        marks = registry.plugin_methods(what)
        found = [(mark.track, name) for name, mark in marks.items() if mark.track in tracks]
        if not found:
            raise UserError(f"{what}: no method of track {track} in it; there are {', '.join(marks)}")
        plugins = [what]
    else:
        found = [(one, what) for one in tracks if what in registry.method_names(one)]
        plugins = []
    if not found:
        raise registry.unknown("method", what, known)
    return [registry.load_method(one, name, registry.find_methods(one, plugins)[name]) for one, name in found]


def _findings(method: Method, folder: Path) -> Iterator[Finding]:
    tried = problem(method.track, folder)
    record = tried.record(method)
    wrong = ""
    if record.error:
        where = f" ({'; '.join(record.error.where[-2:])})" if record.error.where else ""
        wrong = f"{record.error.type}: {record.error.message}{where}"
    yield Finding(method.track, method.name, "runs", "A run with its defaults ends, with a result.", wrong)
    if wrong:
        return
    for check in importlib.import_module(f"fipbench.conformance.{method.track}").CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            check(method, tried)
            wrong = ""
        except AssertionError as error:
            wrong = str(error).removeprefix(f"{method.name}: ")
        yield Finding(method.track, method.name, name, (check.__doc__ or "").strip(), wrong)
