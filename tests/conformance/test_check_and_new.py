"""What `fipbench new method` writes runs as it is, and `fipbench check` says in words what a method does not keep."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import bad_methods
import pytest

from fipbench import conformance, registry
from fipbench.spec import TASK_TYPES

BAD = Path(bad_methods.__file__)


@pytest.mark.parametrize("track", TASK_TYPES)
def test_a_new_method_keeps_the_contract_as_it_is(track, call, tmp_path):
    answer = call("new", "method", "my-idea", "--track", track, "--out", tmp_path)
    assert answer.code == 0, answer.err
    folder = tmp_path / "my-idea"
    method = folder / "fipbench_my_idea.py"
    assert {path.name for path in folder.iterdir()} == {method.name, "test_my_idea.py", "pyproject.toml"}
    for path in (method, folder / "test_my_idea.py", folder / "pyproject.toml"):
        assert str(path) in answer.out
    entries = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entries == {f"fipbench.methods.{track}": {"my-idea": "fipbench_my_idea:my_idea"}}

    checked = call("check", method)
    contract = getattr(__import__(f"fipbench.conformance.{track}").conformance, track)
    assert checked.code == 0, checked.out
    assert checked.out.startswith(f"my-idea ({track})\n  kept   runs\n") and "all checks pass" in checked.out
    assert checked.out.count("  kept ") == 1 + len(contract.CHECKS)


def test_what_it_says_of_pip_means_the_folder_and_no_package_of_the_index(call, tmp_path, monkeypatch):
    """`pip install NAME` asks the index even where a folder of that name is; with ./ before it, it does not."""
    monkeypatch.chdir(tmp_path)
    assert "`pip install ./idea`" in call("new", "method", "idea", "--track", "sparsity").out
    elsewhere = call("new", "method", "idea", "--track", "sparsity", "--out", tmp_path / "sub").out
    assert f"`pip install {tmp_path / 'sub' / 'idea'}`" in elsewhere


def test_the_new_package_installs_is_listed_and_its_test_passes(call, tmp_path):
    assert call("new", "method", "my-idea", "--track", "robustness", "--out", tmp_path).code == 0
    source, target = tmp_path / "my-idea", tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from fipbench.cli import main; main()"
    listed = subprocess.run(
        [sys.executable, "-c", code, str(target), "list", "methods"], capture_output=True, text=True, cwd=tmp_path
    )
    assert "my-idea                      robustness   fipbench_my_idea:my_idea" in listed.stdout, listed.stderr
    # The test that comes with it, as pytest calls it.
    sys.path.insert(0, str(source))
    try:
        __import__("test_my_idea").test_it_keeps_the_contract()
    finally:
        sys.path.remove(str(source))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("new", "method", "fip", "--track", "sparsity"), "method 'fip' of track sparsity is there already"),
        (("new", "method", "My_Idea", "--track", "sparsity"), "a name begins with a letter and holds lower-case"),
        (("new", "method", "2fast", "--track", "sparsity"), "a name begins with a letter"),
        (("new", "method", "lambda", "--track", "sparsity"), "method 'lambda': is a word of Python"),
        (("new", "method", "copy", "--track", "sparsity"), "or of what its file imports; name it otherwise"),
        (
            ("new", "method", "idea", "--track", "speed"),
            "--track speed: expected composition, connectivity, continual, robustness, sparsity",
        ),
        (("new", "method", "idea"), "missing option '--track'"),
        (("new", "method", "idea", "--track", "sparsity", "--out", "/dev/null"), "cannot be written"),
        (("new", "method", "idea", "--track", "sparsity", "--out", "{here}"), "is there already; name another"),
        (("check", "fipp"), "unknown method 'fipp': did you mean fip"),
        (("check", "fip", "--track", "speed"), "--track speed: expected"),
        (("check", "ewc", "--track", "sparsity"), "unknown method 'ewc'"),
        (("check", "nothing.py"), "no such plugin file"),
        (("check", str(BAD), "--track", "continual"), "no method of track continual in it; there are"),
    ],
)
def test_mistakes(words, said, call, tmp_path):
    (tmp_path / "idea").mkdir()
    (tmp_path / "idea" / "mine.txt").write_text("kept")
    answer = call(*(word.format(here=tmp_path) for word in words))
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1, answer.err
    assert (tmp_path / "idea" / "mine.txt").read_text() == "kept"


def test_what_is_wrong_is_said_in_words(call, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import copy\n"
        "from fipbench import pruning\n"
        "from fipbench.methods import sparsity\n"
        "@sparsity()\n"
        "def overeager():\n"
        "    'Prunes what it was given.'\n"
        "    def prune(model, sparsities, trial):\n"
        "        for level in sparsities:\n"
        "            pruning.apply(model, pruning.magnitude_masks(pruning.prunable(model), level))\n"
        "            yield level, copy.deepcopy(model)\n"
        "    return prune\n"
        "@sparsity()\n"
        "def stumbles():\n"
        "    'Raises.'\n"
        "    def prune(model, sparsities, trial):\n"
        "        raise ArithmeticError('no way')\n"
        "        yield\n"
        "    return prune\n"
    )
    answer = call("check", file)
    assert answer.code == 1
    first, second = answer.out.split("stumbles (sparsity)\n")
    assert "  WRONG  input untouched" in first and "changed the model that it was given: tensor" in " ".join(
        first.split()
    )
    assert "  kept   sparsity exact" in first and first.count("WRONG") == 1
    assert "  WRONG  runs" in second and "ArithmeticError: no way" in second and second.count("kept") == 0
    assert "2 methods tried on a small task: 2 checks fail" in answer.out


def test_installed_methods_are_found_in_all_tracks_that_have_them():
    found = [(method.track, method.name) for method in conformance.find("fip")]
    assert found == [(track, "fip") for track in registry.TRACKS]
    assert [method.track for method in conformance.find("fip", "sparsity")] == ["sparsity"]


def test_findings_tell_one_method_from_another(tmp_path):
    findings = list(conformance.examine("magnitude"))
    assert {(f.track, f.method) for f in findings} == {("sparsity", "magnitude")}
    assert len({f.check for f in findings}) == len(findings) and all(
        f.meaning.endswith(".") or f.meaning for f in findings
    )
    assert not [f for f in findings if f.wrong]
