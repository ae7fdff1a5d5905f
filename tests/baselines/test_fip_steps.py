"""`fip-exact` and `fip-ball` under the harness: the steps that they take, what these cost, and what ends them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import optuna
import pytest
import torch
from scipy.optimize import brentq
from streams import Bench, load
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from fipbench import registry
from fipbench.errors import BudgetExceeded, UserError
from fipbench.fip.metric import SPACES
from fipbench.tracks.continual import Trial
from fipbench.training import Meter


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir, budget="{ epochs = 1, batch_size = 16, factor = 9 }")


@pytest.fixture
def walk(monkeypatch):
    """The weights after every step of every task, and before the first: (task, weights (n,)); and the batches drawn
    from memory."""
    seen = {"path": [], "drawn": []}
    honest_draw = Trial.draw

    def draw(self, examples):
        seen["drawn"].append(honest_draw(self, examples))
        return seen["drawn"][-1]

    monkeypatch.setattr(Trial, "draw", draw)

    def watched(work):
        def learn(model, experience, trial):
            def note(rule, args, kwargs):
                if rule.param_groups[0]["params"][0] is next(model.parameters()):
                    seen["path"][-1].append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())

            handle = register_optimizer_step_post_hook(note)
            seen["path"].append([nn.utils.parameters_to_vector(model.parameters()).detach().clone()])
            try:
                work(model, experience, trial)
            finally:
                handle.remove()
            seen["end"] = nn.utils.parameters_to_vector(model.parameters()).detach().clone()

        return learn

    return watched, seen


@pytest.mark.parametrize("reference", ["here", "task start"])
def test_every_exact_step_has_the_length_that_was_asked_for(bench, walk, reference):
    watched, seen = walk
    bench.run(watched(load("fip-exact", learning_rate=0.07, reference=reference, memory=4)), memory=4)
    assert [len(path) for path in seen["path"]] == [1, 16, 16]
    for path in seen["path"][1:]:
        lengths = [float((b - a).double().norm()) for a, b in pairwise(path)]
        assert lengths == pytest.approx([0.07] * 15, rel=1e-3)


@pytest.mark.parametrize("space", ["logits", "fisher"])
def test_the_first_exact_step_is_that_of_a_dense_eigensystem(bench, walk, space):
    watched, seen = walk
    first = []

    def learn(model, experience, trial):
        if experience.number == 1:
            batch = next(experience.batches)
            twin = copy.deepcopy(model).double()
            twin._forward_hooks.clear()
            loss = nn.functional.cross_entropy(twin(batch.inputs.double()), batch.labels)
            first.append((twin, nn.utils.parameters_to_vector(torch.autograd.grad(loss, twin.parameters())).numpy()))
            experience = replace(experience, batches=iter([batch] * experience.steps))
        work(model, experience, trial)

    work = watched(load("fip-exact", learning_rate=0.05, beta=0.3, space=space, memory=6))
    bench.run(learn, memory=6)
    (twin, gradient), inputs = first[0], seen["drawn"][0].inputs.double()
    named = dict(twin.named_parameters())

    def outputs(weights):
        z = torch.func.functional_call(twin, weights, (inputs,))
        return (z if space == "logits" else 2 * z.softmax(-1).sqrt()).flatten() / math.sqrt(len(inputs))

    jacobian = torch.cat([j.flatten(1) for j in torch.func.jacrev(outputs)(named).values()], 1).detach().numpy()
    _, values, rows = np.linalg.svd(jacobian, full_matrices=False)
    b = 0.15 * gradient
    inside = rows @ b
    rest = b - rows.T @ inside

    def psi(mu):
        return -(rows.T @ (inside / (values**2 + mu)) + rest / mu)

    mu = brentq(lambda x: np.linalg.norm(psi(x)) - 0.05, 1e-9, 1e9, xtol=1e-15)
    a, after = seen["path"][1][:2]
    assert np.abs((after - a).double().numpy() - psi(mu)).max() < 2e-5 and len(inputs) == 6


@pytest.mark.parametrize("reference", ["task start", "here"])
def test_every_exact_step_of_a_task_is_solved_anew_by_hand(bench, walk, reference):
    """Fifteen steps, g taken anew at every fourth on four of six remembered inputs. Held to the task's start, a step
    makes good what was lost before, in the window by J itself: min |J psi + drift|^2 + beta psi' grad."""
    watched, seen = walk
    twins, batches = [], []

    def learn(model, experience, trial):
        if experience.number == 1:
            twins.append(copy.deepcopy(model).double())
            twins[0]._forward_hooks.clear()

            def kept():
                for batch in given:
                    batches.append(batch)
                    yield batch

            given = experience.batches
            experience = replace(experience, batches=kept())
        work(model, experience, trial)

    params = {"learning_rate": 0.05, "beta": 0.3, "every": 4, "examples": 4, "reference": reference}
    work = watched(load("fip-exact", memory=6, **params))
    bench.run(learn, memory=6)
    [twin], path, drawn = twins, [w.double() for w in seen["path"][1]], seen["drawn"]
    assert len(path) == 16

    def outputs(weights, inputs):
        nn.utils.vector_to_parameters(weights, twin.parameters())
        return twin(inputs.double()).flatten() / math.sqrt(len(inputs))

    def jacobian_of(values):
        rows = [torch.autograd.grad(v, list(twin.parameters()), retain_graph=True) for v in values]
        return torch.stack([nn.utils.parameters_to_vector(row) for row in rows]).numpy()

    apart = []
    for i in range(15):
        if i % 4 == 0:
            inputs = drawn[i // 4].inputs[:4]
            assert len(drawn[i // 4].inputs) == 6
            was = outputs(path[0], inputs).detach().numpy()
            values = outputs(path[i], inputs)
            jacobian = jacobian_of(values)
            drift = values.detach().numpy() - was
        nn.utils.vector_to_parameters(path[i], twin.parameters())
        loss = nn.functional.cross_entropy(twin(batches[i].inputs.double()), batches[i].labels)
        b = 0.15 * nn.utils.parameters_to_vector(torch.autograd.grad(loss, list(twin.parameters()))).numpy()
        if reference == "task start":
            b = b + jacobian.T @ drift
        _, sizes, rows = np.linalg.svd(jacobian, full_matrices=False)
        inside = rows @ b
        rest = b - rows.T @ inside

        def psi(mu, inside=inside, rest=rest, rows=rows, sizes=sizes):
            return -(rows.T @ (inside / (sizes**2 + mu)) + rest / mu)

        mu = brentq(lambda x, psi=psi: np.linalg.norm(psi(x)) - 0.05, 1e-9, 1e9, xtol=1e-15)
        step = (path[i + 1] - path[i]).numpy()
        apart.append(np.linalg.norm(step - psi(mu)) / 0.05)
        drift = drift + jacobian @ step
    assert max(apart) < 5e-3


def test_a_ball_is_never_left_and_the_next_begins_where_it_ended(bench, walk):
    watched, seen = walk
    work = load("fip-ball", learning_rate=0.3, radius=0.2, samples=3, descents=5, memory=4)
    bench.run(watched(work), memory=4)
    at_the_rim = 0
    for path, end in zip(seen["path"][1:], (None, seen["end"]), strict=True):
        # What the optimiser leaves is put back into the ball after the step: the centre of the next is not its last.
        assert len(path) == 16
        if end is not None:
            gone = float((end - path[0]).norm())
            assert gone <= 3 * 0.2 * (1 + 1e-5)
            at_the_rim += gone > 0.2
    assert at_the_rim


def test_a_ball_of_no_size_stays_where_it_is(bench, walk):
    watched, seen = walk
    bench.run(watched(load("fip-ball", learning_rate=0.3, radius=1e-6, memory=4)), memory=4)
    assert float((seen["end"] - seen["path"][0][0]).norm()) < 1e-4


def test_an_exact_step_costs_what_it_computes(bench):
    """15 steps a task of 16 new examples; the metric of 4, then 8 is taken twice: once forward, ten times back."""
    base = 2 * 14 * 16
    outcome = bench.run(load("fip-exact", every=8, memory=4), memory=4)
    forward = (4 + 8) + 15 * (16 + 4) + 15 * (16 + 8) + 2 * (4 + 8)
    backward = 15 * (16 + 4) + 15 * (16 + 8) + 2 * 10 * (4 + 8)
    assert (outcome.meter.forward - base, outcome.meter.backward - base) == (forward, backward)
    plain = bench.run(load("fip-exact", every=8, reference="here", memory=4), memory=4)
    assert plain.meter.forward - base == forward - (4 + 8)


def test_a_ball_costs_its_points_and_its_descents(bench):
    base = 2 * 14 * 16
    for reference, looks in (("task start", 4 + 8), ("here", 2 * (4 + 8))):
        work = load("fip-ball", samples=3, descents=8, reference=reference, memory=4)
        outcome = bench.run(work, memory=4)
        steps = 15 * (16 + 4) + 15 * (16 + 8)
        points = 2 * (3 + 1) * (16 + 4) + 2 * (3 + 1) * (16 + 8)
        assert (outcome.meter.forward - base, outcome.meter.backward - base) == (looks + steps + points, steps)


def test_a_metric_taken_in_every_step_is_more_than_the_task_allows(bench):
    work = load("fip-exact", every=1, memory=10)
    with pytest.raises(BudgetExceeded, match="more than the task's"):
        bench.run(work, task=replace_budget(bench.task), memory=10)


def replace_budget(task):
    return msgspec.structs.replace(task, budget=msgspec.structs.replace(task.budget, factor=3))


def test_they_keep_what_fine_tuning_forgets(bench):
    longer = msgspec.structs.replace(bench.task, budget=msgspec.structs.replace(bench.task.budget, epochs=8))
    plain = bench.run(load("naive", learning_rate=0.02), task=longer)
    for name in ("fip-exact", "fip-ball"):
        kept = bench.run(load(name, learning_rate=0.05, memory=10), task=longer, memory=10)
        assert kept.metrics["final/class/1"] > plain.metrics["final/class/1"] + 0.2
        assert kept.metrics["final/task/3"] > 0.6


def test_a_network_of_other_layers_is_refused_in_words():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(UserError, match=r"fip-exact: weights '0\.weight' are not those of a linear layer"):
        load("fip-exact")._spectrum(network, torch.rand(2, 1, 4, 4), Meter())


@pytest.mark.parametrize("name", ["fip-exact", "fip-ball"])
def test_a_hundred_draws_lie_within_their_laws_and_make_a_method(name):
    factory = registry.load_factory(registry.find_methods("continual")[name])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(100):
        trial = study.ask()
        drawn = {parameter: law.suggest(parameter, trial) for parameter, law in factory.fipbench.search.items()}
        assert all(factory.fipbench.search[parameter].admits(value) for parameter, value in drawn.items())
        assert callable(factory(**drawn))
    spaces = registry.load_factory(registry.find_methods("continual")["fip-exact"]).fipbench.search["space"].values
    assert set(spaces) == set(SPACES)
