"""What a run should hold, before anything is computed."""

from __future__ import annotations

import json

import pytest

from fipbench import api, data, plan, registry
from fipbench.errors import UserError
from fipbench.spec import id_of, task_digest


def tickets(task, **fields):
    names = [str(t) for t in task] if isinstance(task, list) else str(task)
    return plan.tickets(api.request(names, **fields))


def rows(file, **fields):
    return {row.label: row for row in plan.task_rows(registry.read_task(str(file)), **fields)}


def test_references_first_then_method_by_method(tiny):
    file = tiny(more='[methods.zero]\nuse = "dense"\n')
    found = [(t.job.label, t.job.seed) for t in tickets(file, methods=["magnitude", "zero", "fip"], seeds=2)]
    assert found == [("zero", 0), ("zero", 1), ("fip", 0), ("fip", 1), ("magnitude", 0), ("magnitude", 1)]


def test_all_methods_unless_some_are_named(tiny):
    labels = {t.job.label for t in tickets(tiny(), seeds=1)}
    assert labels == set(registry.method_names("sparsity"))


def test_methods_that_a_task_is_without_are_there_for_who_asks(tiny, cache_dir):
    settings = '[methods.lth]\nrewind = 1\n[methods.variant]\nuse = "lth"\n'
    file = tiny("without", suites='["quick"]\nwithout = ["lth", "random"]', more=settings)
    # That the task has settings for one changes nothing; a variant is a row of its own.
    every = {*registry.method_names("sparsity"), "variant"}
    assert {t.job.label for t in tickets(file, seeds=1)} == every - {"lth", "random"}
    assert [t.job.label for t in tickets(file, methods=["lth"], seeds=1)] == ["lth"]
    # What else is on the board decides no result.
    a, b = (tickets(task, methods=["lth"], seeds=1)[0].job for task in (file, tiny("with", more=settings)))
    assert a.task_digest == b.task_digest


def test_a_task_can_be_without_variants_that_it_inherits(tiny):
    variants = '[methods.early]\nuse = "lth"\nfraction = 0.2\n[methods.late]\nuse = "lth"\nfraction = 0.3\n'
    parent = tiny("parent", more=variants)
    child = parent.with_name("child.toml")
    child.write_text('extends = "parent"\nsuites = ["quick"]\nwithout = ["early", "random"]\n')
    every = {*registry.method_names("sparsity"), "early", "late"}
    assert {t.job.label for t in tickets(child, seeds=1)} == every - {"early", "random"}
    assert [t.job.label for t in tickets(child, methods=["early"], seeds=1)] == ["early"]


def test_a_task_can_be_without_methods_only_that_there_are(tiny):
    file = tiny(suites='["quick"]\nwithout = ["lht"]')
    with pytest.raises(UserError, match=r"unknown sparsity method 'lht'.*'tiny', field 'without'.*did you mean lth"):
        tickets(file, seeds=1)


@pytest.mark.parametrize(("suites", "suite", "count"), [('["quick"]', None, 10), ('["standard", "quick"]', None, 5)])
def test_seeds_are_the_suites(suites, suite, count, tiny):
    found = tickets(tiny(suites=suites), methods=["dense"], suite=suite)
    assert [t.job.seed for t in found] == list(range(count))


def test_seeds_of_the_suite_that_was_asked_for(tiny):
    both = tiny(suites='["standard", "quick"]')
    assert len(tickets(both, methods=["dense"], suite="quick")) == plan.SEEDS["quick"] == 10
    assert {t.job.suite for t in tickets(both, methods=["dense"], suite="quick")} == {"quick"}
    assert len(tickets(both, methods=["dense"], suite="quick", seeds=3)) == 3
    assert set(plan.SEEDS) == set(registry.SUITES)


def test_all_are_the_tasks_of_a_suite(monkeypatch, tiny, tmp_path):
    files = {
        name: tiny(name, suites=suites)
        for name, suites in {"a": '["quick"]', "b": '["standard"]', "c": '["quick", "standard"]'}.items()
    }
    monkeypatch.setattr(registry, "task_files", lambda: files)
    assert [task.name for task in plan.chosen_tasks(["all"], None)] == ["a", "c"]
    assert [task.name for task in plan.chosen_tasks(["all"], "standard")] == ["b", "c"]
    assert [task.name for task in plan.chosen_tasks(["c", "all", "a"], None)] == ["c", "a"]
    with pytest.raises(UserError, match="name a task, or 'all'"):
        plan.chosen_tasks([], None)


