"""How many examples a data set has, found out without decoding it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fipbench import data
from fipbench.spec import Data


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of each split, how many of them have which label (where that is known), and bytes on disk once decoded."""

    train: int
    test: int
    train_labels: dict[int, int] = {}
    test_labels: dict[int, int] = {}
    kept_bytes: int = 0


def size_of(source: Data, cache: Path, stated: Mapping[str, int] | None = None) -> Size | None:
    """From what is decoded, else from the mirror's files, else as `stated` of the release by split; None where nothing
    says."""
    if source.embedded:
        data.identify(source, cache, allow_unknown=True)
    found = [_decoded(cache / "data" / f"{data._key(source, split)}.safetensors") for split in data.SPLITS]
    if found[0] and found[1]:
        (train, train_labels, train_bytes), (test, test_labels, test_bytes) = found[0], found[1]
        return Size(
            train=train,
            test=test,
            train_labels=train_labels,
            test_labels=test_labels,
            kept_bytes=train_bytes + test_bytes,
        )
    rows = _mirrored(source) or ((stated["train"], stated["test"]) if stated else None)
    return Size(train=rows[0], test=rows[1]) if rows else None


def _decoded(path: Path) -> tuple[int, dict[int, int], int] | None:
    """Rows of a kept split, how often each label is among them (of classes), and the file's size; reads the labels and
    nothing else."""
    import numpy as np

    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(length))["labels"]
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            content = file.read(end - begin)
        if entry["dtype"] == "F32" and len(content) == 4 * math.prod(entry["shape"]):
            return math.prod(entry["shape"]), {}, path.stat().st_size
        if entry["dtype"] != "I64" or len(content) != 8 * math.prod(entry["shape"]):
            return None
        labels, counts = np.unique(np.frombuffer(content, dtype="<i8"), return_counts=True)
        counted = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        return sum(counted.values()), counted, path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _mirrored(source: Data) -> tuple[int, int] | None:
    """Rows of the mirror's files, from their metadata."""
    folder = data._mirror(source)
    if folder is None:
        return None
    import pyarrow.parquet as parquet

    rows = [
        sum(parquet.read_metadata(file).num_rows for file in data.split_files(source, folder, split))
        for split in data.SPLITS
    ]
    return (rows[0], rows[1]) if all(rows) else None
