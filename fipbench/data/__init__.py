"""Data sets, from the hub, a local mirror of it, or a library; decoded once, checked against pinned digests.

Of one whose images stay on disk (`Data.streamed`), what is kept in place of the decoded examples is the SHA-256 of each
image as it is encoded, and its label: the digest of a split is over these, in their order.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fipbench.cache import expanded, once, tensor_digest, write_atomic
from fipbench.data.columns import from_table, reason
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
    found = noted(data, cache)
    if variant_of(data, found) == UNKNOWN:  # not noted yet, noted wrongly, or really unknown
        found = {split: tensor_digest(_decoded(data, split, cache)) for split in SPLITS}
        write_atomic(_note(data, cache), json.dumps(found).encode())
    label = variant_of(data, found)
    if label != UNKNOWN or allow_unknown:
        return label, found
    if not data.variants:
        raise UserError(
            f"{name_of(data)}: no digest of its content is known yet (train {found['train'][:12]}, test "
            f"{found['test'][:12]} here); pass --allow-unknown-data to take it as it is"
        )
    known = ", ".join(data.variants)
    raise UserError(
        f"{_mirror(data) or name_of(data)}: content has digests train {found['train'][:12]}, test "
        f"{found['test'][:12]}, which is none of the task's variants ({known}); use the pinned release, or pass "
        "--allow-unknown-data"
    )


def _note(data: Data, cache: Path) -> Path:
    """Where the digests of the data at hand are written down."""
    return cache / "data" / f"{_key(data, 'both')}.json"


def noted(data: Data, cache: Path) -> dict[str, str]:
    """The digests of the data at hand as they were written down; none if it was never decoded."""
    try:
        found = json.loads(_note(data, cache).read_bytes())
        return {split: str(found[split]) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def examined(data: Data, cache: Path) -> tuple[str, dict[str, str]]:
    """Variant and digests of the data at hand, decoded again from the files of a mirror or a library.

    What came from the hub is looked at as it is kept, which is what jobs get.

    Raises:
        UserError: it is not there or cannot be decoded.
    """
    (cache / "data").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="examined-") as fresh:
        again = bool(data.embedded) or _mirror(data) is not None
        where = Path(fresh) if again else cache
        found = {split: tensor_digest(_decoded(data, split, where)) for split in SPLITS}
    write_atomic(_note(data, cache), json.dumps(found).encode())
    return variant_of(data, found), found


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


def variant_of(data: Data, digests: dict[str, str]) -> str:
    """The label of the variant that has these digests."""
    labels = (k for k, v in data.variants.items() if digests == {"train": v.train, "test": v.test})
    return next(labels, UNKNOWN)


def present(data: Data, cache: Path) -> bool:
    """Whether the data can be had without asking the hub."""
    return place(data, cache)[0] != "missing"


def place(data: Data, cache: Path) -> tuple[str, Path | None]:
    """Where the data at hand is: `embedded`, `mirror` (and its folder), `cache` (downloaded before) or `missing`."""
    if data.embedded:
        return "embedded", None
    if (folder := _mirror(data)) is not None:
        return "mirror", folder
    return ("cache" if _note(data, cache).exists() else "missing"), None


def file_of(data: Data, split: str) -> str:
    """What the repository calls a split."""
    return (data.test if split == "test" else data.train) or split


def split_files(data: Data, folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder laid out like the hub."""
    return sorted(folder.glob(f"{file_of(data, split)}-*.parquet"))


def kept_file(data: Data, split: str, cache: Path) -> Path:
    """Where the decoded examples of a split are kept, if they are."""
    return cache / "data" / f"{_key(data, split)}.safetensors"


def load(data: Data, split: str, cache: Path, expected: str) -> Examples:
    """The examples of a split, in memory unless they are streamed.

    Args:
        expected: the digest they must have.

    Raises:
        UserError: the data is not there, or is not what it was when the job was planned.
    """
    from fipbench.data.batches import Examples

    tensors = _decoded(data, split, cache)
    if (got := tensor_digest(tensors)) != expected:
        raise UserError(f"{name_of(data)}, {split}: digest {got[:12]} is not the expected {expected[:12]}")
    inputs = _streamed(data, split, cache, tensors["encoded"]) if data.streamed else tensors["inputs"]
    return Examples(inputs, tensors["labels"])


