"""The common search: equal trials for all, on validation data, into a file that a task can name."""

from __future__ import annotations

import math
import shutil
import tomllib
from functools import partial
from types import SimpleNamespace

import pytest
from workbench import jobs_in_process

from fipbench import api, plan, registry, store, tune
from fipbench.errors import UserError
from fipbench.methods import Choice, LogUniform, Uniform

LAWS = {"learning_rate": LogUniform(1e-4, 1e-1), "ramp": Uniform(0.0, 0.5), "rule": Choice(("sgd", "adam"))}
DEFAULTS = {"learning_rate": 0.01, "ramp": 0.1, "rule": "sgd", "fixed": 7}


def study(name="mine", task="task", laws=LAWS, defaults=DEFAULTS):
    """A search that needs no harness: a row and a task are their names here."""
    row = SimpleNamespace(method=SimpleNamespace(name=name), label=name, params=defaults)
    return tune.Study(row, laws, SimpleNamespace(name=task, headline="score"))


def result(score, status="ok"):
    return SimpleNamespace(
        status=status,
        metrics={} if score is None else {"score": score},
        cost=SimpleNamespace(backward_examples=10),
        job=SimpleNamespace(method_version="1"),
    )


def asked(search, trials, score=lambda params: 0.5):
    found = []
    for _ in range(trials):
        if (params := search.ask()) is None:
            break
        found.append(params)
        search.tell([result(score(params))])
    return found


# -------------------------------------------------------------------------------------------------- draws


def test_trial_0_is_the_defaults():
    found = study().ask()
    assert found == DEFAULTS and found is not DEFAULTS


def test_a_search_is_the_same_whenever_it_is_made():
    first = asked(study(), 12)
    assert asked(study(), 12) == first
    assert asked(study(), 20)[:12] == first, "more trials change the first ones"
    assert asked(study(laws=dict(reversed(LAWS.items()))), 12) == first


def test_methods_and_tasks_draw_apart():
    drawn = [
        params["learning_rate"]
        for name in ("a", "b")
        for task in ("t", "u")
        for params in asked(study(name, task), 4)[1:]
    ]
    assert len(set(drawn)) == 12


def test_the_random_trials_do_not_look_at_scores_and_the_later_ones_do():
    up = asked(study(), 12, lambda params: params["ramp"])
    down = asked(study(), 12, lambda params: -params["ramp"])
    assert up[: tune.RANDOM_TRIALS] == down[: tune.RANDOM_TRIALS]
    mean_up, mean_down = (sum(p["ramp"] for p in found[tune.RANDOM_TRIALS :]) for found in (up, down))
    assert mean_up > mean_down


def test_draws_lie_within_their_laws_and_cover_them():
    drawn = [params for k in range(100) for params in asked(study(task=str(k)), tune.RANDOM_TRIALS)[1:]]
    assert all(law.admits(one[name]) for one in drawn for name, law in LAWS.items())
    assert all(one["fixed"] == 7 for one in drawn)
    rates = [one["learning_rate"] for one in drawn]
    for decade in (1e-4, 1e-3, 1e-2):  # log-uniform: a third each
        assert 0.25 < sum(decade <= rate < 10 * decade for rate in rates) / len(rates) < 0.42
    assert 0.2 < sum(one["ramp"] for one in drawn) / len(drawn) < 0.3
    assert 0.4 < sum(one["rule"] == "sgd" for one in drawn) / len(drawn) < 0.6


def test_what_was_tried_is_not_tried_again():
    laws = {"rule": Choice(("sgd", "adam")), "rewind": Choice((0, 1, 2))}
    found = asked(study(laws=laws, defaults={"rule": "sgd", "rewind": 0}), 20)
    assert len(found) == 6 and len({str(sorted(params.items())) for params in found}) == 6


# -------------------------------------------------------------------------------------------------- choice


