"""The one number that the papers print for GLUE is settled by the task at its own sparsity, and by no other."""

from __future__ import annotations

import claims_lab as lab
import msgspec
import pytest

from fipbench import claims, registry
from fipbench.claims import checks
from fipbench.errors import UserError
from fipbench.spec import sealed

ROWS = ("nmi24-bert-sst2-fip-sp50-acc", "v4-bert-sst2-fip-sp50-acc")


@pytest.fixture(scope="module")
def ledger():
    return claims.load()


def records(task, values, metric="accuracy@0.5", variant="official", label="fip-paper"):
    """Records of a task as it stands, one a value."""
    protocol = msgspec.to_builtins(registry.read_task(task))
    found = []
    for seed, value in enumerate(values):
        made = lab.record(
            label,
            seed,
            None,
            metrics={metric: value},
            described=protocol,
            task=task,
            data_variant=variant,
            method="fip",
        )
        found.append(sealed(made))
    return found


def judged(ledger, records):
    found = {judgement.claim.id: judgement for judgement in claims.judge(ledger, records)}
    return [found[row] for row in ROWS]


NEAR = [0.815, 0.818, 0.816, 0.817, 0.816]


@pytest.mark.parametrize(
    ("values", "expected"),
    [(NEAR, "confirmed"), ([v + 0.08 for v in NEAR], "better"), ([v - 0.2 for v in NEAR], "worse"), ([], "not-run")],
)
def test_a_verdict_is_computed(ledger, values, expected):
    for judgement in judged(ledger, records("bert-sst2-sparsity", values)):
        assert (judgement.name, judgement.departures) == (expected, ()), judgement


def test_the_mirrors_content_is_a_smaller_scale(ledger):
    for judgement in judged(ledger, records("bert-sst2-sparsity", NEAR, variant="mirror")):
        assert judgement.name == "confirmed (smaller scale)"
        assert [str(one) for one in judgement.departures] == ["data variant mirror, published official"]


def test_minilm_is_another_network(ledger):
    for judgement in judged(ledger, records("minilm-sst2-4k-sparsity", NEAR)):
        assert judgement.verdict == "protocol-mismatch"
        assert "model.weights" in judgement.why


def test_no_other_set_answers(ledger):
    others = records("bert-sst2-60-sparsity", NEAR) + records("bert-cola-sparsity", NEAR)
    assert {judgement.verdict for judgement in judged(ledger, others)} == {"not-run"}


def test_scores_are_those_of_the_task(tmp_path):
    for name, metric, known in (
        ("bert-cola-sparsity", "matthews_correlation@0.5", True),
        ("bert-cola-sparsity", "dense_matthews_correlation", True),
        ("bert-cola-sparsity", "accuracy@0.5", True),
        ("bert-cola-sparsity", "f1@0.5", False),
        ("bert-cola-sparsity", "dense_f1", False),
        ("bert-mrpc-sparsity", "f1@0.5", True),
        ("bert-mrpc-sparsity", "f1@0.6", False),
        ("bert-sst2-sparsity", "matthews_correlation@0.5", False),
        ("bert-stsb-sparsity", "pearson_spearman@0.5", True),
        ("bert-stsb-sparsity", "dense_pearson", True),
        ("bert-stsb-sparsity", "accuracy@0.5", False),
        ("bert-wikitext-sparsity", "perplexity@0.9", True),
        ("bert-wikitext-sparsity", "inverse_perplexity@0.1", True),
        ("bert-wikitext-sparsity", "perplexity@0.95", False),
        ("bert-sst2-sparsity", "perplexity@0.5", False),
    ):
        assert checks._measures(registry.read_task(name), metric) == known, (name, metric)
    with pytest.raises(UserError, match=r"metric 'f1@0\.9' is not among those that task 'digits-sparsity' measures"):
        lab.ledger(tmp_path, lab.row(ours='"f1@0.9"'))
