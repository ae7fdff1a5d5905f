"""What is said of a mistake in a TOML file: the file, the field, and what was meant."""

from __future__ import annotations

import pytest

from fipbench import plan, registry
from fipbench.errors import UserError
from fipbench.registry import one_line

HEAD = 'extends = "digits-sparsity"\ntitle = "mine"\nsuites = ["quick"]\n'
ODD = {
    "sparsites = [0.5]": "Object contains unknown field `sparsites`; did you mean sparsities",
    "budget = { epoch = 3 }": "field 'budget': Object contains unknown field `epoch`; did you mean epochs?",
    "model = { outptus = 3 }": "field 'model': Object contains unknown field `outptus`; did you mean outputs",
    "base = { momentm = 1.0 }": "field 'base': Object contains unknown field `momentm`; did you mean momentum?",
    "xyzzy = 1": "Object contains unknown field `xyzzy`",
    'tuned = "nowhere.toml"': "field 'tuned': no such file: ",
}


@pytest.mark.parametrize("text", ODD)
def test_a_field_that_is_not_known_is_told_with_those_that_may_be_meant(text, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + text + "\n")
    with pytest.raises(UserError) as caught:
        registry.read_task(str(file))
    said = str(caught.value)
    assert said.startswith(f"{file}: {ODD[text]}") and "\n" not in said
    assert ("did you mean" in said) == ("did you mean" in ODD[text])


def test_a_field_of_one_of_several_data_sets(tmp_path):
    file = tmp_path / "mine.toml"
    one = '{ kind = "sklearn", dataset = "digits", sha256_ = "a" }'
    file.write_text(f'extends = "mnist-fashion-10k"\ntitle = "mine"\nsuites = ["quick"]\ndata = ["mnist", {one}]\n')
    with pytest.raises(UserError, match=r"field 'data(\[1\]|\[\.\.\.\])': .*unknown field `dataset`"):
        registry.read_task(str(file))


def test_who_names_a_method_of_their_own_is_told_of_plugins(tmp_path):
    asked = plan.Request(tasks=("digits-sparsity",), methods=("my-lth",), results=tmp_path, cache=tmp_path)
    with pytest.raises(UserError, match=r"'my-lth': did you mean .*\? \(one of your own needs --plugin FILE.py\)$"):
        plan.tickets(asked)


def test_a_line_is_named_once():
    try:
        compile("def f(:", "broken.py", "exec")
    except SyntaxError as error:
        assert one_line(error) == "SyntaxError: invalid syntax"