def test_the_first_of_equal_bests_wins_and_failures_count_as_nothing():
    search = study()
    tried = []
    for scores in ((0.2, 0.4), (None, 0.9), (0.5, 0.3), (0.3, 0.5)):  # the second trial fails with one of its seeds
        tried.append(search.ask())
        search.tell([result(score, "ok" if score is not None else "failed") for score in scores])
    best = search.best()
    assert best["params"] == tried[2] and best["trial"] == 2
    assert best["score"] == 0.4 and best["default_score"] == 0.3
    assert (best["trials"], best["failed"], best["examples_spent"]) == (4, 1, 80)
    assert best["best_of"] == [0.3, 0.3, 0.4, 0.4]


def test_scores_below_zero_are_scores_and_failures_are_none():
    """Matthews' correlation of a network that learned nothing may be below 0."""
    search = study()
    for score in (None, -0.25, -0.5, 0.125):
        search.ask()
        search.tell([result(score, "ok" if score is not None else "failed")])
    best = search.best()
    assert math.isnan(best["best_of"][0]) and best["best_of"][1:] == [-0.25, -0.25, 0.125]
    assert math.isnan(best["default_score"]) and best["failed"] == 1


def test_finalists_decide_at_the_whole_budget():
    search = study()
    tried = []
    for score in (0.5, 0.9, None, 0.7, 0.9):
        tried.append(search.ask())
        search.tell([result(score, "ok" if score is not None else "failed")])
    assert search.leaders(0) == []
    assert search.leaders(3) == [tried[1], tried[4], tried[3]]
    assert search.leaders(9) == [tried[1], tried[4], tried[3], tried[0]]
    for params, score in zip(search.leaders(3), (0.2, None, 0.4), strict=True):
        search.decide(params, [result(score, "ok" if score is not None else "failed")])
    best = search.best()
    assert best["params"] == tried[3] and best["trial"] == 3 and best["score"] == 0.4
    assert best["finals"] == [0.2, pytest.approx(math.nan, nan_ok=True), 0.4] and best["best_of"][-1] == 0.9
    assert (best["trials"], best["failed"], best["examples_spent"]) == (5, 1, 80)


# ------------------------------------------------------------------------------------------------- search


def asking(lab, folder, methods=("magnitude", "magnitude-finetune"), task=None, seeds=2):
    return plan.Request(
        tasks=(str(task or lab.file),),
        results=folder / "results",
        cache=lab.cache,
        methods=tuple(methods),
        seeds=seeds,
        device="cpu",
    )


@pytest.fixture
def request_(lab, tmp_path):
    return partial(asking, lab, tmp_path)


@pytest.fixture(scope="module")
def once(lab, tmp_path_factory):
    """The folder of a search that was made once for all."""
    folder = tmp_path_factory.mktemp("search")
    with jobs_in_process():
        tune.search(asking(lab, folder), trials=4, budget_epochs=3, out=folder / "found.toml", workers=1)
    return folder


