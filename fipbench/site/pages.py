"""The pages: what each shows, taken from boards, judgements and records; templates lay it out and escape it."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from fipbench import registry, reports
from fipbench.claims import VERDICTS, Judgement, Ledger
from fipbench.errors import UserError
from fipbench.methods import TRACKS
from fipbench.reports import calibration, figures, text, verdicts, words
from fipbench.reports import overview as glance
from fipbench.reports.board import Board, Row, plain
from fipbench.reports.build import current
from fipbench.reports.text import Table
from fipbench.reports.views import view
from fipbench.site import names, plots, tables
from fipbench.site.rendering import method_page, parts, rendered
from fipbench.spec import Record

STANDINGS = ("task", "stored a task", "first", "its score, %", "fip, %", "fip − best other", "p (Holm)", "seeds")
CALIBRATED = ("method", "task", "published, %", "here, %", "margin", "verdict", "source")
# A verdict is told by its shape and its word.
SHAPES = dict(zip(VERDICTS, "✓▲▼✗?≠○–", strict=True))
GROUPS = (
    ("real", "Real data", ""),
    (
        "smoke",
        "Quick suite: a smoke test, not evidence",
        "Small synthetic or scikit-learn data, to see that all works.",
    ),
    ("calibration", "Calibration", "Baselines beside numbers that other publications give for them."),
)


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What the site is of. `records`: those behind the boards' rows by id; `every`: all that there are."""

    boards: list[Board]
    records: dict[str, Record]
    judged: list[Judgement]
    ledger: Ledger
    every: list[Record]


# ------------------------------------------------------------------------------------------------ overview


def overview(content: Content) -> bytes:
    """The verdict of each task in a sentence, real data first."""
    groups = []
    for key, title, about in GROUPS:
        own = [board for board in content.boards if _group(board) == key]
        if own:
            tally = "" if key == "calibration" else glance.tally(own)
            groups.append({"key": key, "title": title, "about": about, "tally": tally,
                           "tasks": [_card(b) for b in own], "standings": _standings(own)})  # fmt: skip
    checked = calibration.calibrations(current(content.every))
    return rendered(
        "index.html",
        root="",
        groups=groups,
        counts=_counts(content),
        verdict=verdicts.sentence(content.judged),
        summary=parts(verdicts.summary(content.judged)) if content.judged else None,
        calibrated=parts(_plain_table("Baselines beside published numbers", CALIBRATED, glance.calibrated(checked))),
        legend=glance.calibration_legend(checked),
        methods=_listed_methods(content),
    )


def _group(board: Board) -> str:
    if "quick" in board.suites:
        return "smoke"
    return "calibration" if "calibration" in board.suites else "real"


def _card(board: Board) -> dict[str, Any]:
    seeds = max((len(row.seeds) for row in board.ranked), default=0)
    rows = len(board.rows) + len(board.references)
    facts = [board.track, f"{rows} row{'s' * (rows != 1)}", f"{seeds} seed{'s' * (seeds != 1)}"]
    return {
        "title": board.title or board.name,
        "name": board.name,
        "page": f"tasks/{quote(board.task)}.html",
        "facts": facts,
        "sentence": _sentence(board),
    }


def _sentence(board: Board) -> str:
    """What the board shows, without its name, which stands above."""
    said = reports.sentence(board).removeprefix(board.name).lstrip(":, ")
    named = board.rows and said.startswith(tuple(row.short for row in board.rows))
    return said if named else f"{said[:1].upper()}{said[1:]}"  # a method's name keeps its letters


def _standings(own: Sequence[Board]) -> dict[str, Any] | None:
    lines = glance.standings(own)
    links = {board.task: f"tasks/{quote(board.task)}.html" for board in own}
    return parts(_plain_table("The same as a table", STANDINGS, lines, ("task", "first")), links)


def _plain_table(
    caption: str, columns: tuple[str, ...], lines: Sequence[glance.Line], left: tuple[str, ...] = ()
) -> Table | None:
    """Lines as a table, named by the first column; None without any."""
    words_in = left or ("method", "task", "verdict", "source")
    return Table(caption=caption, columns=columns, rows=tuple(lines), head=columns[0], text=words_in) if lines else None


