"""Values on a scale as a distribution, their correlations, and perplexity: by hand, by scipy, and at the ends."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from fipbench import metrics
from fipbench.data.batches import Examples, spread
from fipbench.training import Batch, cross_entropy


def test_a_value_is_shared_out_to_its_neighbours_by_hand():
    """Tai, Socher & Manning (2015), section 3: y = 3.6 is 0.4 of 3 and 0.6 of 4."""
    found = spread(torch.tensor([3.6, 0.0, 5.0, 4.0, 0.25]), 6)
    wanted = [
        [0, 0, 0, 0.4, 0.6, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0],
        [0.75, 0.25, 0, 0, 0, 0],
    ]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-6)


def test_its_mean_is_the_value_and_two_numbers_will_do():
    values = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 5
    _, back = metrics.on_scale(torch.zeros(500, 6), spread(values, 6))
    torch.testing.assert_close(back.float(), values, rtol=0, atol=1e-5)
    assert spread(torch.tensor([0.0, 0.25, 1.0]), 2).tolist() == [[1, 0], [0.75, 0.25], [0, 1]]


def test_the_loss_is_torchs_and_least_at_the_distribution_itself():
    """Cross-entropy with the shares as they are; its least value is their entropy."""
    labels = spread(torch.tensor([3.6, 2.0]), 6)
    best = labels.clamp(min=1e-30).log()
    batch = Batch(best, labels, torch.arange(2))
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6)) / 2
    assert float(cross_entropy(torch.nn.Identity(), batch)) == pytest.approx(entropy, abs=1e-6)
    assert float(cross_entropy(torch.nn.Identity(), batch._replace(inputs=best + torch.rand(2, 6)))) > entropy
    assert Examples(best, labels).batch(torch.tensor([1])).labels.shape == (1, 6)


def test_a_prediction_is_the_expectation_of_the_softmax():
    rng = np.random.default_rng(3)
    outputs, values = rng.normal(size=(400, 6)) * 3, np.round(rng.uniform(0, 5, 400) * 5) / 5
    labels = spread(torch.from_numpy(values), 6)
    expected = scipy.special.softmax(outputs, axis=1) @ np.arange(6)
    predicted, true = metrics.on_scale(torch.from_numpy(outputs), labels)
    assert np.allclose(predicted.numpy(), expected, atol=1e-12) and np.allclose(true.numpy(), values, atol=1e-6)
    r = scipy.stats.pearsonr(expected, values).statistic
    rho = scipy.stats.spearmanr(expected, values).statistic
    found = {name: metrics.SCORES[name](torch.from_numpy(outputs), labels) for name in metrics.SCORES if "ear" in name}
    assert found == {
        "pearson": pytest.approx(r, abs=1e-6),
        "spearman": pytest.approx(rho, abs=1e-9),  # ties of the values are ties still
        "pearson_spearman": pytest.approx((r + rho) / 2, abs=1e-6),
    }


@pytest.mark.parametrize("n", [2, 7, 1500])
def test_one_prediction_for_all_tells_nothing_apart(n):
    """scipy and GLUE's own script have nan here, which no record can hold."""
    outputs = torch.tensor([[0.3, -1.2, 0.1, 2.0, 0.7, 0.2]]).repeat(n, 1)
    labels = spread(torch.linspace(0, 5, n), 6)
    for name in ("pearson", "spearman", "pearson_spearman"):
        assert metrics.SCORES[name](outputs, labels) == 0.0


def test_one_value_for_all_neither():
    outputs = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    assert metrics.pearson_spearman(outputs, spread(torch.full((9,), 3.8), 6)) == 0.0


def test_the_ends_of_the_correlation():
    values = torch.linspace(0, 5, 11)
    right, wrong = (spread(v, 6).clamp(min=1e-30).log() for v in (values, 5 - values))
    labels = spread(values, 6)
    assert metrics.pearson_spearman(right, labels) == pytest.approx(1, abs=1e-6)
    assert metrics.pearson_spearman(wrong, labels) == pytest.approx(-1, abs=1e-6)


# ---------------------------------------------------------------------------------------------- perplexity


def test_perplexity_of_outputs_that_say_nothing_is_the_number_of_words():
    outputs, labels = torch.zeros(10, 500), torch.arange(10)
    assert metrics.perplexity_of(outputs, labels) == pytest.approx(500, rel=1e-6)
    assert metrics.inverse_perplexity(outputs, labels) == pytest.approx(1 / 500, rel=1e-6)


def test_perplexity_is_the_geometric_mean_of_the_inverse_probabilities():
    outputs = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]).log()
    labels = torch.tensor([0, 0])
    assert metrics.perplexity_of(outputs, labels) == pytest.approx(math.sqrt(2 * 10), rel=1e-6)
    assert metrics.inverse_perplexity(outputs, labels) == pytest.approx(math.sqrt(0.5 * 0.1), rel=1e-6)


def test_more_is_better_of_what_ranks():
    labels = torch.arange(4)
    good, bad = 3 * torch.eye(4), torch.eye(4)
    assert metrics.inverse_perplexity(good, labels) > metrics.inverse_perplexity(bad, labels)
    assert metrics.perplexity_of(good, labels) < metrics.perplexity_of(bad, labels)


def test_a_network_that_is_lost_has_a_perplexity_that_a_record_can_hold():
    outputs = torch.tensor([[5000.0, 0.0]])
    assert metrics.perplexity_of(outputs, torch.tensor([1])) == sys.float_info.max
    assert 0 <= metrics.inverse_perplexity(outputs, torch.tensor([1])) < 1e-300
    with pytest.raises(ValueError, match="finite"):
        metrics.perplexity_of(torch.tensor([[math.nan, 0.0]]), torch.tensor([1]))
