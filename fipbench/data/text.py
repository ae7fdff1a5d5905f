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


# What is classified: a text, or a pair of texts.
Text = str | tuple[str, str]


def packed(texts: Sequence[Text], labels: Sequence[float]) -> dict[str, Tensor]:
    """Texts and labels as tensors: `bytes` (UTF-8, one after the other), `offsets` (n + 1), `labels` (n).

    Pairs are kept as 2n texts, the second of each behind its first. Labels are int64, or float32 if they are floats.
    """
    parts = [part.encode() for text in texts for part in parts_of(text)]
    offsets = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    content = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)
    kind = torch.float32 if any(isinstance(label, float) for label in labels) else torch.int64
    return {"bytes": content, "offsets": offsets, "labels": torch.tensor(labels, dtype=kind)}


def unpacked(tensors: Mapping[str, Tensor]) -> list[Text]:
    """The texts or pairs that `packed` was given."""
    content, offsets = tensors["bytes"].numpy().tobytes(), tensors["offsets"].tolist()
    parts = [content[a:b].decode() for a, b in pairwise(offsets)]
    return list(parts) if len(parts) == len(tensors["labels"]) else list(zip(parts[::2], parts[1::2], strict=True))


def parts_of(text: Text) -> tuple[str, ...]:
    """A text alone, or both of a pair."""
    return (text,) if isinstance(text, str) else text


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text, in order."""
    return _WORDS.findall(text.lower())


def vocabulary(texts: Iterable[Text], size: int) -> dict[str, int]:
    """Word -> id of the `size` most frequent words (ties in alphabetical order), ids from 3 on."""
    counts = Counter(word for text in texts for part in parts_of(text) for word in words(part))
    common = sorted(counts, key=lambda word: (-counts[word], word))[:size]
    return {word: number for number, word in enumerate(common, start=_SPECIAL)}


def encode(texts: Sequence[Text], known: Mapping[str, int], length: int, *, truncate: bool, where: str) -> Tensor:
    """Token ids, shape (n, length): the start, the words, padding; unknown words as such.

    A pair is the start and the words of the one, then the start and the words of the other. Where it is cut, words go
    from the end of the longer text, as BERT has it.

    Raises:
        UserError: a text has more tokens than the model reads, and it was not said that it may be cut.
    """
    ids = torch.full((len(texts), length), PAD)
    for row, text in enumerate(texts):
        parts = [[START, *(known.get(word, UNKNOWN) for word in words(part))] for part in parts_of(text)]
        total = sum(map(len, parts))
        if total > length and not truncate:
            raise UserError(
                f"{where}: text {row} has {total} tokens, the model reads {length}; raise model.inputs or set "
                "model.truncate = true"
            )
        found = [token for part in _cut(parts, length) for token in part]
        ids[row, : len(found)] = torch.tensor(found)
    return ids


def _cut(parts: list[list[int]], length: int) -> list[list[int]]:
    """At most `length` tokens in all, taken from the end of the longer part, of two alike from that of the second."""
    if len(parts) == 1:
        return [parts[0][:length]]
    first, second = map(len, parts)
    if first + second > length:
        second = min(second, max(length // 2, length - first))
        first = length - second
    return [parts[0][:first], parts[1][:second]]
