"""`fip.ensemble` against Algorithm 3 written a second time, against geometry, and against numpy on linear networks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fipbench.fip.distance import DISTANCES
from fipbench.fip.ensemble import PRESETS, ensemble


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(hidden=12, seed=0):
    draw = seeded(seed)
    made = nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 4))
    for p in made.parameters():
        nn.init.normal_(p, std=0.6, generator=draw)
    return made


def batches(count=3, n=20, seed=1):
    draw = seeded(seed)
    return [(torch.rand(n, 6, generator=draw), torch.randint(0, 4, (n,), generator=draw)) for _ in range(count)]


def flat(one):
    return torch.cat([p.detach().flatten() for p in one.parameters()])


def same(a, b):
    return torch.equal(flat(a), flat(b))


def walk(start, members=3, **options):
    return ensemble(start, batches(), members, **{"steps": 5, "generator": seeded(7), **options})


# ------------------------------------------------------------------------------------- the start and the kick


@pytest.mark.parametrize("name", DISTANCES)
def test_the_printed_loop_never_leaves_its_start(name):
    """At w_t the distance has no gradient whatever the batch, so a loop of it alone stays where it is."""
    start = network()
    w = copy.deepcopy(start)
    for x, _ in batches():
        loss = DISTANCES[name](w(x), start(x).detach())
        gradients = torch.autograd.grad(loss, list(w.parameters()))
        assert all(float(g.abs().max()) < 1e-6 for g in gradients)


def test_without_a_kick_it_says_so():
    with pytest.raises(ValueError, match="without a kick the path never leaves its start"):
        walk(network(), radius=0.0)


def test_a_kick_by_layer_has_the_stated_length_in_every_tensor():
    start = network()
    first, second, third = walk(start, steps=0, kick="layer", radius=0.3)
    assert same(first, start)
    for before, after in ((first, second), (second, third)):
        for p, q in zip(before.parameters(), after.parameters(), strict=True):
            assert float((q - p).detach().norm() / p.detach().norm()) == pytest.approx(0.3, rel=1e-4)


def test_a_global_kick_has_the_stated_length_over_all():
    start = network()
    _, second = walk(start, members=2, steps=0, kick="global", radius=0.3)
    move = flat(second) - flat(start)
    assert float(move.norm() / flat(start).norm()) == pytest.approx(0.3, rel=1e-4)
    shares = [
        float((q - p).detach().norm() / p.detach().norm())
        for p, q in zip(start.parameters(), second.parameters(), strict=True)
    ]
    assert max(shares) > 1.3 * min(shares), "every tensor by the same share is the kick by layer"


def test_a_rotating_kick_keeps_every_norm_and_turns_by_the_stated_angle():
    """In many dimensions a random direction is orthogonal: the angle is arctan of the radius."""
    start = network(hidden=2000)
    _, second = walk(start, members=2, steps=0, kick="rotate", radius=0.75)
    for p, q in zip(start.parameters(), second.parameters(), strict=True):
        assert float(q.detach().norm() / p.detach().norm()) == pytest.approx(1, rel=1e-4)
        if p.numel() > 1000:
            cosine = float((p * q).detach().sum() / p.detach().norm() / q.detach().norm())
            assert cosine == pytest.approx(1 / (1 + 0.75**2) ** 0.5, abs=0.03)


def test_kicks_are_the_generators():
    start = network()
    a, b, c = (walk(start, generator=seeded(s))[1] for s in (4, 4, 5))
    assert same(a, b) and not same(a, c)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    walk(start, selection="narrow")
    assert torch.equal(before, torch.get_rng_state()), "drew from everybody's generator"


def test_frozen_weights_stay():
    start = network()
    start[0].requires_grad_(False)
    for one in walk(start)[1:]:
        assert torch.equal(one[0].weight, start[0].weight) and not torch.equal(one[2].weight, start[2].weight)


# ---------------------------------------------------------------------------------------------- the pull


def test_invariance_pulls_the_outputs_back_and_not_the_weights():
    start = network(hidden=64)
    x = torch.cat([x for x, _ in batches()])
    settings = {"kick": "rotate", "radius": 0.7, "learning_rate": 0.01, "distance": "kl"}
    kicked = walk(start, members=2, steps=0, **settings)[1]
    pulled = walk(start, members=2, steps=400, **settings)[1]
    with torch.no_grad():
        off = [float(DISTANCES["kl"](one(x), start(x))) for one in (kicked, pulled)]
    assert off[1] < 0.02 * off[0]
    moved = [float((flat(one) - flat(start)).norm()) for one in (kicked, pulled)]
    assert moved[1] > 0.5 * moved[0]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_is_algorithm_3s(reduction):
    """w <- w - eta grad odist(f(x, w), f(x, w_t)), by hand: Bhattacharyya distance in double precision."""
    start = network()
    options = {"reduction": reduction, "optimizer": "plain", "learning_rate": 0.05, "kick": "layer", "radius": 0.4}
    got = walk(start, members=2, steps=7, **options)[1]
    w = walk(start, members=2, steps=0, **options)[1].double()
    reference = copy.deepcopy(start).double()
    source = batches()
    for step in range(7):
        x = source[step % 3][0].double()
        p, q = w(x).softmax(1), reference(x).softmax(1).detach()
        each = -(p * q).sqrt().sum(1).log()
        loss = each.mean() if reduction == "mean" else each.sum()
        for weight, gradient in zip(w.parameters(), torch.autograd.grad(loss, list(w.parameters())), strict=True):
            weight.data -= 0.05 * gradient
    torch.testing.assert_close(flat(got).double(), flat(w), atol=2e-6, rtol=1e-4)


def test_the_reference_is_the_start_throughout_and_each_pull_has_a_fresh_optimiser():
    """The second stretch by hand from the first network: its kick, then Adam without a past, towards w_t."""
    start = network()
    options = {"learning_rate": 0.02, "kick": "layer", "radius": 0.4, "steps": 4}
    _, first, second = walk(start, **options)
    draw = seeded(7)
    for p in start.parameters():
        torch.randn(p.shape, generator=draw)  # the first kick's
    w = copy.deepcopy(first)
    with torch.no_grad():
        for p in w.parameters():
            way = torch.randn(p.shape, generator=draw)
            p += 0.4 * p.norm() / way.norm() * way
    rule = torch.optim.Adam(w.parameters(), lr=0.02)
    source = batches()
    for step in range(4, 8):
        x = source[step % 3][0]
        rule.zero_grad()
        DISTANCES["bhattacharyya"](w(x), start(x).detach()).backward()
        rule.step()
    torch.testing.assert_close(flat(second), flat(w), atol=1e-6, rtol=1e-4)


def test_the_task_weight_adds_the_cross_entropy():
    start = network()
    options = {"optimizer": "plain", "learning_rate": 0.1, "kick": "layer", "radius": 0.2, "members": 2}
    kicked = walk(start, steps=0, **options)[1]
    alone = walk(start, steps=1, **options)[1]
    both = walk(start, steps=1, task_weight=3.0, **options)[1]
    x, y = batches()[0]
    loss = nn.functional.cross_entropy(kicked(x), y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(kicked.parameters()))])
    torch.testing.assert_close(flat(both) - flat(alone), -0.3 * gradient, atol=1e-6, rtol=1e-4)


def test_known_reference_outputs_are_as_good_as_a_second_network():
    start = network()
    calls = []
    source = batches()
    wanted = {id(batch): start(batch[0]).detach() for batch in source}

    def forward(one, batch):
        calls.append(one)
        return one(batch[0])

    known = ensemble(start, source, 2, steps=5, generator=seeded(7), reference=lambda b: wanted[id(b)], forward=forward)
    assert len(calls) == 5 and same(known[1], walk(start, members=2)[1])


# ------------------------------------------------------------------------------------------ the selection


def test_members_are_evenly_spaced_along_the_path():
    start = network()
    path = walk(start, members=9)
    for members, places in ((2, [0, 8]), (3, [0, 4, 8]), (5, [0, 2, 4, 6, 8])):
        found = walk(start, members=members, kicks=8)
        assert all(same(one, path[place]) for one, place in zip(found, places, strict=True))
    found = walk(start, members=4, kicks=8, include_start=False)
    assert all(same(one, path[place]) for one, place in zip(found, (1, 3, 6, 8), strict=True))


def scores_by_numpy(path, probes, epsilon, noise=None):
    """For each network: mean H and cross-entropy under the signed gradient; mean plus deviation under noise."""
    rows = []
    for one in path:
        w = [p.detach().double().numpy() for p in one.parameters()]

        def softmax(x, w=w):
            h = np.maximum(x @ w[0].T + w[1], 0)
            z = h @ w[2].T + w[3]
            p = np.exp(z - z.max(1, keepdims=True))
            return p / p.sum(1, keepdims=True)

        kept, losses, random = [], [], []
        for number, (x, y) in enumerate(probes):
            x, y = x.double().numpy(), y.numpy()
            p = softmax(x)
            back = (p - np.eye(4)[y]) @ w[2] * (x @ w[0].T + w[1] > 0)
            moved = softmax(x + epsilon * np.sign(back @ w[0]))
            kept.append(-np.log(np.sqrt(p * moved).sum(1)))
            losses.append(-np.log(moved[np.arange(len(y)), y]))
            if noise is not None:
                random.append(-np.log(np.sqrt(p * softmax(noise[number])).sum(1)))
        h = np.concatenate(random) if random else np.zeros(1)
        row = np.concatenate(kept).mean(), np.concatenate(losses).mean(), h.mean() + h.std(), h.mean(), h.std()
        rows.append(row)
    return np.array(rows)


@pytest.fixture
def long_path():
    """Ten networks that differ, with the batches on which they are judged: those that follow the walk's."""
    start = network()
    options = {"kick": "layer", "radius": 0.6, "steps": 4, "kicks": 9}
    path = walk(start, members=10, **options)
    source = batches(count=5)
    path = ensemble(start, source, 10, **options, generator=seeded(7))
    return start, source, options, path, [source[(9 * 4 + i) % 5] for i in range(3)]


