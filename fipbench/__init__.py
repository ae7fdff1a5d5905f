"""fipbench: reproducibility benchmarks for functionally invariant paths, with tested baselines."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_records", "run"]


def __getattr__(name: str) -> Any:
    # Late, so that `import fipbench` and the command line's answers need no numerical library.
    if name in ("run", "load_records"):
        from fipbench import api

        return getattr(api, name)
    if name == "load":
        from fipbench import notebook

        return notebook.load
    raise AttributeError(f"module 'fipbench' has no attribute {name!r}")
