"""Records made by hand, with protocols like those of the quick suite: sparsity, continual learning, robustness."""

from __future__ import annotations

import math
import random
from typing import Any

from fipbench.spec import Cost, Failure, Items, Job, Record, audits, digest, id_of, sealed

LEVELS = (0.8, 0.9, 0.95, 0.98, 0.99)
DATA = {"train": "a" * 64, "test": "b" * 64}


def protocol(**changes: Any) -> dict[str, Any]:
    return {
        "name": "digits-sparsity",
        "title": "Sparsity on handwritten digits",
        "track": "sparsity",
        "suites": ["quick"],
        "version": 1,
        "data": {
            "repo": "",
            "embedded": "digits",
            "revision": "",
            "variants": {"sklearn": {"train": "a" * 64, "test": "b" * 64, "note": "as scikit-learn ships them"}},
        },
        "model": {"name": "mlp", "inputs": [1, 8, 8], "hidden": [300, 100], "outputs": 10},
        "base": {
            "epochs": 40,
            "batch_size": 32,
            "optimizer": "sgd",
            "learning_rate": 0.05,
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
        "budget": {"epochs": 240, "batch_size": 32},
        "validation": 200,
        "headline": "area",
        "selection": "library defaults",
        "sparsities": list(LEVELS),
    } | changes


def record(
    method: str = "fip",
    seed: int = 0,
    area: float | None = 0.9,
    *,
    levels: dict[float, float] | None = None,
    error: tuple[str, str] | None = None,
    notes: tuple[str, ...] = (),
    time: str = "2024-01-01T00:00:00.000+00:00",
    protocol_changes: dict[str, Any] | None = None,
    cost: Cost | None = None,
    **job: Any,
) -> Record:
    """One record; `error` makes it a failed one. Unknown keywords are fields of its job."""
    made = _job("digits-sparsity", "sparsity", method, seed, job)
    metrics: dict[str, float] = {}
    if error is None and area is not None:
        accuracies = levels if levels is not None else dict.fromkeys(LEVELS, area)
        metrics = {"area": area, "dense_accuracy": 0.97, **{f"accuracy@{s:g}": v for s, v in accuracies.items()}}
    default_cost = Cost(
        wall_s=10.0 + seed,
        forward_examples=300_000,
        backward_examples=200_000,
        peak_memory_bytes=(400 + seed) * 2**20,
        parameters_stored=12_345,
    )
    described = protocol(name=made.task, **(protocol_changes or {}))
    more = {"notes": notes, "cost": cost or default_cost, "provenance": {"time": time}}
    return _record(made, described, error, metrics=metrics, **more)


def _job(task: str, track: str, method: str, seed: int, changes: dict[str, Any]) -> Job:
    fields: dict[str, Any] = {
        "task": task,
        "task_version": 1,
        "task_digest": "0123456789ab",
        "track": track,
        "method": method,
        "method_version": "1+aaa",
        "params": {},
        "seed": seed,
        "suite": "quick",
        "device": "cpu",
        "data_variant": "sklearn",
        "data": DATA,
        "label": method,
    } | changes
    return Job(**fields)


def _record(job: Job, protocol: dict[str, Any], error: tuple[str, str] | None, **measured: Any) -> Record:
    failure = Failure(type=error[0], message=error[1]) if error else None
    status = "failed" if error else "ok"
    return sealed(Record(id=id_of(job), job=job, protocol=protocol, status=status, error=failure, **measured))


def suite(seeds: int = 10, **job: Any) -> list[Record]:
    """Ten methods that fall off with sparsity at different rates, a failing one and a dense reference."""
    steep = {
        "fip": 1.3, "fip-paper": 2.4, "fip-authors-code": 3.1, "gradual": 0.9, "gradual-distill": 0.85,
        "lth": 1.1, "magnitude": 6.0, "magnitude-finetune": 1.6, "random": 14.0,
    }  # fmt: skip
    found = []
    for seed in range(seeds):
        start = random.Random(seed).gauss(0.965, 0.004)
        for method, slope in steep.items():
            draw = random.Random(f"{method}{seed}")
            levels = {}
            for s in LEVELS:
                x = -math.log10(1 - s)
                levels[s] = max(0.1, min(1.0, start - slope * 0.012 * x**2.2 + draw.gauss(0, 0.003 * x)))
            area = sum(levels.values()) / len(levels)
            notes = (f"stopped at {30 + seed}% of the budget",) if method == "magnitude" else ()
            found.append(record(method, seed, area, levels=levels, notes=notes, **job))
        failed = record("unlucky", seed, error=("BudgetExceeded", "more than the task's 5000 passes"), **job)
        found.append(failed)
        found.append(record("dense", seed, start, levels={0.0: start}, role="reference", **job))
    return found


# -------------------------------------------------------------------------------------- continual learning


def continual_protocol(**changes: Any) -> dict[str, Any]:
    own = {
        "name": "split-digits-5",
        "title": "Split digits",
        "track": "continual",
        "headline": "average_accuracy/class",
        "budget": {"epochs": 20, "batch_size": 16, "factor": 3.0},
        "stream": {"classes": [[0, 1], [2, 3], [4, 5]], "score": ["task", "class"], "softmax": "all"},
        "memories": [4, 10],
    }
    return protocol(**own | changes)


def continual(
    method: str = "fip",
    seed: int = 0,
    value: float | None = None,
    *,
    memory: int = 0,
    matrix: list[list[float]] | None = None,
    task_matrix: list[list[float]] | None = None,
    course: dict[str, dict[str, list[float]]] | None = None,
    error: tuple[str, str] | None = None,
    time: str = "2024-01-01T00:00:00.000+00:00",
    protocol_changes: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    cost: Cost | None = None,
    **job: Any,
) -> Record:
    """One record of the continual track. `matrix`: accuracies by class-incremental scoring, row I after task I;
    `value` stands for one that is `value` everywhere. Unknown keywords are fields of its job."""
    described = continual_protocol(**(protocol_changes or {}))
    params = job.pop("params", {}) | ({"memory": memory} if memory else {})
    made = _job(job.pop("task", described["name"]), "continual", method, seed, {"params": params} | job)
    found: dict[str, float] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    items = {}
    rows = matrix or [[0.5 if value is None else value] * 3 for _ in range(3)]
    for score, own in (("class", rows), ("task", task_matrix or rows)):
        if error:
            break
        found |= _of_matrix(score, own)
        tasks = [float(n) for n in range(1, len(own) + 1)]
        curves[f"matrix/{score}/0"] = {"task": tasks, "value": [0.1] * len(own)}
        curves |= {f"matrix/{score}/{i}": {"task": tasks, "value": row} for i, row in enumerate(own, 1)}
        items |= {f"{score}/{j}": Items(count=100 + j, bits="") for j in range(1, len(own) + 1)}
        for name, end in (("weights", 0.2), ("weights/2", 0.1), ("weights/10", 0.4), ("path", 0.6)):
            curves[name] = {"task": tasks[1:], "value": [end * (n - 1) / (len(own) - 1) for n in tasks[1:]]}
    spent = cost or Cost(
        wall_s=3.0 + seed,
        forward_examples=50_000,
        backward_examples=40_000,
        peak_memory_bytes=300 * 2**20,
        parameters_stored=5000,
        examples_stored=3 * memory,
    )
    provenance = {"time": time, "train_examples": [240, 239, 241]}
    measured = {
        "metrics": found | (metrics or {}) if not error else {},
        "curves": curves | (course or {}),
        "items": items,
    }
    return _record(made, described, error, cost=spent, provenance=provenance, **measured)


def _of_matrix(score: str, rows: list[list[float]]) -> dict[str, float]:
    """The track's metrics of a matrix, in the plainest way."""
    last, n = rows[-1], len(rows)
    backward = [last[j] - rows[j][j] for j in range(n - 1)]
    lost = [max(row[j] for row in rows[:-1]) - last[j] for j in range(n - 1)]
    found = {
        f"average_accuracy/{score}": sum(last) / n,
        f"forgetting/{score}": sum(lost) / (n - 1),
        f"backward_transfer/{score}": sum(backward) / (n - 1),
        f"forward_transfer/{score}": sum(rows[j - 1][j] - 0.1 for j in range(1, n)) / (n - 1),
        f"untrained/{score}": 0.1,
        "weights_walked": 0.2,
        "path": 0.6,
    }
    return found | {f"final/{score}/{j}": value for j, value in enumerate(last, 1)}


def continual_runs(method: str, values: list[float], memory: int = 0, **more: Any) -> list[Record]:
    """One record a value, from seed 0 on."""
    return [continual(method, seed, value, memory=memory, **more) for seed, value in enumerate(values)]


def continual_small() -> list[Record]:
    """Two methods without and two with memories of 4 and 10, three seeds."""
    return [
        *continual_runs("naive", [0.20, 0.21, 0.19]),
        *continual_runs("ewc", [0.25, 0.28, 0.24]),
        *continual_runs("fip", [0.50, 0.52, 0.51], 4),
        *continual_runs("fip", [0.60, 0.61, 0.59], 10),
        *continual_runs("replay", [0.55, 0.54, 0.56], 4),
        *continual_runs("replay", [0.58, 0.57, 0.60], 10),
        *continual_runs("joint", [0.95, 0.94, 0.96], role="reference"),
    ]


_KEEPS = {"naive": 0.0, "ewc": 0.03, "si": 0.02, "lwf": 0.25, "lora": 0.12, "joint": 0.96}
_KEEPS_WITH_MEMORY = {
    "fip": 0.62, "fip-authors-code": 0.35, "gem": 0.5, "a-gem": 0.2, "replay": 0.6, "der": 0.66, "der++": 0.71,
    "squared-logits": 0.55, "kl": 0.58, "labels": 0.57,
}  # fmt: skip
_STEPS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]


