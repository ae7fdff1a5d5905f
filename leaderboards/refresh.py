"""Render the boards from the records committed here, and put their sentences into the README.

python leaderboards/refresh.py
"""

from __future__ import annotations

from pathlib import Path

from fipbench import reports, store
from fipbench.spec import Record

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN = "<!-- results: written by `make leaderboards` from the committed records; do not edit -->\n"
END = "<!-- end of results -->"


def with_results(readme: str, lines: list[str]) -> str:
    """The README's text with these sentences between its two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "".join(f"- {line}\n" for line in lines)
    return f"{before}{BEGIN}{text}{END}{after}"


def sentences(records: list[Record]) -> list[str]:
    """What the boards say; the quick suite, which is no evidence, comes last."""
    boards = sorted(reports.boards(records), key=lambda board: "quick" in board.suites)
    return [reports.sentence(board) for board in boards]


def main() -> None:
    """Boards as markdown, CSV and a page a suite; the README's results."""
    records, problems = store.read(HERE)
    for problem in problems:
        raise SystemExit(f"{problem.path}: {problem.reason}")
    for path in reports.write(records, HERE, formats=("md", "csv", "html")):
        print(path.relative_to(HERE.parent))
    readme = README.read_text(encoding="utf-8")
    README.write_text(with_results(readme, sentences(records)), encoding="utf-8")


if __name__ == "__main__":
    main()
