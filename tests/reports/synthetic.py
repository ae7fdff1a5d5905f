"""Records made by hand, with a protocol like that of `tasks/digits-sparsity.toml`."""

from __future__ import annotations

import math
import random
from typing import Any

from fipbench.spec import Cost, Failure, Job, Record, id_of, sealed

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
    fields: dict[str, Any] = {
        "task": "digits-sparsity",
        "task_version": 1,
        "task_digest": "0123456789ab",
        "track": "sparsity",
        "method": method,
        "method_version": "1+aaa",
        "params": {},
        "seed": seed,
        "suite": "quick",
        "device": "cpu",
        "data_variant": "sklearn",
        "data": DATA,
        "label": method,
    } | job
    made = Job(**fields)
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
    return sealed(
        Record(
            id=id_of(made),
            job=made,
            protocol=protocol(name=made.task, **(protocol_changes or {})),
            status="failed" if error else "ok",
            error=Failure(type=error[0], message=error[1]) if error else None,
            metrics=metrics,
            notes=notes,
            cost=cost or default_cost,
            provenance={"time": time},
        )
    )


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
