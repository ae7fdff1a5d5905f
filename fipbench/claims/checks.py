"""What no type can say of a ledger: that what rows name exists, and that a row says enough to be judged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from msgspec import UNSET

from fipbench import registry
from fipbench.claims.ledger import Claim, Ledger, Several, Study
from fipbench.errors import UserError, unknown
from fipbench.spec import MEASURED, CompositionTask, ContinualTask, Cost, RobustnessTask, SparsityTask, Task

_SCORE = "(?:class|task|domain)"
_MEASURED = f"(?:{'|'.join(MEASURED)})"
_NUMBER = r"\d+(?:\.\d+)?"
_ORDER = "(?:cl-co|co-cl|co)"
_COST = "cost/(?:" + "|".join(Cost.__struct_fields__) + ")"
# What the records of a track hold, and for tracks that are not built what they will.
_VOCABULARY = {
    "continual": rf"(?:average_accuracy|forgetting|backward_transfer|forward_transfer|untrained)/{_SCORE}"
    rf"|final/{_SCORE}/\d+|matrix/{_SCORE}/\d+@\d+|weights_walked|path",
    "sparsity": rf"area|dense_{_MEASURED}|weights_walked|outputs_walked"
    rf"|(?:{_MEASURED}|weights|path|outputs|layer/#?[\w.]+)@{_NUMBER}",
    "robustness": rf"clean|clean_member_mean|coherence|diversity|diversity@\d+"
    rf"|(?:robust|pgd|apgd|transfer)@{_NUMBER}",
    "composition": rf"average_accuracy(?:/(?:cl-co|co-cl))?|accuracy/(?:base|cl)/[12]|accuracy/{_ORDER}/[12]@{_NUMBER}"
    rf"|sparsity/{_ORDER}@{_NUMBER}|(?:commutator|noise|excess)/(?:weights|outputs|disagreement)@{_NUMBER}"
    rf"|perplexity/(?:cl-co|co-cl)/[12]|perplexity/{_ORDER}/[12]@{_NUMBER}",
    "connectivity": "(?:lowest|mean)_accuracy|lowest_accuracy_walked|barrier|length(?:_ratio|_metric)?"
    "|end_accuracy/[12]",
}


def check(ledger: Ledger) -> None:
    """Refuse a ledger in which something is missing, unknown or at odds with itself.

    Raises:
        UserError: the first problem, in the order of the files; one line with file, row and field.
    """
    for name, study in ledger.studies.items():
        _check_study(ledger, name, study)
    for claim in ledger.claims.values():
        where = f"{ledger.file_of(claim)}: row '{claim.id}'"
        for field, problem in _problems(claim):
            raise UserError(f"{where}: field '{field}': {problem}")
        _check_names(ledger, claim, where)


def _check_study(ledger: Ledger, name: str, study: Study) -> None:
    where = f"in {ledger.folder / 'studies.toml'}, study '{name}'"
    for task in study.tasks:
        if task not in registry.task_files() and task not in ledger.planned.tasks:
            known_tasks = [*registry.task_files(), *ledger.planned.tasks]
            raise unknown("task", task, known_tasks, where=f"{where}, field 'tasks'")
    known = labels(ledger, study)
    for method, own in study.labels.items():
        for label in own:
            if label not in known:
                raise unknown("method", label, known, where=f"{where}, field 'labels.{method}'")


def labels(ledger: Ledger, study: Study) -> set[str]:
    """Every label that records of the study's tasks may have, built or planned."""
    found = set(ledger.planned.methods)
    for name in study.tasks:
        if (task := built(name)) is not None:
            found |= {*task.methods, *registry.method_names(task.track)}
        else:
            planned = ledger.planned.tasks[name]
            found |= {*planned.methods, *registry.method_names(planned.track)}
    return found


@cache
def built(name: str) -> Task | None:
    """The task of that name, if it is installed."""
    return registry.read_task(name) if name in registry.task_files() else None


