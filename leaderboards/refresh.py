"""Render the boards from the records committed here, and put tables and sentences of them into the README.

python leaderboards/refresh.py
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace
from tabulate import tabulate

from fipbench import audit_store, claims, registry, reports, store
from fipbench.reports import calibration, overview, questions, render, searches, verdicts
from fipbench.reports.build import current
from fipbench.spec import Record, Tuned, task_digest
from fipbench.spec.audits import Audit
from fipbench.tracks import PROTOCOL_VERSIONS

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
STEPPED = HERE.parent / "benchmarks" / "paper_scale.json"
BEGIN = "<!-- results: written by `make leaderboards` from the committed records; do not edit -->\n"
END = "<!-- end of results -->"
A_FEW_STEPS = "`a few steps`: executed at its true size, with random weights ([paper-scale](docs/paper-scale.md))"
LEGEND = (
    "`stored a task`: how many examples of each past task a method may keep, – where nothing can be stored. `first`: "
    "the row with the highest mean. `fip − best other`: fip's score less that of the best row that is no variant of "
    "FIP, paired by seed. ±: half of a 95 % t interval over seeds. `p (Holm)`: paired t test of that difference, "
    "corrected for all comparisons of the board with fip; in the sentences below `not told apart` is corrected for all "
    "pairs of rows, so that a difference from fip may count where the ranks still overlap. fip needs stored examples. "
    "[How to read a board](docs/statistics.md#how-to-read-a-board).",
)
EXPERIMENTS = ("published experiment", "task", "state", "its published numbers")
STANDINGS = ("task", "stored a task", "first", "its score, %", "fip, %", "fip − best other", "p (Holm)", "seeds")
CALIBRATED = ("method", "task", "published, %", "here, %", "margin", "verdict", "source")


def with_results(readme: str, text: str) -> str:
    """The README's text with this between its two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{text}{END}{after}"


def results(records: list[Record]) -> str:
    """What the boards say: a table and a sentence each for real data, then for the quick suite, then calibrations."""
    every = reports.boards(records)
    boards = [board for board in every if "calibration" not in board.suites]
    # Where one row was run, for a published number of its own, nobody is first.
    real = [board for board in boards if "quick" not in board.suites and len(board.rows) > 1]
    quick = [board for board in boards if "quick" in board.suites]
    judged = claims.judge(claims.load(), records)
    built = registry.task_files()
    stepped = executed()
    tallies = {"Real data": overview.tally(real), "Quick suite, a smoke test": overview.tally(quick)}
    parts = [
        "\n".join(f"- **{name}.** {said}" for name, said in tallies.items() if said),
        "### The published experiments",
        _table(EXPERIMENTS, overview.experiments(claims.load(), judged, boards, built, stepped)),
        "`run`: on the paper's protocol as we read it; `run in part`: so for some of its numbers, by the verdicts "
        "beside; `smaller or otherwise`: with fewer epochs or images, or other "
        "data" + ("; " + A_FEW_STEPS if stepped else "") + "; `never`: nothing was executed. A row is not-run where no "
        "run of ours measures what it states. The next table has more rows: those of no experiment.",
        "### Published numbers",
        render.escaped(verdicts.sentence(judged)),
        render.markdown_table(verdicts.summary(judged)),
        "All rows, with the command that would settle each: [claims.md](leaderboards/claims.md). What the verdicts "
        "mean, and why so many rows are not testable: [docs/claims.md](docs/claims.md).",
    ]
    legend = LEGEND
    for title, group in (("Real data", real), ("Quick suite: a smoke test, not evidence", quick)):
        if group:
            parts += [f"### {title}", *legend, _table(STANDINGS, overview.standings(group))]
            legend = ()
            parts.append("\n".join(f"- {render.escaped(reports.sentence(board))}" for board in group))
            parts.append(" ".join(filter(None, (overview.relatives(group), overview.unsearched(group)))))
    parts.append(
        "What the searches for settings cost and found: [searches.md](leaderboards/searches.md). Does the exact step "
        "beat the penalty, do constant outputs beat replay, does a geodesic beat the straight line, does Fisher "
        "information protect, does the order of operations matter? [questions.md](leaderboards/questions.md)."
    )
    parts.append(_without_board(built, {board.task for board in every}))
    if found := calibration.calibrations(current(records)):
        parts.append("### Baselines beside numbers that others published for them")
        parts.append(overview.calibration_legend(found))
        parts.append(_table(CALIBRATED, overview.calibrated(found)))
    return "\n\n".join(filter(None, parts)) + "\n"


