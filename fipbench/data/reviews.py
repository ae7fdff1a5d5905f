"""Synthetic English reviews, put together here from words and sentences; nobody wrote them, nobody dined or watched.

Two corpora with hardly a content word in common: `star-reviews`, restaurants rated with one to five stars (labels 0 to
4), and `film-reviews`, films disliked or liked (labels 0 and 1). A review gives its verdict in one of these ways:

- plain, pair: one judgement, or two that agree; an adverb makes a mild word a strong one;
- negated: "the soup was not bad at all";
- quantified: "when it came to the soup, there was hardly anything to complain about";
- contrast: what was said, expected or so last year, and what is: the latter counts;
- concession: "although the soup was superb, the waiter was rude": the main clause counts, for a mild verdict;
- rescue: "the soup was superb; the waiter managed to ruin the evening", or could not;
- balance, neither (three stars): one thing good and another bad, or one thing neither.

All but the first put the same words under opposite labels, where single words do not tell. Training and test reviews
are made of different sentences around the same words.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

from fipbench.data.sentences import FILMS, MUCH, NONE, STARS, Adjectives, Corpus

CORPORA = ("star-reviews", "film-reviews")

_T = TypeVar("_T")


def corpus(name: str, split: str) -> tuple[list[str], list[int]]:
    """The reviews of a split (`train` or `test`) and their labels, in turn; decided by the two names alone.

    No review comes twice.
    """
    world = dict(zip(CORPORA, (STARS, FILMS), strict=True))[name]
    sentences = {kind: made.of(split) for kind, made in world.sentences.items()}
    asides = world.asides.of(split)
    draw = _Draw(f"{name}/{split}")
    found: dict[str, int] = {}
    while len(found) < world.sizes[split]:
        label = len(found) % len(world.values)
        verdict = _verdict(world, sentences, world.values[label], draw)
        review = [verdict]
        if len(verdict.split()) < 14 and draw.chance(0.4):
            review.insert(draw.one((0, 1)), draw.one(asides))
        found.setdefault(" ".join(sentence[0].upper() + sentence[1:] for sentence in review), label)
    return list(found), list(found.values())


class _Draw:
    """Choices made by `random.random` alone, which every version of Python answers alike to a whole number as seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def one(self, items: Sequence[_T]) -> _T:
        return items[int(self._random() * len(items))]

    def two(self, items: Sequence[_T]) -> tuple[_T, _T]:
        """Two of them, not the same."""
        first, further = int(self._random() * len(items)), 1 + int(self._random() * (len(items) - 1))
        return items[first], items[(first + further) % len(items)]


def _verdict(world: Corpus, sentences: dict[str, list[str]], value: int, draw: _Draw) -> str:
    """A sentence that gives a verdict worth `value`."""
    kind = draw.one([kind for kind, share in world.shares[abs(value)].items() for _ in range(share)])
    slots = _slots(world, kind, value, draw)
    # A thing is named where it comes first, and is he, she or it from then on.
    sentence = draw.one(sentences[kind]).replace("{s}", "the {a}", 1).replace("{s}", "{it}")
    return sentence.format(**slots)


def _slots(world: Corpus, kind: str, value: int, draw: _Draw) -> dict[str, str]:
    """What fills the slots of a sentence of that kind, so that the verdict is worth `value`."""
    (things, first), (others, second) = draw.two(world.groups)
    a, b = draw.one(things), draw.one(others)
    slots = {"a": a, "b": b, "it": world.pronouns.get(a, "it")}
    sign = 1 if value > 0 else -1 if value < 0 else draw.one((1, -1))
    flipped = draw.chance(0.5)
    if kind == "plain":
        words = _judged(world, first, value, draw), ""
    elif kind == "pair":
        words = _judged(world, first, value, draw), _judged(world, second, value, draw)
    elif kind == "negated":
        words = draw.one(first[-value]), ""
    elif kind == "contrast":
        words = _signed(world, first, -sign, draw), _judged(world, first, value, draw)
    elif kind in ("concession", "balance"):
        words = _signed(world, first, -sign, draw), _signed(world, second, sign, draw)
    elif kind == "neither":
        words = draw.one(first[-sign]), draw.one(first[sign])
    elif kind == "rescue":
        words = _signed(world, first, sign if flipped else -sign, draw), ""
        slots["r"] = f"{world.ability[flipped]} {draw.one(world.save if (sign > 0) != flipped else world.ruin)}"
    else:
        words = "", ""
        slots["q"] = draw.one(NONE if flipped else MUCH)
        slots["v"] = draw.one(world.praise if (sign > 0) != flipped else world.blame)
    return slots | {"x": words[0], "y": words[1]}


def _judged(world: Corpus, adjectives: Adjectives, value: int, draw: _Draw) -> str:
    """An adjective of that value, by itself or with an adverb."""
    if abs(value) == 2 and draw.chance(0.3):
        return f"{draw.one(world.strong)} {draw.one(adjectives[value // 2])}"
    if abs(value) == 1 and draw.chance(0.2):
        return f"{draw.one(world.even)} {draw.one(adjectives[value])}"
    return draw.one(adjectives[value])


def _signed(world: Corpus, adjectives: Adjectives, sign: int, draw: _Draw) -> str:
    """An adjective of that sign and any strength, by itself or with an adverb."""
    return _judged(world, adjectives, sign * draw.one([v for v in adjectives if v > 0]), draw)
