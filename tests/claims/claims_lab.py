"""A ledger of a few rows and records to judge it by, both made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fipbench import claims
from fipbench.claims import Judgement, Ledger
from fipbench.spec import Failure, Job, Record, id_of, sealed

PAPER = """\
[paper]
title = "A paper"
source = "doi 10.0/1"
year = 2024
"""
STUDIES = """\
[study]
title = "Sparse digits"
track = "sparsity"
tasks = ["digits-sparsity", "lenet300-mnist-sparsity"]
[study.labels]
"FIP" = ["fip-paper", "fip"]
"LTH" = ["lth"]
"random" = ["random"]
[study.protocol]
model.hidden = [300, 100]
data.repo = "a/digits"
[study.scale]
base.epochs = 40
subset = false
"""
VALUE = """
[row]
at = "Table 1"
study = "study"
kind = "value"
method = "FIP"
metric = "accuracy"
value = 90
unit = "%"
ours = "accuracy@0.9"
better = "higher"
"""


def folder(where: Path, rows: str = VALUE, studies: str = STUDIES, planned: str = "") -> Path:
    """A ledger's folder."""
    where.mkdir(parents=True, exist_ok=True)
    (where / "a-paper.toml").write_text(PAPER + rows)
    (where / "studies.toml").write_text(studies)
    if planned:
        (where / "planned.toml").write_text(planned)
    return where


def row(text: str = VALUE, **fields: str) -> str:
    """`VALUE` (or another row) with fields set to TOML texts; None takes a field out."""
    lines = text.strip().splitlines()
    for name, value in fields.items():
        lines = [line for line in lines if not line.startswith(f"{name} =")]
        lines += [f"{name} = {value}"] if value is not None else []
    return "\n" + "\n".join(lines) + "\n"


def ledger(where: Path, rows: str = VALUE, **more: str) -> Ledger:
    return claims.load(folder(where / "ledger", rows, **more))


def protocol(**changes: Any) -> dict[str, Any]:
    own: dict[str, Any] = {
        "name": "digits-sparsity",
        "suites": ["paper"],
        "data": {"repo": "a/digits"},
        "model": {"name": "mlp", "hidden": [300, 100]},
        "base": {"epochs": 40},
        "sparsities": [0.8, 0.9],
    }
    return own | changes


def record(
    label: str = "fip-paper",
    seed: int = 0,
    accuracy: float | None = 0.9,
    *,
    metrics: dict[str, float] | None = None,
    curves: dict[str, dict[str, list[float]]] | None = None,
    described: dict[str, Any] | None = None,
    time: str = "2024-01-01",
    failed: bool = False,
    **job: Any,
) -> Record:
    """One record; unknown keywords are fields of its job."""
    fields: dict[str, Any] = {
        "task": "digits-sparsity",
        "task_version": 1,
        "task_digest": "0123456789ab",
        "track": "sparsity",
        "method": label,
        "method_version": "1+aaa",
        "params": {},
        "seed": seed,
        "suite": "paper",
        "device": "cpu",
        "data_variant": "official",
        "data": {"train": "a" * 64, "test": "b" * 64},
        "label": label,
    } | job
    made = Job(**fields)
    measured = {} if accuracy is None else {"accuracy@0.9": accuracy}
    return sealed(
        Record(
            id=id_of(made),
            job=made,
            protocol=protocol() if described is None else described,
            status="failed" if failed else "ok",
            error=Failure(type="RuntimeError", message="loss is nan") if failed else None,
            metrics={} if failed else measured | (metrics or {}),
            curves=curves or {},
            provenance={"time": time},
        )
    )


def runs(values: list[float], label: str = "fip-paper", **more: Any) -> list[Record]:
    """One record a value (fractions), from seed 0 on."""
    return [record(label, seed, value, **more) for seed, value in enumerate(values)]


def judge_one(where: Path, records: list[Record], rows: str = VALUE, **more: str) -> Judgement:
    (found,) = claims.judge(ledger(where, rows, **more), records)
    return found
