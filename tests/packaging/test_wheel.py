"""The built wheel: all that is needed is in it, nothing else, and it works from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from workbench import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the checkout; by the setuptools that is installed, offline."""
    source = tmp_path_factory.mktemp("source")
    for name in ("fipbench", "baselines", "tasks", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "-w", str(folder), str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("fipbench-*-py3-none-any.whl")
    return file


def test_all_that_is_needed_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"fipbench/{folder}{file.relative_to(ROOT / top)}"
        for top, folder in (("fipbench", ""), ("baselines", "baselines/"), ("tasks", "tasks/"))
        for file in (ROOT / top).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert inside == expected
    assert {"fipbench/py.typed", "fipbench/baselines/fip_sparse.py", "fipbench/tasks/digits-sparsity.toml"} <= inside
    assert {"fipbench/tasks/data/digits.toml", "fipbench/tasks/data/mnist.toml"} <= inside
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_it_works_from_anywhere(wheel, tmp_path, cache_dir):
    """Unpacked into a folder, with the libraries of this environment, and without its fipbench."""
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([*pip, str(wheel)], check=True, timeout=300)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def fipbench(*words):
        command = [sys.executable, "-m", "fipbench.cli", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=elsewhere, env=environment, check=True
        )
        return done.stdout

    where = "import fipbench, fipbench.baselines, fipbench.tasks; print(fipbench.__file__, fipbench.tasks.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], capture_output=True, text=True, cwd=elsewhere, env=environment
    )
    assert all(path.startswith(str(installed)) for path in found.stdout.split()), found

    assert "digits-sparsity" in fipbench("list", "tasks")
    assert "fipbench.baselines.magnitude:magnitude" in fipbench("list", "methods")
    write_tiny(elsewhere)
    said = fipbench("run", "tiny.toml", "--methods", "magnitude", "--seeds", "1", "--results", "results")
    assert "1 job computed" in said
    assert len(list((elsewhere / "results").glob("*.json"))) == 1
    assert not list(installed.glob("fipbench/**/*.json"))
