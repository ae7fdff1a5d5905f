"""Mistakes in a task of the robustness track: exit code 2 and one line that names file, field and what is expected."""

from __future__ import annotations

import pytest

TASK = """\
title   = "Tiny vote"
track   = "robustness"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "mlp", inputs = [1, 8, 8], hidden = [16], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 1, batch_size = 32, learning_rate = 0.05 }
budget  = { epochs = 3, batch_size = 32 }
validation = 300
headline   = "robust@0.1"
members    = 3
attack     = { epsilons = [0.05, 0.1], steps = 3, restarts = 1, apgd_steps = 3 }
"""

PUBLISHED = "[published]\nsingle = { metric = 'transfer@0.1', value = 1, margin = 1, source = '' }"

MISTAKES = {
    "members    = 3 -> members    = 1": ("field 'members'", ">= 2"),
    "members    = 3 -> members    = 0": ("field 'members'", ">= 2"),
    "[0.05, 0.1] -> [0.05, 1.5]": ("field 'attack.epsilons[1]'", "<= 1"),
    "[0.05, 0.1] -> [-0.05, 0.1]": ("field 'attack.epsilons[0]'", "> 0"),
    "[0.05, 0.1] -> [0.0, 0.1]": ("field 'attack.epsilons[0]'", "> 0"),
    "[0.05, 0.1] -> [0.1, 0.05]": ("field 'attack.epsilons'", "strictly increasing"),
    "[0.05, 0.1] -> [0.1, 0.1]": ("field 'attack.epsilons'", "strictly increasing"),
    "[0.05, 0.1] -> [nan, 0.1]": ("epsilons", "expected a finite number"),
    "[0.05, 0.1] -> []": ("field 'attack.epsilons'", "length >= 1"),
    "restarts = 1 -> restarts = 0": ("field 'attack.restarts'", ">"),
    "steps = 3, restarts -> steps = 0, restarts": ("field 'attack.steps'", ">"),
    "apgd_steps = 3 -> apgd_steps = 3, items = -1": ("field 'attack.items'", ">= 0"),
    "apgd_steps = 3 -> apgd_steps = 3, step_size = 0.0": ("field 'attack.step_size'", "> 0"),
    'headline   = "robust@0.1" -> headline   = "robust@0.2"': ("unknown metric 'robust@0.2'", "field 'headline'"),
    'headline   = "robust@0.1" -> headline   = "transfer@0.1"': ("unknown metric 'transfer@0.1'", "field 'headline'"),
    f"apgd_steps = 3 }} -> apgd_steps = 3 }}\n{PUBLISHED}": (
        "field 'published.single.metric'",
        "expected one of clean, robust@0.05, robust@0.1",
    ),
    "budget  = { epochs = 3 -> budget  = { epochs = 0": ("field 'budget.epochs'", ">"),
    "outputs = 10 -> outputs = 3": ("field 'model.outputs'", "four or more", "APGD", "got 3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_task(mistake, call, tmp_path, results):
    old, new = mistake.split(" -> ")
    assert TASK.count(old) == 1
    file = tmp_path / "tiny-vote.toml"
    file.write_text(TASK.replace(old, new))
    answer = call("run", file)
    missing = [words for words in (str(file), *MISTAKES[mistake]) if words not in answer.error]
    assert not missing, (missing, answer.error)
    assert answer.out == "" and not list(results.glob("*.json"))


def test_a_method_that_breaks_down_costs_nobody_elses_result(call, tmp_path, results):
    """NaN on the way: the record says so in one line, the others have theirs."""
    file = tmp_path / "tiny-vote.toml"
    file.write_text(TASK)
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "import torch\nfrom fipbench.methods import robustness\n@robustness()\ndef broken():\n    'Divides by zero.'\n"
        "    def members(model, trial):\n        networks = [trial.fresh(k) for k in range(3)]\n"
        "        with torch.no_grad():\n            networks[2][2].bias /= 0 * networks[2][2].bias\n"
        "        return networks\n    return members\n"
    )
    answer = call("run", file, "--plugin", plugin, "--methods", "broken,single", "--seeds", "1")
    assert answer.code != 0
    assert "network 2 has weights that are not finite (2.bias)" in answer.out + answer.err
    assert len(list(results.glob("*.json"))) == 2
