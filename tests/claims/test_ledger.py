"""The ledger that comes with fipbench, row by row; and what a broken ledger is answered."""

from __future__ import annotations

import math
from collections import Counter
from fnmatch import fnmatchcase

import claims_lab as lab
import pytest
from msgspec import UNSET

from fipbench import claims, registry
from fipbench.claims.checks import labels
from fipbench.claims.ledger import published
from fipbench.errors import UserError
from fipbench.estimate.counts import skeleton


@pytest.fixture(scope="module")
def ledger():
    return claims.load()


# How many numbers each publication has; rows that follow from others come on top.
PUBLISHED = {"nmi2024": 126, "arxiv2205-v4": 57, "arxiv2205-v1": 60, "geodesics2021": 50, "eth-abstracts": 10}


def test_every_published_number_has_a_row(ledger):
    printed = Counter(claim.paper for claim in ledger.claims.values() if not claim.derived)
    assert printed == PUBLISHED
    assert printed.total() == 303
    assert set(ledger.papers) == set(PUBLISHED)


def test_rows_that_follow_name_what_they_follow_from(ledger):
    for claim in ledger.claims.values():
        for source in claim.derived:
            assert not ledger.claims[source].derived, claim.id
        if claim.derived:
            assert claim.kind in ("order", "trend"), claim.id


def test_conflicts_go_both_ways(ledger):
    for claim in ledger.claims.values():
        for other in claim.conflicts:
            assert claim.id in ledger.claims[other].conflicts, (claim.id, other)


def test_every_row_is_testable_or_says_why_not(ledger):
    for claim in ledger.claims.values():
        assert bool(claim.metrics) != bool(claim.untestable), claim.id
        assert claim.untestable in ("", *claims.REASONS), claim.id


def test_a_size_is_said_beside_that_of_the_tasks_own_network(ledger):
    """Counted on the network that the task builds; the papers' own number need not be it (484,000, 130 million)."""
    counted = {}
    for claim in ledger.claims.values():
        if claim.untestable == "size":
            task = ledger.studies[claim.study].tasks[0]
            if task not in counted:
                counted[task] = sum(p.numel() for p in skeleton(registry.read_task(task).model).parameters())
            assert claim.note.endswith(f"the task's network has {counted[task]:,}"), claim.id
    assert counted["lenet300-mnist-sparsity-paper"] == 785 * 300 + 301 * 100 + 101 * 10


def test_a_geodesic_is_judged_by_geodesics(ledger):
    """By Geo, and not by another method of ours; between two networks of one task Geo is called `fip`."""
    for study in ledger.studies.values():
        if "geodesic" in study.labels:
            assert study.labels["geodesic"][0] == ("fip" if study.track == "connectivity" else "geodesic"), study.title


def test_every_testable_row_names_what_is_built_or_planned(ledger):
    tasks = {*registry.task_files(), *ledger.planned.tasks}
    for claim in ledger.claims.values():
        if claim.untestable:
            continue
        study = ledger.studies[claim.study]
        assert study.tasks, claim.id
        assert set(study.tasks) <= tasks, claim.id
        assert {study.labels[method][0] for method in claim.compared} <= labels(ledger, study), claim.id


def test_what_is_planned_is_named_by_some_row(ledger):
    named = {task for study in ledger.studies.values() for task in study.tasks}
    assert set(ledger.planned.tasks) <= named
    used = {label for study in ledger.studies.values() for own in study.labels.values() for label in own}
    assert set(ledger.planned.methods) <= used


def test_every_study_has_rows(ledger):
    assert set(ledger.studies) == {claim.study for claim in ledger.claims.values()}


def test_a_tasks_own_claims_are_rows_that_look_at_it(ledger):
    """A task file says which claims it is about: those are rows, and their study names the task."""
    for name in registry.task_files():
        for pattern in registry.read_task(name).claims:
            rows = [claim for claim in ledger.claims.values() if fnmatchcase(claim.id, pattern)]
            assert rows, (name, pattern)
            assert all(name in ledger.studies[c.study].tasks for c in rows if not c.untestable), (name, pattern)