def chosen(long_path, members, **options):
    start, source, walked, path, _ = long_path
    found = ensemble(start, source, members, **walked, generator=seeded(7), probes=3, **options)
    return [next(i for i, one in enumerate(path) if same(one, member)) for member in found]


def test_the_threshold_is_on_the_change_under_a_signed_gradient_step(long_path):
    scores = scores_by_numpy(long_path[3], long_path[4], 0.5)[:, 0]
    delta = float(np.sort(scores)[5] + np.sort(scores)[6]) / 2  # six networks are below it
    accepted = np.flatnonzero(scores <= delta)
    down = scores_by_numpy(long_path[3], long_path[4], -0.5)[:, 0]
    assert len(accepted) == 6 and set(accepted) != set(np.argsort(down)[:6]), "down the gradient it would be others"
    assert chosen(long_path, 6, selection="threshold", epsilon=0.5, delta=delta) == accepted.tolist()
    assert chosen(long_path, 2, selection="threshold", epsilon=0.5, delta=delta) == accepted[[0, 5]].tolist()


def test_a_threshold_that_too_few_pass_is_raised(long_path):
    scores = scores_by_numpy(long_path[3], long_path[4], 0.5)[:, 0]
    best = sorted(np.argsort(scores)[:4].tolist())
    assert chosen(long_path, 4, selection="threshold", epsilon=0.5, delta=0.0) == best