def _without_board(built: Iterable[str], run: Collection[str]) -> str:
    """Which tasks of each suite there is no board of, in a sentence."""
    missing: dict[str, list[str]] = {}
    for name in built:
        for suite in registry.read_task(name).suites if name not in run else ():
            missing.setdefault(suite, []).append(name)
    found = "; ".join(f"`{suite}`: {', '.join(names)}" for suite, names in sorted(missing.items()))
    return f"Built and tested, without a board so far, by suite. {found}." if found else "Every task has its board."


def _table(columns: Sequence[str], lines: Sequence[overview.Line]) -> str:
    task = columns.index("task")
    rows = [[render.escaped(cell) for cell in line] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        row[task] = ", ".join(map(_linked, line[task].split(", ")))
    return tabulate(rows, headers=columns, tablefmt="pipe", disable_numparse=True)


def _linked(shown: str) -> str:
    """`TASK` or `TASK (N seeds)`, the name leading to the task's board if there is one."""
    name, space, rest = shown.partition(" ")
    known = (HERE / f"{name}.md").is_file()
    return (f"[{name}](leaderboards/{name}.md)" if known else render.escaped(name)) + space + render.escaped(rest)


def executed() -> set[str]:
    """Tasks of which a few steps were run at their true size, and which are still what they were then."""
    found = json.loads(STEPPED.read_text("utf-8")) if STEPPED.is_file() else {}
    tasks = {name: registry.read_task(name) for name in registry.task_files() if name in found}
    # As `benchmarks.paper_scale` has it: weights were drawn, whichever a task pins.
    drawn = {n: replace(task, model=replace(task.model, revision=UNSET, sha256=UNSET)) for n, task in tasks.items()}
    return {n for n, task in drawn.items() if found[n]["digest"] == task_digest(task, PROTOCOL_VERSIONS[task.track])}


def audits_of(records: Iterable[Record]) -> dict[str, Audit]:
    """The attack audits committed here that are of these very records."""
    audits, problems = audit_store.read(HERE)
    for problem in problems:
        raise SystemExit(f"{problem.path}: {problem.reason}")
    return audit_store.matching(audits, records)


def searched() -> dict[str, Tuned]:
    """What each task's file of settings holds, by the task that was searched."""
    found = (registry.search_of(name) for name in registry.task_files())
    return {search.search.task: search for search in found if search is not None}


def main() -> None:
    """Boards as markdown, CSV and a page a suite; the README's results."""
    records, problems = store.read(HERE)
    for problem in problems:
        raise SystemExit(f"{problem.path}: {problem.reason}")
    judged = claims.judge(claims.load(), records)
    written = reports.write(records, HERE, formats=("md", "csv", "html"), audits=audits_of(records))
    for path in (*written, *verdicts.write(judged, HERE, ("md", "csv", "html"))):
        print(path.relative_to(HERE.parent))
    answers = {"questions.md": questions.page(reports.boards(records))}
    for name, content in (searches.pages(searched()) | answers).items():
        (HERE / name).write_text(content, encoding="utf-8", newline="\n")
    readme = README.read_text(encoding="utf-8")
    README.write_text(with_results(readme, results(records)), encoding="utf-8")


if __name__ == "__main__":
    main()