def test_defaults_task_tuned_and_user_in_this_order(tiny, tmp_path):
    (tmp_path / "settings.toml").write_text(
        '[search]\ntask = "tiny"\ntask_digest = "0"\nsplit = "validation"\nobjective = "area"\ntrials = 9\n'
        'seeds = 2\nbudget_epochs = 3\nlaw = "random"\n\n[methods.lth]\nparams = { rewind = 1, learning_rate = 2 }\n'
        'version = "1"\n'
        "score = 0.9\ndefault_score = 0.8\ntrial = 1\ntrials = 2\nfailed = 0\nexamples_spent = 10\nbest_of = [0.8]\n"
    )
    plain = tiny("plain")
    assert rows(plain)["lth"].params["rewind"] == 0 and rows(plain)["lth"].settings == "default"
    assert registry.read_task(str(plain)).selection == "library defaults, or what the task sets; nothing was searched"

    tuned = tiny("tuned", tuned='"settings.toml"')
    lth = rows(tuned)["lth"]
    assert (lth.params["rewind"], lth.settings) == (1, "tuned")
    assert rows(tuned)["fip"].settings == "default"
    selection = registry.read_task(str(tuned)).selection
    assert "common search on tiny: 9 random trials" in selection and "2 seeds" in selection and "3 epochs" in selection

    its_own = registry.read_task(str(tiny("tiny", tuned='"settings.toml"'))).selection
    assert its_own == selection.replace(" on tiny", "")

    own = rows(tiny("own", more="[methods.lth]\nfraction = 0.3\n"))["lth"]
    assert (own.params["fraction"], own.settings) == (0.3, "task")
    user = rows(tuned, overrides={"lth": {"rewind": "0", "prune_output": "False"}})["lth"]
    assert (user.params["rewind"], user.params["prune_output"], user.settings) == (0, False, "user")
    assert user.params["learning_rate"] == 2.0


def test_a_value_has_the_type_of_the_default(tiny):
    file = tiny(more="[methods.fip]\nlearning_rate = 1\n")
    value = rows(file)["fip"].params["learning_rate"]
    assert type(value) is float
    given = rows(file, overrides={"fip": {"learning_rate": "1"}})["fip"].params["learning_rate"]
    assert type(given) is float and given == value
    other = tiny("other", more="[methods.fip]\nlearning_rate = 1.0\n")
    a, b = (tickets(task, methods=["fip"], seeds=1)[0].job.params for task in (file, other))
    assert json.dumps(a) == json.dumps(b)


def test_a_variant_is_a_row_of_its_own(tiny):
    file = tiny(more='[methods.lth]\nrewind = 1\n[methods.lth-dense-output]\nuse = "lth"\nprune_output = false\n')
    base, variant = (rows(file)[label] for label in ("lth", "lth-dense-output"))
    assert variant.method == base.method and variant.label == "lth-dense-output"
    assert variant.params == {**base.params, "prune_output": False}
    found = tickets(file, methods=["lth-dense-output"], seeds=1)
    assert [(t.job.label, t.job.method) for t in found] == [("lth-dense-output", "lth")]
    only = rows(file, overrides={"lth-dense-output": {"rewind": "0"}})
    assert (only["lth"].params["rewind"], only["lth-dense-output"].params["rewind"]) == (1, 0)


def test_labels_and_settings_are_on_the_job_and_not_in_its_identity(tiny):
    variant = tiny("tiny", more='[methods.other]\nuse = "lth"\nrewind = 1\n')
    (a,) = tickets(variant, methods=["other"], seeds=1)
    (b,) = tickets(tiny("tiny"), methods=["lth"], seeds=1, settings=["lth.rewind=1"])
    assert (a.job.label, a.job.settings, b.job.label, b.job.settings) == ("other", "task", "lth", "user")
    assert id_of(a.job) == id_of(b.job)


