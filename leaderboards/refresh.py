"""Render the boards from the records committed here, and put their sentences into the README.

python leaderboards/refresh.py
"""

from __future__ import annotations

from pathlib import Path

from fipbench import reports, store

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN = "<!-- results: written by `make leaderboards` from the committed records; do not edit -->\n"
END = "<!-- end of results -->"


def with_results(readme: str, sentences: list[str]) -> str:
    """The README's text with these sentences between its two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "".join(f"- {sentence}\n" for sentence in sentences)
    return f"{before}{BEGIN}{lines}{END}{after}"


def main() -> None:
    """Boards as markdown, CSV and a page a suite; the README's results."""
    records, problems = store.read(HERE)
    for problem in problems:
        raise SystemExit(f"{problem.path}: {problem.reason}")
    for path in reports.write(records, HERE, formats=("md", "csv", "html")):
        print(path.relative_to(HERE.parent))
    sentences = [reports.sentence(board) for board in reports.boards(records)]
    README.write_text(with_results(README.read_text(encoding="utf-8"), sentences), encoding="utf-8")


if __name__ == "__main__":
    main()
