"""What is found, and what finding it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from fipbench import data, models, registry, spec, training
from fipbench.errors import UserError, unknown
from fipbench.spec import CompositionTask, ConnectivityTask, ContinualTask, RobustnessTask, SparsityTask


def test_the_installed_tasks_are_read():
    found = {name: registry.read_task(name) for name in registry.task_files()}
    assert {"digits-sparsity", "lenet300-mnist-sparsity"} <= set(found)
    kinds = {
        "composition": CompositionTask,
        "connectivity": ConnectivityTask,
        "continual": ContinualTask,
        "robustness": RobustnessTask,
        "sparsity": SparsityTask,
    }
    for name, task in found.items():
        assert type(task) is kinds[task.track] and task.name == name
        assert task.headline in task.headlines
    assert {task.track for task in found.values()} == set(kinds)
    assert found["digits-sparsity"].sparsities == (0.8, 0.9, 0.95, 0.98, 0.99)
    assert found["lenet300-mnist-sparsity"].sparsities[0] == 0.2
    assert found["lenet300-mnist-sparsity"].sparsities[-1] == 0.994


def test_what_a_task_may_name_is_what_there_is():
    """The names stand in `spec`, which must not load what they name."""
    assert set(spec.MODELS) == set(models.ARCHITECTURES)
    for name in spec.OPTIMIZERS:
        training.optimizer(name, models.build(TINY_MODEL, 0).parameters(), 0.1)
    with pytest.raises(ValueError):
        training.optimizer("none", models.build(TINY_MODEL, 0).parameters(), 0.1)
    for name in spec.EMBEDDED:
        assert data._embedded(spec.Data(embedded=name, variants={}), "test")
    with pytest.raises(UserError):
        data._embedded(spec.Data(embedded="none", variants={}), "test")


TINY_MODEL = spec.Model(name="mlp", inputs=(2,), outputs=2)


NAMED = {
    "connectivity": "linear fip bezier rebasin fusion",
    "sparsity": "dense fip lth magnitude magnitude-finetune random gradual gradual-distill",
    "continual": "naive joint ewc l2 gem a-gem lwf si packnet linear-path replay der der++ lora fip",
    "robustness": "single deep-ensemble fip fge adp",
    "composition": "naive finetune-magnitude replay-gradual fip",
}
REFERENCES = {
    "composition": "naive",
    "connectivity": "linear",
    "sparsity": "dense",
    "continual": "joint",
    "robustness": "single",
}


@pytest.mark.parametrize("track", registry.TRACKS)
def test_every_method_loads(track):
    targets = registry.find_methods(track)
    assert set(NAMED[track].split()) <= set(targets)
    for name, target in targets.items():
        method = registry.load_method(track, name, target)
        assert method.name == name and method.summary and method.version.count("+") == 1
        assert set(method.search) <= set(method.defaults)
    references = [n for n, t in targets.items() if registry.load_method(track, n, t).role == "reference"]
    assert references == [REFERENCES[track]]


def test_finding_imports_nothing_heavy():
    code = (
        "import sys; from fipbench import registry\n"
        "registry.find_methods('sparsity'); [registry.read_task(n) for n in registry.task_files()]\n"
        "heavy = {'torch', 'numpy', 'pandas', 'fipbench.baselines.fip_sparse'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_heads_are_those_of_the_tasks_and_no_file_is_read_twice(monkeypatch):
    read = []
    read_toml = registry.read_toml
    monkeypatch.setattr(registry, "read_toml", lambda path: read.append(path) or read_toml(path))
    heads = list(registry.task_heads())
    assert sorted(read) == sorted(registry.task_files().values())
    tasks = [registry.read_task(name) for name in registry.task_files()]
    assert [(h.name, h.title, h.track, h.suites) for h in heads] == [
        (t.name, t.title, t.track, t.suites) for t in tasks
    ]


def test_a_head_that_breaks_the_schema(monkeypatch, tmp_path):
    (tmp_path / "odd.toml").write_text('title = 3\ntrack = "sparsity"\nsuites = ["quick"]\n')
    monkeypatch.setattr(registry, "task_files", lambda: {"odd": tmp_path / "odd.toml"})
    with pytest.raises(UserError, match=r"odd\.toml: field 'title': Expected `str`, got `int`"):
        list(registry.task_heads())


@pytest.fixture
def entries(monkeypatch):
    """`entries(track=[(name, target), ...])`: what the installed packages declare."""

    def declare(**groups):
        found = [
            EntryPoint(name, value, f"fipbench.methods.{track}")
            for track, pairs in groups.items()
            for name, value in pairs
        ]
        monkeypatch.setattr(registry, "entry_points", lambda: EntryPoints(found))
        registry._entries.cache_clear()

    yield declare
    registry._entries.cache_clear()


def test_two_packages_with_one_name(entries):
    entries(sparsity=[("mine", "a:mine"), ("mine", "b:mine")])
    with pytest.raises(UserError, match=r"two methods are called 'mine' .* a:mine and b:mine; uninstall"):
        registry.method_names("sparsity")
    entries(sparsity=[("mine", "a:mine"), ("mine", "a:mine")])
    assert registry.method_names("sparsity") == ["mine"]


def test_an_entry_point_with_an_impossible_name(entries):
    entries(sparsity=[("My Method", "a:mine")])
    with pytest.raises(UserError, match=r"entry point 'My Method' \(a:mine\): .*letters, digits, hyphens and pluses"):
        registry.method_names("sparsity")


def test_an_entry_point_that_does_not_load(entries, call, tiny):
    """Listed without harm; broken where it is asked for, and the others are not."""
    entries(
        sparsity=[
            ("magnitude", "fipbench.baselines.magnitude:magnitude"),
            ("gone", "no_such_package:mine"),
            ("unmarked", "os.path:join"),
            ("absent", "os.path:nothing"),
        ]
    )
    assert call("list", "methods").code == 0
    answer = call("list", "methods", "--check")
    assert answer.code == 2 and "3 of the methods do not load" in answer.err
    lines = {line.split()[0]: line for line in answer.out.splitlines()}
    assert "BROKEN" not in lines["magnitude"]
    assert "BROKEN" in lines["gone"] and "no_such_package" in lines["gone"]
    assert "BROKEN" in lines["unmarked"] and "BROKEN" in lines["absent"]
    answer = call("run", tiny(), "--methods", "magnitude", "--dry-run")
    assert answer.code == 0


def test_a_method_of_another_track(entries, tmp_path, tiny, call, monkeypatch):
    """There is but one track yet: another is made up here."""
    monkeypatch.setattr(registry, "TRACKS", ("sparsity", "continual"))
    from fipbench import plan

    monkeypatch.setattr(plan, "PROTOCOL_VERSIONS", {"sparsity": 1, "continual": 1})
    magnitude = ("magnitude", "fipbench.baselines.magnitude:magnitude")
    entries(sparsity=[magnitude], continual=[("ewc", "elsewhere:ewc"), magnitude])
    error = call("run", tiny(), "--methods", "ewc", "--dry-run").error
    assert "method 'ewc' is of track continual" in error and "tiny" in error
    with pytest.raises(UserError, match=r"method 'magnitude' .* is of track sparsity, not continual"):
        registry.load_method("continual", *magnitude)


def test_a_plugins_methods(tmp_path, call):
    file = tmp_path / "plugin.py"
    file.write_text(
        "from fipbench.methods import sparsity\nfrom fipbench.baselines.magnitude import magnitude\n"
        "@sparsity()\ndef My_Method():\n    'Mine.'\n@sparsity()\ndef _other_():\n    'Other.'\ndef helper(): pass\n"
    )
    assert set(registry.plugin_methods(str(file))) == {"my-method", "other"}
    answer = call("list", "methods", "--check", "--plugin", file)
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()][-2:] == ["my-method", "other"]
    assert registry.load_method("sparsity", "my-method", f"{file}:my-method").origin == "plugin file"


def test_unknown_names_have_a_hint():
    assert str(unknown("task", "lthh", ["lth", "fip"], "in x")) == "unknown task 'lthh' in x: did you mean lth?"
    assert str(unknown("task", "qqq", ["lth", "fip"])) == "unknown task 'qqq': there are: fip, lth"
    assert str(unknown("task", "qqq", [])) == "unknown task 'qqq': there are: none"
