"""Scores of GLUE against scikit-learn's and scipy's own, and where those divide nothing by nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn import metrics as sklearn_metrics

from fipbench import metrics
from fipbench.spec import MEASURED, SCORES


def drawn(seed, n, classes):
    """Outputs that are right more often than not, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    outputs = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(outputs), torch.from_numpy(labels)


def outputs_of(predicted, classes=2):
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).double()


# ------------------------------------------------------------------------------------------ classification


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_matthews_correlation_is_scikit_learns(seed, classes):
    outputs, labels = drawn(seed, 97, classes)
    expected = sklearn_metrics.matthews_corrcoef(labels.numpy(), outputs.argmax(1).numpy())
    assert metrics.matthews_correlation(outputs, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_f1_is_scikit_learns(seed):
    outputs, labels = drawn(seed, 97, 2)
    expected = sklearn_metrics.f1_score(labels.numpy(), outputs.argmax(1).numpy())
    assert metrics.f1(outputs, labels) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    """TP 3, FP 1, FN 2, TN 4: phi = (12 - 2) / sqrt(4 * 5 * 5 * 6), F1 = 6 / 9."""
    labels = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    outputs = outputs_of([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert metrics.matthews_correlation(outputs, labels) == pytest.approx(10 / math.sqrt(600))
    assert metrics.f1(outputs, labels) == pytest.approx(6 / 9)
    # Classes the other way round: the one is the same, the other is not.
    assert metrics.matthews_correlation(outputs.flip(1), 1 - labels) == pytest.approx(10 / math.sqrt(600))
    assert metrics.f1(outputs.flip(1), 1 - labels) == pytest.approx(8 / 11)


def test_the_ends_of_the_scale():
    labels = torch.tensor([0, 1, 1, 0])
    right, wrong = outputs_of([0, 1, 1, 0]), outputs_of([1, 0, 0, 1])
    assert metrics.matthews_correlation(right, labels) == pytest.approx(1)
    assert metrics.matthews_correlation(wrong, labels) == pytest.approx(-1)
    assert (metrics.f1(right, labels), metrics.f1(wrong, labels)) == (1, 0)


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        ([1, 1, 1], [1, 0, 1], (0.0, 0.8)),  # one class is predicted: nothing is told apart
        ([0, 0, 0], [1, 0, 1], (0.0, 0.0)),
        ([1, 0, 1], [1, 1, 1], (0.0, 0.8)),  # one class is there
        ([0, 0, 0], [0, 0, 0], (0.0, 0.0)),  # the positive class is neither there nor predicted
        ([1], [1], (0.0, 1.0)),  # one example
    ],
)
def test_nothing_divided_by_nothing_is_nothing(predicted, labels, expected):
    outputs, truth = outputs_of(predicted), torch.tensor(labels)
    found = metrics.matthews_correlation(outputs, truth), metrics.f1(outputs, truth)
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predicted))


def test_f1_of_three_classes_is_refused():
    with pytest.raises(ValueError, match=r"two classes.*got 3"):
        metrics.f1(outputs_of([0, 1, 2], 3), torch.tensor([0, 1, 2]))


def test_every_name_that_a_task_may_give_is_a_score():
    assert set(metrics.SCORES) == set(MEASURED) and set(MEASURED) >= set(SCORES)
    outputs, labels = drawn(9, 50, 2)
    assert metrics.SCORES["accuracy"](outputs, labels) == metrics.accuracy(outputs, labels)


# ------------------------------------------------------------------------------------------- correlations


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed, ties):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=60)
    y = np.exp(x) + rng.normal(size=60)
    if ties:  # as STS-B has them: scores in fifths
        x, y = np.round(x * 2), np.round(np.clip(y, 0, 5) * 5) / 5
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    assert metrics.pearson(a, b) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics.spearman(a, b) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert metrics.spearman(a, b) != pytest.approx(metrics.pearson(a, b), abs=1e-3)


def test_ranks_know_order_alone():
    x = torch.tensor([3.0, -1.0, 2.0, 10.0])
    assert metrics.spearman(x, x.exp()) == pytest.approx(1)
    assert metrics.spearman(x, -(x**3)) == pytest.approx(-1)
    assert metrics.pearson(x, x.exp()) < 0.95


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_no_scale_is_too_small_or_too_large(scale):
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    y = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    expected = scipy.stats.pearsonr(x.numpy(), y.numpy()).statistic
    assert metrics.pearson(x * scale, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("score", [metrics.pearson, metrics.spearman])
def test_a_constant_has_no_correlation(score):
    x = torch.tensor([0.1, 0.2, 0.3])
    assert score(torch.full((3,), 0.1), x) == 0.0 == score(x, torch.full((3,), 0.1))


@pytest.mark.parametrize("score", [metrics.pearson, metrics.spearman])
@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, math.nan], [1.0, 2.0]), ([1, 2.0], [math.inf, 1])],
)
def test_what_has_none_is_refused(score, x, y):
    with pytest.raises(ValueError, match="needs"):
        score(torch.tensor(x), torch.tensor(y))
