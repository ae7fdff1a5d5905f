"""The ways through weight space: components against scikit-learn, ways laid in a plane by hand, foreign records."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pytest
from sklearn.decomposition import PCA
from synthetic import continual
from synthetic import continual_small as small

from fipbench.reports import boards, render
from fipbench.reports.tracks import continual as shows
from fipbench.reports.tracks import continual_path
from fipbench.site import plots
from fipbench.spec import sealed

D = 8
TASKS = (1, 2, 2, 3, 3)
WAYS = {
    "naive": [(0, 0), (1, 0), (2, 0), (3, 0.5), (4, 0)],
    "fip": [(0, 0), (0, -1), (1, -1.5), (2, -1.5), (3, -2)],
    "replay": [(0, 0), (0, -1), (1, -1), (1, -1.5), (2, -2)],
    "ewc": [(0, 0), (1, 1), (2, 1), (2, 1.5), (3, 1.5)],
}


def turned(points):
    """A plane laid into D dimensions without stretching it."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 2)))[0]
    return np.array(points, dtype=float) @ axes.T


def curve(points, tasks=TASKS):
    """As the track records it."""
    columns = np.array(points, dtype=float).T.tolist()
    named = {str(k): column for k, column in enumerate(columns, start=1)}
    return {"point": [float(n) for n in range(len(tasks))], "task": [float(task) for task in tasks], **named}


def given(ways, tasks=TASKS):
    """Records of these ways, seed 0 with a sketch and seed 1 without, and a reference that went far."""
    found = []
    for method, points in ways.items():
        memory = 4 if method in ("fip", "replay") else 0
        known = {"sketch": curve(turned(points), tasks)}
        exact = {"weights_walked": 1.25 * math.dist(*[tuple(map(float, points[n])) for n in (0, -1)]), "path": 9.0}
        found.append(continual(method, 0, 0.5, memory=memory, course=known, metrics=exact))
        found.append(continual(method, 1, 0.5, memory=memory, metrics={"weights_walked": 77.0}))
    far = {"sketch": curve(turned([(0, 0), (0, 50), (90, 50), (90, 50), (90, 50)]), tasks)}
    return [*found, continual("joint", 0, 0.9, course=far, role="reference")]


def the_board(records):
    (board,) = boards(records)
    return board


def drawn(board):
    return {drawing.key: drawing for drawing in shows.drawings(board)}.get("path")


def words(drawing):
    return ["".join(e.itertext()).strip() for e in ET.fromstring(drawing.svg).iter() if e.tag.endswith("}text")]


# --------------------------------------------------------------------------------------------- the plane


@pytest.mark.parametrize("shape", [(40, 8), (5, 30), (2, 3)])
def test_components_are_scikit_learn_s(shape):
    points = np.random.default_rng(1).normal(size=shape) * np.linspace(1, 3, shape[1])
    axes, shares = continual_path.principal(points)
    known = PCA(n_components=2).fit(points)
    assert shares == pytest.approx(known.explained_variance_ratio_, abs=1e-12)
    for n in range(2 if shape[0] > 2 else 1):
        sign = np.sign(axes[:, n] @ known.components_[n])
        assert sign * axes[:, n] == pytest.approx(known.components_[n], abs=1e-9)


def test_ways_in_a_plane_are_found_again():
    found = continual_path.plane(the_board(given(WAYS)))
    assert sum(found.shares) == pytest.approx(1, abs=1e-9)
    assert {way.row.label for way in found.ways} == set(WAYS)  # and no reference
    placed = {way.row.label: np.array(way.points) for way in found.ways}
    ours = np.concatenate([placed[name] for name in WAYS])
    hand = np.concatenate([np.array(points) for points in WAYS.values()])
    for a in range(len(hand)):
        assert np.linalg.norm(ours - ours[a], axis=1) == pytest.approx(np.linalg.norm(hand - hand[a], axis=1), abs=1e-9)
    for way in found.ways:
        assert way.points[0] == (0, 0)
        assert way.ends == {1: 0, 2: 2, 3: 4}
        assert way.distance == pytest.approx(np.linalg.norm(WAYS[way.row.label][-1]))
        assert way.exact == pytest.approx(1.25 * way.distance)  # of seed 0, not the mean over seeds
    assert found.off == pytest.approx(0.2)
    assert found.spread == pytest.approx(0.25)  # 1 / sqrt(2 * 8)


def test_the_farthest_point_of_each_axis_is_on_its_positive_side():
    for sign in (1, -1):
        ways = {name: [(sign * x, sign * y) for x, y in points] for name, points in WAYS.items()}
        points = np.concatenate([way.points for way in continual_path.plane(the_board(given(ways))).ways])
        assert (points.max(axis=0) >= -points.min(axis=0)).all()


# -------------------------------------------------------------------------------------------- the figure


def test_the_figure_names_its_ways_and_says_the_numbers():
    board = the_board(given(WAYS))
    drawing = drawn(board)
    found = continual_path.plane(board)
    first, second = (f"{100 * share:.0f} % of the variance" for share in found.shares)
    said = words(drawing)
    assert {f"1st principal component, {first}", f"2nd principal component, {second}", "start"} <= set(said)
    assert {"naive", "fip (4 a task)", "2 other rows"} <= set(said)  # without a course no other is singled out
    assert said.count("2") >= 2 and said.count("3") >= 2  # ends of naive's and fip's tasks
    description = ET.fromstring(drawing.svg).find("{*}desc").text
    naive = next(way for way in found.ways if way.row.label == "naive")
    x, y = naive.points[-1]
    assert f"naive ends at ({x:.3g}, {y:.3g}), 4 from the start, by all weights 5;" in description
    assert "8 numbers" in drawing.caption
    assert "standard deviation of 25 %; here lengths from start to end are off by at most 20 %" in drawing.caption