def continual_suite(seeds: int = 3, memories: tuple[int, ...] = (4, 10), tasks: int = 5, **job: Any) -> list[Record]:
    """A board as full as they get: six methods that store nothing, ten that do, a reference, one that fails."""
    stream = {"classes": [[2 * n, 2 * n + 1] for n in range(tasks)], "score": ["task", "class"], "softmax": "all"}
    more = {"protocol_changes": {"stream": stream, "memories": list(memories)}} | job
    found = []
    for seed in range(seeds):
        for method, keeps in _KEEPS.items():
            role = {"role": "reference"} if method == "joint" else {}
            found.append(_made(method, seed, keeps, 0, tasks, more | role))
        for memory in memories:
            for method, keeps in _KEEPS_WITH_MEMORY.items():
                found.append(_made(method, seed, min(0.95, keeps * (1 + 0.03 * memory)), memory, tasks, more))
        found.append(continual("unlucky", seed, error=("RuntimeError", "loss is nan"), **more))
    return found


def _made(method: str, seed: int, keeps: float, memory: int, tasks: int, more: dict[str, Any]) -> Record:
    draw = random.Random(f"{method}{seed}{memory}")

    def matrix(kept: float) -> list[list[float]]:
        return [
            [
                max(0.0, min(1.0, (0.97 * kept ** (0.35 * (i - j)) if i > j else 0.97) + draw.gauss(0, 0.015)))
                if j <= i
                else 0.0
                for j in range(tasks)
            ]
            for i in range(tasks)
        ]

    course = {}
    for task in range(2, tasks + 1):
        for score, kept in (("class", keeps), ("task", 0.5 + keeps / 2)):
            series = {
                f"task{j}": [
                    0.97 * (kept + (1 - kept) * math.exp(-n / 6)) if j < task else 0.97 * (1 - math.exp(-n / 9))
                    for n in _STEPS
                ]
                if j <= task
                else [0.0] * len(_STEPS)
                for j in range(1, tasks + 1)
            }
            course[f"course/{score}/{task}"] = {"step": [float(n) for n in _STEPS], **series}
    both = {"matrix": matrix(keeps), "task_matrix": matrix(0.5 + keeps / 2)}
    return continual(method, seed, memory=memory, course=course, **both, **more)