def _streamed(data: Data, split: str, cache: Path, sums: Tensor) -> Tensor:
    """What stands for the images of a split that are on disk; `sums`: their SHA-256, shape (n, 32)."""
    from fipbench.data import streamed

    assert data.streamed
    folder = _mirror(data)
    where = f"{folder or data.repo}, {file_of(data, split)}"
    try:
        kept = streamed.places(table(data, split, cache, folder), data.input)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: column '{data.input}' (field 'data.input'): {reason(error)}") from None
    if len(kept) != len(sums):
        raise UserError(f"{where}: holds {len(kept)} images and held {len(sums)} when it was digested; start again")
    return cast("Tensor", streamed.EncodedImages(kept, sums, data.streamed, where))


def without_repeats(train: Examples, test: Examples) -> Tensor:
    """Rows of the training examples whose input is in no test example, in order.

    Inputs in memory are compared as decoded, streamed ones as encoded.
    """
    import torch

    seen = set(_contents(test))
    keep = [content not in seen for content in _contents(train)]
    return torch.tensor(keep).nonzero().squeeze(1)


def _contents(examples: Examples) -> Iterator[bytes]:
    """What tells each input from every other."""
    from fipbench.data.streamed import EncodedImages

    inputs: Any = examples.inputs
    rows = inputs.digests if isinstance(inputs, EncodedImages) else inputs.flatten(1)
    return (row.tobytes() for row in rows.numpy())


def name_of(data: Data) -> str:
    """The data set as a person would name it."""
    return data.repo or f"{data.embedded} (embedded)"


def _mirror(data: Data) -> Path | None:
    """The folder of the local mirror that holds this data set."""
    root = os.environ.get("FIPBENCH_DATA")
    if not root or not data.repo:
        return None
    if not expanded(root).is_dir():
        raise UserError(f"FIPBENCH_DATA={root} is no folder; name the mirror's, or unset it to use the hub")
    folder = expanded(root) / data.repo / data.config
    return folder if folder.is_dir() else None


def _key(data: Data, split: str) -> str:
    """Names the source as it is now: another file, size or time of change is another key."""
    folder = _mirror(data)
    where: Any = [data.repo, data.embedded, data.config, data.revision, data.input, data.label]
    where += [value for value in (data.second, data.test) if value]
    where += ["streamed"] if data.streamed else []  # however they are cut: what is kept does not depend on it
    where += [[name, value] for name, value in (("train", data.train), ("scale", data.scale)) if value]
    where += ["corpus"] if data.is_corpus else []
    if folder is not None:
        files = sorted(folder.glob("*.parquet"))
        where.append([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])
        where.append(str(folder.absolute()))
    return f"{(data.repo or data.embedded).replace('/', '--')}-{split}-{digest(where)[:16]}"


def load_texts(data: Data, split: str, cache: Path, expected: str) -> tuple[list[Text], Tensor]:
    """The texts or pairs of a split and their labels, shape (n,): int64, or float32 for values on a scale; a
    corpus has zeros. Arguments and errors as of `load`."""
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
    folder = _mirror(data)
    return from_table(data, table(data, split, cache, folder), f"{folder or data.repo}, {file_of(data, split)}")


def table(data: Data, split: str, cache: Path, folder: Path | None) -> Any:
    """A split as a `datasets.Dataset`, from a folder laid out like the hub, or from the hub at the pinned revision.

    Raises:
        UserError: it is not there or cannot be read; says which file, and what gets it.
    """
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said once, below
    hub_logging.set_verbosity_error()
    hub = str(cache / "hub")
    # The library reads names as patterns: a folder `data [1]` would be one of its own.
    files = [glob.escape(str(f)) for f in split_files(data, folder, split)] if folder is not None else []
    name = file_of(data, split)
    if folder is not None and not files:
        raise UserError(f"{folder}: holds no {name}-*.parquet; lay it out as the hub repository {data.repo}")
    if folder is None and data.local:
        raise UserError(f"{data.repo}: no hub has it, a mirror alone; {_lay_out(data)}")
    try:
        if folder is not None:
            return datasets.load_dataset("parquet", data_files={name: files}, split=name, cache_dir=hub)
        return datasets.load_dataset(data.repo, data.config or None, revision=data.revision, split=name, cache_dir=hub)
    except Exception as error:
        why = f"cannot be loaded ({reason(error.__cause__ or error)})"
    if folder is not None:
        raise UserError(f"{folder}: {name}-*.parquet {why}; copy them again from where they came")
    way = "it is gated: accept its terms on the hub and log in there" if data.gated else "connect to the hub"
    raise UserError(f"{data.repo}: {why}; {way}, or {_lay_out(data)}")


def _lay_out(data: Data) -> str:
    """What a person without the hub has to do."""
    if root := os.environ.get("FIPBENCH_DATA"):
        return f"lay out {data.repo}/{data.config} in FIPBENCH_DATA={root}, which lacks it"
    return "set FIPBENCH_DATA to a folder laid out like it"
