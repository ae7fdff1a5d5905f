"""No code comes with data: what the sources call, and what a job does while it runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ordeal import whole

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for place in ("fipbench", "baselines", "leaderboards") for path in sorted((ROOT / place).rglob("*.py"))]
# Modules whose reading runs what it reads, and functions that do or may.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "tarfile", "zipfile"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "read_pickle", "unpack_archive", "loadmat"}
# `load` of these libraries unpickles unless it is told not to; ours are read by safetensors and datasets.
LOADERS = {"torch", "np", "numpy", "joblib", "jit", "hub"}


def problems(source: str) -> list[str]:
    """What in a source could run code that came with data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            found += _call(node)
    return found


def _call(node: ast.Call) -> list[str]:
    target = node.func
    name = target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""
    owner = ast.unparse(target.value).split(".")[-1] if isinstance(target, ast.Attribute) else ""
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    found = []
    if name in CALLS and owner != "re":
        found.append(f"{name}()")
    if name in ("load", "load_state_dict_from_url") and owner in LOADERS:
        found.append(f"{owner}.{name}()")
    if name == "from_pretrained" and given.get("trust_remote_code") != "False":
        found.append("from_pretrained() without trust_remote_code=False")
    if name == "from_pretrained" and "Model" in owner and given.get("use_safetensors") != "True":
        found.append("from_pretrained() of a model without use_safetensors=True")
    if given.get("trust_remote_code", "False") != "False" or given.get("allow_pickle", "False") != "False":
        found.append("trusts what it loads")
    if given.get("shell", "False") != "False":
        found.append("a shell")
    return found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import pickle", 1),
        ("from yaml import load", 1),
        ("import torch\ntorch.load(f, weights_only=False)", 1),
        ("np.load(f, allow_pickle=True)", 2),
        ("AutoModel.from_pretrained('x', trust_remote_code=False)", 1),
        ("AutoModel.from_pretrained('x', use_safetensors=True)", 1),
        ("AutoConfig.from_pretrained('x', trust_remote_code=True)", 2),
        ("subprocess.run('x', shell=True)", 1),
        ("eval('1')", 1),
        ("re.compile('x')\nmodel.eval()\njson.load(f)\nAutoConfig.from_pretrained('x', trust_remote_code=False)", 1),
    ],
)
def test_the_search_finds_what_it_is_for(source, count):
    # `model.eval()` is a name's twin: it is let pass below, where it stands for the network's mode.
    assert len(problems(source)) == count


def test_nothing_of_ours_runs_what_it_reads():
    found = {
        str(path.relative_to(ROOT)): [what for what in problems(path.read_text()) if what != "eval()"]
        for path in SOURCES
    }
    assert len(SOURCES) > 60 and not {path: what for path, what in found.items() if what}


def test_eval_is_always_a_networks_mode():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile"), path


WATCHED = """
import sys
from fipbench.methods import sparsity

def hook(event, arguments):
    if event in ("pickle.find_class", "os.system", "subprocess.Popen"):
        with open({file!r}, "a") as file:
            file.write(f"{{event}} {{arguments}}\\n")

sys.addaudithook(hook)

@sparsity()
def watched():
    import copy
    from fipbench import pruning

    def prune(model, sparsities, trial):
        for level in sparsities:
            masks = pruning.magnitude_masks(pruning.prunable(model), level)
            yield level, pruning.apply(copy.deepcopy(model), masks)
    return prune
"""


def test_a_run_unpickles_nothing(nursery, tiny, results, tmp_path):
    """From planning to record, with data decoded and base networks trained, then both from the cache."""
    plugin, file = tmp_path / "watched.py", tmp_path / "heard"
    plugin.write_text(WATCHED.format(file=str(file)))
    words = ["run", tiny(), "--plugin", plugin, "--methods", "watched,magnitude", "--seeds", 1, "--results", results]
    for more in ([], ["--force"]):
        run = nursery.start(tmp_path, *words, *more)
        assert run.wait() == 0, run.said
    assert [record.status for record in whole(results)] == ["ok", "ok"]
    heard = file.read_text().splitlines() if file.exists() else []
    # The commit and the kind of machine, for provenance.
    assert not [line for line in heard if not line.startswith(("subprocess.Popen ('git'", "subprocess.Popen ('uname'"))]
