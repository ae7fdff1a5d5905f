r"""The tables of a task's boards for LaTeX with booktabs; needs `\usepackage{booktabs}` and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from fipbench.reports.board import Board, plain
from fipbench.reports.text import Table
from fipbench.reports.views import view

_MARKUP = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\symbol{34}", "[": r"{[}", "]": r"{]}", "*": r"{*}",  # the last behind a line's end
}  # fmt: skip
# What the tables say beyond ASCII, in the fonts that every LaTeX has.
_SIGNS = {
    "−": "$-$", "±": r"$\pm$", "–": "--", "…": r"\dots{}", "ε": r"$\varepsilon$", "◆": r"$\diamond$", "†": r"$\dagger$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "×": r"$\times$", "·": r"$\cdot$",
}  # fmt: skip
_KNOWN = {ord(sign): tex for sign, tex in (_MARKUP | _SIGNS).items()}


def latex(boards: Sequence[Board]) -> str:
    """A `table` environment for each table of these boards, behind a comment that says what it needs."""
    parts = [r"% Needs \usepackage{booktabs}. Written from records by fipbench; do not edit."]
    for board in boards:
        parts += [_table(table, board.name) for table in view(board.track).tables(board)]
    return "\n\n".join(parts) + "\n"


def escaped(value: str) -> str:
    """Text that LaTeX sets as it reads and obeys nowhere; a character it may have no glyph for as its number."""
    return "".join(_KNOWN.get(ord(c)) or (c if c.isascii() else _foreign(c)) for c in plain(value))


def _foreign(character: str) -> str:
    return character if "À" <= character <= "ÿ" else rf"\texttt{{U+{ord(character):04X}}}"


def _table(table: Table, name: str) -> str:
    align = "".join("l" if column in table.text else "r" for column in table.columns)
    groups = dict(table.groups)
    lines = [_line(table.columns), r"\midrule"]
    for n, row in enumerate(table.rows):
        if n in groups:
            lines += [r"\addlinespace"] if n else []
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\textit{{{escaped(groups[n])}}}}} \\")
        lines.append(_line(row))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(name)}: {escaped(table.caption)}}}",
            rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"