@pytest.fixture
def searched(once, tmp_path):
    """A copy of it: its file of settings, what stands there, its records."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    out = tmp_path / "found.toml"
    return out, tomllib.loads(out.read_text()), store.read(tmp_path / "results")[0]


def test_the_search_scores_validation_examples_alone(searched, lab):
    _, _, records = searched
    assert records and all(r.job.split == "validation" for r in records)
    assert all(item.count == lab.task.validation for r in records for item in r.items.values())
    assert all(r.status == "ok" for r in records)


def test_all_methods_get_the_same_trials_and_budget(searched):
    _, found, records = searched
    jobs = {}
    for record in records:
        jobs.setdefault(record.job.method, {}).setdefault(str(record.job.params), set()).add(record.job.seed)
    assert len(jobs["magnitude-finetune"]) == 4
    assert len(jobs["magnitude"]) == 2  # there are no more settings than the two scopes
    assert all(seeds == {0, 1} for trials in jobs.values() for seeds in trials.values())
    assert {r.protocol["budget"]["epochs"] for r in records} == {3}
    assert all(r.cost.forward_examples + r.cost.backward_examples <= 2 * 3 * 900 for r in records)
    assert (found["search"]["trials"], found["search"]["seeds"], found["search"]["budget_epochs"]) == (4, 2, 3)


def test_the_best_on_validation_data_is_written(searched):
    _, found, records = searched
    for name in ("magnitude", "magnitude-finetune"):
        scores = {}
        for r in records:
            if r.job.method == name:
                scores.setdefault(str(r.job.params), []).append(r.metrics["area"])
        means = {params: sum(values) / len(values) for params, values in scores.items()}
        assert means[str(found["methods"][name]["params"])] == max(means.values())
        assert found["methods"][name]["score"] == pytest.approx(max(means.values()), abs=1e-6)


def test_a_task_names_the_file_and_its_methods_are_tuned(searched, lab, tmp_path):
    out, found, _ = searched
    # Settings unlike the defaults, so that it is seen where they come from.
    text = out.read_text()
    chosen = found["methods"]["magnitude-finetune"]["params"]["learning_rate"]
    text = text.replace(f"learning_rate = {chosen}", "learning_rate = 0.0123")
    out.write_text(text)
    task = tmp_path / "named.toml"
    task.write_text(lab.file.read_text() + 'tuned = "found.toml"\n')
    rows = {row.label: row for row in plan.task_rows(registry.read_task(str(task)))}
    assert rows["magnitude-finetune"].settings == "tuned"
    assert rows["magnitude-finetune"].params["learning_rate"] == 0.0123
    assert rows["magnitude"].settings == "tuned"
    assert rows["magnitude"].params == found["methods"]["magnitude"]["params"]
    assert rows["lth"].settings != "tuned" and rows["dense"].settings != "tuned"
    assert rows["lth"].params == rows["lth"].method.defaults


def test_an_earlier_search_is_not_the_start_of_the_next(searched, lab, tmp_path, request_, in_process):
    """Trial 0 is the library's defaults, whatever the task has been told since."""
    out, _, before = searched
    task = tmp_path / "tiny.toml"
    task.write_text(lab.file.read_text() + 'tuned = "found.toml"\n')
    tune.search(request_(task=task), trials=4, budget_epochs=3, out=tmp_path / "again.toml", workers=1)
    again = tomllib.loads((tmp_path / "again.toml").read_text())
    assert again == tomllib.loads(out.read_text())
    after = store.read(tmp_path / "results")[0]
    assert {r.id for r in after} == {r.id for r in before}, "the search did not resume"


def test_a_variant_of_the_task_is_not_searched_but_its_method_is(lab, tmp_path, request_, monkeypatch):
    class Enough(Exception):
        pass

    def stop(tickets, **options):
        labels.update(t.job.label for t in tickets)
        raise Enough

    labels: set[str] = set()
    monkeypatch.setattr(api, "execute", stop)
    task = tmp_path / "twin.toml"
    task.write_text(lab.file.read_text() + '\n[methods.twin]\nuse = "lth"\nfraction = 0.2\n')
    with pytest.raises(Enough):
        tune.search(request_((), task=task), trials=2, budget_epochs=3, out=tmp_path / "found.toml")
    searched = {name for name in registry.method_names("sparsity") if lab.method(name).search}
    assert labels == searched and "lth" in labels and "dense" not in labels


def test_a_search_says_how_far_it_is_and_what_it_found(request_, in_process, lab, tmp_path):
    said, out = [], tmp_path / "found.toml"
    tune.search(request_(("lth",), seeds=1), trials=2, budget_epochs=3, out=out, workers=1, watch=said.append)
    assert [event["text"] for event in said if event["event"] == "note"] == ["trial 1 of 2", "trial 2 of 2"]
    best = tomllib.loads(out.read_text())["methods"]["lth"]
    (line,) = tune.told(out)
    assert line.startswith(
        f"lth: area {best['score']:.4f} on validation data (its defaults: {best['default_score']:.4f})"
    )
    assert f"learning_rate={best['params']['learning_rate']}" in line
    out.write_text(out.read_text().replace(f"default_score = {best['default_score']}", "default_score = nan"))
    assert "(its defaults: failed)" in next(tune.told(out))


