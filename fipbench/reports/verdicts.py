"""Published numbers beside ours, with their verdicts: how many of each, then every row. md, csv, html, json."""

from __future__ import annotations

import csv as _csv
import io
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from fipbench.cache import write_atomic
from fipbench.claims import NO_RESULT, REASONS, VERDICTS, Claim, Judgement, Ledger
from fipbench.claims.rules import LEVEL, SEEDS
from fipbench.errors import UserError, unknown
from fipbench.reports.board import plain
from fipbench.reports.text import ABSENT, Table
from fipbench.reports.words import Terms

FORMATS = ("md", "csv", "html", "json")
TITLE = "Published numbers and ours"
_SIGNS = {"exact": "", "about": "≈ ", "at-least": "≥ ", "at-most": "≤ "}
_RELATIONS = {"above": ">", "below": "<", "alike": "≈"}
_SMALLER = "smaller scale only"

CSV_COLUMNS = (
    "id", "paper", "at", "track", "study", "kind", "method", "model", "metric", "unit", "value", "to", "bound",
    "spread", "spread_is", "n", "setting", "relation", "than", "along", "conflicts", "derived", "verdict", "scale",
    "task", "label", "device", "ours", "mean", "half", "seeds", "low", "high", "why", "readings", "command", "note",
)  # fmt: skip


def chosen(ledger: Ledger, names: Sequence[str]) -> list[Claim]:
    """The rows that these name: ids, patterns of ids (`v1-lenet-*`), papers, studies or tasks of ours; all without any.

    Raises:
        UserError: a name that is none of them.
    """
    rows = list(ledger.claims.values())
    if not names:
        return rows
    wanted: set[str] = set()
    for name in names:
        found = {
            claim.id
            for claim in rows
            if name in (claim.paper, claim.study, *ledger.studies[claim.study].tasks) or fnmatchcase(claim.id, name)
        }
        if not found:
            tasks = {task for study in ledger.studies.values() for task in study.tasks}
            raise unknown("row, paper, study or task", name, {*ledger.claims, *ledger.papers, *ledger.studies, *tasks})
        wanted |= found
    return [claim for claim in rows if claim.id in wanted]


def write(judged: Sequence[Judgement], out_dir: str | Path, formats: Sequence[str] = ("md",)) -> list[Path]:
    """Write `claims.FORMAT` for each format; the same judgements give the same bytes.

    Raises:
        UserError: an unknown format, or no rows.
    """
    makers = {"md": markdown, "csv": csv, "html": html, "json": json}
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    if not judged:
        raise UserError("compare: no rows to compare")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in formats:
        paths.append(folder / f"claims.{name}")
        write_atomic(paths[-1], makers[name](judged).encode())
    return paths


def sentence(judged: Sequence[Judgement]) -> str:
    """How many rows have each verdict, in one sentence: at a smaller scale apart, and those that state no result."""
    full = Counter(j.verdict for j in judged if j.scale != "smaller")
    less = Counter(j.verdict for j in judged if j.scale == "smaller")
    parts = [f"{full[verdict]} {verdict}" for verdict in VERDICTS if full[verdict]]
    if stated := sum(j.claim.untestable in NO_RESULT for j in judged):
        parts[-1] += f" ({stated} of these state no result, but a setting, a size, theory or other work)"
    if less:
        parts.append(f"at a smaller scale {', '.join(f'{less[v]} {v}' for v in VERDICTS if less[v])}")
    return f"Of {len(judged)} rows: {'; '.join(parts)}."


# ----------------------------------------------------------------------------------------------- tables


def summary(judged: Sequence[Judgement]) -> Table:
    """How many rows of each paper have each verdict. Verdicts at a smaller scale are counted in rows of their own."""
    papers = list(dict.fromkeys(j.claim.paper for j in judged))
    rows = []
    for paper in (*papers, "all"):
        own = [j for j in judged if paper in (j.claim.paper, "all")]
        counts = Counter(_SMALLER if j.scale == "smaller" else j.verdict for j in own)
        rows.append((paper, *(str(counts[key]) for key in (*VERDICTS, _SMALLER)), str(len(own))))
    groups: list[tuple[int, str]] = []
    less = [j for j in judged if j.scale == "smaller"]
    if less:
        groups = [(0, "as published"), (len(rows), "at a smaller scale, which is no verdict on the paper")]
    for paper in dict.fromkeys(j.claim.paper for j in less):
        counts = Counter(j.verdict for j in less if j.claim.paper == paper)
        rows.append((paper, *(str(counts[v]) for v in VERDICTS), ABSENT, str(counts.total())))
    return Table(
        caption="Rows by paper and verdict",
        columns=("paper", *VERDICTS, _SMALLER, "rows"),
        rows=tuple(rows),
        groups=tuple(groups),
        head="paper",
        text=("paper",),
    )


