"""Simulation: do intervals cover and do tests err as often as they say? Figures of docs/statistics.md.

Every row is a share of simulated experiments in per cent, and where it should lie. The draws are seeded.

python -m benchmarks.statistics [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator

import numpy as np

from fipbench import statistics

ROUNDS = 10_000
MARGIN = 1.0
Row = tuple[str, float, float, float]  # what, measured, lowest and highest that it should be; in per cent


def share(trial: Callable[[np.random.Generator], bool], rounds: int, seed: int = 0) -> float:
    """How often a trial is true, in per cent."""
    generator = np.random.default_rng(seed)
    return 100 * sum(bool(trial(generator)) for _ in range(rounds)) / rounds


def by_seed(values: np.ndarray) -> dict[int, float]:
    """Values as results of the seeds 0, 1, ..."""
    return dict(enumerate(values.tolist()))


def pair(generator: np.random.Generator, n: int, shift: float = 0.0) -> tuple[dict[int, float], dict[int, float]]:
    """Two methods that share much of what a seed decides; their differences have mean `shift` and sd 1."""
    common = generator.normal(0, 3, n)
    return by_seed(common + shift + generator.normal(0, 0.8, n)), by_seed(common + generator.normal(0, 0.6, n))


def covers(found: statistics.Interval | statistics.Difference | statistics.ItemDifference, truth: float) -> bool:
    """Whether mean ± half holds the truth."""
    return abs(found.mean - truth) <= found.half


# ------------------------------------------------------------------------------------------ one value a seed


def intervals(rounds: int) -> Iterator[Row]:
    """Coverage of the intervals over seeds: normal values, and accuracies on a test set of 597 items."""

    def accuracies(generator: np.random.Generator) -> np.ndarray:
        return generator.binomial(597, generator.uniform(0.955, 0.975, 5)) / 597

    for n in (3, 5, 10):
        found = share(lambda g, n=n: covers(statistics.interval(g.normal(3, 2, n)), 3), rounds)
        yield f"interval: coverage, normal, n = {n}", found, 94, 96
    found = share(lambda g: covers(statistics.interval(accuracies(g)), 0.965), rounds)
    yield "interval: coverage, accuracies on 597 items, n = 5", found, 94, 96
    found = share(lambda g: covers(statistics.paired_difference(*pair(g, 5, 0.7)), 0.7), rounds)
    yield "paired difference: coverage, n = 5", found, 94, 96


def errors(rounds: int) -> Iterator[Row]:
    """How often tests of true hypotheses have p < 0.05."""
    for n in (3, 5, 10):
        found = share(lambda g, n=n: statistics.paired_difference(*pair(g, n)).p < 0.05, rounds)
        yield f"paired t: type-I error, n = {n}", found, 4, 6
    for n, low in ((6, 2), (10, 4)):  # p are multiples of 2 / 2^n: the nearest below 5 % is 3.1 % for n = 6
        found = share(lambda g, n=n: statistics.sign_flip(*pair(g, n)) < 0.05, rounds)
        yield f"sign flips: type-I error, n = {n}", found, low, 6
        found = share(lambda g, n=n: statistics.wilcoxon(*pair(g, n)) < 0.05, rounds)
        yield f"Wilcoxon: type-I error, n = {n}", found, low, 6
    found = share(lambda g: statistics.sign_flip(*pair(g, 25), draws=2000) < 0.05, rounds // 10)
    yield "sign flips: type-I error, n = 25, drawn signs", found, 3, 7
    found = share(lambda g: statistics.equivalence(*pair(g, 10, MARGIN), margin=MARGIN) < 0.05, rounds)
    yield "TOST: type-I error at the margin, n = 10", found, 4, 6


def powers(rounds: int) -> Iterator[Row]:
    """How often differences are found, against the prediction."""
    for n in (3, 5, 10):
        size = statistics.detectable(1.0, n)
        found = share(lambda g, n=n, size=size: statistics.paired_difference(*pair(g, n, size)).p < 0.05, rounds)
        yield f"paired t: power at the minimum detectable difference, n = {n}", found, 79, 81
    predicted = 100 * statistics.power(0.8, 1.0, 10)
    found = share(lambda g: statistics.paired_difference(*pair(g, 10, 0.8)).p < 0.05, rounds)
    yield f"paired t: power, predicted {predicted:.1f} %, n = 10", found, predicted - 1.5, predicted + 1.5


# ---------------------------------------------------------------------------------------------- whole tables


def tables(rounds: int) -> Iterator[Row]:
    """Chance of any false statement about a table of six methods over 10 seeds."""
    means = np.array([0.0, 0.3, 0.6, 0.9, 2.0, 4.0])  # from indistinguishable to beyond doubt

    def table(generator: np.random.Generator, true: np.ndarray) -> list[dict[int, float]]:
        values = generator.normal(0, 3, 10) + true[:, None] + generator.normal(0, 0.7, (6, 10))
        return [by_seed(row) for row in values]

    def any_rejected(generator: np.random.Generator) -> bool:
        first, *others = table(generator, np.zeros(6))
        return min(statistics.holm([statistics.paired_difference(row, first).p for row in others])) < 0.05

    def all_ranks_right(generator: np.random.Generator) -> bool:
        order = generator.permutation(6)
        true = [1 + int((means > means[i]).sum()) for i in order]
        (ranks,) = statistics.ranking([table(generator, means[order])]).ranks
        return all(rank.first <= place <= rank.last for rank, place in zip(ranks, true, strict=True))

    def told_apart(generator: np.random.Generator) -> bool:
        (ranks,) = statistics.ranking([table(generator, np.zeros(6))]).ranks
        return any((rank.first, rank.last) != (1, 6) for rank in ranks)

    yield "Holm: any false rejection, 5 comparisons with one method", share(any_rejected, rounds // 5), 3, 6
    yield "ranks: all true ranks within their ranges, 6 methods", share(all_ranks_right, rounds // 5), 94, 100
    yield "ranks: any of 6 like methods told apart", share(told_apart, rounds // 5), 2, 6


# ----------------------------------------------------------------------------------------------------- items


def networks(
    generator: np.random.Generator, seeds: int, items: int, of_seed: float, of_item: float
) -> tuple[dict[int, list[np.ndarray]], dict[int, list[np.ndarray]]]:
    """Two methods of equal expected accuracy: an item in seven is hard, and each is right with a chance of its own.

    Args:
        of_seed: how far a seed moves the chance of the first method; `of_item`: how far an item does. At most.
    """
    easy = np.where(generator.random(items) < 1 / 7, 0.5, 0.8)
    moved = generator.uniform(-of_seed, of_seed, (seeds, 1)) + generator.uniform(-of_item, of_item, items)
    first = generator.random((seeds, items)) < easy + moved
    second = generator.random((seeds, items)) < easy
    return {s: [first[s]] for s in range(seeds)}, {s: [second[s]] for s in range(seeds)}


CASES = {
    "seeds decide": {"of_seed": 0.1, "of_item": 0.0},
    "items decide": {"of_seed": 0.0, "of_item": 0.1},
    "both": {"of_seed": 0.07, "of_item": 0.1},
}


def items(rounds: int) -> Iterator[Row]:
    """Coverage for other seeds and another test set; what each test says of two methods that are alike."""

    def pooled(generator: np.random.Generator, case: dict[str, float]) -> bool:
        a, b = networks(generator, 10, 300, **case)
        whole = [{0: [np.concatenate([of_seed[0] for of_seed in side.values()])]} for side in (a, b)]
        return statistics.mcnemar(*whole)[0] < 0.05

    def bootstrap(generator: np.random.Generator, seeds: int, case: dict[str, float]) -> bool:
        low, high = statistics.bootstrap_items(*networks(generator, seeds, 300, **case), draws=200)
        return low <= 0 <= high

    for name, case in CASES.items():
        for seeds in (5, 10):
            found = share(
                lambda g, seeds=seeds, case=case: covers(
                    statistics.item_difference(*networks(g, seeds, 300, **case)), 0
                ),
                rounds // 4,
            )
            yield f"items in seeds: coverage, {name}, {seeds} seeds of 300 items", found, 94, 98
    for name, case in CASES.items():
        found = share(lambda g, case=case: bootstrap(g, 5, case), rounds // 50)
        yield f"bootstrap over seeds and items: coverage, {name}, 5 seeds", found, 0, 100
    found = share(lambda g: statistics.mcnemar(*networks(g, 1, 300, 0, 0))[0] < 0.05, rounds // 2)
    yield "McNemar, one seed: type-I error of networks alike", found, 2, 6
    found = share(lambda g: pooled(g, CASES["both"]), rounds // 10)
    yield "McNemar, 10 seeds pooled: type-I error (why not)", found, 0, 100


def rows(rounds: int = ROUNDS) -> Iterator[Row]:
    """All rows."""
    for part in (intervals, errors, powers, tables, items):
        yield from part(rounds)


def main() -> int:
    """Print the table (as JSON with `--json`); 1 where a figure is not where it should be."""
    parser = argparse.ArgumentParser(description="coverage, type-I error and power by simulation")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="simulated experiments a row (default: %(default)s)")
    options = parser.parse_args()
    found = []
    for what, measured, low, high in rows(options.rounds):
        met = low <= measured <= high
        found.append({"what": what, "measured": measured, "low": low, "high": high, "met": met})
        if not options.json:
            wanted = "reported" if (low, high) == (0, 100) else f"{low:.4g} to {high:.4g}: {'met' if met else 'MISSED'}"
            print(f"  {what:<66} {measured:6.2f} %   {wanted}", flush=True)
    if options.json:
        print(json.dumps({"title": "statistics by simulation", "rounds": options.rounds, "rows": found}))
    sys.stdout.flush()
    return int(not all(row["met"] for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
