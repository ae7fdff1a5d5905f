"""Operations chain: what each does to a small network, in which order they act, and what they leave as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from streams import one_thread
from torch import nn

from fipbench import pruning
from fipbench.fip.compose import CL, Co, Source, State, compose


@pytest.fixture(scope="module")
def world():
    """A perceptron that knows classes 0 and 1 of two data sets that disagree, and both data sets."""
    drawing = torch.Generator().manual_seed(0)
    x = torch.randn(256, 6, generator=drawing)
    old, new = (x[:, 0] > 0).long(), 2 + (x[:, 1] > 0).long()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 4))
    data = {
        "old": Source([(x[i : i + 32], old[i : i + 32]) for i in range(0, 256, 32)], x[:64]),
        "new": Source([(x[i : i + 32], new[i : i + 32]) for i in range(0, 256, 32)], x[64:128]),
    }
    with one_thread():
        learned = compose(CL("old", steps=100, learning_rate=0.03), data=data)(network)
        yield learned.eval(), data, (x, old, new)


def accuracy(network, x, y):
    return float((network(x).argmax(1) == y).double().mean())


def weights(network):
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_learning_learns_and_the_strength_of_the_distance_decides_what_is_kept(world):
    network, data, (x, old, new) = world
    assert accuracy(network, x, old) > 0.97
    before = network(x).softmax(1).detach()

    def moved(strength):
        learned = compose(CL("new", steps=80, learning_rate=0.02, strength=strength), data=data, knows=["old"])(network)
        return accuracy(learned, x, new), float((learned(x).softmax(1).detach() - before).abs().mean())

    (plain, far), (_, near) = moved(0.0), moved(1e4)
    assert plain > 0.97 and far > 0.4
    assert near < 0.02


def test_the_first_learning_step_is_the_gradient_of_cross_entropy(world):
    """At the start of a path the distance and its gradient are zero: one step of plain SGD on the batch alone."""
    network, data, _ = world
    step = CL("new", steps=1, learning_rate=0.1, rule="sgd", strength=5.0)
    learned = compose(step, data=data, knows=["old"])(network)
    x, y = data["new"].batches[0]
    by_hand = copy.deepcopy(network)
    nn.functional.cross_entropy(by_hand(x), y).backward()
    for (name, value), own in zip(learned.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(value, own.detach() - 0.1 * own.grad, rtol=1e-4, atol=1e-6, msg=name)


def bhattacharyya(z, wanted):
    return -(z.softmax(1) * wanted.softmax(1)).sqrt().sum(1).log().mean()


def squared_euclidean(z, wanted):
    return (z - wanted).square().sum(1).mean()


DISTANCES = {"bhattacharyya": bhattacharyya, "squared_euclidean": squared_euclidean}


@pytest.mark.parametrize(
    ("rule", "distance", "clip", "decay"),
    [("sgd", "bhattacharyya", 0.05, 0.0), ("sgd", "squared_euclidean", 0.0, 0.3), ("adamw", "bhattacharyya", 0.0, 0.3)],
)
def test_learning_steps_by_hand_in_double_precision(rule, distance, clip, decay, world):
    """Eight steps with a memory larger than a batch: loss, clipping, weight decay and the optimiser's own formula."""
    network, data, _ = world
    shown = []
    watched = copy.deepcopy(network)
    watched.register_forward_hook(lambda module, given, output: shown.append(given[0].detach().clone()))
    options = {"strength": 3.0, "distance": distance, "clip": clip, "weight_decay": decay, "batch_size": 8}
    step = CL("new", steps=8, learning_rate=0.05, rule=rule, **options)
    learned = step(State(watched, ("old",)), data).network
    memory, steps = data["old"].memory, [given for given in shown if len(given) == 40]
    assert len(steps) == 8
    twin = copy.deepcopy(network).double()
    weights, first, second = list(twin.parameters()), {}, {}
    for number, given in enumerate(steps, start=1):
        x, y = data["new"].batches[number - 1]
        kept = given[32:]
        assert torch.equal(given[:32], x) and len({row.numpy().tobytes() for row in kept}) == 8
        assert all(bool((memory == row).all(1).any()) for row in kept)
        wanted = copy.deepcopy(network).double()(kept.double()).detach()
        loss = nn.functional.cross_entropy(twin(x.double()), y) + 3.0 * DISTANCES[distance](twin(kept.double()), wanted)
        slopes = torch.autograd.grad(loss, weights)
        norm = torch.cat([slope.flatten() for slope in slopes]).norm()
        scale = min(1.0, clip / float(norm)) if clip else 1.0
        assert not clip or scale < 1
        with torch.no_grad():
            for i, (weight, slope) in enumerate(zip(weights, slopes, strict=True)):
                slope = slope * scale
                if rule == "sgd":
                    first[i] = 0.9 * first.get(i, 0.0) + slope + decay * weight
                    weight -= 0.05 * first[i]
                    continue
                first[i] = 0.9 * first.get(i, 0.0) + 0.1 * slope
                second[i] = 0.999 * second.get(i, 0.0) + 0.001 * slope**2
                mean, square = first[i] / (1 - 0.9**number), second[i] / (1 - 0.999**number)
                weight -= 0.05 * (decay * weight + mean / (square.sqrt() + 1e-8))
    for (name, found), weight in zip(learned.named_parameters(), weights, strict=True):
        torch.testing.assert_close(
            found.double(), weight, rtol=2e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_zeros_stay_zero_while_learning_or_grow_again(world):
    network, data, _ = world
    walked = [Co(0.6, steps=20)]
    for keep, exact in ((True, True), (False, False)):
        path = compose(*walked, CL("new", steps=20, keep_zeros=keep), data=data, knows=["old"]).walk(network)
        sparse, learned = map(pruning.zeros, path)
        assert sparse == (pruning.zeros_at(0.6, 240), 240)
        assert (learned == sparse) is exact


def test_the_first_named_acts_first_unless_told_otherwise(world):
    network, data, _ = world
    learn, cut = CL("new", steps=5), Co(0.5, steps=5)
    by_reading = weights(compose(learn, cut, data=data, knows=["old"])(network))
    by_hand = cut(learn(State(network, ("old",)), data), data).network
    as_functions = weights(compose(cut, learn, data=data, knows=["old"], order="function")(network))
    other = weights(compose(cut, learn, data=data, knows=["old"])(network))
    assert same(by_reading, weights(by_hand)) and same(by_reading, as_functions)
    assert not same(by_reading, other)


def test_the_given_network_is_left_as_it_is(world):
    network, data, _ = world
    network = copy.deepcopy(network).train()
    before = weights(network)
    found = compose(CL("new", steps=3), Co(0.5, steps=3), data=data, knows=["old"])(network)
    assert same(before, weights(network)) and network.training and found.training


@pytest.mark.parametrize(("knows", "memory", "kept"), [("old new", True, 8), ("old new", False, 0), ("new", True, 0)])
def test_compression_keeps_outputs_on_the_data_in_hand_and_on_what_is_remembered(knows, memory, kept, world):
    """Both networks, the frozen one and the moving one, are shown 32 examples in hand and 8 inputs from memory."""
    network, data, _ = world
    shown = []
    watched = copy.deepcopy(network)
    watched.register_forward_hook(lambda module, given, output: shown.append(given[0]))
    past = torch.full((40, 6), 7.0) if memory else None
    sources = {**data, "old": Source(data["old"].batches, past)}
    Co(0.5, steps=3, batch_size=8)(State(watched, tuple(knows.split())), sources)
    assert len(shown) == 6
    for number, given in enumerate(shown):
        assert torch.equal(given[:32], data["new"].batches[number // 2][0])
        assert len(given) == 32 + kept and bool((given[32:] == 7.0).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda data, n: compose(CL("films"), data=data)(n), "no data set 'films'; there are: old, new"),
        (lambda data, n: compose(Co(0.5), data=data)(n), "name them in `knows`"),
        (lambda data, n: compose(CL("new"), data=data, order="backwards"), "order must be one of reading, function"),
        (lambda data, n: compose(CL("new", rule="newton"), data=data)(n), "rule must be sgd, adam or adamw"),
        (lambda data, n: compose(CL("x"), data={"x": Source([])})(n), "there are no batches"),
        (lambda data, n: compose(CL("x", steps=9), data={"x": Source(iter(data["old"].batches))})(n), "batches ended"),
        (lambda data, n: compose(data=data, knows=["films"]), "no data set 'films'"),
    ],
)
def test_what_cannot_be_is_said(make, words, world):
    network, data, _ = world
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        make(data, network)