def tables(judged: Sequence[Judgement]) -> dict[str, Table]:
    """A table a track, its rows grouped by study."""
    found: dict[str, Table] = {}
    for track in dict.fromkeys(j.study.track for j in judged):
        by_study: dict[str, list[Judgement]] = {}
        for judgement in judged:
            if judgement.study.track == track:
                by_study.setdefault(judgement.study.title, []).append(judgement)
        groups: list[tuple[int, str]] = []
        rows: list[tuple[str, ...]] = []
        for title, own in by_study.items():
            groups.append((len(rows), title))
            rows += [_cells(judgement) for judgement in own]
        found[track] = Table(
            caption=f"Published and ours, {track}",
            columns=("row", "verdict", "published", "ours", "metric", "published for", "settled by"),
            rows=tuple(rows),
            groups=tuple(groups),
            head="row",
            text=("row", "verdict", "metric", "published for", "settled by"),
        )
    return found


def _cells(judgement: Judgement) -> tuple[str, ...]:
    claim = judgement.claim
    verdict = f"{judgement.name}: {claim.untestable}" if claim.untestable else judgement.name
    cells = (claim.id, verdict, published(claim), ours(judgement), claim.metric, who(claim), judgement.command)
    return tuple(plain(cell) or ABSENT for cell in cells)


def who(claim: Claim) -> str:
    """Method and model as published, with the row's own settings."""
    who = " → ".join(claim.along) or claim.method
    setting = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in claim.setting.items())
    return "; ".join(part for part in (who, claim.model, setting) if part)


def published(claim: Claim) -> str:
    """What the paper says, with unit, spread and number of runs."""
    if claim.kind == "trend":
        return claim.relation
    said = f"{claim.method} {_RELATIONS[claim.relation]} {claim.than}" if claim.kind == "order" else ""
    if claim.value is UNSET:
        return said
    value = claim.value if isinstance(claim.value, str) else _SIGNS[claim.bound] + _number(claim.value)
    to = "" if claim.to is UNSET else f" to {_number(claim.to)}"
    spread = "" if claim.spread is UNSET else f" ± {_number(claim.spread)}"
    unit = "" if claim.unit in ("", "count", "index") else f" {claim.unit}"
    runs = "" if claim.n is UNSET else f" (n = {claim.n})"
    return f"{said}{': ' if said else ''}{value}{to}{spread}{unit}{runs}"


def ours(judgement: Judgement) -> str:
    """Mean ± half-width over our seeds, of what was judged; of an order the difference, of a trend the slope."""
    if judgement.finding is None:
        return ""
    found, unit = judgement.finding.ours, judgement.claim.unit
    half = "" if found.half is None else f" ± {found.half:.2f}"
    sign = "+" if judgement.claim.kind != "value" and found.mean > 0 else ""
    mean = f"{sign}{found.mean:.2f}".replace("-", "−")
    return f"{mean}{half}{f' {unit}' if unit else ''} (n = {found.n})"


def _number(value: float) -> str:
    return f"{value:.10g}".replace("e+0", "e").replace("e+", "e")


def notes(judged: Sequence[Judgement]) -> list[tuple[str, str]]:
    """What there is to know about single rows: why the verdict, other readings, what it is at odds with."""
    found = []
    for judgement in judged:
        claim = judgement.claim
        parts = [judgement.why] if judgement.finding or judgement.departures else []
        for other in judgement.readings:
            mean = f"{other.finding.ours.mean:.2f}".replace("-", "−")
            parts.append(f"read as {other.label}, {other.metric}: {other.finding.verdict} ({mean})")
        parts += [claim.note] if claim.note else []
        parts += [f"at odds with {', '.join(claim.conflicts)}"] if claim.conflicts else []
        parts += [f"follows from {', '.join(claim.derived)}"] if claim.derived else []
        if parts:
            found.append((claim.id, plain("; ".join(parts))))
    return found


