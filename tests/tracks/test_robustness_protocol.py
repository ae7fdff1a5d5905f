"""What the robustness track hands to a method, what it takes back, and what it says when the contract is broken."""

from __future__ import annotations

import copy

import msgspec
import pytest
import torch
from robustness_lab import Lab
from torch import nn

from fipbench.errors import BudgetExceeded, ProtocolError
from fipbench.training import cross_entropy


@pytest.fixture(scope="module")
def vote(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("vote"))


def moved(model, by=0.01):
    network = copy.deepcopy(model)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(by)
    return network


def three(model, trial):
    return [model, moved(model), moved(model, 0.02)]


def state(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# -------------------------------------------------------------------------------------------- what is handed out


def test_a_method_gets_the_base_network_its_data_and_what_is_left_of_the_budget(vote):
    seen = {}

    def look(model, trial):
        seen.update(vars(trial), steps=trial.steps, spent=(trial.meter.forward, trial.meter.backward))
        seen["fresh"] = [trial.fresh(k) for k in range(3)]
        return three(model, trial)

    vote.run(look)
    n = len(seen["train"].labels)
    assert n == 1200 and (seen["members"], seen["batch_size"]) == (3, 32)
    assert seen["recipe"] == vote.task.base
    base = 2 * (n // 32) * 32
    assert seen["spent"] == (base, base)
    assert seen["steps"] == (2 * 6 * n - 2 * base) // 64


def test_the_same_networks_and_batches_for_every_method_and_others_for_every_seed(vote):
    def looked(method, seed):
        seen = []

        def look(model, trial):
            seen.extend([state(model), *(state(trial.fresh(k)) for k in range(3))])
            seen.extend(next(trial.batches).inputs.flatten() for _ in range(3))
            return three(model, trial)

        vote.run(look, method=method, seed=seed)
        return seen

    first, second, other = looked("fge", 0), looked("snapshot", 0), looked("fge", 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({tuple(weights.tolist()) for weights in first[:4]}) == 4, "fresh networks are alike"


def test_fresh_networks_are_untrained_counted_and_as_many_as_members(vote):
    def look(model, trial):
        before = trial.meter.forward
        network = trial.fresh(1)
        hits = (network(trial.train.batch(torch.arange(500)).inputs).argmax(1) == trial.train.labels[:500]).float()
        assert float(hits.mean()) < 0.5
        assert trial.meter.forward == before + 500
        for k in (-1, 3):
            with pytest.raises(IndexError, match=f"fresh networks 0 to 2, not {k}"):
                trial.fresh(k)
        return three(model, trial)

    vote.run(look)


def test_fit_follows_the_recipe_the_schedule_and_the_loss(vote):
    """Three steps of SGD with momentum, written out; the rate of step i is learning_rate * schedule(i)."""

    def look(model, trial):
        start, batches = state(model), [next(trial.batches) for _ in range(3)]
        trial = copy.copy(trial)
        object.__setattr__(trial, "batches", iter(batches))
        rates = [1.0, 0.5, 0.1]
        doubled = trial.fit(
            copy.deepcopy(model), steps=3, learning_rate=0.2, schedule=lambda i: ([*rates, 0.0])[i],
            loss=lambda m, b: 2 * cross_entropy(m, b),
        )  # fmt: skip
        w = copy.deepcopy(model)
        velocity = [torch.zeros_like(p) for p in w.parameters()]
        for batch, rate in zip(batches, rates, strict=True):
            gradients = torch.autograd.grad(2 * cross_entropy(w, batch), list(w.parameters()))
            with torch.no_grad():
                for p, v, g in zip(w.parameters(), velocity, gradients, strict=True):
                    v.mul_(0.9).add_(g)
                    p.sub_(0.2 * rate * v)
        torch.testing.assert_close(state(doubled), state(w), atol=1e-6, rtol=1e-5)
        assert not torch.equal(start, state(doubled)) and torch.equal(start, state(model))
        return three(model, trial)

    vote.run(look)


# ------------------------------------------------------------------------------------------------ what comes back


def nothing(model, trial):
    return None


def one_network(model, trial):
    return model


def weights_alone(model, trial):
    return [m.state_dict() for m in three(model, trial)]


def too_few(model, trial):
    return three(model, trial)[:2]


def too_many(model, trial):
    return [*three(model, trial), moved(model, 0.03)]


def none_at_all(model, trial):
    return []


def another_architecture(model, trial):
    return [model, moved(model), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))]


def not_a_number(model, trial):
    bad = moved(model)
    with torch.no_grad():
        bad[2].weight[0, 0] = float("nan")
    return [model, bad, moved(model, 0.02)]


def overflows(model, trial):
    """Every weight is finite, no output is."""
    bad = copy.deepcopy(model)
    with torch.no_grad():
        for p in bad.parameters():
            p.fill_(1e30)
    return [model, bad, moved(model, 0.02)]


def twice_the_same(model, trial):
    return [model, moved(model), copy.deepcopy(model)]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (nothing, "expected networks, got NoneType"),
        (one_network, "expected networks, got Sequential"),
        (weights_alone, "expected networks, got OrderedDict among them"),
        (too_few, "gave 2 networks where 3 were due"),
        (too_many, "gave more networks than the 3 that were due"),
        (none_at_all, "gave 0 networks where 3 were due"),
        (another_architecture, "network 2 has other parameters than the base network"),
        (not_a_number, r"network 1 has weights that are not finite \(2.weight\)"),
        (overflows, "outputs are not finite"),
        (twice_the_same, "networks 0 and 2 are the same; 3 different ones are due"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_an_ensemble_is_refused(method, words, vote):
    with pytest.raises(ProtocolError, match=words):
        vote.run(method)


def test_networks_may_come_one_by_one_and_count_as_they_were_then(vote):
    def one_moving(model, trial):
        for _ in range(trial.members):
            yield model
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.01)

    def apart(model, trial):
        networks = [copy.deepcopy(model)]
        while len(networks) < trial.members:
            networks.append(moved(networks[-1]))
        return networks

    moving, still = vote.run(one_moving), vote.run(apart)
    assert moving.metrics == still.metrics and moving.items == still.items


def test_what_batch_norm_keeps_is_a_networks_own(vote):
    task = msgspec.structs.replace(
        vote.task,
        model=msgspec.structs.replace(vote.task.model, name="resnet", hidden=(), channels=(4,), depth=1),
    )

    def shifted(model, trial):
        networks = three(model, trial)
        for network in networks[1:]:
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.add_(1000.0)
        return networks

    plain, shifted = vote.run(three, task=task), vote.run(shifted, task=task)
    assert shifted.metrics["clean_member_mean"] < plain.metrics["clean_member_mean"]


def test_a_reference_may_be_one_network(vote):
    outcome = vote.run(lambda model, trial: [model], method="single")
    assert outcome.metrics["clean"] == outcome.metrics["clean_member_mean"]
    with pytest.raises(ProtocolError, match="gave 0 networks"):
        vote.run(none_at_all, method="single")


def test_the_budget_is_held_to_even_at_the_end(vote):
    def overspends(model, trial):
        trial.fit(moved(model), steps=trial.steps + 1, learning_rate=0.01)
        return three(model, trial)

    def hides_it(model, trial):
        trial.meter.limit *= 2
        trial.fit(moved(model), steps=trial.steps, learning_rate=0.01)
        return three(model, trial)

    for method in (overspends, hides_it):
        with pytest.raises(BudgetExceeded, match="more than the task's 14400 passes"):
            vote.run(method)


def test_networks_are_scored_by_their_weights_and_not_by_what_they_say(vote):
    """A network that knows better than its weights, and one that listens, get nothing out of it."""
    heard = []

    class Liar(nn.Sequential):
        def forward(self, x):
            heard.append(len(x))
            return super().forward(x) * 0

    def lies(model, trial):
        found = three(model, trial)
        return [*found[:2], Liar(*copy.deepcopy(found[2]))]

    honest, liar = vote.run(three), vote.run(lies)
    assert not heard and honest.metrics == liar.metrics and honest.items == liar.items


def test_the_network_that_was_handed_out_is_not_what_is_measured_against(vote):
    def spoils(model, trial):
        found = three(copy.deepcopy(model), trial)
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        return found

    assert vote.run(spoils).metrics == vote.run(three).metrics
