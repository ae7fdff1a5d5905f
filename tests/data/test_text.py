"""Texts in memory: as they are kept, and as a model reads them."""

import pytest
import torch

from fipbench.data import text
from fipbench.errors import UserError

ODD = ["plain", "", "naïve — café", "日本語\n\ttabs", "a\x00b", "🍜🍜", "  ends in blanks  "]


def test_texts_come_back_as_they_were():
    tensors = text.packed(ODD, [3, 1, 4, 1, 5, 9, 2])
    assert text.unpacked(tensors) == ODD
    assert tensors["labels"].tolist() == [3, 1, 4, 1, 5, 9, 2] and tensors["labels"].dtype == torch.int64


def test_what_is_kept_is_utf_8_and_where_each_text_ends():
    tensors = text.packed(["é", "", "ab"], [0, 1, 0])
    assert tensors["bytes"].tolist() == [0xC3, 0xA9, ord("a"), ord("b")] and tensors["bytes"].dtype == torch.uint8
    assert tensors["offsets"].tolist() == [0, 2, 2, 4]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("The soup was SUPERB!", ["the", "soup", "was", "superb", "!"]),
        ("I didn't, but he'd.", ["i", "didn't", ",", "but", "he'd", "."]),
        ("4 stars;5: no?", ["4", "stars", ";", "5", ":", "no", "?"]),
        ("'quoted' well-known", ["quoted", "well", "known"]),
        ("", []),
    ],
)
def test_words_and_punctuation_marks_in_order(given, found):
    assert text.words(given) == found


def test_a_vocabulary_is_the_most_frequent_words_and_alphabetical_among_equals():
    texts = ["b a b", "c a d", "D c"]  # a, b, c, d: twice each
    assert text.vocabulary(texts, 3) == {"a": 3, "b": 4, "c": 5}
    assert text.vocabulary([*texts, "d"], 2) == {"d": 3, "a": 4}
    assert text.vocabulary(reversed(texts), 3) == text.vocabulary(texts, 3)
    assert set(text.vocabulary(texts, 10)) == {"a", "b", "c", "d"}


def test_ids_are_the_start_the_words_and_padding():
    known = {"the": 3, "soup": 4}
    ids = text.encode(["The soup.", "", "the the"], known, 4, truncate=False, where="here")
    assert ids.tolist() == [[2, 3, 4, 1], [2, 0, 0, 0], [2, 3, 3, 0]]
    assert ids.dtype == torch.int64
    assert (text.PAD, text.UNKNOWN, text.START) == (0, 1, 2)


def test_a_text_longer_than_the_model_is_an_error_that_says_what_helps():
    texts = ["one two three", "one two three four"]  # with the start, 4 and 5 tokens
    with pytest.raises(UserError) as caught:
        text.encode(texts, {}, 4, truncate=False, where="star-reviews (embedded), train")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("star-reviews (embedded), train", "text 1", "5 tokens", "reads 4", "model.inputs", "model.truncate"):
        assert part in message


def test_it_may_be_said_that_texts_are_cut():
    known = {word: number for number, word in enumerate(["one", "two", "three", "four"], start=3)}
    ids = text.encode(["one two three four"], known, 3, truncate=True, where="here")
    assert ids.tolist() == [[2, 3, 4]]