def _problems(claim: Claim) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) of one row by itself."""
    if bool(claim.metrics) == bool(claim.untestable):
        yield "ours", "expected either a metric of ours or the reason why the row is 'untestable'"
    if claim.kind in ("fact", "cost") and claim.metrics:
        yield "kind", f"a {claim.kind} is not settled by records; expected value, order or trend"
    if isinstance(claim.ours, Several):
        yield from _problems_of_several(claim.ours, claim.kind)
    if (claim.spread is UNSET) == bool(claim.spread_is):
        yield "spread_is", "expected 'sd' or 'unstated' beside a spread, and nothing without one"
    if claim.to is not UNSET and not (isinstance(claim.value, float) and claim.value < claim.to):
        yield "to", "expected a number above 'value'"
    if not claim.untestable:
        yield from _problems_of_a_test(claim)


def _problems_of_several(ours: Several, kind: str) -> Iterator[tuple[str, str]]:
    given = [name for name in ("least", "most", "mean", "each") if getattr(ours, name)]
    if len(given) != 1:
        yield "ours", "expected one of least, most, mean and each"
    elif given == ["each"] and kind != "order":
        yield "ours.each", "only an order can be asked of each metric; expected least, most or mean"


def _problems_of_a_test(claim: Claim) -> Iterator[tuple[str, str]]:
    relations = {"order": ("above", "below", "alike"), "trend": ("rising", "falling")}.get(claim.kind, ("",))
    if claim.relation not in relations:
        yield "relation", f"a row of kind '{claim.kind}' takes {' or '.join(relations) or 'none'}"
    if claim.kind == "value" and not isinstance(claim.value, float):
        yield "value", "a value that is to be compared must be a number"
    if (claim.kind == "value") != bool(claim.better):
        yield "better", "expected 'higher', 'lower' or 'neither' of a value, and nothing else of other kinds"
    if (claim.kind == "value" or claim.relation == "alike") and claim.unit != "%" and claim.margin is UNSET:
        yield "margin", "only what is in % has a default; expected the half-width of the band"
    if (claim.kind == "order") != bool(claim.than):
        yield "than", "expected the other method of an order, and nothing of other kinds"
    if claim.than and claim.than == claim.method:
        yield "than", "expected another method than 'method'"
    if (claim.kind == "trend") != (len(claim.along) > 2):
        yield "along", "expected three methods or more of a trend, and none of other kinds"
    if bool(claim.method) == bool(claim.along):
        yield "method", "expected the published method; a trend has them in 'along'"


def _check_names(ledger: Ledger, claim: Claim, where: str) -> None:
    if claim.study not in ledger.studies:
        raise unknown("study", claim.study, ledger.studies, where=f"in {where}, field 'study'")
    for field in ("conflicts", "derived"):
        for other in getattr(claim, field):
            if other not in ledger.claims or other == claim.id:
                raise unknown("row", other, set(ledger.claims) - {claim.id}, where=f"in {where}, field '{field}'")
    for other in claim.conflicts:
        if claim.id not in ledger.claims[other].conflicts:
            raise UserError(f"{where}: field 'conflicts': '{other}' does not name this row in return")
    if claim.untestable:
        return
    study = ledger.studies[claim.study]
    if not study.tasks:
        raise UserError(f"{where}: field 'study': '{claim.study}' names no task that could settle the row")
    for method in claim.compared:
        if method not in study.labels:
            field = "than" if method == claim.than else "along" if claim.along else "method"
            raise unknown("method", method, study.labels, where=f"in {where}, field '{field}'")
    for metric in claim.metrics:
        _check_metric(metric, study, where)


def _check_metric(metric: str, study: Study, where: str) -> None:
    if not re.fullmatch(f"{_VOCABULARY.get(study.track, 'none')}|{_COST}", metric):
        raise UserError(f"{where}: field 'ours': unknown metric '{metric}' of track {study.track}")
    task = built(study.tasks[0])
    if task is not None and not _measures(task, metric):
        raise UserError(f"{where}: field 'ours': metric '{metric}' is not among those that task '{task.name}' measures")


def _measures(task: Task, metric: str) -> bool:
    """Whether the task has the metric's level, score or radius."""
    name, _, place = metric.partition("@")
    if isinstance(task, SparsityTask):
        if (score := name.removeprefix("dense_")) in MEASURED and score not in task.scores:
            return False
        return not place or place in [f"{level:g}" for level in task.sparsities]
    if isinstance(task, RobustnessTask) and name != "diversity":
        return not place or place in [f"{radius:g}" for radius in task.attack.epsilons]
    if isinstance(task, CompositionTask):
        repeated = name.startswith(("noise", "excess"))
        known = (task.repeat,) if repeated else task.sparsities
        return not place or place in [f"{level:g}" for level in known]
    if isinstance(task, ContinualTask):
        _, *rest = name.split("/")
        numbers = [int(part) for part in (*rest, place) if part.isdigit()]
        scores = [part for part in rest if part in ("class", "task", "domain")]
        return set(scores) <= set(task.stream.score) and max(numbers, default=1) <= task.stream.length
    return True
