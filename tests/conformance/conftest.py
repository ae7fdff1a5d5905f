"""A tiny problem on real digits, and the third-party package, installed as its user would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fipbench.conformance import TASKS

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "tiny.toml"
    path.write_text(TASKS["sparsity"])
    return path


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed the package; nobody's environment but this test's."""
    source = shutil.copytree(HERE / "plugin_package", tmp_path_factory.mktemp("source") / "package")
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    """The worker sets threads and determinism of its process; here that process is everyone's."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])
