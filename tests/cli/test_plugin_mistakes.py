"""Mistakes in a plugin: one line that names the file, the place in it and the remedy."""

from __future__ import annotations

import os
import re

import pytest
from workbench import mentions

PLUGINS = {
    "syntax error": ("def f(:\n    pass\n", ("does not import", "SyntaxError", "line 1")),
    "import error": ("import os\nimport nothing_of_that_name\n", ("ModuleNotFoundError", "nothing_of_that", "line 2")),
    "raises": ("x = 1\n1 / 0\n", ("does not import", "ZeroDivisionError", "line 2")),
    "exits": ("import sys\nsys.exit(0)\n", ("does not import", "SystemExit", "line 2")),
    "no method": ("def prune():\n    pass\n", ("holds no method", "decorator of fipbench.methods")),
    "nothing": ("", ("holds no method",)),
    "a name that is taken": (
        "from fipbench.methods import sparsity\n@sparsity()\ndef fip():\n    pass\n",
        ("'fip'", "exists already", "rename"),
    ),
    "a name that cannot be": (
        "from fipbench.methods import sparsity\n@sparsity()\ndef méthode():\n    pass\n",
        ("méthode", "letters, digits"),
    ),
    "positional parameter": (
        "from fipbench.methods import sparsity\n@sparsity()\ndef mine(rate=1.0):\n    pass\n",
        ("'rate'", "keyword-only", "line 2"),
    ),
    "no default": (
        "from fipbench.methods import sparsity\n@sparsity()\ndef mine(*, rate: float):\n    pass\n",
        ("'rate'", "default"),
    ),
    "default of another type": (
        "from fipbench.methods import sparsity\n@sparsity()\ndef mine(*, rate=None):\n    pass\n",
        ("'rate'", "bool, int, float or str"),
    ),
    "default that is not finite": (
        "from fipbench.methods import sparsity\n@sparsity()\ndef mine(*, rate=float('inf')):\n    pass\n",
        ("mine.rate", "finite"),
    ),
    "search of nothing": (
        "from fipbench.methods import *\n@sparsity(search={'rat': Uniform(0, 1)})\ndef mine(*, rate=0.5):\n    pass\n",
        ("'rat'", "no parameter"),
    ),
}


@pytest.mark.parametrize("mistake", PLUGINS)
def test_a_plugin_that_cannot_be(mistake, call, tiny, tmp_path):
    content, parts = PLUGINS[mistake]
    file = tmp_path / "plugin.py"
    file.write_text(content)
    mentions(call("run", tiny(), "--dry-run", "--plugin", file).error, *parts)
    if "finite" not in parts:
        answer = call("list", "methods", "--plugin", file)
        # What one file has wrong stands in the list; what two methods have wrong together leaves no list.
        broken = [line for line in answer.out.splitlines() if "BROKEN" in line]
        assert answer.code == 2 and len(broken) == (answer.error == "1 of the methods do not load")
        mentions((broken or [answer.error])[0], str(file), *parts)


def test_a_plugin_that_is_no_python_file(call, tiny, tmp_path):
    file = tmp_path / "plugin.txt"
    file.write_text("x = 1")
    mentions(call("run", tiny(), "--plugin", file).error, str(file), "NAME.py")


def test_two_plugins_with_one_name(call, tiny, tmp_path):
    files = []
    for name in ("a", "b"):
        files.append(tmp_path / f"{name}.py")
        files[-1].write_text("from fipbench.methods import sparsity\n@sparsity()\ndef mine():\n    pass\n")
    error = call("run", tiny(), "--plugin", files[0], "--plugin", files[1]).error
    mentions(error, str(files[1]), "'mine'", str(files[0]), "rename")
    again = call("run", tiny(), "--plugin", files[0], "--plugin", files[0], "--dry-run", "--seeds", 1)
    assert again.code == 0 and len(re.findall("^tiny +mine ", again.out, re.M)) == 1


def test_a_misspelt_method_of_a_plugin_is_found_again(call, tiny, tmp_path):
    """The names that are offered are those that would run: the plugin's, and of the task's track alone."""
    plugin = tmp_path / "method.py"
    plugin.write_text("from fipbench.methods import sparsity\n\n@sparsity()\ndef slimmest():\n    pass\n")
    words = ("--plugin", plugin, "--methods", "slimest")
    for command in (("run",), ("estimate",), ("tune", "--out", tmp_path / "x.toml")):
        assert call(command[0], tiny(), *command[1:], *words).error.endswith("did you mean slimmest?")


def test_a_folder_in_place_of_its_method(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("new", "method", "slim", "--track", "sparsity").code == 0
    assert "name the file in it, as " in call("check", "slim").error
    assert call("check", "slim").error.endswith(os.path.join("slim", "fipbench_slim.py"))