def test_validation_takes_the_smallest_loss_under_a_signed_gradient_step(long_path):
    up, down = (scores_by_numpy(long_path[3], long_path[4], epsilon) for epsilon in (0.5, -0.5))
    best = sorted(np.argsort(up[:, 1])[:6].tolist())
    assert chosen(long_path, 6, selection="validation", epsilon=0.5) == best
    assert best != sorted(np.argsort(down[:, 1])[:6].tolist()) and best != sorted(np.argsort(up[:, 0])[:6].tolist())


def test_narrow_takes_the_smallest_and_narrowest_change_under_noise(long_path):
    draw = seeded(7)
    for _ in range(9):
        for p in network().parameters():
            torch.randn(p.shape, generator=draw)  # the kicks' draws come first
    noise = [(x + 0.5 * (2 * torch.rand(x.shape, generator=draw) - 1)).double().numpy() for x, _ in long_path[4]]
    scores = scores_by_numpy(long_path[3], long_path[4], 0.5, noise)
    for members in (4, 6):
        best = sorted(np.argsort(scores[:, 2])[:members].tolist())
        assert chosen(long_path, members, selection="narrow", epsilon=0.5) == best
    orders = [np.argsort(scores[:, column]) for column in (2, 3, 4)]
    assert set(orders[0][:4]) != set(orders[1][:4]) and set(orders[0][:6]) != set(orders[2][:6])


