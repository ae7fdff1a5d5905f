"""Identity: what decides a result decides the name of its record, and nothing else does.

The pinned texts are golden: should one of them change, every record there is would be computed again. Raise a version
where that is meant; never pin a new text here to make a test pass.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import msgspec
import pytest
from workbench import example_job, write_tiny

import fipbench
from fipbench import code, registry
from fipbench.spec import Job, canonical, digest, id_of, storable, task_digest

JOB = example_job()


def test_the_golden_identity():
    assert id_of(JOB) == "tiny--magnitude--s0--3f2e854873f3963d"
    assert (
        digest({"b": [1, 1.0, True, "é"], "a": None})
        == "5b7e7b5785509ec77c1fcc7ebb3e51ad938bd66148a9263deeb4ce89894aab87"
    )
    assert canonical({"b": [1, 1.0, True, "é"], "a": None}) == '{"a":null,"b":[1,1.0,true,"é"]}'.encode()


def test_the_golden_digest_of_a_task(tmp_path):
    task = registry.read_task(str(write_tiny(tmp_path)))
    assert task_digest(task, 1) == "7ac284c50797"


CHANGED = {
    "task": "other",
    "task_version": 2,
    "task_digest": "ba9876543210",
    "track": "continual",
    "method": "lth",
    "method_version": "2+0123456789ab",
    "params": {"scope": "global", "learning_rate": 0.1, "rounds": 3, "rewind": True},
    "seed": 1,
    "device": "cuda",
    "split": "validation",
    "threads": 2,
    "data": {"train": "00", "test": "12"},
}
LABELS = {
    "suite": "paper",
    "label": "other",
    "role": "reference",
    "settings": "tuned",
    "data_variant": "unknown",
}


def test_every_field_of_a_job_is_one_or_the_other():
    assert {*CHANGED, *LABELS} == set(Job.__struct_fields__)


@pytest.mark.parametrize("field", CHANGED)
def test_what_decides_the_result_is_in_the_identity(field):
    assert id_of(example_job(**{field: CHANGED[field]})) != id_of(JOB)


@pytest.mark.parametrize("field", LABELS)
def test_a_heading_is_not(field):
    assert id_of(example_job(**{field: LABELS[field]})) == id_of(JOB)


def test_parameters_count_by_name_value_and_type():
    base = {"rate": 1.0, "on": True}
    ids = {
        id_of(example_job(params=params))
        for params in (
            base,
            {"rate": 1, "on": True},
            {"rate": 1.0, "on": 1},
            {"rate": 1.0},
            {"rate": "1.0", "on": True},
        )
    }
    assert len(ids) == 5
    assert id_of(example_job(params={"on": True, "rate": 1.0})) == id_of(example_job(params=base))


def test_an_identity_survives_the_way_through_json():
    again = msgspec.json.decode(msgspec.json.encode(JOB), type=Job)
    assert again == JOB and id_of(again) == id_of(JOB)


@pytest.mark.parametrize("value", [0.1, -0.0, 1e308, 5e-324, 2**63 - 1, -(2**63), True, "x"])
def test_what_a_record_can_hold_comes_back(value):
    assert storable(value)
    assert repr(msgspec.json.decode(msgspec.json.encode(value))) == repr(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1])
def test_what_it_cannot_is_known(value):
    assert not storable(value)


# ------------------------------------------------------------------------------------------- of the task

DECIDES = {
    "version": "2",
    "model": '{ name = "mlp", inputs = [1, 8, 8], hidden = [17], outputs = 10, mean = 0.305, std = 0.376 }',
    "base": "{ epochs = 1, batch_size = 32, learning_rate = 0.06, snapshots = [0] }",
    "budget": "{ epochs = 4, batch_size = 32 }",
    "validation": "301",
    "sparsities": "[0.5, 0.95]",
    "score": '"matthews_correlation"',
    "threads": "2",
    "data": '{ embedded = "digits", label = "other", variants = {} }',
}
DOES_NOT = {
    "title": '"Another"',
    "suites": '["standard"]',
    "claims": '["v1-*"]',
    "headline": '"accuracy@0.5"',
    "methods": "{ lth = { rewind = 1 } }",
    "data": '{ embedded = "digits", variants = { mine = { train = "0", test = "1" } } }',
}


@pytest.mark.parametrize("field", DECIDES)
def test_the_protocol_is_in_a_tasks_digest(field, tmp_path):
    first, second = (
        registry.read_task(str(write_tiny(tmp_path, **fields))) for fields in ({}, {field: DECIDES[field]})
    )
    assert task_digest(first, 1) != task_digest(second, 1)


@pytest.mark.parametrize("field", DOES_NOT)
def test_what_is_only_said_about_it_is_not(field, tmp_path):
    first, second = (
        registry.read_task(str(write_tiny(tmp_path, **fields))) for fields in ({}, {field: DOES_NOT[field]})
    )
    assert first != second and task_digest(first, 1) == task_digest(second, 1)


def test_the_tracks_protocol_is_in_it_and_the_files_name_is_not(tmp_path):
    first, second = (registry.read_task(str(write_tiny(tmp_path, name))) for name in ("one", "two"))
    assert task_digest(first, 1) == task_digest(second, 1) != task_digest(first, 2)


# ---------------------------------------------------------------------------------------- of the method

SOURCE = '''"""What it does."""

from fipbench.methods import sparsity
{import_}

@sparsity(version="1")
def mine(*, rate: float = 0.5):
    """The same network for every level."""

    def prune(model, sparsities, trial):
        # one after another
        yield from ((level, model) for level in sparsities)

    return prune
'''
SAYS_THE_SAME = {
    "another comment": ("# one after another", "# in this order"),
    "another docstring": ('"""The same network for every level."""', '"""Otherwise put."""'),
    "no docstring": ('"""What it does."""', ""),
    "another layout": (
        "yield from ((level, model) for level in sparsities)",
        "yield from (\n (level, model) for level in sparsities)",
    ),
}
SAYS_ANOTHER = {
    "another default": ("= 0.5", "= 0.25"),
    "another version": ('version="1"', 'version="2"'),
    "another role": ('version="1"', 'role="reference"'),
    "other code": ("(level, model)", "(level, model.eval())"),
}


def version_of(target):
    sys.modules.pop(target.rpartition(":")[0], None)
    registry._plugin_module.cache_clear()
    importlib.invalidate_caches()
    return registry.load_method("sparsity", "mine", target).version


@pytest.fixture(params=["plugin", "module"])
def source(request, tmp_path, monkeypatch):
    """`source(text)` writes a method, as a plugin file or as a module; returns its version."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "identity_of_mine.py"

    def write(text):
        file.write_text(text.replace("{import_}", ""))
        return version_of(f"{file}:mine" if request.param == "plugin" else "identity_of_mine:mine")

    return write


