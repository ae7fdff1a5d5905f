"""One job in an interpreter of its own: `python -m fipbench.executors.job EVENTS_FD`, the ticket on standard input."""

from __future__ import annotations

import os
import sys

from fipbench.executors.server import work

if __name__ == "__main__":
    sys.exit(work(sys.stdin.buffer.readline().strip(), int(sys.argv[1]), os.getppid()))
