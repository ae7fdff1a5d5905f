"""The synthetic reviews: made alike everywhere, fairly divided, and told apart by composition, not by single words."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import msgspec
import pytest

from fipbench import data
from fipbench.data import reviews
from fipbench.data.bag_of_words import tfidf_accuracy
from fipbench.data.sentences import FILMS, MUCH, NONE, STARS
from fipbench.data.text import words
from fipbench.spec import Data

ROOT = Path(__file__).parents[2]
WORLDS = {"star-reviews": STARS, "film-reviews": FILMS}
SPLITS = ("train", "test")

corpus = cache(reviews.corpus)


def alternatives(phrases):
    """A pattern for any of the phrases, the longest first."""
    return "(?:" + "|".join(map(re.escape, sorted(phrases, key=len, reverse=True))) + ")"


def values(world):
    """What each adjective is worth."""
    return {word: value for _, by_value in world.groups for value, found in by_value.items() for word in found}


# --- the same everywhere


def test_they_are_what_the_tasks_pin(tmp_path):
    for name in reviews.CORPORA:
        source = msgspec.convert(tomllib.loads((ROOT / "tasks" / "data" / f"{name}.toml").read_text()), Data)
        assert source.is_text
        (label,) = source.variants
        assert "synthetic" in source.variants[label].note
        found, digests = data.identify(source, tmp_path)
        assert found == label
        for split in SPLITS:
            texts, labels = data.load_texts(source, split, tmp_path, digests[split])
            assert (texts, labels.tolist()) == reviews.corpus(name, split)


def test_another_process_with_other_hashes_makes_the_same_and_needs_no_torch():
    code = (
        "import hashlib, json, random, sys; random.seed(5); from fipbench.data import reviews\n"
        "made = [reviews.corpus(name, split) for name in reviews.CORPORA for split in ('train', 'test')]\n"
        "assert 'torch' not in sys.modules\n"
        "print(hashlib.sha256(json.dumps(made).encode()).hexdigest())\n"
    )
    made = [reviews.corpus(name, split) for name in reviews.CORPORA for split in SPLITS]
    expected = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == expected, done.stderr


def test_the_caller_s_random_numbers_are_left_alone():
    random.seed(3)
    state = random.getstate()
    reviews.corpus("film-reviews", "test")
    assert random.getstate() == state


# --- fairly divided


@pytest.mark.parametrize("name", reviews.CORPORA)
def test_labels_are_balanced_and_no_review_comes_twice(name):
    seen = Counter()
    for split in SPLITS:
        texts, labels = corpus(name, split)
        assert len(texts) == WORLDS[name].sizes[split] == len(labels)
        counts = Counter(labels)
        assert set(counts) == set(range(len(WORLDS[name].values))) and len(set(counts.values())) == 1
        seen.update(texts)
    assert max(seen.values()) == 1


def skeletons(world, texts):
    """The sentences of the texts with everything blanked that fills a slot."""
    things = alternatives(thing for names, _ in world.groups for thing in names)
    judgements = rf"(?:{alternatives(('', *world.strong, *world.even))} )?{alternatives(values(world))}"
    verbs = alternatives((*world.praise, *world.blame))
    deeds = f"{alternatives(world.ability)} {alternatives((*world.ruin, *world.save))}"
    found = set()
    for text in texts:
        for sentence in text.lower().removesuffix(".").split(". "):
            for slot, pattern in (
                ("{r}", deeds),
                ("{q}", f"{alternatives((*NONE, *MUCH))}(?= to )"),
                ("{v}", f"(?<=to ){verbs}"),
                ("{x}", judgements),
                ("{a}", f"(?<=the ){things}"),
                ("{it}", "(?:it|he|she)"),
            ):
                sentence = re.sub(rf"\b{pattern}\b", slot, sentence)
            found.add(sentence)
    return found


@pytest.mark.parametrize("name", reviews.CORPORA)
def test_no_sentence_of_the_test_split_is_one_of_training_with_other_words(name):
    train, test = (skeletons(WORLDS[name], corpus(name, split)[0]) for split in SPLITS)
    assert len(train) > 200 and len(test) > 50
    assert not train & test
    # The blanks are all there is: far fewer skeletons than reviews.
    assert len(train) < len(corpus(name, "train")[0]) / 3


@pytest.mark.parametrize("name", reviews.CORPORA)
def test_every_word_of_the_test_split_is_met_in_training(name):
    train, test = (Counter(word for text in corpus(name, split)[0] for word in words(text)) for split in SPLITS)
    assert set(test) <= set(train)
    assert min(train[word] for word in test) >= 10


def test_the_two_corpora_praise_and_blame_in_other_words():
    assert not values(STARS).keys() & values(FILMS).keys()
    things = [{thing for names, _ in world.groups for thing in names} for world in (STARS, FILMS)]
    assert not things[0] & things[1]
    assert not {*STARS.praise, *STARS.blame, *STARS.ruin, *STARS.save} & {
        *FILMS.praise,
        *FILMS.blame,
        *FILMS.ruin,
        *FILMS.save,
    }


@pytest.mark.parametrize("name", reviews.CORPORA)
def test_texts_are_short(name):
    lengths = [len(words(text)) for split in SPLITS for text in corpus(name, split)[0]]
    assert min(lengths) >= 5 and max(lengths) < 24


@pytest.mark.parametrize("name", reviews.CORPORA)
def test_sentences_read_as_sentences(name):
    for split in SPLITS:
        for text in corpus(name, split)[0]:
            assert not set("{}") & set(text) and "  " not in text
            sentences = text.split(". ")
            assert len(sentences) <= 2 and text.endswith(".")
            assert all(sentence[0].isupper() for sentence in sentences)


# --- the labels, by a reader that knows English and nothing of how the reviews are made

HEARSAY = ("had expected", "had told us", "was told", "last year", "guidebook", "used to be", "everyone says")
HEARSAY += ("trailer promises", "in the novel", "poster claims", "in the first part")
DENIALS = ("not", "nobody", "never", "by no means", "hardly", "anything but", "cannot be said", "no critic", "far from")
GOOD_DEEDS = {*STARS.save, *FILMS.save}


def judgements(worth, part):
    """What each judgement is worth, in order."""
    found = []
    tokens = words(part)
    for before, word in zip(["", *tokens], tokens, strict=False):
        if word in worth:
            lifted = 2 if before in ("incredibly", "extremely", "unbelievably") else 1
            found.append(lifted * worth[word])
    return found


def sign(number):
    return (number > 0) - (number < 0)


def read(world, text):
    """The value of a review: a number as `values` gives."""
    worth = values(world)
    text = text.lower()
    if deed := re.search(r"(managed to|manages to|could not|cannot) (\w+) (?:our|the)", text):
        return sign((1 if "manage" in deed[1] else -1) * (1 if deed[2] in GOOD_DEEDS else -1))
    if amount := re.search(r"(plenty|a lot|nothing|hardly anything) to (.*)", text):
        return (1 if amount[1] in ("plenty", "a lot") else -1) * (1 if amount[2].startswith(world.praise) else -1)
    if " neither " in text or " either" in text:
        return 0
    if conceded := re.search(r"(?:although|even if) ([^,.]*)", text):
        return sign(judgements(worth, text.replace(conceded[0], ""))[0])
    if ", but " in text:
        return sign(judgements(worth, text.split(", but ")[1])[0])
    if any(word in text for word in HEARSAY):
        (now,) = [part for part in re.split(r"; |, and ", text) if not any(word in part for word in HEARSAY)]
        return judgements(worth, now)[0]
    found = judgements(worth, text)
    if any(re.search(rf"\b{denial}\b", text) for denial in DENIALS):
        (only,) = found
        return -only
    if len(set(map(sign, found))) == 2:
        return 0
    (agreed,) = set(found)
    return agreed


@pytest.mark.parametrize("name", reviews.CORPORA)
@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_what_a_reader_makes_of_the_texts(name, split):
    world = WORLDS[name]
    for text, label in zip(*corpus(name, split), strict=True):
        assert read(world, text) == world.values[label], text


# --- single words do not suffice


def test_a_bag_of_words_is_bound_to_fail_where_composition_decides():
    stars = tfidf_accuracy(*corpus("star-reviews", "train"), *corpus("star-reviews", "test"))
    films = tfidf_accuracy(*corpus("film-reviews", "train"), *corpus("film-reviews", "test"))
    assert 0.65 < stars < 0.78
    assert 0.75 < films < 0.88


def test_the_bag_counts_words_whatever_their_order():
    texts, labels = corpus("film-reviews", "train")
    test, truth = corpus("film-reviews", "test")
    shuffle = random.Random(0).shuffle

    def mixed(text):
        found = words(text)
        shuffle(found)
        return " ".join(found)

    as_they_are = tfidf_accuracy(texts, labels, test, truth)
    assert tfidf_accuracy([mixed(t) for t in texts], labels, [mixed(t) for t in test], truth) == as_they_are


def test_the_bag_knows_our_words_and_no_others():
    # scikit-learn's own tokenizer leaves out marks and single letters.
    texts, labels = ["we ate !", "we ate ?"] * 10, [1, 0] * 10
    assert tfidf_accuracy(texts, labels, ["they ate!", "they ate?", "ALL ATE?"], [1, 0, 0]) == 1.0
    # Exclusive or: no word by itself says anything.
    texts, labels = ["not bad", "so bad", "not good", "so good"] * 10, [1, 0, 0, 1] * 10
    assert tfidf_accuracy(texts, labels, texts, labels) < 0.8