# ---------------------------------------------------------------------------------------------- robustness

EPSILONS = (0.05, 0.1, 0.15)


def robustness_protocol(**changes: Any) -> dict[str, Any]:
    radii = list(EPSILONS)
    own = {
        "name": "digits-robustness",
        "title": "Robustness on digits",
        "track": "robustness",
        "headline": "robust@0.1",
        "model": {"name": "cnn", "inputs": [1, 8, 8], "channels": [16, 32], "hidden": [64], "outputs": 10},
        "members": 5,
        "attack": {"epsilons": radii, "steps": 40, "step_size": 0.25, "restarts": 2, "apgd_steps": 20, "items": 200},
    }
    return protocol(**own | changes)


def robustness(
    method: str = "fip",
    seed: int = 0,
    worst: float = 0.3,
    *,
    clean: float = 0.97,
    transfer: float = 0.8,
    error: tuple[str, str] | None = None,
    protocol_changes: dict[str, Any] | None = None,
    **job: Any,
) -> Record:
    """One record of the robustness track; `worst` is the worst case at ε 0.1, `transfer` there, too."""
    described = robustness_protocol(**(protocol_changes or {}))
    made = _job(described["name"], "robustness", method, seed, job)
    at = {0.05: (clean + worst) / 2, 0.1: worst, 0.15: worst / 2}
    values: dict[str, float] = {"clean": clean, "clean_member_mean": clean - 0.01, "coherence": 0.5, "diversity": 0.3}
    for epsilon, value in at.items():
        values |= {f"robust@{epsilon:g}": value, f"pgd@{epsilon:g}": value + 0.01, f"apgd@{epsilon:g}": value + 0.005}
        values[f"transfer@{epsilon:g}"] = transfer
    curves = {"diversity": {"layer": [1.0, 2.0], "value": [0.2, 0.4]}}
    curves["robust"] = {"epsilon": [0.0, *EPSILONS], "value": [clean, *at.values()]}
    cost = Cost(
        wall_s=20.0, forward_examples=90_000, backward_examples=90_000, peak_memory_bytes=2**29, parameters_stored=9
    )
    measured = {"metrics": values, "curves": curves, "items": {"clean": Items(count=597, bits="")}} if not error else {}
    provenance = {"time": "2024-01-01T00:00:00.000+00:00", "train_examples": 1200}
    return _record(made, described, error, cost=cost, provenance=provenance, **measured)


