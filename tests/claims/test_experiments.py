"""The table of published experiments says of each how far it was run: never more than the records and boards show."""

from __future__ import annotations

import claims_lab as lab
import pytest

from fipbench import claims
from fipbench.reports import boards, overview

BUILT = {"digits-sparsity", "lenet300-mnist-sparsity"}
OWN = {"headline": "accuracy@0.9", "threads": 1}


def lines(where, records=(), *, built=BUILT, stepped=(), **more):
    ledger = lab.ledger(where, **more)
    return overview.experiments(ledger, claims.judge(ledger, records), boards(records), built, stepped)


def of(task, n=5):
    described = lab.protocol(name=task, **OWN)
    return lab.runs([0.9] * n, described=described, task=task)


def test_run_means_records_on_the_papers_own_protocol(tmp_path):
    [(title, task, state, rows)] = lines(tmp_path, of("digits-sparsity"))
    assert (title, task, state) == ("Sparse digits", "digits-sparsity (5 seeds)", "run")
    assert rows.startswith("1 ") and "not-run" not in rows


def test_run_in_part_means_that_some_of_its_numbers_are_open(tmp_path):
    other = lab.row(method='"LTH"').replace("[row]", "[other]")
    [(_, task, state, rows)] = lines(tmp_path, of("digits-sparsity"), rows=lab.VALUE + other)
    assert (task, state) == ("digits-sparsity (5 seeds)", "run in part") and "1 not-run" in rows
    both = [*of("digits-sparsity"), *of("lenet300-mnist-sparsity", 3)]
    [(_, task, state, _)] = lines(tmp_path / "both", both)
    assert (task, state) == ("digits-sparsity (5 seeds), lenet300-mnist-sparsity (3 seeds)", "run")


def test_another_task_of_the_experiment_is_not_it(tmp_path):
    [(_, task, state, _)] = lines(tmp_path, of("lenet300-mnist-sparsity", 3), stepped=BUILT)
    assert (task, state) == ("lenet300-mnist-sparsity (3 seeds)", "smaller or otherwise")


@pytest.mark.parametrize(
    ("built", "stepped", "task", "state"),
    [
        (BUILT, {"digits-sparsity"}, "digits-sparsity", "a few steps"),
        (BUILT, {"lenet300-mnist-sparsity"}, "digits-sparsity", "never"),
        ((), (), "not built", "never"),
    ],
)
def test_without_records_it_was_never_run(built, stepped, task, state, tmp_path):
    [(_, found, how, rows)] = lines(tmp_path, built=built, stepped=stepped)
    assert (found, how, rows) == (task, state, "1 not-run")


def test_quoted_facts_are_no_experiment(tmp_path):
    studies = lab.STUDIES + '[facts]\ntitle = "Facts"\ntrack = "sparsity"\n'
    assert len(lines(tmp_path, studies=studies)) == 1


def test_a_task_without_the_published_method_is_not_the_experiment(tmp_path):
    studies = lab.STUDIES.replace('["fip-paper", "fip"]', '["geo"]').replace('["lth"]', '["geo"]')
    planned = '[methods]\ngeo = "a geodesic"\n'
    # One method of the three is built: the task counts.
    [(_, task, state, _)] = lines(tmp_path / "some", studies=studies, planned=planned, stepped=BUILT)
    assert (task, state) == ("digits-sparsity", "a few steps")
    studies = studies.replace('["random"]', '["geo"]')
    [(_, task, state, _)] = lines(tmp_path / "none", studies=studies, planned=planned, stepped=BUILT)
    assert (task, state) == ("not built", "never")
