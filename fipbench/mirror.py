"""Lays out what tasks need as a local mirror, for a machine without network (`FIPBENCH_DATA`, `FIPBENCH_MODELS`)."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fipbench import data
from fipbench.cache import replacing, tensor_digest, writable
from fipbench.errors import UserError
from fipbench.spec import Data, Model
from fipbench.stock import Entry, remedy, state

# Pretrained weights stand below this folder of the mirror, so that no model takes a data set's place.
MODELS = "models"


@dataclass(frozen=True)
class Export:
    """What became of one entry: `written`, `there` (it was already), `embedded`, `missing` or `refused`, and why."""

    verdict: str
    text: str
    bytes: int = 0


def export(entry: Entry, root: Path, cache: Path) -> Export:
    """Lay out what is at hand of an entry below `root`; nothing is downloaded and nothing there is overwritten.

    A file comes under its name only when it is whole. A data set is laid out as a whole or not at all, since its
    splits must be of one variant.

    Raises:
        UserError: `root` cannot be written.
        OSError: there is no room, or a file cannot be read.
    """
    writable(root, "name another folder")
    try:
        found = state(entry, cache)
        if found.problem:
            return Export("refused", found.problem)
        if found.place == "embedded":
            return Export("embedded", "part of the installation; nothing to lay out")
        if found.place == "missing":
            return Export("missing", f"not at hand; {remedy(entry)}")
        if isinstance(entry.source, Model):
            from fipbench.models import pretrained

            assert found.folder is not None
            target = within(root, Path(MODELS) / (entry.source.weights or ""), "model.weights")
            return _copied(
                {target / file.name: file for file in pretrained.files_of(entry.source, found.folder)}, alone=""
            )
        target = within(root, Path(entry.source.repo) / entry.source.config, "data.repo")
        if found.folder is None:
            return _written(entry.source, target, root, cache)
        readme = found.folder.parent / "README.md" if entry.source.config else found.folder / "README.md"
        parts = {target / file.name: file for file in sorted(found.folder.glob("*.parquet"))}
        beside = within(root, Path(entry.source.repo) / "README.md", "data.repo")
        return _copied({**parts, **({beside: readme} if readme.is_file() else {})}, alone="*.parquet")
    except UserError as error:
        return Export("refused", str(error))


def within(root: Path, below: Path, field: str) -> Path:
    """The place `below` the mirror's root.

    Raises:
        UserError: it would lie elsewhere, by its name or by a link; names the task's field.
    """
    target = root / below
    if not target.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{target}: would be written outside {root} (field '{field}', or a link there); nothing written"
        )
    return target


def _copied(files: Mapping[Path, Path], *, alone: str) -> Export:
    """Copy files to where they are not yet, if none there differs.

    Args:
        files: what is to be where, and what it is a copy of.
        alone: a pattern; other files of it beside those to come would be read with them.

    Raises:
        UserError: something else is there already; it is left as it is.
    """
    for target, file in files.items():
        if os.path.lexists(target) and not (target.is_file() and filecmp.cmp(file, target, shallow=False)):
            raise UserError(f"{target}: is there and differs from {file}; move it away or name another folder")
        for other in target.parent.glob(alone) if alone else ():
            if other not in files:
                raise UserError(f"{other}: is there and no part of this release; move it away or name another folder")
    new = {target: file for target, file in files.items() if not target.exists()}
    for target, file in new.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            shutil.copyfile(file, temporary)
    return _said(new, files)


def _said(new: Mapping[Path, object], every: Mapping[Path, object]) -> Export:
    size = sum(target.stat().st_size for target in new)
    if not new:
        return Export("there", f"{len(every)} files, as they are here")
    return Export("written", f"{len(new)} of {len(every)} files", size)


def _written(source: Data, target: Path, root: Path, cache: Path) -> Export:
    """Write a data set that came from the hub as Parquet, and read it again before it gets its place.

    Raises:
        UserError: the hub's files are no longer in the cache, or something else stands there already.
    """
    digests = data.noted(source, cache)
    files = {split: target / f"{data.file_of(source, split)}-00000-of-00001.parquet" for split in data.SPLITS}
    others = [file for file in target.glob("*.parquet") if file not in files.values()]
    with tempfile.TemporaryDirectory(dir=root, prefix=".export-") as name:
        scratch = Path(name)
        there = [file for file in files.values() if os.path.lexists(file)]
        if others or (there and (len(there) < len(files) or _digests(source, target, scratch) != digests)):
            found = (others or there)[0]
            raise UserError(f"{found}: is there and is not what would be written; move it away or name another folder")
        if there:
            return _said({}, {file: file for file in there})
        new = scratch / "new"
        new.mkdir()
        for split, file in files.items():
            data.table(source, split, cache, None).to_parquet(new / file.name)
        if _digests(source, new, scratch) != digests:
            raise UserError(
                f"{data.name_of(source)}: what the hub's library keeps is not what was decoded; remove it from "
                f"{cache / 'hub'} and fetch it again"
            )
        target.mkdir(parents=True, exist_ok=True)
        for file in files.values():
            with replacing(file) as temporary:
                os.replace(new / file.name, temporary)
    return _said({file: file for file in files.values()}, dict.fromkeys(files.values()))


def _digests(source: Data, folder: Path, scratch: Path) -> dict[str, str]:
    """The digests of what lies in a folder; nothing of it is kept."""
    return {
        split: tensor_digest(data.from_table(source, data.table(source, split, scratch, folder), f"{folder}, {split}"))
        for split in data.SPLITS
    }