@pytest.mark.parametrize("change", SAYS_THE_SAME)
def test_a_comment_changes_no_version(change, source):
    assert source(SOURCE.replace(*SAYS_THE_SAME[change])) == source(SOURCE)


@pytest.mark.parametrize("change", SAYS_ANOTHER)
def test_code_does(change, source):
    assert source(SOURCE.replace(*SAYS_ANOTHER[change])) != source(SOURCE)


def test_a_packages_own_helpers_are_in_the_version(tmp_path, monkeypatch):
    """However they are imported, and at whatever remove; another package's are not.

    (A package's own `__init__` counts where something is imported from it.)
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    package = tmp_path / "third_party"
    (package / "deep").mkdir(parents=True)
    (tmp_path / "another_party.py").write_text("X = 1\n")
    files = {
        "__init__.py": "CONSTANT = 1\n",
        "method.py": SOURCE.replace(
            "{import_}",
            "import another_party\nfrom . import one\nfrom third_party import CONSTANT\nimport third_party.two\n",
        ),
        "one.py": "def late():\n    from .deep.three import X\n",
        "two.py": "X = 1\n",
        "deep/__init__.py": "",
        "deep/three.py": "from ..four import X\n",
        "four.py": "X = 1\n",
        "unused.py": "X = 1\n",
    }
    for name, text in files.items():
        (package / name).write_text(text)

    def version():
        for name in [name for name in sys.modules if name.split(".")[0] == "third_party"]:
            del sys.modules[name]
        return version_of("third_party.method:mine")

    before = version()
    assert version() == before
    for name in files:
        (package / name).write_text(files[name] + "\nY = 2\n")
        assert (version() != before) == (name not in ("unused.py", "deep/__init__.py")), name
        (package / name).write_text(files[name])
    (tmp_path / "another_party.py").write_text("X = 2\n")
    assert version() == before


@pytest.mark.parametrize("kind", ["plugin", "module", "baseline"])
def test_the_libraries_that_a_method_uses_are_in_its_version(kind, tmp_path, monkeypatch):
    """`fipbench.pruning` changed: whoever imports it is another method now."""
    monkeypatch.syspath_prepend(str(tmp_path))
    user = SOURCE.replace("{import_}", "from fipbench import pruning")
    (tmp_path / "uses_pruning.py").write_text(user)
    (tmp_path / "uses_nothing.py").write_text(SOURCE.replace("{import_}", ""))
    where = {
        "plugin": (str(tmp_path / "uses_pruning.py"), str(tmp_path / "uses_nothing.py")),
        "module": ("uses_pruning", "uses_nothing"),
        "baseline": ("fipbench.baselines.magnitude", "fipbench.baselines.dense"),
    }[kind]
    before = [code.code_digest(place) for place in where]
    bare = code._bare
    monkeypatch.setattr(code, "_bare", lambda path: bare(path) + (b"#" if path.name == "pruning.py" else b""))
    after = [code.code_digest(place) for place in where]
    assert before[0] != after[0] and before[1] == after[1]


def test_the_harness_never_imports_a_baseline():
    root = Path(fipbench.__file__).parent
    seen = 0
    for file in root.rglob("*.py"):
        if (root / "baselines") in file.parents or (root / "tasks") in file.parents:
            continue
        seen += 1
        for node in ast.walk(ast.parse(file.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names += [f"{node.module or ''}.{name}" for name in names] + [node.module or ""]
            assert not [n for n in names if n.split(".")[0] == "baselines" or n.startswith("fipbench.baselines")], file
            if isinstance(node, ast.ImportFrom) and node.module == "fipbench":
                assert "baselines" not in names, file
    assert seen > 25
