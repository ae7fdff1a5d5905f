"""The shape of a path and the metric along it, against what is known by hand and Jacobians by reverse mode."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from connectivity_lab import Lab
from scipy import stats
from torch import nn

from fipbench import models
from fipbench.tracks import connectivity_scores
from fipbench.training import Examples


def rows_of_jacobian(network, inputs):
    """Of 2 sqrt(softmax), over the root of the number of examples, in double precision."""
    network = copy.deepcopy(network).double()
    rows = []
    for value in (2 * network(inputs.double()).softmax(1).sqrt()).flatten():
        slope = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
        rows.append(torch.cat([s.flatten() for s in slope]) / math.sqrt(len(inputs)))
    return torch.stack(rows)


def test_batch_norm_is_measured_with_statistics_of_its_own_place():
    """Weights that make activations twice as large at one place: with stale statistics all would be wrong there."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    inputs = torch.rand(500, 2)
    with torch.no_grad():
        network[0].weight.mul_(50)
    connectivity_scores._take_statistics(network.eval(), [network[1]], Examples(inputs, torch.zeros(500).long()))
    hidden = network[0](inputs)
    torch.testing.assert_close(network[1].running_mean, hidden.mean(0), rtol=1e-4, atol=1e-4)
    # The mean over two parts of 250 of their unbiased variances.
    variances = torch.stack([part.var(0) for part in hidden.split(250)]).mean(0)
    torch.testing.assert_close(network[1].running_var, variances, rtol=1e-4, atol=1e-4)
    assert not network[1].training


def test_the_metric_has_the_statistics_of_each_segments_middle():
    """Against Jacobians by reverse mode of networks made there by hand; with one end's statistics it differs."""
    torch.manual_seed(1)
    ends = [nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval() for _ in range(2)]
    with torch.no_grad():
        ends[1][0].weight.mul_(9)
    known = Examples(torch.rand(500, 2), torch.zeros(500).long())
    for end in ends:
        connectivity_scores._take_statistics(end, [end[1]], known)
    course = connectivity_scores.Course([SimpleNamespace(network=end) for end in ends], known, known)
    points = [torch.lerp(course.first, course.second, t) for t in (0.0, 0.4, 1.0)]

    def by_hand(anew):
        length = squares = 0.0
        for a, b in pairwise(points):
            network = copy.deepcopy(ends[0])
            torch.nn.utils.vector_to_parameters((a + b) / 2, network.parameters())
            if anew:
                connectivity_scores._take_statistics(network, [network[1]], known)
            squared = float((rows_of_jacobian(network, course.inputs) @ (b - a).double()).square().sum())
            length, squares = length + math.sqrt(squared), squares + squared
        return length, 2 * squares  # two segments of half the time each: (2 speed)^2 / 2

    assert course.under_metric(points) == pytest.approx(by_hand(anew=True), rel=1e-3)
    assert abs(by_hand(anew=False)[0] / by_hand(anew=True)[0] - 1) > 0.1


@pytest.fixture(scope="module")
def bent(tmp_path_factory):
    """The outcome of a path with a right angle half-way, its three networks and the examples of its metric."""
    lab, kept = Lab(tmp_path_factory.mktemp("bent")), []

    def path(first, second, trial):
        middle = copy.deepcopy(second)
        with torch.no_grad():
            line = [b - a for a, b in zip(first.parameters(), second.parameters(), strict=True)]
            noise = [torch.randn(part.shape, generator=trial.generator) for part in line]
            inner = [sum(float((x * y).sum()) for x, y in zip(line, other, strict=True)) for other in (noise, line)]
            across = [x - inner[0] / inner[1] * y for x, y in zip(noise, line, strict=True)]
            scale = math.sqrt(inner[1]) / math.sqrt(sum(float(x.square().sum()) for x in across)) / 2
            for p, a, x, y in zip(middle.parameters(), first.parameters(), line, across, strict=True):
                p.copy_(a + x / 2 + scale * y)
        for network in (first, middle, second):
            kept.append(models.build(lab.task.model, 0))
            kept[-1].load_state_dict(network.state_dict())
        drawn = torch.randperm(len(trial.train.labels), generator=torch.Generator().manual_seed(0))
        kept.append(trial.train.batch(drawn[:64]).inputs)
        return [first, middle, second]

    return lab.run(path), kept[:3], kept[3]


def test_a_right_angle_half_way_is_measured_as_by_hand(bent):
    """Nine places, one of them the corner: one angle of 90 degrees among seven."""
    outcome, networks, _ = bent
    found = outcome.metrics
    assert found["turning_angle"] == pytest.approx(90 / 7, rel=1e-3)
    assert found["length_ratio"] == pytest.approx(math.sqrt(2), rel=1e-4)
    a, middle, b = (torch.nn.utils.parameters_to_vector(n.parameters()).detach().double().numpy() for n in networks)
    places = [a + (middle - a) * t / 4 for t in range(5)] + [middle + (b - middle) * t / 4 for t in range(1, 5)]
    unit = np.stack([place / np.linalg.norm(place) for place in places])
    assert found["directional_similarity"] == pytest.approx((unit @ unit.T).mean(), rel=1e-5)


def test_the_metric_along_the_path_is_that_of_dense_jacobians(bent):
    outcome, networks, inputs = bent
    a, middle, b = (torch.nn.utils.parameters_to_vector(n.parameters()).detach().double() for n in networks)
    speeds, probe = [], copy.deepcopy(networks[0])
    for one, other in ((a, middle), (middle, b)):
        for t in range(4):
            torch.nn.utils.vector_to_parameters((one + (other - one) * (t + 0.5) / 4).float(), probe.parameters())
            speeds.append(float((rows_of_jacobian(probe, inputs) @ (other - one) / 4).square().sum()))
    assert outcome.metrics["length_metric"] == pytest.approx(sum(map(math.sqrt, speeds)), rel=1e-4)
    assert outcome.metrics["energy_metric"] == pytest.approx(8 * sum(speeds), rel=1e-4)


def test_the_spectrum_of_both_ends_and_the_middle_is_that_of_dense_jacobians(bent):
    """16 examples of 10 outputs; sum of squares of 2 sqrt(p) is 4, so that each example has a null direction."""
    outcome, networks, inputs = bent
    for place, network in zip(("1", "middle", "2"), networks, strict=True):
        rows = rows_of_jacobian(network, inputs[:16])
        values = np.linalg.eigvalsh((rows @ rows.T).numpy()).clip(min=0)
        assert outcome.metrics[f"sensitive_directions/{place}"] == (values >= 1e-3).sum()
        assert 20 < outcome.metrics[f"rank/{place}"] <= 16 * 9
        # The law of independent entries, by a sample of it.
        drawn = np.random.default_rng(0).normal(size=(len(rows), rows.shape[1])) / math.sqrt(rows.shape[1])
        law = np.linalg.eigvalsh(drawn @ drawn.T) * values.mean()
        expected = stats.ks_2samp(values, law).statistic
        assert outcome.metrics[f"marchenko_pastur/{place}"] == pytest.approx(expected, abs=0.05)


def test_many_outputs_take_fewer_examples():
    """Of 100 outputs two examples: at most 2 x 99 directions; of 2 outputs sixteen."""
    for outputs, rows in ((100, 198), (2, 16)):
        torch.manual_seed(0)
        network = nn.Linear(300, outputs).eval()
        known = Examples(torch.rand(80, 300), torch.zeros(80).long())
        course = connectivity_scores.Course([SimpleNamespace(network=network)] * 2, known, known)
        assert course.spectrum(course.first)["rank"] == rows
