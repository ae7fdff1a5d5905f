"""The command that attacks what the records claim: `audit`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from fipbench.cli.options import Methods, Plugins, names, results_at
from fipbench.errors import UserError, unknown

OwnAttacks = Annotated[
    list[Path] | None,
    typer.Option("--attack", help="A Python file with attack(vote, inputs, labels, epsilon, generator); repeat."),
]


def audit(
    records: Annotated[
        list[str], typer.Argument(help="Records' files, files of JSON lines, or ids in the results.", metavar="RECORD")
    ],
    hard: Annotated[
        bool, typer.Option("--hard", help="AutoAttack in full, ten starts: about ten times the work.")
    ] = False,
    methods: Methods = "",
    seeds: Annotated[int | None, typer.Option(help="Of the records given, seeds 0..N-1 only (default: all).")] = None,
    attack: OwnAttacks = None,
    plugin: Plugins = None,
    results: Annotated[Path | None, typer.Option(help="Results folder, or a file of records as JSON lines.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of audits, or a file NAME.audits.jsonl (default: audits/ beside the records)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Audit again what is audited already.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Make the stored audits again and compare; store nothing.")
    ] = False,
) -> None:
    """Try to break the robustness that records claim.

    Exit code 0: audited, whatever was found; 1: a network did not come out as its record says, or an audit differs.
    """
    from fipbench import audit as auditing
    from fipbench.audit import own

    strength = "hard" if hard else "default"
    chosen = [(r, place) for name in records for r, place in _found(name, results_at(results))]
    chosen = _wanted(chosen, names(methods), seeds)
    attacks = {m: own.named(m, attack or []) for m in {record.job.method for record, _ in chosen}}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fipbench-audit-") as folder:
        tickets = auditing.prepared([r for r, _ in chosen], [str(p) for p in plugin or []], Path(folder))
        places = {(out or place).absolute() for _, place in chosen}
        kept = {place: _kept(place, writing=not verify) for place in places}
        for record, place in chosen:
            where = (out or place).absolute()
            known = kept[where].get(record.id)
            mine = attacks[record.job.method]
            try:
                if verify:
                    failed += not _same(record, tickets[record.id], known, mine, where)
                elif force or not _covered(known, record, strength, mine, where):
                    kept[where][record.id] = _audited(record, tickets[record.id], strength, mine, where)
            except auditing.Otherwise as error:
                print(f"differs  {error}")
                failed += 1
    if failed:
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------- which records


def _found(name: str, results: Path) -> list[tuple[Any, Path]]:
    """The records that an argument names, and where audits of them belong."""
    from fipbench import audit_store, store

    path = Path(name)
    if path.is_file():
        records, problems = store.read(path)
        if problems:
            raise UserError(f"{problems[0].path}: {problems[0].reason}")
        if not records:
            raise UserError(f"{path}: holds no records")
        return [(record, path.parent / audit_store.FOLDER) for record in records]
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name records in it by their files, or by id with --results {path}")
    if path.suffix in (".json", ".jsonl") or len(path.parts) > 1:
        raise UserError(f"{path}: no such file")
    own = results / f"{name}.json"
    records, problems = store.read(own if own.is_file() else results)
    if own.is_file() and problems:
        raise UserError(f"{own}: {problems[0].reason}")
    match = [record for record in records if record.id == name]
    if not match:
        raise unknown("record", name, {r.id for r in records if r.job.track == "robustness"}, where=f"in {results}")
    return [(match[0], (results if results.is_dir() else results.parent) / audit_store.FOLDER)]


def _wanted(found: list[tuple[Any, Path]], methods: list[str], seeds: int | None) -> list[tuple[Any, Path]]:
    """Those of the records, once each, that are of these methods and of seeds below that number."""
    from fipbench import plan

    plan.positive("--seeds", seeds)
    by_id = {record.id: (record, place) for record, place in found}
    known = {record.job.label for record, _ in by_id.values()}
    for name in methods:
        if name not in known:
            raise unknown("method", name, known, where="among the records given")
    chosen = [
        (record, place)
        for record, place in by_id.values()
        if (not methods or record.job.label in methods) and (seeds is None or record.job.seed < seeds)
    ]
    if not chosen:
        raise UserError(f"--seeds {seeds}: none of the records given has such a seed")
    return chosen


# ------------------------------------------------------------------------------------------------ audits


def _kept(place: Path, writing: bool) -> dict[str, Any]:
    """The audits that are there, where new ones are to go; it is proved that these can be written."""
    from fipbench import audit_store, cache, store

    lines = place.suffix == ".jsonl"
    if lines and not place.name.endswith(store.AUDIT_LINES):
        raise UserError(f"--out {place}: a file of audits is called NAME{store.AUDIT_LINES}")
    if writing:
        cache.writable(place.parent if lines else place, "name another with --out")
    audits, problems = audit_store.at(place)
    if problems:
        raise UserError(f"{problems[0].path}: {problems[0].reason}; move it away, or name another place with --out")
    return {one.id: one for one in audits}


def _covered(known: Any, record: Any, strength: str, mine: dict[str, Any], where: Path) -> bool:
    """Whether an audit as hard is there already.

    Raises:
        UserError: one is there that is harder in one way and weaker in another: to write over it would lose something.
    """
    from fipbench.spec import digest
    from fipbench.spec.audits import STRENGTHS, VERSION, covers

    if known is None or known.version != VERSION or known.items_digest != digest(record.items):
        return False
    if covers(known, strength, tuple(mine)):
        print(f"{record.id}: audited already ({known.strength}); --force audits it again")
        return True
    if STRENGTHS.index(known.strength) > STRENGTHS.index(strength) or not set(known.own) <= set(mine):
        more = " and ".join([f"strength {known.strength}", *(f"attack {name}" for name in known.own)])
        raise UserError(
            f"{record.id}: is audited in {where} with {more}; ask for as much, or write over it with --force"
        )
    return False


def _audited(record: Any, ticket: Any, strength: str, mine: dict[str, Any], where: Path) -> Any:
    from fipbench import audit as auditing
    from fipbench import audit_store

    made = auditing.audit(record, ticket, strength=strength, own=mine, tick=_tick(record.id))
    try:
        audit_store.write(where, made)
    except ValueError as error:
        raise UserError(str(error)) from None
    print("\n".join(auditing.lines(made)), flush=True)
    return made


def _same(record: Any, ticket: Any, known: Any, mine: dict[str, Any], where: Path) -> bool:
    """Whether a stored audit comes out again; says so."""
    from fipbench import audit as auditing
    from fipbench.spec.audits import VERSION, same

    if known is None:
        raise UserError(f"{record.id}: there is no audit of it in {where}; leave --verify out to make one")
    missing = sorted(set(known.own) - set(mine))
    if missing or known.version != VERSION:
        why = f"its attack {missing[0]} is not here (--attack)" if missing else "audits attack otherwise since"
        raise UserError(f"{record.id}: its audit cannot be made again: {why}")
    own = {name: mine[name] for name in known.own}
    again = auditing.audit(record, ticket, strength=known.strength, own=own, tick=_tick(record.id))
    equal = same(known, again)
    print(f"{'equal' if equal else 'differs':8} {record.id}", flush=True)
    return equal


def _tick(identity: str) -> Any:
    """Say on a terminal what is being done."""
    if not sys.stderr.isatty():
        return lambda text, share: None

    def tick(text: str, share: float) -> None:
        print(f"\r\x1b[K{identity}: {text}", end="\r", file=sys.stderr, flush=True)

    return tick