def test_ends_of_tasks_have_markers_and_points_between_them_none():
    one = drawn(the_board(given({"fip": WAYS["fip"]})))
    uses = [e for e in ET.fromstring(one.svg).iter() if e.tag.endswith("}use") and "#d55e00" in e.get("style", "")]
    assert len(uses) == 4  # after each of three tasks, and in the legend


def test_thin_ways_are_named_while_they_are_few():
    few = words(drawn(the_board(given(WAYS | {"kl": WAYS["ewc"]}))))
    assert {"replay", "ewc", "kl", "3 other rows"} <= set(few)
    many = words(drawn(the_board(given(WAYS | {f"m{n}": WAYS["ewc"] for n in range(5)}))))
    assert "7 other rows" in many and not {"replay", "ewc", "m0"} & set(many)


def test_a_way_that_goes_far_off_leaves_the_picture_to_the_others_and_is_said():
    far = [(40 * y + x, 40 * x) for x, y in WAYS["ewc"]]
    alone, beside = (the_board(given(ways)) for ways in (WAYS, WAYS | {"kl": far}))
    before = {way.row.label: way.points for way in continual_path.plane(alone).ways}
    after = {way.row.label: way.points for way in continual_path.plane(beside).ways}
    for label, points in before.items():
        assert np.array(after[label]) == pytest.approx(np.array(points), abs=1e-9)
    reach = max(math.hypot(x, y) for x, y in far)
    assert f"Not drawn, since they go over 3 times as far as those named: kl ({reach:.2g})." in drawn(beside).caption
    assert "Not drawn" not in drawn(alone).caption
    assert "kl" not in words(drawn(beside)) and "2 other rows" in words(drawn(beside))
    assert words(drawn(beside)) == words(drawn(alone))  # numbers at the axes too


def test_a_number_stands_outside_the_bend():
    aside = continual_path._aside
    corner = [(0.0, 0.0), (2.0, 0.0), (2.0, 5.0)]
    assert aside(corner, 1) == pytest.approx((math.sqrt(0.5), -math.sqrt(0.5)))
    assert aside(corner, 2) == pytest.approx((0, 1)) and aside(corner, 0) == pytest.approx((-1, 0))
    assert aside([(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)], 1) == (0, 1)
    assert aside([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], 1) == (0, 1)


def test_twenty_tasks_have_numbers_at_some():
    rng = np.random.default_rng(2)
    ways = {name: np.vstack([[0, 0], rng.normal(size=(19, 2)).cumsum(axis=0)]).tolist() for name in ("naive", "fip")}
    said = words(drawn(the_board(given(ways, tuple(range(1, 21))))))
    assert said.count("20") == 2 and {"2", "11"} <= set(said)
    assert "3" not in said and "19" not in said


def test_records_without_it_have_no_figure():
    assert drawn(the_board(small())) is None
    assert "path" not in {entry.drawing.key for entry in plots.of(the_board(small()))}
    assert continual_path.path_table(the_board(small())) is None


def test_some_rows_without_it_are_left_out():
    board = the_board([*given(WAYS), continual("lwf", 0, 0.6), continual("si", 0, error=("OSError", "no"))])
    assert {way.row.label for way in continual_path.plane(board).ways} == set(WAYS)


def test_nothing_moved_is_no_picture():
    assert drawn(the_board(given({name: [(0, 0)] * 5 for name in WAYS}))) is None


def changed(record, **series):
    curves = {**record.curves, "sketch": {**record.curves["sketch"], **series}}
    return sealed(msgspec.structs.replace(record, curves=curves))


@pytest.mark.parametrize(
    "series",
    [
        {"1": [0.0]},
        {"1": [0.0, 1.0, 2.0, 3.0, 1e300]},
        {"task": []},
        {"2": []},
        {"9": [0.0, 1.0, 2.0, 3.0, 4.0]},
    ],
)
def test_a_foreign_record_s_odd_sketch_spoils_no_picture(series):
    records = given(WAYS)
    board = the_board([changed(records[0], **series), *records[1:]])
    assert {way.row.label for way in continual_path.plane(board).ways} == set(WAYS) - {"naive"}
    assert drawn(board) is not None


# --------------------------------------------------------------------------------------- table and pages


def test_the_table_says_where_each_way_ends():
    board = the_board(given(WAYS))
    table = continual_path.path_table(board)
    assert [heading for _, heading in table.groups] == ["stores no data", "stores 4 examples a task"]
    rows = {row[1]: row[2:] for row in table.rows}
    assert set(rows) == set(WAYS)
    way = next(way for way in continual_path.plane(board).ways if way.row.label == "fip")
    end = [f"{value:.3f}".replace("-", "−") for value in way.points[-1]]
    # 1 + sqrt(1.25) + 1 + sqrt(1.25) along the drawn way; sqrt(13) from the start, 1.25 times that by all weights.
    assert rows["fip"] == (*end, "4.236", "3.606", "4.507", "9.000")


def test_the_figure_is_on_the_board_and_on_the_site():
    board = the_board(given(WAYS))
    page = render.markdown([board], {board.name: {"split-digits-5.path.svg": drawn(board)}})
    assert "](split-digits-5.path.svg)" in page
    shown = {entry.title: entry for entry in plots.of(board)}["The way through weight space"]
    assert shown.table == continual_path.path_table(board) and shown.drawing == drawn(board)
