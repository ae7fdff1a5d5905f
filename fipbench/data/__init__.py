"""Data sets, from the hub, a local mirror of it, or a library; decoded once, checked against pinned digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fipbench.cache import once, tensor_digest, write_atomic
from fipbench.errors import UserError
from fipbench.spec import Data, digest

if TYPE_CHECKING:
    from torch import Tensor

    from fipbench.data.batches import Examples
    from fipbench.data.text import Text

SPLITS = ("train", "test")
UNKNOWN = "unknown"


def identify(data: Data, cache: Path, *, allow_unknown: bool = False) -> tuple[str, dict[str, str]]:
    """Which known variant the data at hand is, and its digests; decodes it once if that has not been done.

    Args:
        allow_unknown: accept contents that the task does not know, labelled `unknown`.

    Returns:
        The variant's label and `{split: SHA-256 of the decoded examples}`.

    Raises:
        UserError: the data is not there (names what gets it), or its digest is none of the task's.
    """
    note = cache / "data" / f"{_key(data, 'both')}.json"
    try:
        noted = json.loads(note.read_bytes())
        found = {split: str(noted[split]) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError):
        found = {}
    if _variant(data, found) == UNKNOWN:  # not noted yet, noted wrongly, or really unknown
        found = {split: tensor_digest(_decoded(data, split, cache)) for split in SPLITS}
        write_atomic(note, json.dumps(found).encode())
    label = _variant(data, found)
    if label != UNKNOWN or allow_unknown:
        return label, found
    if not data.variants:
        raise UserError(
            f"{name_of(data)}: no digest of its content is known yet (train {found['train'][:12]}, test "
            f"{found['test'][:12]} here); pass --allow-unknown-data to take it as it is"
        )
    known = ", ".join(data.variants)
    raise UserError(
        f"{name_of(data)}: content has digests train {found['train'][:12]}, test {found['test'][:12]}, which is "
        f"none of the task's variants ({known}); use the pinned release, or pass --allow-unknown-data"
    )


def identify_all(
    sources: Sequence[Data], cache: Path, *, allow_unknown: bool = False, dry: bool = False
) -> tuple[str, dict[str, str]]:
    """`identify` for all data sets of a task: their variants, joined by +, and the digests by `key_of`.

    Args:
        dry: a data set that is not at hand is taken to be the first variant that the task declares; one of which the
            task declares none is not looked at.
    """
    labels: list[str] = []
    digests: dict[str, str] = {}
    for number, source in enumerate(sources):
        if dry and not (present(source, cache) and (source.variants or source.embedded)):
            label, found = expected(source)
        else:
            label, found = identify(source, cache, allow_unknown=allow_unknown)
        labels.append(label)
        digests |= {key_of(split, number, len(sources)): value for split, value in found.items()}
    return "+".join(dict.fromkeys(labels)), digests


def key_of(split: str, number: int, sources: int) -> str:
    """How a split of a task's `number`-th data set (from 0) is called in a job."""
    return split if sources == 1 else f"{split}-{number + 1}"


def expected(data: Data) -> tuple[str, dict[str, str]]:
    """The first variant that the task declares, and its digests: what a plan goes by before the data is there."""
    if not data.variants:
        return UNKNOWN, dict.fromkeys(SPLITS, "not looked at")
    label, variant = next(iter(data.variants.items()))
    return label, {"train": variant.train, "test": variant.test}


def _variant(data: Data, digests: dict[str, str]) -> str:
    """The label of the variant that has these digests."""
    labels = (k for k, v in data.variants.items() if digests == {"train": v.train, "test": v.test})
    return next(labels, UNKNOWN)


def present(data: Data, cache: Path) -> bool:
    """Whether the data can be had without asking the hub."""
    return bool(data.embedded) or _mirror(data) is not None or (cache / "data" / f"{_key(data, 'both')}.json").exists()


def load(data: Data, split: str, cache: Path, expected: str) -> Examples:
    """The examples of a split, in memory.

    Args:
        expected: the digest they must have.

    Raises:
        UserError: the data is not there, or is not what it was when the job was planned.
    """
    from fipbench.data.batches import Examples

    tensors = _decoded(data, split, cache)
    if (got := tensor_digest(tensors)) != expected:
        raise UserError(f"{name_of(data)}, {split}: digest {got[:12]} is not the expected {expected[:12]}")
    return Examples(tensors["inputs"], tensors["labels"])


def without_repeats(train: Examples, test: Examples) -> tuple[Examples, int]:
    """The training examples whose input is in no test example, and how many were dropped."""
    import torch

    seen = {row.tobytes() for row in test.inputs.flatten(1).numpy()}
    keep = [row.tobytes() not in seen for row in train.inputs.flatten(1).numpy()]
    index = torch.tensor(keep).nonzero().squeeze(1)
    return type(train)(train.inputs[index], train.labels[index]), len(keep) - len(index)


def name_of(data: Data) -> str:
    """The data set as a person would name it."""
    return data.repo or f"{data.embedded} (embedded)"


def _mirror(data: Data) -> Path | None:
    """The folder of the local mirror that holds this data set."""
    root = os.environ.get("FIPBENCH_DATA")
    if not root or not data.repo:
        return None
    if not Path(root).expanduser().is_dir():
        raise UserError(f"FIPBENCH_DATA={root} is no folder; name the mirror's, or unset it to use the hub")
    folder = Path(root).expanduser() / data.repo / data.config
    return folder if folder.is_dir() else None


