"""The tutorial works as it stands there, block by block; on a smaller task with two seeds, so that it takes seconds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fipbench import store

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
SMALLER = """\
extends = "digits-sparsity"
title   = "Digits, for a moment"
suites  = ["quick"]
version = 1
model   = { hidden = [32, 16] }
base    = { epochs = 3 }
budget  = { epochs = 8 }
sparsities = [0.8, 0.9]
"""


def blocks() -> list[tuple[str, str, str]]:
    """Language, file (empty: none) and text of each block, in order."""
    return BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("in_process")
def test_every_block_does_what_the_page_says(call, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALLER)
    said, seen = {}, []
    for language, file, text in blocks():
        if file:
            assert Path(file).is_file(), f"the page replaces {file}, which no earlier block made"
            Path(file).write_text(text)
        elif language == "bash":
            for line in text.strip().splitlines():
                words = shlex.split(line)
                assert words.pop(0) == "fipbench"
                if words[0] in ("run", "tune"):
                    words = ["small.toml" if word == "digits-sparsity" else word for word in words]
                    words = [re.sub(r"^[45]$", "2", word) for word in words]
                words = [
                    str(TUTORIAL.parents[1] / word) if word.startswith("leaderboards/") else word for word in words
                ]
                answer = call(*words)
                assert answer.code == 0, (line, answer)
                said[words[0] + " " + words[1]] = answer.out
                seen.append(words[0])
        elif language == "python":
            small = text.replace('"digits-sparsity"', '"small"')
            exec(compile(small, str(TUTORIAL), "exec"), {})
            printed = capfd.readouterr().out
            assert re.search(r"lamp: \d+\.\d\d ± \d+\.\d\d %, rank \d to \d", printed), printed
    assert seen == ["new", "check", "run", "leaderboard", "leaderboard", "tune", "new"]
    records = store.read(Path("results"))[0]
    assert {r.job.label for r in records} == {"lamp", "magnitude-finetune", "fip"} and len(records) == 6
    assert all(record.status == "ok" for record in records)
    assert "all checks pass" in said["check lamp/fipbench_lamp.py"]
    rows = Path("boards/small.md").read_text().splitlines()
    ranked = [line for line in rows if re.match(r"\| *\d\S* *\| lamp ", line)]
    assert ranked and "±" in ranked[0], "ranked, with an interval"
    (told,) = [line for line in said["tune small.toml"].splitlines() if line.startswith("lamp: area ")]
    assert "on validation data (its defaults: " in told and "with learning_rate=" in told
    beside = Path("beside/digits-sparsity.md").read_text()
    assert all(f"| {name} " in beside for name in ("gradual-distill ◆", "lth", "magnitude")), "the committed rows"
    assert Path("lamp.toml").is_file() and Path("my-digits.toml").is_file()


def test_nothing_on_the_page_is_passed_over_but_what_is_marked_as_text():
    languages = [language for language, _, _ in blocks()]
    assert TUTORIAL.read_text(encoding="utf-8").count("```") == 2 * len(languages)
    assert set(languages) == {"bash", "python", "text"} and languages.count("text") == 2


def test_the_scores_are_those_of_the_formula():
    """By hand for four weights: squares 1, 4, 9, 16 over the sums 30, 29, 25, 16."""
    import torch

    (code,) = [text for _, file, text in blocks() if file]
    space: dict = {}
    exec(compile(code, "lamp", "exec"), space)
    found = space["scores"](torch.tensor([[2.0, -1.0], [-4.0, 3.0]]))
    assert torch.allclose(found, torch.tensor([[4 / 29, 1 / 30], [1.0, 9 / 25]]))
    zeros = space["scores"](torch.tensor([0.0, 0.0]))
    assert torch.equal(zeros, torch.zeros(2))
