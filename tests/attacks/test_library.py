"""torchattacks against what its papers say: closed forms on linear networks, and PGD and APGD written a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fipbench import attacks
from fipbench.attacks import MeanSoftmax


class Linear(nn.Module):
    """logits = W x + b over flattened inputs, in float32."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32), requires_grad=False)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


class Listening(nn.Module):
    """Another network that keeps the inputs it was asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.heard = network, []

    def forward(self, x):
        self.heard.append(x.detach().clone())
        return self.network(x)


def problem(n=60, pixels=16, classes=5, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.uniform(0, 1, (n, 1, 4, pixels // 4)).astype(np.float32)
    return draw, torch.from_numpy(x), torch.from_numpy(draw.integers(0, classes, n))


def two_sided(draw, pixels=16, bias=0.0):
    """A linear network whose classes 0 and 1 alone matter: the worst case is the sign of w_other - w_label."""
    weight = np.zeros((5, pixels))
    weight[:2] = draw.normal(size=(2, pixels))
    return Linear(weight, [bias, 0.0, -100.0, -100.0, -100.0])


ATTACKS = {
    "pgd": lambda model, x, y, e: attacks.pgd(model, x, y, e, steps=12, step_size=0.25, seed=3),
    "apgd": lambda model, x, y, e: attacks.apgd(model, x, y, e, steps=12, seed=3),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("epsilon", [0.02, 0.08, 0.3])
def test_a_linear_network_falls_exactly_where_it_can(name, epsilon):
    """x_i moves to min(x_i + eps, 1) or max(x_i - eps, 0), whichever helps the other class."""
    draw, x, _ = problem()
    network = two_sided(draw)
    y = network(x).argmax(1)
    way = (network.weight[1] - network.weight[0]) * (1 - 2 * y[:, None])
    corner = torch.where(way > 0, (x.flatten(1) + epsilon).clamp(max=1), (x.flatten(1) - epsilon).clamp(min=0))
    margins = network(corner).gather(1, y[:, None]) - network(corner).gather(1, 1 - y[:, None])
    assert 5 < int((margins > 0).sum()) < 55 or epsilon == 0.3
    adversarial = ATTACKS[name](MeanSoftmax([network]), x, y, epsilon)
    assert torch.equal(attacks.correct(network, adversarial, y), margins.squeeze(1) > 0)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_iterate_is_in_the_ball_and_in_the_box(name):
    draw, x, _ = problem()
    weight = draw.normal(size=(3, 5, 16)) * 3
    listener = Listening(MeanSoftmax([Linear(w, np.zeros(5)) for w in weight]))
    y = listener.network(x).argmax(1)
    result = ATTACKS[name](listener, x, y, 0.07)
    seen = [heard.detach() for heard in (*listener.heard, result)]
    assert len(seen) > 12
    ends = 0
    for heard in seen:
        # An attack asks about some of the images at a time: each is near the one that it was made from.
        near = (heard[:, None] - x).abs().amax((2, 3, 4)).amin(1)
        assert float(near.max()) <= 0.07 + 1e-6
        assert float(heard.min()) >= 0 and float(heard.max()) <= 1
        ends += int((near > 0.0699).sum())
    assert ends > 5 * len(x), "hardly an iterate got to the edge of the ball"


def mean_softmax_by_numpy(weights, x):
    z = np.einsum("mci,ni->mnc", weights, x)
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def input_gradient_by_numpy(weights, x, y):
    """Of -log of the mean over members of p_y: the members' gradients, weighed by their share in the mean."""
    p = mean_softmax_by_numpy(weights, x)
    rows = np.arange(len(y))
    share = p[:, rows, y] / p[:, rows, y].sum(0)
    each = np.einsum("mnc,mci->mni", p, weights) - weights[:, y]
    return (share[..., None] * each).sum(0)


def test_pgd_is_madrys_recursion():
    """x_(t+1) = clip(project(x_t + a sign(grad at x_t))) from the same random start, in numpy."""
    draw, x, y = problem(n=40)
    weights = draw.normal(size=(3, 5, 16)) * 4
    vote = MeanSoftmax([Linear(w, np.zeros(5)) for w in weights])
    ours = attacks.pgd(vote, x, y, 0.1, steps=7, step_size=0.3, seed=11)
    torch.manual_seed(11)
    start = torch.empty_like(x).uniform_(-0.1, 0.1)
    flat = x.flatten(1).numpy().astype(float)
    adversarial = np.clip(flat + start.flatten(1).numpy(), 0, 1)
    turned = 0
    before = None
    for _ in range(7):
        sign = np.sign(input_gradient_by_numpy(weights.astype(np.float32), adversarial, y.numpy()))
        turned += 0 if before is None else int((sign != before).sum())
        before = sign
        adversarial = np.clip(flat + np.clip(adversarial + 0.03 * sign - flat, -0.1, 0.1), 0, 1)
    assert turned > 100, "the gradient at x_t and at x would be alike"
    assert np.abs(ours.flatten(1).numpy() - adversarial).max() < 1e-6


