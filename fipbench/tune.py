"""The common search: every method of a task gets the same trials at the same budget, scored on validation data.

Trial 0 is a method's library defaults, the others are drawn from the laws beside them (Bergstra & Bengio,
"Random Search for Hyper-Parameter Optimization", 2012). A trial is an ordinary job on the split `validation`,
so the search resumes like any run, and no test example is scored. The result is the file that the task names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import msgspec

from fipbench import api, data, plan, registry
from fipbench.cache import write_atomic
from fipbench.errors import UserError
from fipbench.methods import Law
from fipbench.spec import ContinualTask, Params, Record, Task, Ticket, id_of, task_digest
from fipbench.tracks import PROTOCOL_VERSIONS


def search(
    request: plan.Request,
    *,
    trials: int,
    budget_epochs: int | None,
    out: Path,
    workers: int | None = None,
    watch: api.Watch | None = None,
) -> Path:
    """Search the settings of one task's methods and write them to `out` (TOML).

    Args:
        request: names one task; its `methods` limit the search, its `seeds` (default 1) are averaged.
        trials: settings tried of each method that has a search.
        budget_epochs: the task's budget while searching, where less than its own must do; the same for all.

    Raises:
        UserError: not exactly one task, fewer than one trial or seed, too small a budget, a method that is not
            there, nothing to search, or all trials of a method failed.
    """
    tasks = plan.chosen_tasks(request.tasks, request.suite)
    if len(tasks) != 1:
        raise UserError(f"tune: expected one task, got {len(tasks)}")
    plan.positive("--trials", trials)
    plan.positive("--seeds", request.seeds)
    task = tasks[0]
    if budget_epochs is not None:
        # A continual task's epochs are those of each later task; the base network's come beside them.
        least = 0 if isinstance(task, ContinualTask) else task.base.epochs
        if budget_epochs <= least:
            raise UserError(f"--budget-epochs: expected more than {least}{' (the base network)' if least else ''}")
        task = msgspec.structs.replace(task, budget=msgspec.structs.replace(task.budget, epochs=budget_epochs))
    # Settings from an earlier search must not be this one's starting point.
    plain = msgspec.structs.replace(task, methods={}, tuned="", searched=())
    every = plan.task_rows(plain, request.methods, {}, request.plugins)
    plan.check_used(request.methods, {}, {task.name: every})
    rows = [row for row in every if row.method.search and _searched_memory(task, row)]
    if not rows:
        raise UserError(f"tune: nothing to search in {', '.join(row.label for row in every)}; name other --methods")
    groups = _tickets(task, rows, trials, request)
    result = api.execute([t for group in groups.values() for _, ts in group for t in ts], workers=workers, watch=watch)
    found = {record.id: record for record in result.records}
    chosen = {label: _best(label, group, found, task.headline) for label, group in sorted(groups.items())}
    header: dict[str, Any] = {
        "task": task.name,
        "task_digest": task_digest(task, PROTOCOL_VERSIONS[task.track]),
        "split": "validation",
        "objective": task.headline,
        "trials": trials,
        "seeds": request.seeds or 1,
        "budget_epochs": task.budget.epochs,
        "law": "random",
    }
    write_atomic(out, _toml({"search": header, "methods": chosen}).encode())
    return out


def _searched_memory(task: Task, row: plan.Row) -> bool:
    """Methods that keep examples are searched at the task's largest memory, and get the same settings at all."""
    return not isinstance(task, ContinualTask) or row.params.get("memory", task.memories[-1]) == task.memories[-1]


def sample(name: str, task: str, trial: int, defaults: Params, laws: dict[str, Law]) -> Params:
    """The parameters of a trial: from the task's and the method's name and the trial's number alone."""
    if trial == 0:
        return dict(defaults)
    random = Random(hashlib.sha256(f"{task}/{name}/{trial}".encode()).digest())
    return {**defaults, **{key: law.sample(random) for key, law in sorted(laws.items())}}


def _tickets(
    task: Task, rows: Sequence[plan.Row], trials: int, request: plan.Request
) -> dict[str, list[tuple[Params, list[Ticket]]]]:
    variant, digests = data.identify_all(task.sources, request.cache, allow_unknown=request.allow_unknown_data)
    device = plan.choose_device(request.device)
    facts = plan.provenance()
    groups: dict[str, list[tuple[Params, list[Ticket]]]] = {}
    for row in rows:
        laws = registry.load_factory(row.method.target).fipbench.search
        group = groups.setdefault(row.label, [])
        for trial in range(trials):
            params = sample(row.method.name, task.name, trial, row.params, laws)
            if any(params == known for known, _ in group):
                continue
            tried = msgspec.structs.replace(row, params=params, settings="search")
            group.append(
                (
                    params,
                    [
                        Ticket(
                            job=plan.make_job(
                                task,
                                tried,
                                seed,
                                task.suites[0],
                                device,
                                variant,
                                digests,
                                split="validation",
                            ),
                            task=msgspec.to_builtins(task),
                            target=row.method.target,
                            results=str(request.results),
                            cache=str(request.cache),
                            provenance=facts,
                        )
                        for seed in range(request.seeds or 1)
                    ],
                )
            )
    return groups


def _best(
    label: str, group: Sequence[tuple[Params, list[Ticket]]], found: dict[str, Record], headline: str
) -> dict[str, Any]:
    scored = []
    for number, (params, tickets) in enumerate(group):
        records = [found[id_of(t.job)] for t in tickets]
        if all(r.status == "ok" for r in records):
            scored.append((fmean(r.metrics[headline] for r in records), -number, params))
    if not scored:
        raise UserError(f"tune: all {len(group)} trials of '{label}' failed; see the records' errors")
    score, number, params = max(scored, key=lambda entry: entry[:2])
    records = [found[id_of(t.job)] for _, tickets in group for t in tickets]
    return {
        "params": {name: value for name, value in params.items() if name != "memory"},
        "version": records[0].job.method_version,
        "score": round(score, 6),
        "default_score": round(next((s for s, n, _ in scored if n == 0), float("nan")), 6),
        "trial": -number,
        "trials": len(group),
        "failed": len(group) - len(scored),
        "examples_spent": sum(r.cost.backward_examples for r in records),
        "best_of": [round(max((s for s, n, _ in scored if -n <= k), default=0.0), 4) for k in range(len(group))],
    }


def _toml(content: dict[str, Any]) -> str:
    import tomli_w

    return "# Written by `fipbench tune`; do not edit, run it again.\n\n" + tomli_w.dumps(content)