def robustness_suite(seeds: int = 3, **job: Any) -> list[Record]:
    """Six methods and a reference; the ranking by transfer is the reverse of that by the worst case."""
    worst = {"fip": 0.31, "fge": 0.24, "adp": 0.4, "deep-ensemble": 0.28, "swag": 0.22, "fip-paper": 0.26}
    found = []
    for seed in range(seeds):
        for method, value in worst.items():
            draw = random.Random(f"{method}{seed}")
            more = {"clean": 0.97 + draw.gauss(0, 0.003), "transfer": 0.9 - value + draw.gauss(0, 0.01)} | job
            found.append(robustness(method, seed, value + draw.gauss(0, 0.02), **more))
        found.append(robustness("single", seed, 0.2, transfer=0.5, **({"role": "reference"} | job)))
    return found


def audited(
    record: Record, lowered: float = 0.0, findings: tuple[str, ...] = (), strength: str = "default"
) -> audits.Audit:
    """An audit that lowers every radius by so much, of 10 items that each attack met with 4 gradients and 6 looks."""
    radii = [
        audits.Radius(
            epsilon=epsilon,
            recorded=record.metrics[f"robust@{epsilon:g}"],
            found=record.metrics[f"robust@{epsilon:g}"] - lowered,
            standing=Items(count=10, bits="AAA="),
            alone={"gradient": 0.2, "query": 0.6, "noise": 0.9},
        )
        for epsilon in (0.05, 0.1, 0.15)
    ]
    tried = [
        audits.Tried(
            attack=name, kind="gradient", epsilon=epsilon, given=10, fooled=3, first=1, forward=60, backward=40
        )
        for epsilon in (0.05, 0.1, 0.15, 0.3, 1.0)
        for name in ("PGD", "<b>APGD</b>")
    ]
    return audits.sealed(
        audits.Audit(
            id=record.id, task=record.job.task, method=record.job.method, seed=record.job.seed,
            items_digest=digest(record.items), strength=strength, settings={"steps": 40}, attacked=10,
            radii=tuple(radii), beyond={"0.3": 0.01, "1": 0.0}, flat={}, tried=tuple(tried), findings=tuple(findings),
        )
    )  # fmt: skip
