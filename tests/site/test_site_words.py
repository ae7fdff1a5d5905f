"""What pages say in words: metrics by name, no column of nothing, numbers on an axis that differ."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from synthetic import robustness_suite

from fipbench import reports
from fipbench.site import names, plots, rendering
from fipbench.spec import sealed


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("robust@0.1", "worst case at ε 0.1"),
        ("matthews_correlation@0.5", "matthews correlation at sparsity 0.5"),
        ("average_accuracy/class", "average accuracy, class-incremental"),
        ("lowest_accuracy", "lowest accuracy along the path"),
        ("area", "area under the score over sparsity"),
        ("some_other", "some other"),
    ],
)
def test_metrics_have_names(metric, words):
    assert names.metric(metric) == words


def ticks(factor):
    """The numbers below the figure of score against cost, where the dearest method costs `factor` of the cheapest."""
    labels = sorted({record.job.label for record in robustness_suite(2)})

    def costing(record):
        share = labels.index(record.job.label) / (len(labels) - 1)
        spent = round(120_000 * factor**share)
        cost = msgspec.structs.replace(record.cost, forward_examples=spent, backward_examples=spent)
        return sealed(msgspec.structs.replace(record, cost=cost))

    [board] = reports.boards(map(costing, robustness_suite(2)))
    root = ET.fromstring(plots.cost(board).drawing.svg)
    said = ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]
    return [words for words in said if re.fullmatch(r"[\d.]+ [kM]", words)]


@pytest.mark.parametrize("factor", [1.0, 1.001, 1.5, 3.0])
def test_numbers_on_the_axis_of_cost_differ(factor):
    found = ticks(factor)
    assert len(found) == len(set(found)) >= 2


def test_fip_is_not_compared_with_itself_in_a_column_of_nothing(folder):
    def heads(method):
        table = (folder / "methods" / f"{method}.html").read_text("utf-8").split("Where it stands")[1]
        return re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", table.split("</thead>")[0])

    assert {"− fip", "p (Holm)"} <= set(heads("gradual")) and "score" in heads("fip")
    assert not {"− fip", "p (Holm)"} & set(heads("fip"))


def test_a_title_keeps_its_letters_and_breaks_at_no_hyphen_of_a_short_word():
    assert rendering.whole("MLP 784-400-400-10 <b>") == 'MLP <span class="whole">784-400-400-10</span> &lt;b&gt;'
    assert rendering.whole("a-very-long-word-with-hyphens") == "a-very-long-word-with-hyphens"
