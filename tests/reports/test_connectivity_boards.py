"""Boards of the connectivity track: the lowest accuracy ranks, paths and planes are drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from synthetic import DATA, _record, protocol

from fipbench import reports
from fipbench.reports import boards, render, sentence
from fipbench.reports.tracks import connectivity as shows
from fipbench.spec import Cost, Items, Job

PLACES = [0.0, 0.25, 0.5, 0.75, 1.0]


def path(method, seed=0, lowest=0.5, *, reached=1.0, plane=False, error=None, role="method"):
    """A record whose accuracy falls from 0.96 to `lowest` half-way and rises to 0.98."""
    described = protocol(
        name="digits-connectivity", title="A path", track="connectivity", headline="lowest_accuracy", points=5
    )
    job = Job(
        task="digits-connectivity", task_version=1, task_digest="0123456789ab", track="connectivity", method=method,
        method_version="1+aaa", params={}, seed=seed, suite="quick", device="cpu", data_variant="sklearn", data=DATA,
        label=method, role=role,
    )  # fmt: skip
    values = [0.96, 0.9, lowest, 0.9, 0.98]
    curves = {"accuracy": {"distance": PLACES, "value": values}, "loss": {"distance": PLACES, "value": [0.1] * 5}}
    if plane:
        cells = [(x, y) for y in (0.0, 1.0) for x in (0.0, 1.0)]
        curves["plane"] = {
            "cell": [0.0, 1.0, 2.0, 3.0],
            "x": [x for x, _ in cells],
            "y": [y for _, y in cells],
            "value": [0.2, 0.4, 0.6, 0.8],
        }
        curves["plane/path"] = {"cell": [0.0, 1.0, 2.0], "x": [0.0, 0.5, 1.0], "y": [0.0, 1.0, 0.0]}
    metrics = {
        "lowest_accuracy": lowest, "mean_accuracy": sum(values) / 5, "lowest_accuracy_walked": lowest + 0.01,
        "barrier": 0.25, "end_accuracy/1": 0.96, "end_accuracy/2": 0.98, "reached": reached, "distance_left": 0.125,
        "outputs_left": 0.0, "length": 10.0, "length_ratio": 1.5, "length_metric": 2.0, "networks": 3.0,
        "energy_metric": 4.5, "turning_angle": 11.25, "directional_similarity": 0.75, "sensitive_directions/1": 90.0,
        "sensitive_directions/middle": 95.0, "sensitive_directions/2": 91.0, "marchenko_pastur/middle": 0.625,
    }  # fmt: skip
    items = {"lowest_accuracy": Items(count=597, bits="")}
    measured = {"metrics": metrics, "curves": curves, "items": items} if not error else {}
    provenance = {"time": "2024-01-01T00:00:00.000+00:00", "train_examples": 1200}
    cost = Cost(wall_s=1.0, forward_examples=1000, backward_examples=900, peak_memory_bytes=2**20, parameters_stored=9)
    return _record(job, described, error, cost=cost, provenance=provenance, **measured)


def small():
    found = [path("bezier", seed, value, plane=seed == 0) for seed, value in enumerate([0.9, 0.92, 0.91])]
    found += [path("fip", seed, value, reached=float(seed > 0)) for seed, value in enumerate([0.8, 0.82, 0.81])]
    return [*found, path("linear", 0, 0.3, role="reference")]


@pytest.fixture(scope="module")
def board():
    (found,) = boards(small())
    return found


def test_the_lowest_accuracy_ranks(board):
    assert [(row.rank, row.name) for row in board.rows] == [(1, "bezier"), (2, "fip")]
    table = shows.tables(board)[0]
    assert table.columns == (
        "#", "method", "seeds", "lowest, %", "− fip", "p (Holm)", "mean, %", "barrier", "backward", "wall s",
        "settings",
    )  # fmt: skip
    assert table.rows[0][:5] == ("1", "bezier ◆", "3", "91.00 ± 2.48", "+10.00 ± 0.00")
    assert table.rows[2][:4] == ("ref.", "linear", "1", "30.00")


def test_what_the_path_is_like(board):
    table = shows.tables(board)[1]
    fip = dict(zip(table.columns, table.rows[1], strict=True))
    assert (fip["reached"], fip["distance left"]) == ("2 of 3", "0.125 ± 0.000")
    assert (fip["first network, %"], fip["second, %"]) == ("96.00 ± 0.00", "98.00 ± 0.00")
    assert fip["lowest by itself, %"] == "82.00 ± 2.48"


def test_its_shape_stands_beside_how_sensitive_the_outputs_are(board):
    shape, under_g = shows.tables(board)[2:4]
    for row, spread in ((0, " ± {}"), (2, "")):
        expected = [["1.500", "11.250", "0.750"], ["2.000", "4.500", "90.0", "95.0", "91.0", "0.625"]]
        for table, wanted in zip((shape, under_g), expected, strict=True):
            found = list(table.rows[row][2:])
            assert found == [v + spread.format("0.0" if v[-2] == "." else "0.000") for v in wanted]
    assert shape.columns[2:] == ("length / line", "turning, °", "similarity")
    assert under_g.columns[2:] == ("length", "energy", "sensitive: first", "middle", "second", "MP distance")


def test_the_accuracy_along_the_path_has_intervals(board):
    row = board.row("bezier")
    assert row.metrics["accuracy@0.5"].mean == pytest.approx(0.91)
    assert row.curves["accuracy"] == {"distance": tuple(PLACES), "value": pytest.approx((0.96, 0.9, 0.91, 0.9, 0.98))}


def test_both_figures_are_drawn_and_say_in_words_what_they_show(board):
    along, plane = shows.drawings(board)
    assert (along.key, plane.key) == ("", "plane")
    for drawing in (along, plane):
        ET.fromstring(drawing.svg)
    assert "linear falls to 30.0 % at 0.5 of its length" in along.svg and "bezier falls to 90.0 %" in along.svg
    # A thin line a seed and a thick one for their mean: (3 + 1) + (3 + 1) + (1 + 1).
    lines = [
        e for e in ET.fromstring(along.svg).iter() if e.tag.endswith("path") and "fill: none" in e.get("style", "")
    ]
    assert sum("stroke-width: 0.8" in e.get("style", "") and "opacity: 0.35" in e.get("style", "") for e in lines) == 7
    assert "Planes of bezier." in plane.svg
    (none,) = boards([path("fip", 0, error=("RuntimeError", "no"))])
    assert shows.drawings(none) == []


def test_the_sentence_says_who_leads_and_where_the_line_is(board):
    said = sentence(board)
    assert said.startswith("digits-connectivity, lowest accuracy along the path: bezier leads (91.00 ± 2.48 %); fip is")
    assert "linear (reference) has 30.00 %, the two networks 96.00 % and 98.00 %" in said


def test_all_formats_are_written(tmp_path):
    files = {path.name for path in reports.write(small(), tmp_path, ["md", "csv", "html"])}
    assert {"digits-connectivity.md", "digits-connectivity.svg", "digits-connectivity.plane.svg"} <= files
    assert "digits-connectivity.plane.svg" in (tmp_path / "digits-connectivity.md").read_text()
    assert render.markdown(boards(small())).count("straight line") >= 2
