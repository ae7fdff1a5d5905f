"""Processes that run jobs compute stand-ins (tests/faults/stand_in.py) where tests put this on PYTHONPATH."""

import sys

_RUN_JOBS = ("default_worker.py", "submitit.core._submit", "fipbench.executors.server", "fipbench.executors.job")

if any(word.endswith(_RUN_JOBS) for word in sys.orig_argv):
    import stand_in
    import stand_in_clusters

    import fipbench.worker
    from fipbench.executors import local

    stand_in.MISHAPS.update(stand_in_clusters.MISHAPS)
    fipbench.worker.run = stand_in.run
    local.preload = lambda *_: []
    local.imports_of = lambda _: set()