def _counts(content: Content) -> list[tuple[str, str]]:
    failed = sum(record.status != "ok" for record in content.records.values())
    seeds = Counter(record.job.seed for record in content.records.values())
    found = [
        ("tasks", len({board.task for board in content.boards})),
        ("methods", len({record.job.method for record in content.records.values()})),
        ("records", len(content.records)),
        ("seeds at most", len(seeds)),
        *([("failed", failed)] if failed else []),
    ]
    return [(name, f"{value:,}") for name, value in found]


# ---------------------------------------------------------------------------------------------------- task


def task(content: Content, group: Sequence[Board]) -> bytes:
    """The page of a task: a part for each of its boards."""
    first = group[0]
    return rendered(
        "task.html",
        root="../",
        name=first.task,
        title=first.title or first.name,
        standing=words.standing(first.suites),
        smoke=_group(first) == "smoke",
        boards=[_part(content, board, f"b{n}-") for n, board in enumerate(group, 1)],
    )


def _part(content: Content, board: Board, prefix: str) -> dict[str, Any]:
    shows = view(board.track)
    links = _method_links(board, "../")
    shown = shows.tables(board)
    drawn = plots.of(board)
    return {
        "prefix": prefix,
        "board": board,
        "sentence": _sentence(board),
        "score": parts(shown[0], links) if shown else None,
        "tables": [{"anchor": f"{prefix}table{n}", **(parts(t, links) or {})} for n, t in enumerate(shown[1:], 1)],
        "figures": [_figure(entry, prefix, shown, links) for entry in drawn],
        "protocol": shows.protocol(board),
        "notes": [*(("", note) for note in board.notes), *text.row_notes(board)],
        "reading": shows.reading(board),
        "recipe": tables.recipe(board) if board.ranked else "",
        "rows": [_runs(content, row) for row in (*board.rows, *board.references)],
    }


def _figure(entry: plots.Shown, prefix: str, shown: Sequence[Table], links: Mapping[str, str]) -> dict[str, Any]:
    from markupsafe import Markup

    key = f"{prefix}figure-{entry.drawing.key or 'first'}"
    known = entry.table in shown[1:]
    return {
        "key": key,
        "title": entry.title,
        "svg": Markup(figures.inline(entry.drawing.svg, key)),
        "width": figures.width(entry.drawing.svg),
        "caption": entry.drawing.caption,
        "table": None if known else parts(entry.table, links),
        "anchor": f"{prefix}table{shown.index(entry.table)}" if known and entry.table else "",
    }


def _runs(content: Content, row: Row) -> dict[str, Any]:
    """The records of a row: seed, address, whether it failed."""
    own = [content.records[i] for i in row.records]
    return {
        "name": row.name,
        "page": "../" + method_page(row.method),
        "runs": [(r.job.seed, f"../records/{quote(r.id)}.html", r.status != "ok") for r in own],
    }


def _method_links(board: Board, root: str) -> dict[str, str]:
    rows = (*board.rows, *board.references)
    return {name: root + method_page(row.method) for row in rows for name in (row.name, row.short)}


# ------------------------------------------------------------------------------------------------- methods


def methods(content: Content) -> bytes:
    """All methods, by track."""
    return rendered("methods.html", root="", tracks=_listed_methods(content))


def _listed_methods(content: Content) -> list[dict[str, Any]]:
    """track -> its methods: name, page, what it is, on how many tasks."""
    found: dict[str, dict[str, set[str]]] = {}
    for record in content.records.values():
        found.setdefault(record.job.track, {}).setdefault(record.job.method, set()).add(record.job.task)
    return [
        {
            "track": track,
            "methods": [
                {"name": name, "page": method_page(name), "about": about(track, name), "tasks": len(tasks)}
                for name, tasks in sorted(found[track].items())
            ],
        }
        for track in sorted(found)
    ]


def method(content: Content, name: str) -> bytes:
    """The page of a method: where it stands on each task, and with which settings."""
    found = []
    for track in TRACKS:
        own = [(b, r) for b in content.boards if b.track == track for r in (*b.rows, *b.references) if r.method == name]
        if own:
            runs = [{**_runs(content, row), "name": f"{board.name}: {row.name}"} for board, row in own]
            versions = _versions(content, track, name)
            shown = {"standing": _where(own), "settings": _set(own), "runs": runs, "versions": versions}
            found.append({"track": track, "about": about(track, name), **shown})
    return rendered("method.html", root="../", name=name, tracks=found)


