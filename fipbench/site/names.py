"""Metrics in words, where a page names one by itself."""

from __future__ import annotations

import re

from fipbench.reports.board import plain

_WORDS = (
    (r"robust@([\d.]+)", r"worst case at ε \1"),
    (r"(\w+)@([\d.]+)", r"\1 at sparsity \2"),
    (r"average_accuracy/(\w+)", r"average accuracy, \1-incremental"),
    (r"lowest_accuracy", "lowest accuracy along the path"),
    (r"area", "area under the score over sparsity"),
)


def metric(name: str) -> str:
    """What a headline metric is called; one that is not known here by its own name, without underscores."""
    for pattern, words in _WORDS:
        if found := re.fullmatch(pattern, name):
            return found.expand(words).replace("_", " ")
    return plain(name.replace("_", " "))
