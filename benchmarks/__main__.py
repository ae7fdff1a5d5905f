"""All benchmarks but the two long ones, `estimate` and `paper_scale`, each in a process of its own:
`python -m benchmarks [--json]`; exit code 1 if a target is missed."""

import subprocess
import sys
from pathlib import Path

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in ("__main__", "estimate", "paper_scale", "timing")
)

if __name__ == "__main__":
    codes = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]).returncode for name in NAMES]
    raise SystemExit(int(any(codes)))
