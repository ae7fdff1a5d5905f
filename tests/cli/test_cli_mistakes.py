"""The user's mistakes: exit code 2, one line on standard error that says what is wrong, where, and what to do."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from workbench import mentions, program

# `TINY` stands for a small task's file, `LATIN` for a name in another encoding.
CALLS = {
    "run digits-sparsty": ("unknown task 'digits-sparsty'", "did you mean digits-sparsity"),
    "run nowhere.toml": ("nowhere.toml", "no such task file"),
    "run": ("missing argument", "fipbench run --help"),
    "show digits": ("unknown task 'digits'", "digits-sparsity"),
    "lst": ("no such command 'lst'", "fipbench --help"),
    "run TINY --sets 1": ("no such option", "--sets", "--set"),
    "list everything": ("list everything", "tasks, methods or suites"),
    "run TINY --methods magnitud": ("unknown method 'magnitud'", "did you mean magnitude"),
    "run TINY --set magnitude": ("--set magnitude", "expected METHOD.PARAM=VALUE"),
    "run TINY --set magnitude=layer": ("expected METHOD.PARAM=VALUE",),
    "run TINY --set magnitude.=layer": ("expected METHOD.PARAM=VALUE",),
    "run TINY --set magnitudes.scope=layer": ("unknown method 'magnitudes'", "in --set", "did you mean magnitude"),
    "run TINY --set magnitude.scop=layer": ("unknown parameter 'scop'", "of 'magnitude'", "did you mean scope"),
    "run TINY --set fip.learning_rate=fast": ("--set fip.learning_rate=fast", "expected float"),
    "run TINY --set fip.learning_rate=nan": ("--set fip.learning_rate=nan", "expected float"),
    "run TINY --set fip.learning_rate=inf": ("--set fip.learning_rate=inf", "expected float"),
    "run TINY --set lth.rewind=0.5": ("--set lth.rewind=0.5", "expected int"),
    "run TINY --set lth.rewind=99999999999999999999": ("--set lth.rewind=9999", "expected int"),
    "run TINY --set lth.prune_output=maybe": ("--set lth.prune_output=maybe", "true or false"),
    "run TINY --suite quik": ("unknown suite 'quik'", "did you mean quick"),
    "run TINY --suite paper": ("'tiny' is not in suite 'paper'", "quick", "drop --suite"),
    "run TINY --seeds 0": ("--seeds", "positive number", "0"),
    "run TINY --seeds -1": ("--seeds", "positive number", "-1"),
    "run TINY --seeds two": ("--seeds", "integer", "fipbench run --help"),
    "run TINY --workers 0": ("--workers", "positive number", "0"),
    "run TINY --workers -2": ("--workers", "positive number", "-2"),
    "run TINY --device tpu": ("--device tpu", "auto, cpu or cuda"),
    "run TINY --timeout inf": ("--timeout", "positive number of seconds", "leave it out"),
    "run TINY --plugin nowhere.py": ("nowhere.py", "no such plugin file"),
    "run TINY --results ~nobody-of-that-name/x": ("~nobody-of-that-name/x", "no home of that name"),
    "run TINY --results LATIN": ("its name is not UTF-8", "--results"),
    "run TINY --plugin LATIN.py": ("its name is not UTF-8", "rename it"),
    "run TINY --plugin .": ("is a folder", "name the file in it", "NAME.py"),
    "check .": ("is a folder", "name the file in it", "NAME.py"),
    "run TINY --methods fip-k": ("unknown method 'fip-k': did you mean fip or fip-paper?",),
    "run TINY --results /dev/null/x": ("/dev/null/x", "cannot write here", "--results"),
    "leaderboard --results nowhere": ("nowhere", "no such results folder", "fipbench run"),
    "leaderboard --format pdf": ("--format pdf", "md, csv, json, html"),
    "leaderboard --format ,": ("--format ,", "md, csv, json, html"),
    "compare --format ,": ("--format ,", "md, csv, html, json"),
    "export --out x.jsonl --results nowhere": ("nowhere", "no such results folder"),
    "tune TINY --out /dev/null/x.toml": ("/dev/null", "cannot write here", "--out"),
    "tune TINY --out x.toml --methods magnitud": ("unknown method 'magnitud'", "did you mean magnitude"),
    "tune TINY --out x.toml --methods dense": ("dense", "nothing to search"),
    "tune TINY --out x.toml --seeds 0": ("--seeds", "positive number", "0"),
    "tune TINY --out x.toml --seeds -1": ("--seeds", "positive number", "-1"),
    "tune TINY --out x.toml --trials 0": ("--trials", "positive number", "0"),
    "tune TINY --out x.toml --budget-epochs 1": ("--budget-epochs", "more than", "1"),
    "tune digits-sparsity --out x.toml --budget-epochs 0": ("--budget-epochs", "more than"),
    "tune split-digits-5 --out x.toml --budget-epochs 0": ("--budget-epochs", "more than 0"),
    "tune all --out x.toml": ("tune", "one task"),
}


@pytest.mark.parametrize("words", CALLS)
def test_a_wrong_call(words, call, tiny, results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    meant = {"TINY": str(tiny()), "LATIN": os.fsdecode(b"caf\xe9"), "LATIN.py": os.fsdecode(b"caf\xe9.py")}
    if "LATIN.py" in words:
        Path(meant["LATIN.py"]).touch()
    answer = call(*(meant.get(word, word) for word in words.split()))
    mentions(answer.error, *CALLS[words])
    assert answer.out == ""
    assert not list(results.glob("*.json"))


def test_a_wrong_call_by_the_installed_program():
    answer = program("run", "digits-sparsty")
    mentions(answer.error, "unknown task 'digits-sparsty'", "did you mean digits-sparsity")


def test_cuda_asked_for_and_absent(call, tiny, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    mentions(call("run", tiny(), "--device", "cuda").error, "--device cuda", "no CUDA device", "cpu or auto")


def test_an_unwritable_cache(call, tiny, monkeypatch):
    monkeypatch.setenv("FIPBENCH_CACHE", "/dev/null/cache")
    mentions(call("run", tiny()).error, "/dev/null/cache", "cannot write here", "FIPBENCH_CACHE")


def test_results_that_are_a_file(call, tiny, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    mentions(call("run", tiny(), "--results", file).error, str(file), "cannot write here", "--results")
    assert file.read_text() == "mine"


def test_an_export_onto_a_folder(call, tmp_path, tiny, stored):
    stored()
    mentions(call("export", "--out", tmp_path).error, str(tmp_path), "folder")


def test_a_home_is_meant_by_those_who_read_records_too(call, stored, results, tmp_path, monkeypatch):
    """As by those who write them: no shell expands `--results=~/kept`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    stored()
    results.rename(tmp_path / "kept")
    answer = call("leaderboard", "--results=~/kept", "--out", tmp_path / "boards")
    assert answer.code == 0 and (tmp_path / "boards" / "tiny.md").is_file()
    assert call("export", "--results=~/kept", "--out", tmp_path / "x.jsonl").code == 0


