"""The words and sentences of the synthetic reviews; `fipbench.data.reviews` puts them together.

A sentence is a pattern with one or two clauses in it. In a clause, {a} and {b} are things to judge, {x} and {y} what is
said of them, {q} a quantity, {v} a verb of praise or blame, {r} what one thing does to the evening. {s} is {a} at its
first mention and a pronoun at the second; in a contrast, {x} is hearsay or past and {y} what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

SPLITS = ("train", "test")

# Adjectives by value, from -2 (dreadful) to 2 (superb); a corpus may do without some.
Adjectives = dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Sentences:
    """Every combination of a pattern with a first clause ({0}) and, if there are any, a second clause ({1})."""

    patterns: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...] = ("",)

    def of(self, split: str) -> list[str]:
        """The combinations of a split. No other split has them, but each of their parts."""
        parts = product(*(enumerate(part) for part in (self.patterns, self.first, self.second)))
        return [
            pattern.format(first, second)
            for (i, pattern), (j, first), (k, second) in parts
            if ((i + j + k) % 4 == 3) == (split == "test")
        ]


@dataclass(frozen=True)
class Corpus:
    """What there is to review, and how.

    Attributes:
        sizes: number of reviews, by split.
        values: by label, what the verdict is worth.
        groups: things, and the adjectives that suit them.
        pronouns: of the things that are not `it`.
        strong, even: adverbs that make a mild adjective a strong one; adverbs that do not.
        praise, blame: verbs for what can be good or bad.
        ruin, save: what one thing can do to the evening or the film; `ability`: that it did, that it did not.
        shares: by size of the value, the kinds of verdict and how often each is drawn.
        sentences: by kind of verdict.
        asides: sentences beside the point.
    """

    sizes: dict[str, int]
    values: tuple[int, ...]
    groups: tuple[tuple[tuple[str, ...], Adjectives], ...]
    pronouns: dict[str, str]
    strong: tuple[str, ...]
    even: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]
    ruin: tuple[str, ...]
    save: tuple[str, ...]
    ability: tuple[str, str]
    shares: dict[int, dict[str, int]]
    sentences: dict[str, Sentences]
    asides: Sentences


# Before a verb of praise or blame: nothing to praise is blame.
NONE = ("hardly anything", "nothing")
MUCH = ("plenty", "a lot")


def _of_the_other(clauses: tuple[str, ...]) -> tuple[str, ...]:
    """The clauses, as said of the second thing."""
    return tuple(clause.replace("{a}", "{b}").replace("{x}", "{y}") for clause in clauses)


_TWO = ("{0} and {1}.", "{0}; {1}.", "{0}, and {1}.")
_AGAINST = ("{0}; {1}.", "{1}; {0}.", "{0}, and {1}.")
_CONCESSION = (
    "{0}, but {1}.",
    "although {0}, {1}.",
    "{1}, although {0}.",
    "even if {0}, {1}.",
    "{1}, even if {0}.",
)
_EITHER_ORDER = ("{0}; {1}.", "{1}; {0}.", "{0}, and {1}.")

_SO_SO = ("average", "ordinary", "unremarkable", "middling")
_DINED = (
    "the {a} was {x}",
    "I found the {a} {x}",
    "we thought that the {a} was {x}",
    "the {a} turned out to be {x}",
    "everyone called the {a} {x}",
    "my husband found the {a} {x}",
    "the {a} struck us as {x}",
    "we agreed that the {a} was {x}",
)
_LEADS = ("{0}.", "that evening {0}.", "on our first visit {0}.", "to be honest, {0}.", "once again {0}.")

STARS = Corpus(
    sizes={"train": 4000, "test": 800},
    values=(-2, -1, 0, 1, 2),
    groups=(
        (
            ("soup", "risotto", "steak", "salad", "pasta", "curry", "salmon", "pizza", "lasagne", "cheesecake"),
            {
                2: ("superb", "delicious", "exquisite", "heavenly"),
                1: ("tasty", "fresh", "flavourful", "good"),
                0: _SO_SO,
                -1: ("bland", "stale", "greasy", "bad"),
                -2: ("inedible", "disgusting", "revolting", "vile"),
            },
        ),
        (
            ("waiter", "waitress", "host", "hostess", "barman", "service"),
            {
                2: ("wonderful", "outstanding", "exceptional", "excellent"),
                1: ("friendly", "polite", "attentive", "helpful"),
                0: _SO_SO,
                -1: ("slow", "rude", "careless", "forgetful"),
                -2: ("appalling", "dreadful", "insulting", "atrocious"),
            },
        ),
        (
            ("terrace", "dining room", "garden", "bar", "lounge", "balcony"),
            {
                2: ("magnificent", "gorgeous", "glorious", "enchanting"),
                1: ("charming", "cosy", "pleasant", "inviting"),
                0: _SO_SO,
                -1: ("noisy", "cramped", "gloomy", "shabby"),
                -2: ("filthy", "horrible", "unbearable", "ghastly"),
            },
        ),
    ),
    pronouns={"waiter": "he", "waitress": "she", "host": "he", "hostess": "she", "barman": "he"},
    strong=("incredibly", "extremely", "unbelievably"),
    even=("rather", "fairly", "quite"),
    praise=("praise", "enjoy"),
    blame=("complain about", "criticise"),
    ruin=("ruin", "spoil"),
    save=("save", "rescue"),
    ability=("managed to", "could not"),
    shares={
        2: {"plain": 3, "pair": 2, "contrast": 5},
        1: {"plain": 4, "negated": 5, "quantified": 2, "contrast": 3, "concession": 4, "rescue": 2},
        0: {"plain": 3, "neither": 3, "balance": 4},
    },
    sentences={
        "plain": Sentences(_LEADS, _DINED),
        "pair": Sentences(_TWO, _DINED, _of_the_other(_DINED)),
        "negated": Sentences(
            _LEADS,
            (
                "the {a} was not {x}",
                "the {a} was not {x} at all",
                "I would not call the {a} {x}",
                "nobody could say that the {a} was {x}",
                "the {a} was never {x}",
                "we did not find the {a} {x}",
                "the {a} was by no means {x}",
                "the {a} was hardly {x}",
                "nobody found the {a} {x}",
                "it cannot be said that the {a} was {x}",
                "the {a} was anything but {x}",
            ),
        ),
        "quantified": Sentences(
            ("{0}, {1}.", "{1}, {0}."),
            ("when it came to the {a}", "where the {a} was concerned"),
            ("there was {q} to {v}", "I had {q} to {v}", "we found {q} to {v}", "my husband saw {q} to {v}"),
        ),
        "contrast": Sentences(
            _AGAINST,
            (
                "I had expected that {s} would be {x}",
                "a friend had told us that {s} was {x}",
                "last year {s} was {x}",
                "the guidebook says that {s} is {x}",
                "{s} used to be {x}",
                "everyone says that {s} is {x}",
            ),
            (
                "this time {s} was {y}",
                "now {s} was {y}",
                "we found that {s} was {y}",
                "in truth {s} was {y}",
                "{s} turned out to be {y}",
            ),
        ),
        "concession": Sentences(_CONCESSION, _DINED, _of_the_other(_DINED)),
        "rescue": Sentences(
            _EITHER_ORDER, _DINED, ("the {b} {r} the evening", "the {b} {r} our dinner", "the {b} {r} the whole visit")
        ),
        "neither": Sentences(
            _LEADS,
            (
                "the {a} was neither {x} nor {y}",
                "I found the {a} neither {x} nor {y}",
                "we thought that the {a} was neither {x} nor {y}",
                "the {a} was not {x}, and not {y} either",
                "the {a} struck us as neither {x} nor {y}",
            ),
        ),
        "balance": Sentences(_TWO, _DINED, _of_the_other(_DINED)),
    },
    asides=Sentences(
        ("{0} {1}.",),
        ("my sister", "my brother", "a colleague", "our neighbour"),
        ("had booked a table", "came by bus", "had a voucher", "came late"),
    ),
)

_SAW = (
    "the {a} is {x}",
    "I find the {a} {x}",
    "critics call the {a} {x}",
    "the {a} proves to be {x}",
    "I think that the {a} is {x}",
    "one must admit that the {a} is {x}",
    "any viewer will find the {a} {x}",
)
_REMARKS = ("{0}.", "from the first minute {0}.", "all things considered, {0}.", "in short, {0}.", "to my mind {0}.")

FILMS = Corpus(
    sizes={"train": 3200, "test": 800},
    values=(-1, 1),
    groups=(
        (
            ("plot", "script", "story", "dialogue", "ending", "opening"),
            {
                1: ("gripping", "clever", "witty", "original", "moving"),
                -1: ("dull", "tedious", "predictable", "contrived", "muddled"),
            },
        ),
        (
            ("leading man", "heroine", "villain", "director", "cast"),
            {
                1: ("convincing", "captivating", "brilliant", "charismatic", "inspired"),
                -1: ("wooden", "lifeless", "irritating", "clueless", "lazy"),
            },
        ),
        (
            ("camera work", "editing", "soundtrack", "animation", "lighting"),
            {
                1: ("elegant", "inventive", "breathtaking", "stylish", "subtle"),
                -1: ("clumsy", "amateurish", "sloppy", "ugly", "overblown"),
            },
        ),
    ),
    pronouns={"leading man": "he", "heroine": "she", "villain": "he", "director": "she"},
    strong=(),
    even=("really", "truly", "thoroughly"),
    praise=("applaud", "marvel at"),
    blame=("yawn at", "groan about"),
    ruin=("sink", "wreck"),
    save=("lift", "redeem"),
    ability=("manages to", "cannot"),
    shares={1: {"plain": 11, "pair": 5, "negated": 2, "quantified": 2, "contrast": 1, "concession": 1, "rescue": 1}},
    sentences={
        "plain": Sentences(_REMARKS, _SAW),
        "pair": Sentences(_TWO, _SAW, _of_the_other(_SAW)),
        "negated": Sentences(
            _REMARKS,
            (
                "the {a} is not {x}",
                "the {a} is not {x} at all",
                "I would not describe the {a} as {x}",
                "nobody will find the {a} {x}",
                "the {a} is never {x}",
                "no critic can claim that the {a} is {x}",
                "I do not think that the {a} is {x}",
                "the {a} is far from {x}",
                "the {a} is hardly {x}",
            ),
        ),
        "quantified": Sentences(
            ("{0}, {1}.", "{1}, {0}."),
            ("when it comes to the {a}", "as far as the {a} goes", "where the {a} is concerned"),
            ("there is {q} to {v}", "I see {q} to {v}", "critics find {q} to {v}", "it gives us {q} to {v}"),
        ),
        "contrast": Sentences(
            _AGAINST,
            (
                "the trailer promises that {s} is {x}",
                "in the novel {s} was {x}",
                "I was told that {s} is {x}",
                "the poster claims that {s} is {x}",
                "in the first part {s} was {x}",
            ),
            ("here {s} is {y}", "in truth {s} is {y}", "{s} proves to be {y}", "on screen {s} is {y}"),
        ),
        "concession": Sentences(_CONCESSION, _SAW, _of_the_other(_SAW)),
        "rescue": Sentences(
            _EITHER_ORDER, _SAW, ("the {b} {r} the film", "the {b} {r} the whole picture", "the {b} {r} the last hour")
        ),
    },
    asides=Sentences(
        ("{0} {1}.",),
        ("I", "a student", "a stranger", "my aunt"),
        ("bought popcorn", "saw a late showing", "left early", "coughed twice"),
    ),
)
