"""The common search: every method of a task gets the same trials at the same budget, scored on validation data.

Trial 0 is a method's library defaults, the next four are drawn at random from the laws beside them, and all further
ones by Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization",
2011). Each method has a study of its own; the methods go from trial to trial side by side, so that neither the number
of workers nor the other methods bear on what is tried. A trial is an ordinary job on the split `validation`, so the
search resumes like any run, and no test example is scored. The result is the file that the task names.

Where trials have a smaller budget than the task, the best few of each method can be tried again at the task's own,
and these trials decide: what is best in a short run need not be in a long one (two rungs of successive halving;
Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from fipbench import api, plan, reading, registry
from fipbench.cache import write_atomic
from fipbench.errors import UserError
from fipbench.methods import Law
from fipbench.spec import (
    CompositionTask,
    ConnectivityTask,
    ContinualTask,
    Params,
    Record,
    Task,
    Ticket,
    Tuned,
    id_of,
    task_digest,
)
from fipbench.tracks import PROTOCOL_VERSIONS

RANDOM_TRIALS = 5
# A study that keeps asking for what it knows has tried all there is.
_REPEATS = 50


def search(
    request: plan.Request,
    *,
    trials: int,
    budget_epochs: int | None,
    out: Path,
    finalists: int = 0,
    workers: int | None = None,
    timeout: float | None = None,
    watch: api.Watch | None = None,
) -> Path:
    """Search the settings of one task's methods and write them to `out` (TOML).

    Args:
        request: names one task; its `methods` limit the search, its `seeds` (default 1) are averaged.
        trials: settings tried of each method that has a search.
        budget_epochs: the task's budget while searching, where less than its own must do; the same for all.
        finalists: so many of each method's best settings are tried once more at the task's own budget.
        workers, timeout, watch: as of `fipbench.run`; a trial that takes too long counts as one that failed.

    Raises:
        UserError: not exactly one task, fewer than one trial or seed, too small a budget, a method that is not
            there, nothing to search, or all trials of a method failed.
    """
    tasks = plan.chosen_tasks(request.tasks, request.suite)
    if len(tasks) != 1:
        raise UserError(f"tune: expected one task, got {len(tasks)}")
    plan.positive("--trials", trials)
    plan.positive("--seeds", request.seeds)
    task = whole = tasks[0]
    if finalists and (finalists < 0 or budget_epochs is None):
        raise UserError(
            "--finalists: expected a number above 0, beside --budget-epochs; without it all trials are final"
        )
    if budget_epochs is not None:
        # These tasks' epochs are those of each later task or operation; the base network's come beside them.
        least = 0 if isinstance(task, CompositionTask | ContinualTask) else task.base.epochs
        what = " (the base network)" if least else ""
        if isinstance(task, ConnectivityTask):
            least, what = 2 * least, " (the two base networks)"
        if budget_epochs <= least:
            raise UserError(f"--budget-epochs: expected more than {least}{what}")
        task = msgspec.structs.replace(task, budget=msgspec.structs.replace(task.budget, epochs=budget_epochs))
    # Settings from an earlier search must not be this one's starting point.
    plain = msgspec.structs.replace(task, methods={}, tuned="", searched=())
    every = plan.task_rows(plain, request.methods, {}, request.plugins)
    plan.check_used(request.methods, {}, {task.name: every}, [plain], request.plugins)
    rows = [row for row in every if row.method.search and _searched_memory(task, row)]
    if not rows:
        raise UserError(f"tune: nothing to search in {', '.join(row.label for row in every)}; name other --methods")
    studies = [Study(row, registry.load_factory(row.method.target).fipbench.search, task) for row in rows]
    maker = _maker(whole, request)

    def tried(at: Task, settings: Sequence[tuple[Study, Params]]) -> list[list[Record]]:
        """The records of each setting, one a seed."""
        made = [[maker(at, study.row, params, s) for s in range(request.seeds or 1)] for study, params in settings]
        result = api.execute([t for ts in made for t in ts], workers=workers, watch=watch, timeout=timeout)
        found = {record.id: record for record in result.records}
        return [[found[id_of(t.job)] for t in ts] for ts in made]

    for number in range(trials):
        if watch:
            watch({"event": "note", "text": f"trial {number + 1} of {trials}"})
        asked = [(study, params) for study in studies if (params := study.ask()) is not None]
        for (study, _), records in zip(asked, tried(task, asked), strict=True):
            study.tell(records)
    last = [(study, params) for study in studies for params in study.leaders(finalists)]
    for (study, params), records in zip(last, tried(whole, last) if last else [], strict=True):
        study.decide(params, records)
    chosen = {study.row.label: study.best() for study in sorted(studies, key=lambda study: study.row.label)}
    header: dict[str, Any] = {
        "task": task.name,
        "task_digest": task_digest(task, PROTOCOL_VERSIONS[task.track]),
        "split": "validation",
        "objective": task.headline,
        "trials": trials,
        "seeds": request.seeds or 1,
        "budget_epochs": task.budget.epochs,
        "law": "TPE",
        **({"finalists": finalists} if finalists else {}),
    }
    write_atomic(out, _toml({"search": header, "methods": chosen}).encode())
    return out


def _searched_memory(task: Task, row: plan.Row) -> bool:
    """Methods that keep examples are searched at the task's largest memory, and get the same settings at all."""
    return not isinstance(task, ContinualTask) or row.params.get("memory", task.memories[-1]) == task.memories[-1]