def test_an_export_onto_what_is_no_file(call, tmp_path, stored):
    """A file would take its place: for who may write in /dev that of a device."""
    stored()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    mentions(call("export", "--out", pipe).error, str(pipe), "no plain file", "--out")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_task_that_has_no_records(call, stored, tmp_path):
    stored()
    for command in ("leaderboard", "export"):
        answer = call(command, "other", "--out", tmp_path / "out")
        mentions(answer.error, "unknown task 'other'", "tiny", "among the records")


def test_one_name_for_two_tasks(call, tiny, tmp_path):
    (tmp_path / "else").mkdir()
    other = (tmp_path / "else" / "tiny.toml").with_name("tiny.toml")
    other.write_text(tiny().read_text().replace("Tiny", "Other"))
    mentions(call("run", tiny(), other).error, "tiny", str(other), "rename")
    assert call("run", tiny(), tiny(), "--dry-run", "--methods", "dense", "--seeds", 1).out.count("to compute") == 2


# Replacement of a field of the tiny task (empty: left out) -> what the message must name.
SCHEMA = {
    "unknown field": ({"epoch": "3"}, ("unknown field `epoch`",)),
    "unknown field below": ({"budget": "{ epochs = 3, batch_size = 32, steps = 1 }"}, ("field 'budget'", "steps")),
    "wrong type": ({"version": '"one"'}, ("field 'version'", "int", "str")),
    "wrong type below": ({"base": '{ epochs = "1", batch_size = 32, learning_rate = 0.1 }'}, ("base.epochs", "int")),
    "missing field": ({"budget": ""}, ("budget", "missing")),
    "missing track": ({"track": ""}, ("field 'track'", "sparsity")),
    "unknown track": ({"track": '"sparsty"'}, ("field 'track'", "sparsity")),
    "wrong range": ({"base": "{ epochs = 0, batch_size = 32, learning_rate = 0.1 }"}, ("base.epochs", ">= 1")),
    "not increasing": ({"sparsities": "[0.9, 0.5]"}, ("field 'sparsities'", "increasing")),
    "twice the same": ({"sparsities": "[0.5, 0.5]"}, ("field 'sparsities'", "increasing")),
    "no sparsity": ({"sparsities": "[0.5, 1.0]"}, ("sparsities", "< 1")),
    "no sparsities": ({"sparsities": "[]"}, ("sparsities", "length >= 1")),
    "no suites": ({"suites": "[]"}, ("suites", "length >= 1")),
    "unknown suite": ({"suites": '["quik"]'}, ("field 'suites'", "quick", "quik")),
    "unknown data set": ({"data": '"digit"'}, ("unknown data set 'digit'", "did you mean digits")),
    "data set outside": ({"data": '"../data/digits"'}, ("unknown data set '../data/digits'",)),
    "unknown embedded data": ({"data": '{ embedded = "iris", variants = {} }'}, ("data.embedded", "digits", "iris")),
    "no source": ({"data": "{ variants = {} }"}, ("field 'data'", "repo", "embedded")),
    "two sources": ({"data": '{ repo = "a/b", embedded = "digits", variants = {} }'}, ("field 'data'", "repo")),
    "unknown model": (
        {"model": '{ name = "mpl", inputs = [1, 8, 8], outputs = 10 }'},
        ("field 'model.name'", "unknown model 'mpl'", "did you mean mlp"),
    ),
    "unknown optimizer": (
        {"base": '{ epochs = 1, batch_size = 32, learning_rate = 0.1, optimizer = "adan" }'},
        ("field 'base.optimizer'", "unknown optimizer 'adan'", "did you mean adam"),
    ),
    "small budget": ({"budget": "{ epochs = 0, batch_size = 32 }"}, ("budget.epochs", ">= 1")),
    "less than the base": (
        {"base": "{ epochs = 9, batch_size = 32, learning_rate = 0.1 }"},
        ("budget.epochs", "at least", "9"),
    ),
    "not finite": ({"model": '{ name = "mlp", inputs = [1, 8, 8], outputs = 10, std = inf }'}, ("model.std", "finite")),
    "not a number": (
        {"model": '{ name = "mlp", inputs = [1, 8, 8], outputs = 10, mean = nan }'},
        ("model.mean", "finite"),
    ),
    "unknown headline": ({"headline": '"aera"'}, ("field 'headline'", "aera", "did you mean area")),
    "no such tuned file": ({"tuned": '"tuned/none.toml"'}, ("field 'tuned'", "no such file", "tuned/none.toml")),
    "no such variant's method": ({"methods": "{ lth2 = { use = 'lht' } }"}, ("'lht'", "methods.lth2", "lth")),
    "no such method": ({"methods": "{ lht = { rewind = 1 } }"}, ("'lht'", "methods.lht", "did you mean lth")),
    "no such parameter": ({"methods": "{ lth = { rewnd = 1 } }"}, ("'rewnd'", "'tiny'", "did you mean rewind")),
    "parameter of another type": (
        {"methods": "{ fip = { learning_rate = 'fast' } }"},
        ("tiny", "methods.fip.learning_rate", "expected float", "fast"),
    ),
    "a fraction for a whole": (
        {"methods": "{ lth = { rewind = 0.5 } }"},
        ("methods.lth.rewind", "expected int", "0.5"),
    ),
    "text for true or false": (
        {"methods": "{ lth = { prune_output = 'no' } }"},
        ("methods.lth.prune_output", "expected bool", "no"),
    ),
    "a number for true or false": (
        {"methods": "{ lth = { prune_output = 0 } }"},
        ("methods.lth.prune_output", "expected bool", "0"),
    ),
    "a parameter that is not finite": (
        {"methods": "{ fip = { learning_rate = nan } }"},
        ("methods.fip.learning_rate", "finite"),
    ),
    "two names for one thing": (
        {"methods": "{ lth2 = { use = 'lth' } }"},
        ("'lth'", "'lth2'", "same parameters"),
    ),
}


