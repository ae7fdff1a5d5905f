"""A tiny problem on real digits, and the third-party package, installed as its user would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent

# Layers whose sizes are unlike each other's and any batch's, and divide by ten: 1,600 + 350 + 140 weights.
TINY = """
title   = "A tiny problem on the real digits"
track   = "sparsity"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [25, 14], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 2, batch_size = 32, learning_rate = 0.05, snapshots = [0, 1] }
budget  = { epochs = 6, batch_size = 32 }
validation = 300
headline   = "area"
sparsities = [0.5, 0.9]
"""


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "tiny.toml"
    path.write_text(TINY)
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