class Study:
    """The search of one method's settings: `ask` for the next, `tell` the records they led to, take the `best`."""

    def __init__(self, row: plan.Row, laws: Mapping[str, Law], task: Task) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = hashlib.sha256(f"{task.name}/{row.method.name}".encode()).digest()
        sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=int.from_bytes(seed[:4]))
        self.row = row
        self._laws = dict(sorted(laws.items()))
        self._headline = task.headline
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._study.enqueue_trial({name: row.params[name] for name in self._laws})
        self._open: Any = None
        self._tried: list[tuple[Params, float, list[Record]]] = []
        self._finals: list[tuple[Params, float, list[Record]]] = []

    def ask(self) -> Params | None:
        """Parameters that were not tried before; None when there are no more."""
        for _ in range(_REPEATS):
            trial = self._study.ask()
            params = {**self.row.params, **{name: law.suggest(name, trial) for name, law in self._laws.items()}}
            known = next((score for tried, score, _ in self._tried if tried == params), None)
            if known is None:
                self._open = trial, params
                return params
            self._study.tell(trial, known)
        return None

    def tell(self, records: Sequence[Record]) -> None:
        """The records of the parameters last asked for, one a seed; where a job failed, nothing is worse."""
        trial, params = self._open
        score = self._score(records)
        self._study.tell(trial, score)
        self._tried.append((params, score, list(records)))

    def leaders(self, count: int) -> list[Params]:
        """The `count` best settings so far, best first, the first of equals before the others; none that failed."""
        ok = [(params, score) for params, score, _ in self._tried if score > -math.inf]
        return [params for params, _ in sorted(ok, key=lambda entry: -entry[1])[:count]]

    def decide(self, params: Params, records: Sequence[Record]) -> None:
        """The records of a leader at the task's own budget."""
        self._finals.append((params, self._score(records), list(records)))

    def _score(self, records: Sequence[Record]) -> float:
        ok = all(record.status == "ok" for record in records)
        return fmean(record.metrics[self._headline] for record in records) if ok else -math.inf

    def best(self) -> dict[str, Any]:
        """The settings with the highest mean score (at the task's own budget where there are finalists), the first of
        equals, and what the search cost.

        Raises:
            UserError: all trials failed.
        """
        scores = [score for _, score, _ in self._tried]
        decisive = self._finals or self._tried
        params, best, _ = max(decisive, key=lambda entry: entry[1])
        if best == -math.inf:
            raise UserError(
                f"tune: all {len(decisive)} trials of '{self.row.label}' failed, as their records say; name the other "
                "--methods, whose trials are kept"
            )
        records = [record for _, _, made in (*self._tried, *self._finals) for record in made]
        return {
            "params": {name: value for name, value in params.items() if name != "memory"},
            "version": records[0].job.method_version,
            "score": round(best, 6),
            "default_score": _told(scores[0], 6),
            "trial": next(number for number, (known, _, _) in enumerate(self._tried) if known == params),
            "trials": len(scores),
            "failed": scores.count(-math.inf),
            "examples_spent": sum(r.cost.backward_examples for r in records),
            "best_of": [_told(max(scores[: k + 1]), 4) for k in range(len(scores))],
            **({"finals": [_told(score, 4) for _, score, _ in self._finals]} if self._finals else {}),
        }


def _told(score: float, digits: int) -> float:
    """A score as the file has it: nan for that of a trial that failed."""
    return round(score, digits) if score > -math.inf else math.nan


def _maker(task: Task, request: plan.Request) -> Callable[[Task, plan.Row, Params, int], Ticket]:
    """What makes the ticket of a row with other parameters and a seed, on validation data of the task, whatever its
    budget."""
    variant, digests = plan.contents(task, request.cache, request.allow_unknown_data)
    device = plan.choose_device(request.device)
    facts = plan.provenance()

    def ticket(task: Task, row: plan.Row, params: Params, seed: int) -> Ticket:
        tried = msgspec.structs.replace(row, params=params, settings="search")
        job = plan.make_job(task, tried, seed, task.suites[0], device, variant, digests, split="validation")
        return Ticket(
            job=job,
            task=msgspec.to_builtins(task),
            target=row.method.target,
            results=str(request.results),
            cache=str(request.cache),
            provenance=facts,
        )

    return ticket


def _toml(content: dict[str, Any]) -> str:
    import tomli_w

    return "# Written by `fipbench tune`; do not edit, run it again.\n\n" + tomli_w.dumps(content)


def told(path: Path) -> Iterator[str]:
    """A line a method of what a written search found: its score on validation data, and the settings that gave it."""
    found = reading.convert(reading.read_toml(path), Tuned, path)
    for label, best in found.methods.items():
        settings = ", ".join(f"{name}={value}" for name, value in best.params.items())
        # The defaults were tried at the smaller budget alone.
        defaults = "failed" if math.isnan(best.default_score) else f"{best.default_score:.4f}"
        before = "" if best.finals else f" (its defaults: {defaults})"
        yield f"{label}: {found.search.objective} {best.score:.4f} on validation data{before} with {settings}"