@pytest.mark.parametrize("mistake", SCHEMA)
def test_a_task_that_breaks_the_schema(mistake, call, tiny):
    fields, parts = SCHEMA[mistake]
    file = tiny(**fields)
    answer = call("run", file, "--dry-run")
    mentions(answer.error, *parts)
    if "tuned" not in fields:
        mentions(answer.error, "tiny" if "methods" in fields else str(file))


def test_a_task_that_is_no_toml(call, tiny):
    file = tiny(more="\n[budget\n")
    mentions(call("run", file).error, str(file), "not valid TOML", "line")


def test_a_task_in_another_encoding(call, tiny):
    file = tiny()
    file.write_bytes(file.read_bytes() + b"# \xff\n")
    mentions(call("show", file).error, str(file), "not valid TOML")


def test_a_task_whose_file_cannot_name_it(call, tiny):
    file = tiny("Tiny_1")
    mentions(call("show", file).error, str(file), "lower-case letters")


def test_a_folder_in_place_of_a_task(call, tmp_path):
    (tmp_path / "tiny.toml").mkdir()
    mentions(call("show", tmp_path / "tiny.toml").error, "tiny.toml", "no such task file")


TUNED = """
[search]
task = "tiny"
task_digest = "0"
split = "validation"
objective = "area"
trials = 2
seeds = 1
budget_epochs = 3
law = "random"

[methods.fip]
params = { learning_rate = 0.5 }
version = "1"
score = 0.9
default_score = 0.8
trial = 1
trials = 2
failed = 0
examples_spent = 10
best_of = [0.8, 0.9]
"""


