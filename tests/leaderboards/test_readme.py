"""What the README shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

TINY = """
title = "tiny"
track = "sparsity"
suites = ["quick"]
version = 1
data = "digits"
model = { name = "mlp", inputs = [1, 8, 8], hidden = [20], outputs = 10 }
base = { epochs = 1, batch_size = 32, learning_rate = 0.05 }
budget = { epochs = 3, batch_size = 32 }
validation = 300
headline = "area"
sparsities = [0.5, 0.8]
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_plugin_of_the_readme_runs_and_is_ranked(tmp_path):
    code = next(block for block in blocks("python") if "@sparsity" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_method.py").write_text(code)
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, "-m", "fipbench.cli", "run", "tiny.toml", "--plugin", "my_method.py", "--results", "r"]
    done = subprocess.run(
        [*command, "--methods", "my-method,magnitude,fip", "--seeds", "2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\s*[123]\s+my-method\s", done.stdout, flags=re.MULTILINE)


def test_fip_of_the_readme_runs_on_any_module():
    import torch

    code = next(block for block in blocks("python") if "fip.sparsify" in block).replace("steps=500", "steps=5")
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    names = {"model": model, "batches": [torch.randn(4, 6) for _ in range(3)]}
    exec(code, names)
    zeros = sum(int((m.weight == 0).sum()) for m in names["network"] if isinstance(m, torch.nn.Linear))
    assert (names["sparsity"], zeros) == (0.95, round(0.95 * 108))


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_commands_exist():
    shown = set(re.findall(r"^fipbench ([a-z]+)", README, flags=re.MULTILINE))
    helped = subprocess.run([sys.executable, "-m", "fipbench.cli", "--help"], capture_output=True, text=True).stdout
    assert shown and all(re.search(rf"^\s+{name}\s", helped, flags=re.MULTILINE) for name in shown)