def test_two_rows_that_would_be_the_same_jobs(tiny):
    file = tiny(more='[methods.lth-dense-output]\nuse = "lth"\nprune_output = false\n')
    with pytest.raises(
        UserError, match=r"'lth' and 'lth-dense-output' have the same parameters.*choose with --methods"
    ):
        tickets(file, settings=["lth.prune_output=false"], seeds=1)
    assert len(tickets(file, settings=["lth.prune_output=false"], methods=["lth"], seeds=1)) == 1


@pytest.mark.parametrize("name", registry.task_files())
def test_no_task_of_ours_has_a_row_twice(name):
    found = [(row.method.name, json.dumps(row.params)) for row in plan.task_rows(registry.read_task(name))]
    assert len(found) == len(set(found))


def test_the_data_decides_the_variant_and_the_identity(tiny, cache_dir):
    """Two variants of one data set: the one that is there is named, and its digests are in the job."""
    digests = data.identify(registry.read_task(str(tiny())).data, cache_dir)[1]
    none = 'train = "0"\ntest = "1"\n'
    real = "".join(f'{split} = "{digest}"\n' for split, digest in digests.items())
    for label, order in {"here": ("absent", "here"), "a": ("a", "b")}.items():
        more = '[data]\nembedded = "digits"\n' + "".join(
            f"[data.variants.{name}]\n{real if name == label else none}" for name in order
        )
        (ticket,) = tickets(tiny(data="", more=more), methods=["dense"], seeds=1)
        assert (ticket.job.data_variant, ticket.job.data) == (label, digests)
    (ticket,) = tickets(
        tiny(data="", more=f'[data]\nembedded = "digits"\n[data.variants.absent]\n{none}'),
        methods=["dense"],
        seeds=1,
        allow_unknown_data=True,
    )
    assert (ticket.job.data_variant, ticket.job.data) == ("unknown", digests)


def test_a_damaged_note_of_the_digests_is_written_again(tiny, tmp_path):
    source = registry.read_task(str(tiny())).data
    first = data.identify(source, tmp_path)
    (note,) = (tmp_path / "data").glob("*.json")
    for damage in (b"", b"{}", b"[]", b'{"train": "0"}', b"null"):
        note.write_bytes(damage)
        assert data.identify(source, tmp_path) == first


def test_a_ticket_holds_all_that_a_worker_needs(tiny, tmp_path):
    import msgspec

    from fipbench.spec import SparsityTask, Ticket

    task = registry.read_task(str(tiny()))
    for ticket in tickets(tiny(), seeds=1):
        again = msgspec.json.decode(msgspec.json.encode(ticket), type=Ticket)
        assert (again.job, again.target, again.provenance) == (ticket.job, ticket.target, ticket.provenance)
        assert id_of(again.job) == id_of(ticket.job)
        assert msgspec.convert(again.task, SparsityTask) == task
        assert ticket.job.threads == task.threads == 1
        assert ticket.job.device in ("cpu", "cuda")
    assert {"commit", "versions", "hardware", "platform"} <= set(ticket.provenance)


def test_from_python_too_few_of_something_is_a_mistake(tiny):
    import fipbench

    for wrong in ({"seeds": 0}, {"workers": 0}, {"workers": -1}):
        with pytest.raises(UserError, match="expected a positive number"):
            fipbench.run(str(tiny()), methods=["dense"], **{"seeds": 1, **wrong})


def test_common_parameters_are_those_of_every_method_that_has_them(tiny):
    file = tiny(more="[common]\nlearning_rate = 0.125\n\n[methods.lth]\nlearning_rate = 0.5\n")
    found = rows(file)
    assert found["gradual"].params["learning_rate"] == 0.125 and found["gradual"].settings == "task"
    assert found["lth"].params["learning_rate"] == 0.5
    assert "learning_rate" not in found["magnitude"].params and found["magnitude"].settings == "default"
    plain = registry.read_task(str(tiny()))
    assert task_digest(plain, 1) == task_digest(registry.read_task(str(file)), 1), "it reaches a job by its parameters"


def test_a_common_parameter_that_no_method_has_is_named(tiny):
    with pytest.raises(
        UserError, match=r"unknown parameter 'learning_rat' .*field 'common': did you mean learning_rate"
    ):
        rows(tiny(more="[common]\nlearning_rat = 0.1\n"))
