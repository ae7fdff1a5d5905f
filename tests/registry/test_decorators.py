"""What a decorator takes, and what it refuses of a method when its file is read."""

from __future__ import annotations

import pytest

from fipbench import methods
from fipbench.methods import Choice, LogUniform

TRACKS = [getattr(methods, name) for name in methods.TRACKS]


@pytest.mark.parametrize("mark", TRACKS, ids=methods.TRACKS)
def test_without_parentheses_it_is_as_with_empty_ones(mark):
    def mine(*, learning_rate: float = 0.1):
        """Says what it does."""

    bare, called = mark(mine).fipbench, mark()(mine).fipbench
    assert bare == called
    assert (bare.track, bare.version, bare.role, bare.settings) == (mark.__name__, "1", "method", "default")
    assert (bare.search, bare.defaults, bare.summary) == ({}, {"learning_rate": 0.1}, "Says what it does.")


@pytest.mark.parametrize("mark", TRACKS, ids=methods.TRACKS)
def test_what_it_is_told_is_what_it_leaves(mark):
    laws = {"rule": Choice(("sgd", "adam"))}

    @mark(version="3", role="reference", settings="published", search=laws)
    def mine(*, rule: str = "sgd"):
        pass

    found = mine.fipbench
    assert (found.track, found.version, found.role, found.settings) == (mark.__name__, "3", "reference", "published")
    assert found.search == laws


def positional(rate=0.1):
    pass


def without_default(*, rate):
    pass


def of_no_plain_type(*, rates=(0.1,)):
    pass


def plain(*, rate=0.1):
    pass


@pytest.mark.parametrize(
    ("factory", "search", "words"),
    [
        (positional, {}, "positional: parameter 'rate' must be keyword-only and have a default"),
        (without_default, {}, "without_default: parameter 'rate' must be keyword-only and have a default"),
        (of_no_plain_type, {}, "of_no_plain_type: default of 'rates' must be a bool, int, float or str"),
        (plain, {"rat": LogUniform(0.01, 1)}, "plain: search names 'rat', which is no parameter"),
        (plain, {"rate": LogUniform(0.2, 1)}, "plain: default rate=0.1 is outside its search"),
    ],
)
def test_what_cannot_be_set_or_searched_is_refused(factory, search, words):
    with pytest.raises(TypeError) as caught:
        methods.sparsity(search=search)(factory)
    assert str(caught.value) == words