def test_a_tuned_file_that_breaks_the_schema(call, tiny, tmp_path):
    task = tiny(tuned='"settings.toml"')
    file = tmp_path / "settings.toml"
    for content, parts in {
        TUNED.replace("trials = 2\nseeds", "seeds"): ("field 'search'", "trials"),
        TUNED.replace("params = { learning_rate = 0.5 }", "params = 1"): ("methods", "params"),
        TUNED.replace("learning_rate", "learning_rat"): ("learning_rat", "did you mean learning_rate"),
        "methods = 3": ("field",),
    }.items():
        file.write_text(content)
        mentions(call("run", task, "--dry-run").error, *parts)


# ------------------------------------------------------------------------------------------------- data


def test_data_that_is_not_there(tiny, tmp_path):
    """No mirror of it and no hub: says which variable would get it."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    environment = {**os.environ, "FIPBENCH_DATA": str(mirror), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    environment["FIPBENCH_CACHE"] = str(tmp_path / "empty cache")
    answer = program("run", "lenet300-mnist-sparsity", env=environment)
    mentions(answer.error, "ylecun/mnist", "cannot be loaded", "FIPBENCH_DATA")


def test_a_mirror_without_the_files(call, tmp_path, monkeypatch):
    (tmp_path / "ylecun" / "mnist" / "mnist").mkdir(parents=True)
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path))
    mentions(call("run", "lenet300-mnist-sparsity", "--dry-run").error, "ylecun/mnist", "train-*.parquet", "lay it out")


def test_a_mirror_that_is_no_folder(call, tmp_path, monkeypatch):
    """Not asked for is the hub: who names a mirror means it."""
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "nowhere"))
    error = call("run", "lenet300-mnist-sparsity", "--dry-run").error
    mentions(error, "FIPBENCH_DATA", str(tmp_path / "nowhere"), "no folder")


def test_a_damaged_mirror(call, tmp_path, monkeypatch):
    folder = tmp_path / "ylecun" / "mnist" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-0.parquet").write_bytes(b"PAR1 no more")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path))
    mentions(call("run", "lenet300-mnist-sparsity").error, "ylecun/mnist", "cannot be loaded")


def test_a_wrong_digest(call, tiny):
    digests = f'train = "{"0" * 64}"\ntest = "{"1" * 64}"'
    task = tiny(data="", more=f'[data]\nembedded = "digits"\n[data.variants.other]\n{digests}\n')
    error = call("run", task, "--dry-run").error
    mentions(error, "digits", "612e198285a4", "f14d5e2caa2c", "other", "--allow-unknown-data")
    allowed = call("run", task, "--dry-run", "--allow-unknown-data", "--methods", "dense", "--seeds", 1)
    assert allowed.code == 0 and "1 job, 1 to compute" in allowed.out