def _key(data: Data, split: str) -> str:
    """Names the source as it is now: another file, size or time of change is another key."""
    folder = _mirror(data)
    where: Any = [data.repo, data.embedded, data.config, data.revision, data.input, data.label]
    where += [value for value in (data.second, data.test) if value]
    if folder is not None:
        files = sorted(folder.glob("*.parquet"))
        where.append([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])
        where.append(str(folder.absolute()))
    return f"{(data.repo or data.embedded).replace('/', '--')}-{split}-{digest(where)[:16]}"


def load_texts(data: Data, split: str, cache: Path, expected: str) -> tuple[list[Text], Tensor]:
    """The texts or pairs of a split and their labels (int64, shape (n,)); arguments and errors as of `load`."""
    from fipbench.data.text import unpacked

    tensors = _decoded(data, split, cache)
    if (got := tensor_digest(tensors)) != expected:
        raise UserError(f"{name_of(data)}, {split}: digest {got[:12]} is not the expected {expected[:12]}")
    return unpacked(tensors), tensors["labels"]


def _decoded(data: Data, split: str, cache: Path) -> dict[str, Tensor]:
    def build() -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = _embedded(data, split) if data.embedded else _from_hub(data, split, cache)
        return tensors, {"source": name_of(data), "split": split}

    return once(cache / "data", _key(data, split), build)[0]


def _embedded(data: Data, split: str) -> dict[str, Tensor]:
    """What ships with a library, or is made by `fipbench.data.reviews`."""
    if data.embedded == "digits":
        return _digits(split)
    from fipbench.data import reviews
    from fipbench.data.text import packed

    if data.embedded not in reviews.CORPORA:
        known = ", ".join(("digits", *reviews.CORPORA))
        raise UserError(f"field 'data.embedded': expected one of {known}, got '{data.embedded}'")
    return packed(*reviews.corpus(data.embedded, split))


def _digits(split: str) -> dict[str, Tensor]:
    """scikit-learn's 1,797 handwritten digits, 8 x 8: 597 drawn once for testing, 1,200 for training."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # Drawn, because the file is ordered by writer; by digest of the pixels, so that no library can reorder it.
    keys = [hashlib.sha256(row.astype(np.uint8).tobytes()).hexdigest() for row in images]
    order = np.argsort(np.array(keys))
    index = order[:597] if split == "test" else order[597:]
    pixels = np.rint(images[index] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return {
        "inputs": torch.from_numpy(pixels),
        "labels": torch.from_numpy(labels[index].astype(np.int64)),
    }


def _from_hub(data: Data, split: str, cache: Path) -> dict[str, Tensor]:
    """Decoded images and labels of a hub repository or its mirror: uint8 (n, channels, height, width), int64."""
    table = _table(data, _file_of(data, split), cache)
    wanted = [column for column in (data.input, data.second, data.label) if column]
    for column in wanted:
        if column not in table.column_names:
            raise UserError(f"{data.repo}: has no column '{column}'; there are: {', '.join(table.column_names)}")
    if data.is_text:
        return _texts(data, split, table)
    import datasets
    import numpy as np
    import torch

    images = [_pixels(row) for row in table.cast_column(data.input, datasets.Image())[data.input]]
    labels = np.asarray(table[data.label][:], dtype=np.int64)
    inputs = np.ascontiguousarray(np.stack(images))
    return {"inputs": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}


def _texts(data: Data, split: str, table: Any) -> dict[str, Tensor]:
    """Texts, or pairs, and labels as `fipbench.data.text.packed` keeps them."""
    from fipbench.data.text import packed

    labels = [int(label) for label in table[data.label][:]]
    if min(labels, default=0) < 0:
        raise UserError(
            f"{data.repo}, {_file_of(data, split)}: its labels are hidden; name a split that has them in 'data.test'"
        )
    texts: list[Text] = [str(text) for text in table[data.input][:]]
    if data.second:
        others = table[data.second][:]
        texts = [(str(first), str(second)) for first, second in zip(table[data.input][:], others, strict=True)]
    return packed(texts, labels)


def _file_of(data: Data, split: str) -> str:
    """What the repository calls a split."""
    return (data.test or split) if split == "test" else split


def _table(data: Data, split: str, cache: Path) -> Any:
    """A split of a hub repository or its mirror, as its library reads it."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, below
    folder = _mirror(data)
    try:
        if folder is not None:
            files = [str(f) for f in sorted(folder.glob(f"{split}-*.parquet"))]
            if not files:
                raise UserError(f"{folder}: holds no {split}-*.parquet; lay it out as the hub repository {data.repo}")
            table = datasets.load_dataset(
                "parquet", data_files={split: files}, split=split, cache_dir=str(cache / "hub")
            )
        else:
            table = datasets.load_dataset(
                data.repo,
                data.config or None,
                revision=data.revision,
                split=split,
                cache_dir=str(cache / "hub"),
            )
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{data.repo}: cannot be loaded ({reason[0][:160] if reason else type(error).__name__}); connect to the "
            "hub, or set FIPBENCH_DATA to a folder laid out like it"
        ) from None
    return table


def _pixels(image: Any) -> Any:
    """An image as uint8 (channels, height, width)."""
    import numpy as np

    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
