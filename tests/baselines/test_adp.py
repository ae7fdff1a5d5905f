"""ADP's terms against the paper's formulas in numpy, and its training against the loss written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fipbench.baselines.adp import entropy, log_volume

from fipbench import models, registry
from fipbench.spec import Model, Recipe
from fipbench.tracks.robustness import Trial
from fipbench.training import Meter, stream

NETWORK = Model(name="mlp", inputs=(1, 8, 8), hidden=(50, 20), outputs=10, mean=0.305, std=0.376)
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)


def make(**params):
    return registry.load_factory(registry.find_methods("robustness")["adp"])(**params)


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def entropy_by_numpy(logits):
    """H(F) = -sum_i F_i log F_i with F the mean of the members' predictions (the paper's section 3.2)."""
    mean = softmax(logits).mean(0)
    return -(mean * np.log(mean)).sum(-1)


def log_volume_by_numpy(logits, labels):
    """log det(M^T M), M's columns the normalised predictions without the label's entry (equation 4); by eigenvalues."""
    p, found = softmax(logits), []
    for n, y in enumerate(labels):
        columns = [np.delete(one[n], y) for one in p]
        m = np.stack([c / np.linalg.norm(c) for c in columns], axis=1)
        found.append(np.log(np.linalg.eigvalsh(m.T @ m + 1e-6 * np.eye(len(p)))).sum())
    return np.array(found)


@pytest.fixture
def case():
    draw = np.random.default_rng(0)
    return draw.normal(size=(3, 12, 6)) * 2, draw.integers(0, 6, 12)


def test_the_entropy_is_that_of_the_mean_prediction(case):
    logits, _ = case
    got = entropy(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(got, entropy_by_numpy(logits), rtol=1e-6)
    assert got.max() <= np.log(6)
    assert float(entropy(torch.zeros(3, 1, 6))) == pytest.approx(np.log(6), rel=1e-6)


def test_the_volume_is_the_papers_determinant(case):
    logits, labels = case
    got = log_volume(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(got, log_volume_by_numpy(logits, labels), rtol=1e-6)
    assert (got <= 1e-5).all(), "unit columns span at most one"


def test_worked_volumes():
    """Predictions without the label's that are orthogonal span one; that are equal, nothing but the offset."""
    sure = 40.0
    logits = torch.zeros(2, 1, 4)
    logits[0, 0, 1], logits[1, 0, 2] = sure, sure
    assert float(log_volume(logits, torch.tensor([0]))) == pytest.approx(0, abs=1e-4)
    alike = torch.zeros(2, 1, 4)
    assert float(log_volume(alike, torch.tensor([0]))) == pytest.approx(np.log(2e-6), abs=1e-3)


def test_the_label_has_no_part_in_the_volume(case):
    logits, labels = case
    moved = logits.copy()
    for n, y in enumerate(labels):
        moved[:, n, y] += np.array([5.0, -3.0, 1.0])
    a, b = (log_volume(torch.from_numpy(v), torch.from_numpy(labels)) for v in (logits, moved))
    torch.testing.assert_close(a, b)


def test_sure_networks_have_a_volume_and_a_gradient():
    """Their other outputs are of the order of 1e-40, whose squares are zero in any precision of torch."""
    logits = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    low = log_volume(logits, labels)
    logits[:, torch.arange(5), labels] += 95.0
    logits.requires_grad_()
    found = log_volume(logits, labels)
    torch.testing.assert_close(found, low, atol=1e-3, rtol=1e-3)
    found.sum().backward()
    assert bool(logits.grad.isfinite().all()) and float(logits.grad.abs().max()) > 0.01


def test_gradients_by_finite_differences(case):
    logits, labels = torch.from_numpy(case[0]), torch.from_numpy(case[1])
    assert torch.autograd.gradcheck(lambda z: entropy(z).sum(), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda z: log_volume(z, labels).sum(), logits.requires_grad_())


def by_hand(networks, batches, steps, rate, alpha, beta):
    """SGD with momentum on sum_k CE(F_k) - alpha H(F) - beta log(ED), means over the batch."""
    weights = [p for network in networks for p in network.parameters()]
    velocity = [torch.zeros_like(p) for p in weights]
    for _ in range(steps):
        batch = next(batches)
        p = torch.stack([network(batch.inputs).double().softmax(1) for network in networks])
        rows = torch.arange(len(batch.labels))
        accuracy = -p[:, rows, batch.labels].log().mean(1).sum()
        mean = p.mean(0)
        h = -(mean * mean.log()).sum(1).mean()
        volumes = []
        for n, y in enumerate(batch.labels.tolist()):
            others = torch.cat([p[:, n, :y], p[:, n, y + 1 :]], 1)
            m = others / others.norm(dim=1, keepdim=True)
            volumes.append(torch.linalg.eigvalsh(m @ m.T + 1e-6 * torch.eye(len(m), dtype=m.dtype)).log().sum())
        loss = accuracy - alpha * h - beta * torch.stack(volumes).mean()
        for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, weights), strict=True):
            v.mul_(0.9).add_(g)
            w.data.sub_(rate * v)
    return networks


def test_training_walks_down_the_papers_loss(digits):
    meter = Meter(2 * 32 * 12)

    def batches():
        return stream(digits, 32, torch.Generator().manual_seed(3))

    def fresh(k):
        return meter.attach(models.build(NETWORK, 100 + k))

    trial = Trial(digits, batches(), 32, 3, RECIPE, torch.Generator(), meter, fresh)
    found = make(learning_rate=0.02, alpha=1.5, beta=0.3)(None, trial)
    assert len(found) == 3 and meter.passes == 2 * 32 * 12, "four steps of three networks"
    wanted = by_hand([models.build(NETWORK, 100 + k) for k in range(3)], batches(), 4, 0.02, 1.5, 0.3)
    for a, b in zip(found, wanted, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-3)


def test_the_defaults_are_the_published_ones():
    mark = registry.load_factory(registry.find_methods("robustness")["adp"]).fipbench
    assert (mark.defaults["alpha"], mark.defaults["beta"]) == (2.0, 0.5)


def test_promoting_diversity_promotes_it(digits):
    """With the term the members' other predictions differ more than without, and their mean is less sure."""
    ends = {}
    for alpha, beta in ((2.0, 0.5), (0.0, 0.0)):
        meter = Meter(2 * 32 * 3 * 120)
        trial = Trial(
            digits, stream(digits, 32, torch.Generator().manual_seed(3)), 32, 3, RECIPE, torch.Generator(), meter,
            lambda k, meter=meter: meter.attach(models.build(NETWORK, 100 + k)),
        )  # fmt: skip
        found = make(alpha=alpha, beta=beta)(None, trial)
        with meter.paused(), torch.no_grad():
            logits = torch.stack([network(digits.batch(torch.arange(400)).inputs) for network in found])
        ends[alpha] = (float(log_volume(logits, digits.labels[:400]).mean()), float(entropy(logits).mean()))
    assert ends[2.0][0] > ends[0.0][0] + 1 and ends[2.0][1] > ends[0.0][1] + 0.1
