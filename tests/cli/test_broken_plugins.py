"""A plugin that does not import is listed as broken with its reason; the others are listed all the same."""

from __future__ import annotations

import pytest

GOOD = "from fipbench.methods import sparsity\n@sparsity()\ndef mine():\n    'Mine.'\n"
BAD = {
    "missing": ("import nothing_of_the_kind\n", "does not import: ModuleNotFoundError: No module named"),
    "syntax": ("def f(:\n", "does not import: SyntaxError"),
    "leaves": ("import sys\nsys.exit(3)\n", "does not import: SystemExit: 3"),
    "empty": ("x = 1\n", "holds no method"),
}


@pytest.mark.parametrize("kind", BAD)
def test_it_is_listed_as_broken_beside_the_others(kind, call, tmp_path):
    text, reason = BAD[kind]
    bad, good = tmp_path / f"{kind}.py", tmp_path / "good.py"
    bad.write_text(text)
    good.write_text(GOOD)
    answer = call("list", "methods", "--plugin", bad, "--plugin", good)
    lines = answer.out.splitlines()
    (line,) = [line for line in lines if "BROKEN" in line]
    assert line.startswith(f"{kind}.py ") and reason in line
    assert any(line.startswith("mine ") for line in lines) and any(line.startswith("ewc ") for line in lines)
    assert answer.error == "1 of the methods do not load"


def test_a_run_that_names_it_ends_before_anything_is_computed(call, tmp_path, tiny, results):
    bad = tmp_path / "bad.py"
    bad.write_text(BAD["missing"][0])
    assert "(line 1)" in call("run", tiny(), "--plugin", bad).error
    assert not list(results.glob("*.json"))


@pytest.mark.parametrize(("before", "printed"), [("", False), ("print('hello'); ", True)])
def test_what_a_failed_job_printed_is_named_where_it_printed(before, printed, call, tmp_path, tiny, results):
    raises = tmp_path / "raises.py"
    raises.write_text(GOOD + f"    {before}return 1 / 0\n")
    answer = call("run", tiny(), "--plugin", raises, "--methods", "mine", "--seeds", 1)
    assert answer.code == 1 and "1 of 1 jobs failed; they run again next time" in answer.err
    assert (str(results / "logs") in answer.err) == printed
