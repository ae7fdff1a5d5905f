"""Commands that only look: what they answer, and that they load nothing heavy to do so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import msgspec
import pytest
from typer.main import get_command
from workbench import PROGRAM, example_job, example_record, program

from fipbench import __version__, registry, store

LIGHT = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["list"],
    ["list", "tasks"],
    ["list", "methods"],
    ["list", "suites"],
    ["show", "--help"],
    ["data", "--help"],
    ["estimate", "--help"],
]


def test_what_only_looks_loads_nothing_heavy():
    """All in one process; each command's own exit is caught."""
    code = f"""
import sys
from fipbench import cli
for words in {LIGHT!r}:
    sys.argv = ["fipbench", *words]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
    heavy = {{"torch", "numpy", "pandas", "sklearn", "datasets", "matplotlib", "scipy"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, fipbench; sys.exit(str({'torch', 'numpy', 'pandas'} & set(sys.modules) or 0))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300).stderr == b"0\n"


def test_version_by_program_and_by_module():
    assert program("--version").out == f"fipbench {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "fipbench.cli", "--version"], capture_output=True, timeout=300)
    assert done.stdout.decode() == f"fipbench {__version__}\n"


def test_help_names_every_command(call):
    answer = call("--help")
    assert answer.code == 0
    commands = ("list", "show", "doctor", "new", "check", "data", "estimate", "run", "verify", "tune", "leaderboard")
    for command in (*commands, "compare", "export"):
        assert f"\n  {command} " in answer.out
    assert "..." not in answer.out.split("Commands:")[1]
    assert all(len(line) <= 80 for line in answer.out.splitlines())


def test_a_command_is_the_same_alone_as_among_all():
    from fipbench import cli

    every = get_command(cli._program([]))
    assert list(every.commands) == list(get_command(cli._program(["--help"])).commands)
    for name, command in every.commands.items():
        alone = get_command(cli._program([name, "--help"]))
        assert list(alone.commands) == [name]
        assert described(alone.commands[name]) == described(command)


def described(command):
    """Parameters and help of a command, or those of its commands."""
    below = getattr(command, "commands", {}).items()
    return command.help, [(p.name, p.opts, p.required) for p in command.params], [(n, described(c)) for n, c in below]


def test_without_a_word_it_is_the_help_and_a_mistake(call):
    answer = call()
    assert (answer.code, answer.out, answer.err) == (2, call("--help").out, "")


def test_list(call):
    assert call("list").out == call("list", "tasks").out
    tasks = call("list", "tasks").out.splitlines()
    assert [line.split()[0] for line in tasks] == list(registry.task_files())
    (line,) = [line for line in tasks if line.startswith("digits-sparsity ")]
    assert "sparsity" in line and "quick" in line and "64-300-100-10" in line
    assert len({line.index(" sparsity ") for line in tasks if " sparsity " in line[:48]}) == 1, "columns are even"
    quick = [line.split()[0] for line in call("list", "tasks", "--suite", "quick").out.splitlines()]
    assert quick == [name for name in registry.task_files() if "quick" in registry.read_task(name).suites]
    assert "did you mean quick" in call("list", "--suite", "quik").error
    methods = call("list", "methods").out.splitlines()
    assert [tuple(line.split()[:2]) for line in methods] == [
        (name, track) for track in registry.TRACKS for name in registry.method_names(track)
    ]
    assert [line.split()[0] for line in call("list", "suites").out.splitlines()] == list(registry.SUITES)
    checked = call("list", "methods", "--check")
    assert checked.code == 0 and len(checked.out.splitlines()) == len(methods)


def test_show_gives_the_task_back(call, tiny):
    """Its first part is TOML, and says what the file says."""
    file = tiny(more='[methods.mine]\nuse = "lth"\nrewind = 1\n')
    answer = call("show", file)
    assert answer.code == 0
    head, _, tail = answer.out.partition("# methods")
    task = msgspec.to_builtins(registry.read_task(str(file)))
    shown = tomllib.loads(head)
    for field in ("title", "sparsities", "budget", "validation"):
        assert shown[field] == json.loads(json.dumps(task[field]))
    assert '""' not in head
    rows = {line.split()[0]: line for line in tail.splitlines()[1:]}
    assert set(rows) == {*registry.method_names("sparsity"), "mine"}
    assert "rewind=1" in rows["mine"] and "task" in rows["mine"] and "rewind=0" in rows["lth"]
    assert not any(line != line.rstrip() for line in answer.out.splitlines())


@pytest.mark.parametrize("name", registry.task_files())
def test_show_an_installed_task(name, call):
    answer = call("show", name)
    assert answer.code == 0 and tomllib.loads(answer.out.partition("# methods")[0])["title"], answer.err


def test_doctor(call, results, tmp_path, monkeypatch):
    answer = call("doctor")
    assert answer.code == 0, answer.out
    lines = answer.out.splitlines()
    assert lines[-1] == "all is well" and all(line.startswith("ok ") for line in lines[:-1])
    assert len(lines) < 25, "it is read to the end"
    (quick,) = [line for line in lines if line.startswith("ok    quick ")]
    count = len([name for name in registry.task_files() if "quick" in registry.read_task(name).suites])
    assert quick.endswith(f"data of {count} of {count} tasks at hand")
    for what in ("python", "packages", "torch", "cache", str(results), "methods load"):
        assert what in answer.out
    monkeypatch.setenv("FIPBENCH_RESULTS", "/dev/null/results")
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "nowhere"))
    answer = call("doctor")
    assert answer.code == 1
    failed = [line for line in answer.out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2
    assert "FIPBENCH_RESULTS" in failed[0] and "FIPBENCH_DATA" in failed[1]
    assert answer.out.splitlines()[-1].startswith("something is amiss")


def test_the_doctor_sees_tasks_of_another_checkout(call, tmp_path, monkeypatch):
    """As where an editable install of one checkout meets a PYTHONPATH that names another."""
    from fipbench import doctor

    true, other = doctor.files, tmp_path / "other" / "tasks"
    monkeypatch.setattr(doctor, "files", lambda name: other if name == "fipbench.tasks" else true(name))
    (line,) = [line for line in call("doctor").out.splitlines() if line.startswith("FAIL")]
    assert "code" in line and str(other) in line and "its tasks" in line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_the_shells_completion(shell):
    answer = program(env={**os.environ, "_FIPBENCH_COMPLETE": f"source_{shell}"})
    assert answer.code == 0
    assert "_FIPBENCH_COMPLETE" in answer.out and "fipbench" in answer.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fipbench li", {"list"}),
        ("fipbench run digits-s", {"digits-sparsity"}),
        ("fipbench run al", {"all"}),
        ("fipbench run all --methods lt", {"lth"}),
        ("fipbench run all --methods fip,magnitude-", {"fip,magnitude-finetune"}),
    ],
)
def test_completion(typed, offered):
    words = typed.split()
    answer = program(
        env={
            **os.environ,
            "_FIPBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        }
    )
    assert set(answer.out.split()) == offered


def test_a_reader_that_has_seen_enough():
    """`fipbench list methods | head -1`: no traceback, no complaint."""
    line = f"'{PROGRAM}' list methods | true; '{PROGRAM}' show digits-sparsity | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("name = ") and done.stderr == ""


def test_a_terminal_that_lacks_a_letter_loses_no_answer():
    answer = program("list", "methods", "--plugin", "é.py", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert answer.code == 2 and "xe9.py" in answer.out and "magnitude-finetune" in answer.out
    assert answer.error == "1 of the methods do not load"


# ----------------------------------------------------------------------------------------- from records


def test_export_is_the_records_in_a_fixed_order(call, results, tmp_path, tiny):
    results.mkdir()
    expected = []
    for seed in (2, 0, 1):
        expected.append(example_record(seed))
        store.write(results, expected[-1])
    searched = example_record(job=msgspec.structs.replace(expected[0].job, split="validation"))
    store.write(results, searched)
    (results / "broken.json").write_text("{")
    answer = call("export", "--out", tmp_path / "new" / "records.jsonl")
    assert answer.code == 0 and answer.out == f"3 records written to {tmp_path / 'new' / 'records.jsonl'}\n"
    assert answer.err.count("\n") == 1 and "broken.json" in answer.err and "not exported" in answer.err
    assert store.read(tmp_path / "new" / "records.jsonl") == (sorted(expected, key=lambda r: r.id), [])


def test_leaderboards_name_the_files_they_wrote(call, stored, tmp_path):
    for seed in range(3):
        stored(seed)
    answer = call("leaderboard", "--out", tmp_path / "boards", "--format", "md,csv,json")
    assert (answer.code, answer.err) == (0, "")
    assert {str(file) for file in (tmp_path / "boards").iterdir()} == set(answer.out.split())
    assert {"tiny.md", "tiny.csv", "tiny.json"} <= {file.name for file in (tmp_path / "boards").iterdir()}


def test_leaderboards_go_to_a_folder_of_their_own(call, stored, tmp_path, monkeypatch):
    stored(0)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert call("leaderboard").code == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "boards"}


def test_records_of_several_places_stand_on_one_board(call, stored, results, tmp_path):
    """What a colleague handed over as a file, and the same record in both."""
    twice, mine = stored(0), stored(1)
    theirs = example_record(job=example_job(label="theirs", method="lth"))
    file = tmp_path / "theirs.jsonl"
    file.write_bytes(b"".join(store.encode(record) + b"\n" for record in (theirs, twice)))
    words = ("--results", results, "--results", file)
    answer = call("leaderboard", *words, "--out", tmp_path / "boards", "--format", "json")
    assert answer.code == 0, answer.err
    (board,) = json.loads((tmp_path / "boards" / "tiny.json").read_bytes())["boards"]
    found = {row["name"]: row["records"] for section in board["sections"] for row in section["rows"]}
    assert found == {"magnitude": [twice.id, mine.id], "theirs": [theirs.id]}
    assert call("site", *words, "--out", tmp_path / "site").code == 0
    assert len(list((tmp_path / "site" / "records").glob("*.json"))) == 3
    assert call("compare", *words, "--out", tmp_path / "claims").code == 0
    assert "no such results folder" in call("leaderboard", *words, "--results", tmp_path / "nowhere").error


def test_every_published_experiment_is_planned_without_its_data(call, monkeypatch, tmp_path):
    monkeypatch.delenv("FIPBENCH_DATA", raising=False)
    monkeypatch.delenv("FIPBENCH_MODELS", raising=False)
    monkeypatch.setenv("FIPBENCH_CACHE", str(tmp_path))
    answer = call("run", "all", "--suite", "paper", "--dry-run", "--seeds", 1)
    assert answer.code == 0, answer.err
    planned = {line.split()[0] for line in answer.out.splitlines()[:-1]}
    assert planned == {name for name in registry.task_files() if "paper" in registry.read_task(name).suites}


def test_a_dry_run_asks_nobody_for_data(call, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FIPBENCH_DATA", raising=False)
    answer = call("run", "lenet300-mnist-sparsity", "--methods", "dense", "--dry-run")
    assert answer.code == 0 and "5 jobs, 5 to compute; nothing was run" in answer.out