def reading(judged: Sequence[Judgement]) -> Terms:
    """How to read the tables."""
    rule = f"{LEVEL:.0%} t interval over seeds".replace("%", " %")
    found = [
        ("Band", "± max(1 point, 2 published SD) around a value, ± 2 points where no spread is given"),
        ("confirmed", f"the {rule} of ours − published lies within the band, with {SEEDS} seeds or more"),
        ("better, worse", "it lies wholly outside, on that side"),
        ("refuted", "an order or trend is broken and the interval excludes it; or a value without a good direction"),
        ("underpowered", f"the interval overlaps an edge, or fewer than {SEEDS} seeds"),
        ("protocol-mismatch", "there are records, of a task that differs from the paper's in the field named"),
        ("not-run", "no record, or no task or method yet"),
        ("smaller scale", "alike but for length, data variant, suite or settings: no verdict on the paper"),
        ("ours", "mean ± half-width of that interval; of an order the difference, of a trend the slope a place"),
    ]
    used = Counter(j.claim.untestable for j in judged if j.claim.untestable)
    found += [(f"not-testable: {reason} ({used[reason]})", REASONS[reason]) for reason in REASONS if used[reason]]
    return found


# ---------------------------------------------------------------------------------------------- formats


def markdown(judged: Sequence[Judgement]) -> str:
    """One Markdown page (GitHub's dialect)."""
    from fipbench.reports.render import escaped, markdown_table

    first = summary(judged)
    parts = [f"# {TITLE}", escaped(sentence(judged)), f"{first.caption}:", markdown_table(first)]
    for track, table in tables(judged).items():
        parts += [f"## {track}", markdown_table(table)]
        if lines := notes([j for j in judged if j.study.track == track]):
            parts += ["Notes:", "\n".join(f"- {escaped(name)}: {escaped(note)}" for name, note in lines)]
    parts += ["How to read this:", "\n".join(f"- {escaped(a)}: {escaped(b)}" for a, b in reading(judged))]
    return "\n\n".join(parts) + "\n"


def html(judged: Sequence[Judgement]) -> str:
    """One page that needs nothing else, in the dress of the leaderboards."""
    from fipbench.reports.page import filled

    sections = [_section("summary", sentence(judged), [summary(judged)], [], reading(judged))]
    for track, table in tables(judged).items():
        own = [j for j in judged if j.study.track == track]
        sections.append(_section(track, sentence(own), [table], notes(own), []))
    return filled(TITLE, "verdicts are computed from records by the rules below", sections)


def _section(
    name: str, said: str, shown: Sequence[Table], lines: Sequence[tuple[str, str]], terms: Terms
) -> dict[str, Any]:
    board = {"name": name, "title": ""}
    own = {"anchor": name, "board": board, "sentence": said, "figures": [], "tables": shown, "notes": lines}
    return {**own, "protocol": [], "reading": terms}


def csv(judged: Sequence[Judgement]) -> str:
    """A row a claim, in its unit, not rounded; lists and settings as JSON."""
    from fipbench.reports.render import cell

    out = io.StringIO()
    writer = _csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in _flat(judgement).items()} for judgement in judged)
    return out.getvalue()


def _flat(judgement: Judgement) -> dict[str, Any]:
    row = {key: value for key, value in msgspec.to_builtins(judgement.claim).items() if value not in ("", (), {})}
    row |= {key: getattr(judgement, key) for key in ("verdict", "scale", "task", "label", "device", "why", "command")}
    row["track"] = judgement.study.track
    if found := judgement.finding:
        row |= {"mean": found.ours.mean, "half": found.ours.half, "seeds": found.ours.n}
        row |= {"low": found.low, "high": found.high}
    said = [f"{r.label}, {r.metric}: {r.finding.verdict}" for r in judgement.readings]
    row |= {"readings": "; ".join(said)}
    return {k: msgspec.json.encode(v).decode() if isinstance(v, (dict, list, tuple)) else v for k, v in row.items()}


def json(judged: Sequence[Judgement]) -> str:
    """All of it: `{"rows": [...]}`, a claim, its verdict, the numbers behind it and other readings each."""
    rows = [
        {"study": j.claim.study, **{k: v for k, v in msgspec.to_builtins(j).items() if k != "study"}, "name": j.name}
        for j in judged
    ]
    content = msgspec.json.encode({"sentence": sentence(judged), "rows": rows}, order="deterministic")
    return msgspec.json.format(content, indent=1).decode() + "\n"
