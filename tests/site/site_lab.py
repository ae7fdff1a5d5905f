"""What the site of these tests is made of."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from synthetic import audited, continual_suite, record, robustness_suite, suite

from fipbench import claims

LEARNERS = ("naive", "ewc", "lwf", "joint", "fip", "der++", "replay", "gem", "unlucky")
HOSTILE = '<script>alert("x")</script> & =cmd()\n# \x1b[31m {{ 7 * 7 }} {% raw %}'


def records():
    """A board of each track with a method that failed, one that stands on real data, and one with hostile words."""
    title = {"title": HOSTILE, "selection": HOSTILE}
    hostile = [record("fip", s, 0.9, task="hostile", params={"rule": HOSTILE}, notes=(HOSTILE,), protocol_changes=title)
               for s in range(2)]  # fmt: skip
    hostile.append(record("lth", 0, task="hostile", error=("ValueError", HOSTILE), protocol_changes=title))
    real = {"suites": ["standard"]}
    learners = continual_suite(3, memories=(4,), tasks=3, protocol_changes=_stream() | real)
    return [
        *suite(4),
        *[found for found in learners if found.job.label in LEARNERS],
        *robustness_suite(3),
        *hostile,
    ]


def audits():
    """An attack audit of every record of one method, with a hostile finding."""
    return {r.id: audited(r, 0.01, (HOSTILE,)) for r in robustness_suite(3) if r.job.method == "adp"}


def _stream():
    return {"stream": {"classes": [[0, 1], [2, 3], [4, 5]], "score": ["task", "class"], "softmax": "all"},
            "memories": [4]}  # fmt: skip


def ledger():
    """Every eighth published number: a page of all of them takes a browser's auditor many seconds."""
    found = claims.load()
    chosen = list(found.claims.items())[::8]
    return msgspec.structs.replace(found, claims=dict(chosen))