def test_the_time_limit_is_that_of_every_job(request_, monkeypatch, tmp_path):
    class Enough(Exception):
        pass

    def stop(tickets, **options):
        assert tickets and options["timeout"] == 12.5
        raise Enough

    monkeypatch.setattr(api, "execute", stop)
    with pytest.raises(Enough):
        tune.search(request_(), trials=2, budget_epochs=3, out=tmp_path / "found.toml", timeout=12.5)


def test_tuned_settings_reach_the_record(searched, lab, tmp_path, request_, in_process):
    task = tmp_path / "named.toml"
    task.write_text(lab.file.read_text() + 'tuned = "found.toml"\n')
    tickets = plan.tickets(request_(("magnitude-finetune",), task=task, seeds=1))
    [record] = api.execute(tickets, workers=1).records
    _, found, _ = searched
    assert record.job.settings == "tuned" and record.job.split == "test"
    assert record.job.params == found["methods"]["magnitude-finetune"]["params"]


def test_what_a_task_sets_by_itself_is_not_called_tuned(searched, lab, tmp_path):
    task = tmp_path / "named.toml"
    task.write_text(
        lab.file.read_text() + 'tuned = "found.toml"\n\n[methods.lth]\nfraction = 0.2\n\n'
        '[methods.magnitude]\nscope = "global"\n'
    )
    rows = {row.label: row for row in plan.task_rows(registry.read_task(str(task)))}
    assert rows["magnitude-finetune"].settings == "tuned"
    assert rows["lth"].settings == "task"
    assert rows["magnitude"].settings == "task"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0, "budget_epochs": None}, "--trials: expected a positive number, got 0"),
        ({"trials": 1, "budget_epochs": 2}, "--budget-epochs: expected more than 2 \\(the base network\\)"),
        (
            {"trials": 1, "budget_epochs": None, "finalists": 2},
            "--finalists: expected a number above 0, beside --budget",
        ),
        ({"trials": 1, "budget_epochs": 3, "finalists": -1}, "--finalists: expected a number above 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused(options, words, request_, tmp_path):
    with pytest.raises(UserError, match=words):
        tune.search(request_(), out=tmp_path / "found.toml", **options)


def test_finalists_are_tried_at_the_tasks_own_budget(request_, in_process, lab, tmp_path):
    out = tmp_path / "found.toml"
    tune.search(request_(seeds=1), trials=4, budget_epochs=3, out=out, finalists=2, workers=1)
    found, records = tomllib.loads(out.read_text()), store.read(tmp_path / "results")[0]
    assert found["search"]["finalists"] == 2 and found["search"]["budget_epochs"] == 3
    whole = [r for r in records if r.protocol["budget"]["epochs"] == lab.task.budget.epochs]
    assert all(r.job.split == "validation" for r in records) and {r.job.seed for r in whole} == {0}
    for name in ("magnitude", "magnitude-finetune"):
        short = {str(r.job.params): r.metrics["area"] for r in records if r.job.method == name and r not in whole}
        long = {str(r.job.params): r.metrics["area"] for r in whole if r.job.method == name}
        entry = found["methods"][name]
        assert set(long) == set(sorted(short, key=short.get, reverse=True)[:2])
        assert long[str(entry["params"])] == max(long.values()) == pytest.approx(entry["score"], abs=1e-6)
        assert entry["examples_spent"] == sum(r.cost.backward_examples for r in records if r.job.method == name)
    copy = tmp_path / "tiny2.toml"
    copy.write_text(lab.file.read_text() + f'tuned = "{out.name}"\n')
    assert registry.read_task(str(copy)).selection.endswith("; of a method's 2 best that of the task's own budget")


def test_a_method_whose_trials_all_fail_is_said(request_, in_process, tmp_path, monkeypatch):
    from fipbench.tracks import sparsity

    monkeypatch.setattr(sparsity.Trial, "fit", lambda self, *a, **k: 1 / 0)
    with pytest.raises(UserError, match="all 2 trials of 'magnitude-finetune' failed"):
        tune.search(request_(("magnitude-finetune",)), trials=2, budget_epochs=3, out=tmp_path / "found.toml")
    assert not (tmp_path / "found.toml").exists()
