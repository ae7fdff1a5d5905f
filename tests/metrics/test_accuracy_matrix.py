"""Metrics of continual learning against matrices worked by hand, and against their equations in NumPy."""

import math

import numpy as np
import pytest
import torch

from fipbench.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer, perplexity

# Task 1 is best right after it was learned; task 2 was better before (0.85) than right after (0.8).
HAND = [
    [0.9, 0.85, 0.1],
    [0.6, 0.80, 0.3],
    [0.3, 0.50, 0.7],
]
MATRIX_METRICS = (average_accuracy, forgetting, backward_transfer, lambda R: forward_transfer(R, [0.1] * 3))


def test_average_accuracy_by_hand():
    assert average_accuracy(HAND) == average_accuracy(HAND, "final") == pytest.approx((0.3 + 0.5 + 0.7) / 3)
    assert average_accuracy(HAND, "anytime") == pytest.approx((0.9 + 0.7 + 0.5) / 3)


def test_forgetting_by_hand():
    assert forgetting(HAND) == forgetting(HAND, "max") == pytest.approx((0.6 + 0.35) / 2)
    assert forgetting(HAND, "last-learned") == pytest.approx((0.6 + 0.3) / 2)


def test_forgetting_is_negative_where_later_tasks_help():
    assert forgetting([[0.5, 0.0], [0.8, 0.9]]) == pytest.approx(-0.3)


def test_the_last_row_is_not_among_the_best():
    # Were the end counted among the earlier networks, forgetting could never be negative.
    assert forgetting([[0.5, 0.0, 0.0], [0.4, 0.9, 0.0], [0.9, 0.9, 0.9]]) == pytest.approx((-0.4 + 0.0) / 2)


def test_backward_transfer_by_hand():
    assert backward_transfer(HAND) == pytest.approx((-0.6 - 0.3) / 2)


def test_forward_transfer_by_hand():
    assert forward_transfer(HAND, [0.7, 0.05, 0.2]) == pytest.approx((0.80 + 0.1) / 2)


def test_the_baseline_of_the_first_task_does_not_matter():
    assert forward_transfer(HAND, [0.0, 0.1, 0.1]) == forward_transfer(HAND, [1.0, 0.1, 0.1])


@pytest.mark.parametrize("tasks", [2, 3, 7])
def test_equations_in_numpy(tasks):
    rng = np.random.default_rng(tasks)
    R, b = rng.random((tasks, tasks)), rng.random(tasks)
    T = tasks - 1
    assert average_accuracy(R) == pytest.approx(R[-1].mean())
    assert average_accuracy(R, "anytime") == pytest.approx(np.mean([R[i, : i + 1].mean() for i in range(tasks)]))
    assert backward_transfer(R) == pytest.approx((R[-1] - np.diag(R))[:-1].sum() / T)
    assert forgetting(R, "last-learned") == pytest.approx(-backward_transfer(R))
    assert forgetting(R) == pytest.approx((R[:-1].max(axis=0) - R[-1])[:-1].mean())
    assert forward_transfer(R, b) == pytest.approx((np.diag(R, k=1) - b[1:]).mean())


def test_one_task_has_an_accuracy_and_nothing_to_forget():
    assert average_accuracy([[0.4]]) == average_accuracy([[0.4]], "anytime") == 0.4
    for metric in (forgetting, backward_transfer, lambda R: forward_transfer(R, [0.1])):
        with pytest.raises(ValueError, match="needs 2 or more tasks, got 1"):
            metric([[0.4]])


def test_arrays_and_tensors_are_matrices_too():
    for R in (np.array(HAND), torch.tensor(HAND, dtype=torch.float64), tuple(map(tuple, HAND))):
        assert [metric(R) for metric in MATRIX_METRICS] == [metric(HAND) for metric in MATRIX_METRICS]
        assert isinstance(average_accuracy(R), float)


@pytest.mark.parametrize("metric", MATRIX_METRICS)
def test_matrices_that_are_none(metric):
    with pytest.raises(ValueError, match="must be square"):
        metric([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match="must be square"):
        metric([[0.1, 0.2, 0.3], [0.1, 0.2], [0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match="or more tasks, got 0"):
        metric([])
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            metric([[0.1, 0.2, 0.3], [0.1, 0.2, bad], [0.1, 0.2, 0.3]])


def test_unknown_variants():
    with pytest.raises(ValueError, match="unknown variant 'mean': expected final or anytime"):
        average_accuracy(HAND, "mean")
    with pytest.raises(ValueError, match="unknown variant 'first': expected max or last-learned"):
        forgetting(HAND, "first")


@pytest.mark.parametrize("baseline", [[0.1, 0.1], [0.1] * 4, [0.1, math.nan, 0.1], []])
def test_baselines_that_do_not_fit(baseline):
    with pytest.raises(ValueError, match="baseline needs 3 finite accuracies"):
        forward_transfer(HAND, baseline)


def test_perplexity_is_of_the_mean():
    assert perplexity([math.log(4), math.log(16)]) == pytest.approx(8)
    assert perplexity([math.log(50)] * 1000) == pytest.approx(50)  # a uniform guess among 50 words
    assert perplexity(torch.tensor([0.0, 0.0])) == 1
    assert perplexity([1e6]) == math.inf


def test_perplexity_equals_torchs_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 9, generator=generator), torch.randint(0, 9, (40,), generator=generator)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = torch.nn.functional.cross_entropy(logits, labels).exp()
    assert perplexity(losses.tolist()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("losses", [[], [0.1, math.nan], [math.inf]])
def test_losses_without_a_perplexity(losses):
    with pytest.raises(ValueError, match="perplexity needs one or more finite"):
        perplexity(losses)
