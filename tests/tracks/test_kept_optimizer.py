"""An optimiser whose state goes on from task to task, against one optimiser of torch's over a loop written out."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from streams import Bench, one_thread, weights_of
from torch import nn

from fipbench import models
from fipbench.compat import import_torchvision
from fipbench.tracks import continual, partial
from fipbench.tracks.carried import Carried, state_of

ADAM = '{ epochs = 2, batch_size = 16, optimizer = "adam", learning_rate = 0.01, snapshots = [0] }'
SGD = "{ epochs = 2, batch_size = 16, learning_rate = 0.05, snapshots = [0] }"
STREAM = '{{ classes = [[0, 1], [2, 3], [4, 5]], score = ["class"]{} }}'
KEPT, NEW = STREAM.format(', optimizer = "kept"'), STREAM.format("")


def bench_of(folder, cache, base=ADAM, stream=KEPT):
    return Bench(folder, cache, base=base, stream=stream, headline='"average_accuracy/class"')


def learned(bench, rate=0.01):
    """The weights at the end, and the initial ones and all batches that led there."""
    seen = {"batches": []}

    def learn(model, experience, trial):
        if experience.number == 0:
            seen["initial"] = trial.first.initial
            seen["batches"] += islice(trial.first.batches(), trial.first.steps)
        drawn = list(islice(experience.batches, experience.steps))
        seen["batches"] += drawn
        trial.fit(model, replace(experience, batches=iter(drawn)), learning_rate=rate)
        seen["weights"] = weights_of(model)

    bench.run(learn)
    return seen


def by_hand(bench, seen, make):
    """One optimiser for all batches in a row."""
    network = models.build(bench.task.model, 0)
    network.load_state_dict(seen["initial"])
    rule = make(network.parameters())
    with one_thread():
        for batch in seen["batches"]:
            rule.zero_grad()
            nn.functional.cross_entropy(network(batch.inputs), batch.labels).backward()
            rule.step()
    return weights_of(network)


def same(a, b):
    return all((a[name] == b[name]).all() for name in a)


OPTIMIZERS = {
    "adam": (ADAM, 0.01, lambda weights: torch.optim.Adam(weights, lr=0.01)),
    "sgd": (SGD, 0.05, lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kept_is_one_optimiser_for_the_whole_stream(name, tmp_path, cache_dir):
    base, rate, make = OPTIMIZERS[name]
    bench = bench_of(tmp_path, cache_dir, base)
    with one_thread():
        seen = learned(bench, rate)
    assert same(seen["weights"], by_hand(bench, seen, make))


def test_else_each_task_begins_with_a_new_one(tmp_path, cache_dir):
    (tmp_path / "new").mkdir()
    with one_thread():
        kept = learned(bench_of(tmp_path, cache_dir))
        new = learned(bench_of(tmp_path / "new", cache_dir, stream=NEW))
    assert all((a.inputs == b.inputs).all() for a, b in zip(kept["batches"], new["batches"], strict=True))
    assert not same(kept["weights"], new["weights"])


@pytest.mark.parametrize("watches", [False, True])
def test_in_avalanches_loop_it_is_the_same(watches, tmp_path, cache_dir):
    """With a plugin that sees the first task learned again, too."""
    import_torchvision()
    from avalanche.training.plugins import SupervisedPlugin

    ends = []

    class Look(SupervisedPlugin):
        learning_rate = 0.01
        watches_first_task = watches

        def after_training_exp(self, strategy, **kwargs):
            ends.append(weights_of(strategy.model))

    bench = bench_of(tmp_path, cache_dir)
    with one_thread():
        bench.run(Look())
        seen = learned(bench)
    assert same(ends[-1], seen["weights"])


def test_a_stopped_job_goes_on_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "INTERVAL_S", 0.0)
    bench = bench_of(tmp_path, tmp_path / "cache")
    made, stop = continual._experience, []

    class Learn:
        def __init__(self):
            self.ends = []

        def __call__(self, model, experience, trial):
            trial.fit(model, experience, learning_rate=0.01)
            self.ends.append(weights_of(model))

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    def experience(task, job, number, part):
        if number in stop:
            raise InterruptedError
        return made(task, job, number, part)

    monkeypatch.setattr(continual, "_experience", experience)
    whole, again = Learn(), Learn()
    with one_thread():
        bench.run(whole)
        stop.append(2)
        with pytest.raises(InterruptedError):
            bench.run(Learn())
        stop.clear()
        bench.run(again)
    assert len(whole.ends) == 3 and len(again.ends) == 1
    assert same(whole.ends[-1], again.ends[-1])


def trained(rule, network):
    """An optimiser over the network's weights that has made a step."""
    chosen = rule(network.parameters(), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    chosen.step()
    return chosen


def test_another_rule_or_other_weights_begin_anew():
    torch.manual_seed(0)
    network, wider = nn.Linear(3, 2), nn.Linear(3, 4)
    state = state_of(trained(torch.optim.Adam, network))
    assert set(state) == {f"{i}/{key}" for i in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    for rule, of in (
        (torch.optim.AdamW, network),
        (torch.optim.Adam, wider),
        (torch.optim.Adam, nn.Linear(3, 2, False)),
    ):
        carried, chosen = Carried("adam", state), rule(of.parameters())
        carried.into(chosen, rule.__name__.lower())
        assert not chosen.state and carried.state() == {} and carried.rule == rule.__name__.lower()
    carried, chosen = Carried("adam", state), torch.optim.Adam(copy.deepcopy(network).parameters())
    carried.into(chosen, "adam")
    assert all(torch.equal(state_of(chosen)[name], state[name]) for name in state)
    first = carried.state()["0/exp_avg"]
    first += 1
    assert not torch.equal(first, state["0/exp_avg"]), "the state that was given is nobody's to change"