def test_numbers_are_finite_and_percentages_are(ledger):
    for claim in ledger.claims.values():
        if isinstance(claim.value, float):
            assert math.isfinite(claim.value), claim.id
            assert claim.unit != "%" or 0 <= claim.value <= 100, claim.id


# Typed once more from the sources, by eye. (value, to, bound, unit, spread, n, kind)
BY_EYE = {
    "nmi24-splitcifar5-vitb-fip-acc": (91.2, None, "exact", "%", None, None, "value"),
    "nmi24-splitcifar5-vith-fip-acc": (89.3, None, "exact", "%", None, None, "value"),
    "nmi24-splitcifar5-vitb-fip-hours": (3.5, None, "about", "h", None, None, "cost"),
    "nmi24-splitcifar2-lora-r256-task2": (96.6, None, "exact", "%", None, None, "value"),
    "nmi24-yelp-imdb-fip-yelp-acc-table": (70.0, None, "exact", "%", None, None, "value"),
    "nmi24-yelp-imdb-fip-imdb-acc-fig3b": (92.5, None, "exact", "%", None, None, "value"),
    "nmi24-yelp-imdb-lora-r1-yelp": (61.1, None, "exact", "%", None, None, "value"),
    "nmi24-yelp-imdb-lora-r8-imdb": (89.6, None, "exact", "%", None, None, "value"),
    "nmi24-yelp-imdb-lora-r32-yelp": (23.9, None, "exact", "%", None, None, "value"),
    "nmi24-deitb-fip-sp40-acc": (80.22, None, "exact", "%", None, None, "value"),
    "nmi24-deitb-svit-sp40-acc": (81.56, None, "exact", "%", None, None, "value"),
    "nmi24-vgg16-fip-ensemble-acc": (55.61, None, "exact", "%", 1.1, 3, "value"),
    "nmi24-vgg16-fge-acc": (41.7, None, "exact", "%", 0.34, 3, "value"),
    "nmi24-vgg16-deepnet-acc-derived-rel": (46.1, None, "exact", "%", None, None, "value"),
    "nmi24-vith-params-fig2a": (643e6, None, "exact", "count", None, None, "fact"),
    "nmi24-gpt3-params": (175e9, None, "exact", "count", None, None, "fact"),
    "nmi24-sparse-gt80-hours": (24.0, 30.0, "exact", "h", None, None, "cost"),
    "nmi24-bert-query-imdb-best": ("CLCo", None, "exact", "", None, None, "order"),
    "v4-vgg16-adp-acc": (43.84, None, "exact", "%", 7.8, 3, "value"),
    "v4-bert-sst2-fip-sp50-acc": (81.65, None, "exact", "%", None, None, "value"),
    "v4-yelp-imdb-naive-forgetting-steps": (30.0, None, "at-most", "count", None, None, "fact"),
    "v4-deitb-fip-max-sparsity": (80.0, None, "about", "%", None, None, "order"),
    "v1-mnist-fmnist-fip-acc": (91.0, None, "exact", "%", 1.1, 5, "value"),
    "v1-splitcifar20-fip-acc": (82.54, None, "exact", "%", 0.17, 5, "value"),
    "v1-splitcifar20-ewc-acc": (44.9, None, "exact", "%", 0.01, 5, "value"),
    "v1-lenet-fip-sp991-acc": (96.3, 96.8, "exact", "%", None, None, "value"),
    "v1-lenet-lth-sp994-acc": (91.0, None, "exact", "%", 3.0, None, "value"),
    "v1-lenet-fip-layer34-sparsity": (52.0, None, "exact", "%", 4.0, None, "value"),
    "v1-lenet-params-derived": (266610.0, None, "exact", "count", None, None, "fact"),
    "v1-resnet20-fip-sp93-acc": (82.0, 84.7, "exact", "%", None, None, "value"),
    "geo21-lenet-geo-sp50-98-acc": (97.5, None, "at-least", "%", None, None, "value"),
    "geo21-pmnist5-geo-task2-acc": (95.0, None, "exact", "%", None, None, "value"),
    "geo21-pmnist3-linear-task1-acc": (70.0, None, "exact", "%", None, None, "value"),
    "geo21-vgg11-geo-epochs": (30.0, None, "at-most", "epochs", None, None, "cost"),
    "geo21-mode-vgg16-c100-mode2-acc": (75.21, None, "exact", "%", None, None, "value"),
    "geo21-mode-resnet164-c10-geo-acc": (85.0, None, "at-least", "%", None, None, "value"),
    "eth-cnn-hessian-rank": (0.5, None, "exact", "", None, None, "fact"),
}


