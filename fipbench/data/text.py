"""Texts in memory: bytes and offsets as they are kept, word vocabularies, token ids as a model reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fipbench.errors import UserError

# The first ids of every vocabulary: padding, a word that is not in it, the start of a text.
PAD, UNKNOWN, START = 0, 1, 2
_SPECIAL = 3
_WORDS = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[.,;:!?]")


def packed(texts: Sequence[str], labels: Sequence[int]) -> dict[str, Tensor]:
    """Texts and labels as tensors: `bytes` (UTF-8, one after the other), `offsets` (n + 1), `labels` (n)."""
    parts = [text.encode() for text in texts]
    offsets = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    content = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)
    return {"bytes": content, "offsets": offsets, "labels": torch.tensor(labels, dtype=torch.int64)}


def unpacked(tensors: Mapping[str, Tensor]) -> list[str]:
    """The texts that `packed` was given."""
    content, offsets = tensors["bytes"].numpy().tobytes(), tensors["offsets"].tolist()
    return [content[a:b].decode() for a, b in pairwise(offsets)]


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text, in order."""
    return _WORDS.findall(text.lower())


def vocabulary(texts: Iterable[str], size: int) -> dict[str, int]:
    """Word -> id of the `size` most frequent words (ties in alphabetical order), ids from 3 on."""
    counts = Counter(word for text in texts for word in words(text))
    common = sorted(counts, key=lambda word: (-counts[word], word))[:size]
    return {word: number for number, word in enumerate(common, start=_SPECIAL)}


def encode(texts: Sequence[str], known: Mapping[str, int], length: int, *, truncate: bool, where: str) -> Tensor:
    """Token ids, shape (n, length): the start, the words, padding; unknown words as such.

    Raises:
        UserError: a text has more tokens than the model reads, and it was not said that it may be cut.
    """
    ids = torch.full((len(texts), length), PAD)
    for row, text in enumerate(texts):
        found = [START, *(known.get(word, UNKNOWN) for word in words(text))]
        if len(found) > length and not truncate:
            raise UserError(
                f"{where}: text {row} has {len(found)} tokens, the model reads {length}; raise model.inputs or set "
                "model.truncate = true"
            )
        ids[row, : min(len(found), length)] = torch.tensor(found[:length])
    return ids
