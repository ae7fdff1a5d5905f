"""Published numbers beside ours: a ledger of claims, and verdicts that are computed from records."""

from __future__ import annotations

from fipbench.claims.ledger import NO_RESULT, REASONS, Claim, Ledger, Study, load
from fipbench.claims.rules import VERDICTS, Finding, Verdict
from fipbench.claims.verdicts import Judgement, judge

__all__ = [
    "NO_RESULT",
    "REASONS",
    "VERDICTS",
    "Claim",
    "Finding",
    "Judgement",
    "Ledger",
    "Study",
    "Verdict",
    "judge",
    "load",
]
