"""Tables for LaTeX: every cell is text, the structure is booktabs, and a compiler takes it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from synthetic import continual_small, record, robustness_suite, suite
from test_files import HOSTILE, hostile_records

from fipbench import reports
from fipbench.reports.latex import escaped, latex


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("50 % & more_or #1", r"50 \% \& more\_or \#1"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("$x^2~y$", r"\$x\textasciicircum{}2\textasciitilde{}y\$"),
        ("−1.5 ± 0.2", r"$-$1.5 $\pm$ 0.2"),
        ("[a] *", "{[}a{]} {*}"),
        ("ε ◆ †", r"$\varepsilon$ $\diamond$ $\dagger$"),
        ("Müller 汉", r"Müller \texttt{U+6C49}"),
        ("< 0.001", r"\textless{} 0.001"),
    ],
)
def test_text_is_set_as_it_reads(text, wanted):
    assert escaped(text) == wanted


def test_rows_have_as_many_cells_as_columns():
    text = latex(reports.boards(suite(2) + continual_small()))
    tables = re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    assert len(tables) == text.count(r"\begin{table}") == text.count(r"\caption{") > 4
    for columns, body in tables:
        lines = body.splitlines()
        assert lines[0] == r"\toprule" and lines[2] == r"\midrule" and lines[-1] == r"\bottomrule"
        cells = [line for line in lines if line.endswith(r" \\") and not line.startswith(r"\multicolumn")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in cells} == {len(columns) - 1}
    assert r"\multicolumn" in text and r"97.00" not in text.partition(r"\begin{table}")[0]


def test_hostile_records_start_no_command():
    text = latex(reports.boards(hostile_records()))
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        "usepackage", "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "addlinespace",
        "multicolumn", "textit", "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater",
        "textbar", "symbol", "pm", "varepsilon", "diamond", "dagger", "leq", "geq", "approx", "to", "times", "cdot",
        "texttt", "dots",
    }  # fmt: skip


def test_it_is_a_format(tmp_path):
    [path] = reports.write(suite(1), tmp_path, ("tex",))
    assert path.name == "digits-sparsity.tex" and path.read_text("utf-8") == latex(reports.boards(suite(1)))


compiler = shutil.which("pdflatex")


# No part of CI, where a test that is skipped has failed: a TeX is not installed for the sake of one test.
if compiler:

    def test_a_compiler_takes_it(tmp_path):
        records = [*suite(2), *continual_small(), *robustness_suite(2), *hostile_records()]
        records.append(record("fip", 0, 0.9, task="names", label=HOSTILE, protocol_changes={"title": HOSTILE}))
        (tmp_path / "tables.tex").write_text(latex(reports.boards(records)), "utf-8")
        whole = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{tables}\end{document}"
        (tmp_path / "whole.tex").write_text(whole, "utf-8")
        words = [compiler, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "whole.tex"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
        assert (tmp_path / "whole.pdf").stat().st_size > 10_000
        assert b"Missing character" not in (tmp_path / "whole.log").read_bytes()