def _versions(content: Content, track: str, name: str) -> list[str]:
    jobs = (record.job for record in content.records.values())
    return sorted({plain(job.method_version) for job in jobs if (job.track, job.method) == (track, name)})


def _where(own: Sequence[tuple[Board, Row]]) -> dict[str, Any] | None:
    lines: list[tuple[str, ...]] = []
    for board, row in own:
        metric = board.headline
        cost = text.count(row.cost["forward_examples"] + row.cost["backward_examples"]) if row.cost else text.ABSENT
        of = next((len(s.ranked) for s in board.sections if row in s.rows), 0)
        place = f"{text.place(row)} of {of}" if row.rank is not None else text.place(row)
        score = text.plus_minus(row.metrics.get(metric), metric)
        compared = text.comparison_cells(row, metric)
        more = (cost, str(len(row.seeds)), "yes" if "quick" in board.suites else "no")
        lines.append((board.name, row.name, place, names.metric(metric), score, *compared, *more))
    titles = ("task", "row", "place", "metric", "score", "− fip", "p (Holm)", "examples", "seeds", "smoke test")
    # fip is not compared with itself.
    used = [n for n in range(len(titles)) if any(line[n] != text.ABSENT for line in lines)]
    columns, lines = tuple(titles[n] for n in used), [tuple(line[n] for n in used) for line in lines]
    table = _plain_table("Where it stands (fractions in %)", columns, lines, ("task", "row", "metric", "smoke test"))
    return parts(table, {board.name: f"../tasks/{quote(board.task)}.html" for board, _ in own})


def _set(own: Sequence[tuple[Board, Row]]) -> dict[str, Any] | None:
    settings = sorted({name for _, row in own for name in row.params})
    if not settings:
        return None
    lines = [
        (b.name, row.name, *(plain(row.params.get(name, text.ABSENT)) for name in settings), text.settings(row))
        for b, row in own
    ]
    columns = ("task", "row", *map(plain, settings), "whose settings")
    return parts(_plain_table("Settings", columns, lines, ("task", "row", "whose settings")))


@cache
def about(track: str, name: str) -> str:
    """The first line of an installed method's description, read without importing it; empty where there is none."""
    try:
        module, _, attribute = registry.find_methods(track).get(name, "").rpartition(":")
        found = importlib.util.find_spec(module) if module else None
        tree = ast.parse(Path(found.origin).read_text("utf-8")) if found and found.origin else None
    except (UserError, ImportError, OSError, SyntaxError, ValueError):
        return ""
    if tree is None:
        return ""
    factory = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == attribute), None)
    said = (ast.get_docstring(factory) if factory else None) or ast.get_docstring(tree) or ""
    return plain(inspect.cleandoc(said).split("\n\n")[0])


# -------------------------------------------------------------------------------------------------- claims


def published(content: Content) -> bytes:
    """Every published number with its verdict."""
    notes = dict(verdicts.notes(content.judged))
    papers = {name: (paper.title, paper.source, paper.year) for name, paper in content.ledger.papers.items()}
    settled_first = sorted(content.judged, key=lambda judgement: VERDICTS.index(judgement.verdict))
    rows = [_claim(judgement, notes.get(judgement.claim.id, "")) for judgement in settled_first]
    return rendered(
        "claims.html",
        root="",
        verdict=verdicts.sentence(content.judged),
        summary=parts(verdicts.summary(content.judged)) if rows else None,
        rows=rows,
        papers=papers,
        reading=verdicts.reading(content.judged),
    )


def _claim(judgement: Judgement, note: str) -> dict[str, str]:
    claim = judgement.claim
    found = {
        "id": claim.id,
        "paper": claim.paper,
        "track": judgement.study.track,
        "study": judgement.study.title,
        "at": claim.at,
        "verdict": judgement.name,
        "shape": SHAPES[judgement.verdict],
        "kind": claim.kind,
        "why": claim.untestable or "",
        "published": verdicts.published(claim) or text.ABSENT,
        "ours": verdicts.ours(judgement) or text.ABSENT,
        "metric": claim.metric,
        "who": verdicts.who(claim) or text.ABSENT,
        "command": judgement.command,
        "note": note,
    }
    return {key: plain(value) for key, value in found.items()}
