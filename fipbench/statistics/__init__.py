"""Statistics over seeds: intervals, tests, corrections, power, ranks. docs/statistics.md gives formulas and reasons.

Values are plain numbers in the unit of the metric (accuracies are fractions); results are in the same unit. Tests
take seed -> value of two methods and use the seeds that both have. scipy is imported where it is used.
"""

from fipbench.statistics.items import ItemDifference, bootstrap_items, item_difference, mcnemar
from fipbench.statistics.power import detectable, equivalence, power
from fipbench.statistics.seeds import (
    LEVEL,
    Difference,
    Interval,
    interval,
    mean,
    paired_difference,
    sign_flip,
    wilcoxon,
)
from fipbench.statistics.tables import Rank, Ranking, holm, pareto_front, ranking

__all__ = [
    "LEVEL",
    "Difference",
    "Interval",
    "ItemDifference",
    "Rank",
    "Ranking",
    "bootstrap_items",
    "detectable",
    "equivalence",
    "holm",
    "interval",
    "item_difference",
    "mcnemar",
    "mean",
    "paired_difference",
    "pareto_front",
    "power",
    "ranking",
    "sign_flip",
    "wilcoxon",
]