def test_a_second_reading_agrees(ledger):
    for name, expected in BY_EYE.items():
        row = ledger.claims[name]
        found = (row.value, row.to, row.bound, row.unit, row.spread, row.n, row.kind)
        assert tuple(None if value is UNSET else value for value in found) == expected, name


def test_contradictions_are_on_record(ledger):
    """The contradictions that decide verdicts, named from the sources and not from the ledger."""
    for a, b in (
        ("nmi24-yelp-imdb-naive-yelp-acc-text", "nmi24-yelp-imdb-naive-yelp-acc-fig3b"),
        ("nmi24-splitcifar-n-tasks-fig2", "nmi24-splitcifar-n-tasks-methods"),
        ("v1-splitcifar20-fip-acc", "nmi24-splitcifar20-resnet14-fip-acc"),
        ("nmi24-vgg16-deepnet-acc-derived-abs", "nmi24-vgg16-deepnet-acc-derived-rel"),
        ("v1-lenet-params", "v1-lenet-params-derived"),
        ("nmi24-deitb-dense-acc", "nmi24-deitb-dense-acc-literature"),
    ):
        assert b in ledger.claims[a].conflicts, (a, b)


def test_the_files_are_in_the_package():
    assert {path.stem for path in published().glob("*.toml")} == {*PUBLISHED, "studies", "planned"}


# ---------------------------------------------------------------------------------------------- bad input

