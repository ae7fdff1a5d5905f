"""The GLUE tasks as files: targets, scores and splits typed once more from the papers and from GLUE."""

from __future__ import annotations

import pytest

from fipbench import plan, registry

# Set: target in % (Nature Machine Intelligence 6, 2024, listed settings; SST-2 as in the text), GLUE's score, outputs,
# the hub's name of the set and of the split with labels, its text columns.
PUBLISHED = {
    "sst2": (50, "accuracy", 2, "sst2", "validation", ("sentence",)),
    "sst2-60": (60, "accuracy", 2, "sst2", "validation", ("sentence",)),
    "cola": (50, "matthews_correlation", 2, "cola", "validation", ("sentence",)),
    "mrpc": (50, "f1", 2, "mrpc", "validation", ("sentence1", "sentence2")),
    "qqp": (90, "f1", 2, "qqp", "validation", ("question1", "question2")),
    "mnli": (70, "accuracy", 3, "mnli", "validation_matched", ("premise", "hypothesis")),
    "mnli-mm": (70, "accuracy", 3, "mnli", "validation_mismatched", ("premise", "hypothesis")),
    "qnli": (70, "accuracy", 2, "qnli", "validation", ("question", "sentence")),
    "rte": (60, "accuracy", 2, "rte", "validation", ("sentence1", "sentence2")),
    "stsb": (50, "pearson_spearman", 6, "stsb", "validation", ("sentence1", "sentence2")),
    "wnli": (50, "accuracy", 2, "wnli", "validation", ("sentence1", "sentence2")),
}
# Training examples of each set, as released.
SIZES = {
    "sst2": 67349,
    "cola": 8551,
    "mrpc": 3668,
    "qqp": 363846,
    "mnli": 392702,
    "qnli": 104743,
    "rte": 2490,
    "stsb": 5749,
    "wnli": 635,
}
SMALL = {
    "cola": (0.5, 0.8),
    "mrpc": (0.5, 0.8),
    "rte": (0.6, 0.8),
    "sst2-4k": (0.5, 0.6, 0.8),
    "stsb": (0.5, 0.8),
    "wnli": (0.5, 0.8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_bert_as_published(name):
    target, score, outputs, config, test, columns = PUBLISHED[name]
    task = registry.read_task(f"bert-{name}-sparsity")
    assert task.suites == ("paper",) and task.model.weights == "google-bert/bert-base-uncased"
    assert task.sparsities == (target / 100,) and task.headline == f"{score}@{target / 100:g}"
    assert (task.scores[0], task.model.outputs) == (score, outputs)
    assert (task.data.repo, task.data.config, task.data.test) == ("nyu-mll/glue", config, test)
    assert tuple(column for column in (task.data.input, task.data.second) if column) == columns
    rows = {row.label: row for row in plan.task_rows(task)}
    listed = {"learning_rate": 2e-5, "rule": "adam", "strength": 1.0, "ramp": 0.0, "settle": 0.0, "attraction": "norm"}
    assert rows["fip-paper"].params.items() >= listed.items()
    # A pretrained network is lost at the rates of the small ones.
    rates = {label: row.params["learning_rate"] for label, row in rows.items() if "learning_rate" in row.params}
    assert len(rates) >= 7 and max(rates.values()) <= 1e-4
    # Steps for pruning: three epochs, or about 2,000.
    steps = (task.budget.epochs - task.base.epochs) * SIZES[config] / task.budget.batch_size
    assert task.budget.epochs - task.base.epochs == 3 or 1800 <= steps <= 2200
    assert task.validation < SIZES[config] / 5


@pytest.mark.parametrize("name", SMALL)
def test_minilm_on_the_small_sets(name):
    task = registry.read_task(f"minilm-{name}-sparsity")
    config = name.partition("-")[0]
    assert task.suites == ("standard",) and task.sparsities == SMALL[name] and task.headline == "area"
    assert task.model.weights == "sentence-transformers/all-MiniLM-L6-v2" and task.model.sha256
    assert task.scores[0] == PUBLISHED[config][1] and task.data.config == config
    assert (task.subset or None) == (4000 if name == "sst2-4k" else None)
    # 1.1 ms a token of a batch that is as long as its longest text may be; sentences are far shorter than that.
    longest = {"cola": 24, "sst2-4k": 41}.get(name, task.model.inputs[0])
    minutes = task.budget.epochs * (task.subset or SIZES[config]) * longest * 0.0011 / 60
    assert minutes < 18


def test_the_mirrors_sets_have_digests_and_others_are_said_to_have_none():
    sources = {name: registry.read_task(f"bert-{name}-sparsity").data for name in PUBLISHED}
    assert {name for name, source in sources.items() if not source.variants} == {"qqp", "mnli", "mnli-mm", "qnli"}
    assert len({source.revision for source in sources.values()}) == 1


def test_the_suite_can_be_listed_without_any_data(call, tmp_path, monkeypatch):
    """Neither the sets that the mirror lacks nor the weights are asked for."""
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path))
    (tmp_path / "nyu-mll" / "glue" / "qnli").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("bert-qqp-sparsity", "bert-qnli-sparsity", "bert-sst2-sparsity"):
        answer = call("run", name, "--methods", "fip-paper", "--seeds", 1, "--dry-run")
        assert answer.code == 0 and "1 job, 1 to compute" in answer.out, answer
