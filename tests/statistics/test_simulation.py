"""Coverage, errors and power by simulation: a short, seeded form of `python -m benchmarks.statistics`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fipbench import statistics

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "statistics.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("simulation", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_paired_difference_is_covered_19_times_in_20(simulation):
    found = simulation.share(
        lambda g: simulation.covers(statistics.paired_difference(*simulation.pair(g, 5, 0.7)), 0.7), 4000
    )
    assert 94 <= found <= 96


@pytest.mark.parametrize(
    "p",
    [
        lambda a, b: statistics.paired_difference(a, b).p,
        statistics.sign_flip,
        statistics.wilcoxon,
    ],
    ids=["paired t", "sign flips", "Wilcoxon"],
)
def test_one_true_hypothesis_in_twenty_is_rejected(simulation, p):
    found = simulation.share(lambda g: p(*simulation.pair(g, 10)) < 0.05, 4000)
    assert 4 <= found <= 6


def test_methods_a_margin_apart_are_called_equivalent_one_time_in_twenty(simulation):
    found = simulation.share(
        lambda g: statistics.equivalence(*simulation.pair(g, 10, simulation.MARGIN), margin=simulation.MARGIN) < 0.05,
        4000,
    )
    assert 4 <= found <= 6


def test_the_detectable_difference_is_detected_four_times_in_five(simulation):
    size = statistics.detectable(1.0, 5)
    found = simulation.share(lambda g: statistics.paired_difference(*simulation.pair(g, 5, size)).p < 0.05, 4000)
    assert 78 <= found <= 82


def test_tables_err_no_more_often_than_they_say(simulation):
    holm, ranked, apart = (found for _, found, _, _ in simulation.tables(4000))
    assert 3 <= holm <= 7
    assert ranked >= 95
    assert 2 <= apart <= 7


@pytest.mark.parametrize("case", ["seeds decide", "items decide", "both"])
def test_items_in_seeds_are_covered(simulation, case):
    def covered(generator: np.random.Generator) -> bool:
        sides = simulation.networks(generator, 5, 100, **simulation.CASES[case])
        return simulation.covers(statistics.item_difference(*sides), 0)

    assert 93.5 <= simulation.share(covered, 2000) <= 98


def test_pooled_items_would_not_be(simulation):
    """Why seeds are not pooled: like methods are told apart far more often than one time in twenty."""

    def rejected(generator: np.random.Generator) -> bool:
        sides = simulation.networks(generator, 10, 300, **simulation.CASES["both"])
        pooled = [{0: [np.concatenate([strata[0] for strata in side.values()])]} for side in sides]
        return statistics.mcnemar(*pooled)[0] < 0.05

    assert simulation.share(rejected, 500) > 10
