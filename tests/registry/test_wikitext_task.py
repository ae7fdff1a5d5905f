"""The task of the masked language model as a file: typed once more from the papers' lists."""

from __future__ import annotations

from fipbench import plan, registry


def test_bert_as_published():
    task = registry.read_task("bert-wikitext-sparsity")
    assert task.suites == ("paper",) and task.model.weights == "google-bert/bert-base-uncased"
    # Nature Machine Intelligence 6, 2024, listed settings: 10, 20, ... 90 %.
    assert task.sparsities == tuple(k / 10 for k in range(1, 10))
    assert (task.model.name, task.model.inputs, task.model.outputs) == ("masked-lm", (128,), 30_522)
    assert task.scores == ["inverse_perplexity", "perplexity", "accuracy"] and task.headline == "area"
    rows = {row.label: row for row in plan.task_rows(task)}
    listed = {"learning_rate": 2e-5, "rule": "adam", "strength": 1.0, "ramp": 0.0, "settle": 0.0, "attraction": "norm"}
    assert rows["fip-paper"].params.items() >= listed.items()
    assert (task.budget.epochs - task.base.epochs) == len(task.sparsities)  # an epoch a sparsity


def test_weights_are_those_of_the_tasks_on_glue():
    wikitext, glue = (registry.read_task(f"bert-{name}-sparsity").model for name in ("wikitext", "sst2"))
    assert (wikitext.weights, wikitext.revision) == (glue.weights, glue.revision)