OTHER = lab.row().replace("[row]", "[other]")
BAD = {
    "an unknown field": (lab.row(valeu="3"), ("row 'row'", "valeu")),
    "a number that is none": (lab.row(value="nan"), ("row 'row': field 'value'", "finite")),
    "an infinite one": (lab.row(spread="inf", spread_is='"sd"'), ("row 'row': field 'spread'", "finite")),
    "one that is not finite further down": (lab.row(setting="{ rate = -inf }"), ("field 'setting.rate'", "finite")),
    "a text for a number": (lab.row(n='"five"'), ("row 'row': field 'n'", "Expected `int`")),
    "a negative spread": (lab.row(spread="-1", spread_is='"sd"'), ("row 'row': field 'spread'", ">")),
    "a missing field": (lab.row(at=None), ("row 'row'", "missing required field `at`")),
    "no row but a list of them": ('\n[[row]]\nat = "Table 1"\n', ("row 'row'", "Expected `object`")),
    "an id of its own": (lab.row(id='"x"'), ("row 'row': field 'id'", "drop it")),
    "an unknown study": (lab.row(study='"studdy"'), ("unknown study 'studdy'", "row 'row'", "did you mean study")),
    "an unknown kind": (lab.row(kind='"guess"'), ("row 'row': field 'kind'", "guess")),
    "an unknown method": (lab.row(method='"FIB"'), ("unknown method 'FIB'", "row 'row'", "field 'method'", "FIP")),
    "an unknown other method": (
        lab.row(kind='"order"', value=None, better=None, relation='"above"', than='"LHT"'),
        ("unknown method 'LHT'", "field 'than'", "did you mean LTH"),
    ),
    "an unknown metric": (lab.row(ours='"acuracy@0.9"'), ("row 'row': field 'ours'", "unknown metric 'acuracy@0.9'")),
    "a level that the task has not": (lab.row(ours='"accuracy@0.55"'), ("'accuracy@0.55'", "'digits-sparsity'")),
    "an unknown conflict": (lab.row(conflicts='["nobody"]'), ("unknown row 'nobody'", "row 'row'", "'conflicts'")),
    "a conflict with itself": (lab.row(conflicts='["row"]'), ("unknown row 'row'", "field 'conflicts'")),
    "a conflict one way": (lab.row(conflicts='["other"]') + OTHER, ("row 'row': field 'conflicts'", "'other'")),
    "an unknown source": (lab.row(derived='["nobody"]'), ("unknown row 'nobody'", "field 'derived'")),
    "neither metric nor reason": (lab.row(ours=None), ("row 'row': field 'ours'", "untestable")),
    "both": (lab.row(untestable='"gap"'), ("row 'row': field 'ours'", "untestable")),
    "an unknown reason": (lab.row(ours=None, untestable='"tired"'), ("row 'row': field 'untestable'", "tired")),
    "a fact with a metric": (lab.row(kind='"fact"'), ("row 'row': field 'kind'", "fact")),
    "no direction": (lab.row(better=None), ("row 'row': field 'better'", "higher")),
    "a text to compare": (lab.row(value='"high"'), ("row 'row': field 'value'", "number")),
    "no band for this unit": (lab.row(unit='"h"'), ("row 'row': field 'margin'", "%")),
    "a spread of no kind": (lab.row(spread="1"), ("row 'row': field 'spread_is'", "sd")),
    "a range backwards": (lab.row(to="80"), ("row 'row': field 'to'", "above")),
    "an order without a relation": (lab.row(kind='"order"', better=None), ("row 'row': field 'relation'", "above")),
    "an order of one": (
        lab.row(kind='"order"', better=None, relation='"above"', than='"FIP"'),
        ("row 'row': field 'than'", "another method"),
    ),
    "a trend of two": (
        lab.row(kind='"trend"', better=None, method=None, relation='"rising"', along='["FIP", "LTH"]'),
        ("row 'row': field 'along'", "three"),
    ),
    "each of a value": (lab.row(ours='{ each = ["area"] }'), ("row 'row': field 'ours.each'", "order")),
    "two ways to join": (lab.row(ours='{ least = ["area"], most = ["area"] }'), ("row 'row': field 'ours'", "one of")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_row(name, tmp_path):
    rows, said = BAD[name]
    with pytest.raises(UserError) as caught:
        lab.ledger(tmp_path, rows)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("a-paper.toml", *said):
        assert part in message, (part, message)


def test_an_id_that_stands_twice(tmp_path):
    with pytest.raises(UserError, match=r"a-paper\.toml: not valid TOML .*row.*line \d+"):
        lab.ledger(tmp_path, lab.row() + lab.row())
    place = lab.folder(tmp_path / "two")
    (place / "b-paper.toml").write_text(lab.PAPER + lab.row())
    with pytest.raises(UserError, match=r"b-paper\.toml: row 'row': .*a-paper\.toml"):
        claims.load(place)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("model.hidden", "modle"), None),  # a field of the task: free, since tasks of other tracks have others
        (("track =", "trakc ="), ("study 'study'", "trakc")),
        (('"digits-sparsity"', '"digits-sparsty"'), ("unknown task 'digits-sparsty'", "did you mean digits-sparsity")),
        (('["lth"]', '["lht"]'), ("unknown method 'lht'", "labels.LTH", "lth")),
        (("base.epochs = 40", "base.epochs = nan"), ("study 'study': field 'scale.base.epochs'", "finite")),
    ],
)
def test_a_broken_study(change, said, tmp_path):
    studies = lab.STUDIES.replace(*change)
    if said is None:
        assert lab.ledger(tmp_path, studies=studies).claims
        return
    with pytest.raises(UserError) as caught:
        lab.ledger(tmp_path, studies=studies)
    for part in ("studies.toml", *said):
        assert part in str(caught.value), (part, str(caught.value))


def test_a_folder_that_is_no_ledger(tmp_path):
    with pytest.raises(UserError, match=r"no studies\.toml"):
        claims.load(tmp_path)
    place = lab.folder(tmp_path / "ledger")
    (place / "c-paper.toml").write_text(lab.row())
    with pytest.raises(UserError, match=r"c-paper\.toml: field 'paper'"):
        claims.load(place)


def test_a_testable_row_needs_a_task(tmp_path):
    studies = lab.STUDIES.replace('tasks = ["digits-sparsity", "lenet300-mnist-sparsity"]\n', "")
    studies = studies.partition("[study.labels]")[0]
    with pytest.raises(UserError, match="names no task"):
        lab.ledger(tmp_path, studies=studies)
