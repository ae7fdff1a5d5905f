"""Metrics against NumPy."""

import base64

import numpy as np
import pytest
import torch

from fipbench import metrics

trapezoid = getattr(np, "trapezoid", None) or np.trapz


def scored(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 10, generator=generator), torch.randint(0, 10, (n,), generator=generator)


def test_accuracy_by_hand():
    outputs = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    assert metrics.accuracy(outputs, torch.tensor([1, 0, 0, 1])) == 0.5
    assert metrics.accuracy(outputs, torch.tensor([1, 0, 1, 0])) == 1.0


def test_accuracy_equals_numpy():
    outputs, labels = scored(997)
    assert metrics.accuracy(outputs, labels) == (outputs.numpy().argmax(1) == labels.numpy()).mean()


def test_accuracy_of_a_third_has_all_its_digits():
    outputs = torch.eye(3)
    assert metrics.accuracy(outputs, torch.tensor([0, 0, 0])) == 1 / 3


@pytest.mark.parametrize("n", [1, 7, 8, 9, 597, 1000])
def test_packed_correct_unpacks_to_what_was_correct(n):
    outputs, labels = scored(n)
    labels[::3] = outputs[::3].argmax(1)
    items = metrics.packed_correct(outputs, labels)
    assert items.count == n
    raw = np.frombuffer(base64.b64decode(items.bits), dtype=np.uint8)
    assert len(raw) == -(-n // 8)
    bits = np.unpackbits(raw, count=items.count)
    np.testing.assert_array_equal(bits.astype(bool), outputs.numpy().argmax(1) == labels.numpy())
    assert bits.mean() == pytest.approx(metrics.accuracy(outputs, labels))


def test_packed_correct_is_most_significant_first():
    outputs, labels = torch.eye(9), torch.zeros(9, dtype=torch.int64)
    assert base64.b64decode(metrics.packed_correct(outputs, labels).bits) == b"\x80\x00"


@pytest.mark.parametrize("sparsities", [[0.8, 0.9, 0.95, 0.98, 0.99], [0.2, 0.67, 0.89, 0.994], [0.5, 0.51]])
def test_area_equals_numpys_trapezoids(sparsities):
    scores = np.random.default_rng(0).random(len(sparsities)).tolist()
    x = -np.log10(1 - np.array(sparsities))
    assert metrics.area_under_sparsity(sparsities, scores) == pytest.approx(trapezoid(scores, x) / (x[-1] - x[0]))


def test_area_by_hand():
    # 90, 99 and 99.9 % lie at 1, 2 and 3.
    assert metrics.area_under_sparsity([0.9, 0.99, 0.999], [1.0, 0.5, 0.0]) == pytest.approx(0.5)
    assert metrics.area_under_sparsity([0.9, 0.99, 0.999], [0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert metrics.area_under_sparsity([0.9], [0.3]) == metrics.area_under_sparsity([0.0], [0.3]) == 0.3
    assert metrics.area_under_sparsity([0.3, 0.8, 0.95], [0.7] * 3) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("sparsities", "scores", "message"),
    [
        ([], [], "at least one"),
        ([0.5], [0.1, 0.2], "as many scores"),
        ([0.9, 0.5], [0.1, 0.2], "must increase"),
        ([0.5, 0.5], [0.1, 0.2], "must increase"),
    ],
)
def test_area_errors(sparsities, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.area_under_sparsity(sparsities, scores)
