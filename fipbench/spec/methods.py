"""A method as found, and the settings that a search gave it."""

from __future__ import annotations

from typing import Any

from fipbench.spec.base import Name, Params, Positive, Spec


class Search(Spec, frozen=True, kw_only=True):
    """How settings were searched; the head of a tuned file. `finalists`: how many of each method's best settings were
    tried again at the task's own budget, where the search had a smaller one; these trials decided."""

    task: Name
    task_digest: str
    split: str
    objective: str
    trials: Positive
    seeds: Positive
    budget_epochs: Positive
    law: str
    finalists: int = 0


class Found(Spec, frozen=True, kw_only=True):
    """What the search found for one method: its best parameters, and what they were best of.

    `score` and `default_score` are means of the objective, `best_of` the best score after each trial, `finals` the
    finalists' scores (`score` is one of them then), each nan where nothing but failures is behind it; `failed` the
    trials that failed, `examples_spent` all training examples of all trials, `version` the code that was searched.
    """

    params: Params
    version: str
    score: float
    default_score: float
    trial: int
    trials: Positive
    failed: int
    examples_spent: int
    best_of: tuple[float, ...]
    finals: tuple[float, ...] = ()


class Tuned(Spec, frozen=True, kw_only=True):
    """A file of settings, as `fipbench tune` writes it."""

    search: Search
    methods: dict[Name, Found]


class Method(Spec, frozen=True, kw_only=True):
    """A method as found: its name, where its factory is, its defaults. `target` is `module:attribute` or a file.

    `required`: parameters whose default is only of their type, and that a run has to set.
    """

    name: Name
    track: Name
    target: str
    version: str
    defaults: Params
    search: dict[str, Any] = {}
    role: str = "method"
    settings: str = "default"
    summary: str = ""
    origin: str = "fipbench"
    required: tuple[str, ...] = ()
