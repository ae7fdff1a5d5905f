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


STREAM = """
title = "tiny stream"
track = "continual"
suites = ["quick"]
version = 1
data = "digits"
model = { name = "mlp", inputs = [1, 8, 8], hidden = [20], outputs = 6 }
stream = { classes = [[0, 1], [2, 3], [4, 5]], score = ["class", "task"] }
base = { epochs = 2, batch_size = 16, learning_rate = 0.05, snapshots = [0] }
budget = { epochs = 2, batch_size = 16, factor = 4 }
memories = [4, 10]
validation = 300
headline = "average_accuracy/class"
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("mark", "task", "method", "others", "rows"),
    [
        ("@sparsity", TINY, "my-method", "magnitude,fip", 1),
        ("@continual", STREAM, "my-replay", "replay,fip", 2),
    ],
)
def test_the_plugin_of_the_readme_runs_and_is_ranked(mark, task, method, others, rows, tmp_path):
    code = next(block for block in blocks("python") if mark in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "tiny.toml").write_text(task)
    command = [sys.executable, "-m", "fipbench.cli", "run", "tiny.toml", "--plugin", "mine.py", "--results", "r"]
    done = subprocess.run(
        [*command, "--methods", f"{method},{others}", "--seeds", "2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(rf"^\s*[123](?:–[123])?\s+{method}\s", done.stdout, flags=re.MULTILINE)) == rows


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