def apgd_by_numpy(weights, x, y, epsilon, steps, start):
    """Algorithm 1 of Croce and Hein (2020) on the cross-entropy, one example at a time.

    Two habits of the authors' code, which is what torchattacks carries: condition 1 counts rises up to and including
    rho of the window, and the first window compares its first loss with zero instead of with that before it.
    """
    width = {"first": max(int(0.22 * steps), 1), "least": max(int(0.06 * steps), 1), "less": max(int(0.03 * steps), 1)}
    found = []
    for n in range(len(y)):

        def loss(point, n=n):
            return -math.log(mean_softmax_by_numpy(weights, point[None]).mean(0)[0, y[n]])

        def step(point, size, n=n):
            moved = point + size * np.sign(input_gradient_by_numpy(weights, point[None], y[n : n + 1])[0])
            return inside(moved, n)

        def inside(point, n=n):
            return np.clip(np.clip(point, x[n] - epsilon, x[n] + epsilon), 0, 1)

        size, last, now = 2 * epsilon, start[n], start[n]
        best, best_loss = now, loss(now)
        losses, window, since, checked_loss, halved = [], width["first"], 0, best_loss, True
        for i in range(steps):
            z = step(now, size)
            share = 0.75 if i else 1.0
            last, now = now, inside(now + share * (z - now) + (1 - share) * (now - last))
            losses.append(loss(now))
            if losses[-1] > best_loss:
                best, best_loss = now, losses[-1]
            since += 1
            if since == window:
                earlier = [0.0 if i - k - 1 < 0 else losses[i - k - 1] for k in range(window)]
                rises = sum(losses[i - k] > earlier[k] for k in range(window))
                halve = rises <= 0.75 * window or (not halved and checked_loss >= best_loss)
                halved, checked_loss = halve, best_loss
                if halve:
                    size, now = size / 2, best
                since, window = 0, max(window - width["less"], width["least"])
        found.append(best_loss)
    return np.array(found)


def test_apgd_is_the_papers_algorithm():
    """The library's best losses are those of the algorithm, written from the paper, from the same starts."""
    torchattacks = attacks._torchattacks()
    draw, x, y = problem(n=30)
    weights = (draw.normal(size=(3, 5, 16)) * 6).astype(np.float32)
    vote = MeanSoftmax([Linear(w, np.zeros(5)) for w in weights])
    attack = torchattacks.APGD(vote, eps=0.15, steps=40, loss="ce", seed=5)
    torch.manual_seed(5)
    noise = 2 * torch.rand(x.shape) - 1
    start = (x + 0.15 * noise / noise.flatten(1).abs().amax(1).view(-1, 1, 1, 1)).clamp(0, 1)
    torch.manual_seed(5)
    _, _, best, _ = attack.attack_single_run(x, y)
    own = apgd_by_numpy(
        weights.astype(float), x.flatten(1).double().numpy(), y.numpy(), 0.15, 40, start.flatten(1).double().numpy()
    )
    assert np.mean(np.abs(best.numpy() - own) < 1e-3 * (1 + own)) > 0.9, (best.numpy(), own)
    # And the step size matters: what plain PGD with steps of that first size finds is less.
    plain = attacks.pgd(vote, x, y, 0.15, steps=40, step_size=2.0, seed=5)
    assert own.mean() > -vote(plain).gather(1, y[:, None]).mean().item()


def test_the_targeted_ratio_is_the_papers():
    """-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), the sorted logits counted from the largest."""
    torchattacks = attacks._torchattacks()
    z = torch.tensor([[4.0, 1.0, 3.0, 0.5, 2.0], [0.0, 2.5, -1.0, 1.0, 7.0]])
    attack = torchattacks.APGDT(Linear(np.eye(5), np.zeros(5)), n_classes=3)
    got = attack.dlr_loss_targeted(z, torch.tensor([0, 1]), torch.tensor([2, 4]))
    assert got.tolist() == pytest.approx([-(4 - 3) / (4 - (2 + 1) / 2), -(2.5 - 7) / (7 - (1 + 0) / 2)])


def test_targeted_apgd_aims_at_the_likeliest_wrong_classes(monkeypatch):
    torchattacks = attacks._torchattacks()
    aims = []
    honest = torchattacks.APGDT.attack_single_run

    def run(self, x, y):
        aims.append(self.target_class)
        return honest(self, x, y)

    monkeypatch.setattr(torchattacks.APGDT, "attack_single_run", run)
    for classes, wanted in ((5, [2, 3, 4]), (10, [2, 3, 4])):
        aims.clear()
        network = Linear(np.zeros((classes, 16)), np.arange(classes)[::-1] * 10.0)
        attacks.apgd(network, torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long), 0.1, steps=4, seed=0)
        assert aims == wanted, "2 is the runner-up"


def test_apgd_begins_on_the_cross_entropy_and_aims_with_what_that_leaves(monkeypatch):
    """The sure network is out of reach of both; the other images fall to the first stage."""
    torchattacks = attacks._torchattacks()
    seen = []
    for kind in (torchattacks.APGD, torchattacks.APGDT):

        def run(self, x, y, honest=kind.attack_single_run):
            seen.append((type(self).__name__, getattr(self, "loss", "targeted"), len(y), self.eps, self.steps))
            return honest(self, x, y)

        monkeypatch.setattr(kind, "attack_single_run", run)
    weight = np.zeros((5, 16))
    weight[0], weight[1] = 1, -1
    network = Linear(weight, [0, 0.5, -50, -50, -50])
    x = torch.cat([torch.full((4, 1, 4, 4), 0.03), torch.full((3, 1, 4, 4), 0.9)])
    attacks.apgd(network, x, torch.zeros(7, dtype=torch.long), 0.1, steps=5, seed=0)
    assert seen == [("APGD", "ce", 7, 0.1, 5), *[("APGDT", "targeted", 3, 0.1, 5)] * 3]


def test_targeted_apgd_needs_four_classes():
    with pytest.raises(ValueError, match="needs four classes or more, the model has 3"):
        attacks.apgd(Linear(np.zeros((3, 16)), np.zeros(3)), torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 0.1, steps=2,
                     seed=0)  # fmt: skip