# ---------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("selection", ["spaced", "threshold", "narrow", "validation"])
def test_the_model_is_left_alone_and_members_are_copies(selection):
    start = network()
    before = flat(start).clone()
    found = walk(start, selection=selection, kicks=4)
    assert torch.equal(before, flat(start)) and all(p.grad is None for p in start.parameters())
    assert len(found) == 3 and all(one is not start for one in found)
    assert len({tuple(flat(one).tolist()) for one in found}) == 3


def test_labels_are_needed_only_where_they_are_used():
    inputs = [x for x, _ in batches()]
    start = network()
    for selection in ("spaced", "narrow"):
        blind = ensemble(start, inputs, 3, steps=5, generator=seeded(7), selection=selection)
        assert all(same(a, b) for a, b in zip(blind, walk(start, selection=selection), strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": 1}, "an ensemble needs two members or more, got 1"),
        ({"kicks": 1}, "a path of 2 networks has no 3 members; raise kicks"),
        ({"steps": -1}, "steps must not be negative"),
        ({"probes": 0}, "probes at least 1"),
        ({"epsilon": 0.0}, "epsilon must be above zero"),
        ({"delta": -1.0}, "delta and task_weight not below it"),
        ({"task_weight": -1.0}, "delta and task_weight not below it"),
        ({"kick": "soft"}, "kick must be one of layer, rotate, global, got 'soft'"),
        ({"optimizer": "lbfgs"}, "optimizer must be one of adam, sgd, plain"),
        ({"selection": "best"}, "selection must be one of"),
        ({"distance": "cosine"}, "distance must be one of"),
        ({"reduction": "max"}, "reduction must be mean or sum"),
    ],
)
def test_an_option_out_of_range_says_what_is_expected(options, words):
    with pytest.raises(ValueError, match=words):
        walk(network(), **options)


def test_no_batches_is_an_error():
    with pytest.raises(ValueError, match="there are no batches"):
        ensemble(network(), [], 2, steps=1)


def test_the_preset_is_what_was_published():
    """Methods, "Adversarial robustness, parameters used": eta 0.01, epsilon 0.3, delta 35 over a minibatch of 100."""
    paper = PRESETS["paper"]
    assert (paper["learning_rate"], paper["epsilon"], paper["optimizer"]) == (0.01, 0.3, "plain")
    assert paper["delta"] * 100 == pytest.approx(35) and paper["selection"] == "threshold"
    assert paper["include_start"] is True and "task_weight" not in paper
