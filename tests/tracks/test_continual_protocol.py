"""What the continual track lets a method spend and return, and what it says when the method does something else."""

from __future__ import annotations

import copy
from contextlib import nullcontext, suppress

import msgspec
import numpy as np
import pytest
import torch
from msgspec import UNSET
from streams import CLASSES, Bench, load
from torch import nn

from fipbench.errors import BudgetExceeded, ProtocolError, UserError
from fipbench.spec import Budget
from fipbench.tracks import continual
from fipbench.tracks.continual import Criterion


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir)


@pytest.fixture(scope="module")
def counts(bench):
    """Training examples of each task."""
    return [len(bench.part("train", classes)[1]) for classes in CLASSES]


def idle(model, experience, trial):
    """Learns nothing."""


# ------------------------------------------------------------------------------------------------ violations


def at(number, act):
    """A learner that does something with the network while task `number` (from 0) is its own."""

    def learn(model, experience, trial):
        return act(model) if experience.number == number else None

    return learn


def with_nan(model):
    with torch.no_grad():
        model[4].bias[3] = float("nan")


def with_infinity(model):
    network = copy.deepcopy(model)
    with torch.no_grad():
        network[2].weight[1, 1] = -float("inf")
    return network


VIOLATIONS = [
    (at(1, with_nan), r"the network after task 2 has weights that are not finite \(4\.bias\)"),
    (at(0, with_nan), r"the network after task 1 has weights that are not finite \(4\.bias\)"),
    (at(2, with_infinity), r"the network after task 3 has weights that are not finite \(2\.weight\)"),
    (at(1, lambda model: nn.Sequential(*model, nn.Linear(10, 10))), "the network after task 2 has other parameters .*"),
    (at(2, lambda model: nn.Linear(64, 10)), "the network after task 3 has other parameters than .*"),
    (at(1, lambda model: model.state_dict()), "expected a network or None after task 2, got OrderedDict"),
    (at(1, lambda model: [model]), "expected a network or None after task 2, got list"),
    (at(0, lambda model: 0.5), "expected a network or None after task 1, got float"),
]


@pytest.mark.parametrize(("learn", "words"), VIOLATIONS)
def test_a_violation_is_refused_in_words(learn, words, bench):
    with pytest.raises(ProtocolError, match=f"^{words}$"):
        bench.run(learn)


@pytest.mark.parametrize("method", [None, 3, nn.Linear, "naive"])
def test_what_is_no_learner_is_refused(method, bench):
    expected = (ProtocolError, TypeError) if callable(method) else ProtocolError
    with pytest.raises(expected):
        bench.run(method)


def test_nan_on_the_way_is_found_on_the_way(bench):
    """At the first step that is probed after it, not hours later."""
    steps = []

    def diverge(model, experience, trial):
        def after(step):
            steps.append(step)
            if step == 4:  # the fifth
                with_nan(model)

        trial.fit(model, experience, learning_rate=0.01, after_step=after)

    with pytest.raises(ProtocolError, match=r"^the network while learning task 2 has weights that are not finite"):
        bench.run(diverge)
    assert steps == [0, 1, 2, 3, 4]  # the sixth step's probe has found it


def test_divergence_is_a_record_that_says_so(bench):
    record = bench.record(bench.job("naive", learning_rate=1e18))
    assert (record.status, record.error.type) == ("failed", "ProtocolError")
    assert "has weights that are not finite" in record.error.message and record.metrics == {}


def test_an_idle_method_is_an_outcome(bench):
    outcome = bench.run(idle)
    assert outcome.metrics["forgetting/class"] == 0 and outcome.metrics["weights_walked"] == 0


# ---------------------------------------------------------------------------------------------------- budget


def base_cost(counts):
    return 2 * 2 * (counts[0] // 16 * 16)


def fine_tuning(counts, factor):
    return int(factor * sum(2 * 2 * n for n in counts))


def limit(bench, task=None, **job):
    found = []
    bench.run(lambda model, experience, trial: found.append(trial.meter.limit) or None, task=task, **job)
    assert len(set(found)) == 1
    return found[0]


def test_the_cap_is_so_many_times_fine_tuning(bench, counts):
    assert limit(bench) == fine_tuning(counts, 5)

    def budget(**fields):
        return msgspec.structs.replace(bench.task, budget=Budget(epochs=2, batch_size=16, **fields))

    assert limit(bench, budget(factor=1.5)) == fine_tuning(counts, 1.5)
    assert limit(bench, budget()) == limit(bench, budget(factor=UNSET)) == fine_tuning(counts, 1)
    longer = msgspec.structs.replace(bench.task, budget=Budget(epochs=7, batch_size=16))
    assert limit(bench, longer) == 2 * (2 * counts[0] + 7 * counts[1] + 7 * counts[2])


def test_fine_tuning_fits_into_one_times_itself(bench, counts):
    task = msgspec.structs.replace(bench.task, budget=Budget(epochs=2, batch_size=16))
    outcome = bench.run(load("naive"), task=task)
    steps = [2 * (n // 16) for n in counts]
    assert outcome.meter.forward == outcome.meter.backward == 16 * sum(steps)
    assert outcome.meter.passes <= fine_tuning(counts, 1)


def test_the_budget_counts_the_base_network(bench, counts):
    seen = []
    bench.run(lambda model, experience, trial: seen.append(trial.meter.passes) or None)
    assert seen == [base_cost(counts)] * 3


@pytest.mark.parametrize("name", ["idle", "naive"])
def test_the_harness_measures_on_its_own_account(name, bench, counts):
    """The probes within a task, too."""
    learn = idle if name == "idle" else load(name)
    own = 0 if name == "idle" else 4 * sum(n // 16 * 16 for n in counts[1:])
    outcome = bench.run(learn)
    assert outcome.meter.passes == base_cost(counts) + own
    assert (name == "idle") == ("course/class/2" not in outcome.curves)


def spend(more, swallow=False):
    """Puts examples through the network until the cap is reached, and `more` beyond."""

    def learn(model, experience, trial):
        if experience.number == 1:
            left = trial.meter.limit - trial.meter.passes + more
            batch = experience.train.batch(torch.arange(100))
            with torch.no_grad():
                for size in [100] * (left // 100) + [left % 100]:
                    with suppress(BudgetExceeded) if swallow else nullcontext():
                        model(batch.inputs[:size])

    return learn


def test_the_cap_can_be_spent_and_not_one_pass_more(bench, counts):
    assert bench.run(spend(0)).meter.passes == fine_tuning(counts, 5)
    with pytest.raises(BudgetExceeded, match=f"more than the task's {fine_tuning(counts, 5)} passes"):
        bench.run(spend(1))


def test_a_method_that_swallows_the_limit_is_refused_all_the_same(bench):
    with pytest.raises(BudgetExceeded):
        bench.run(spend(1, swallow=True))


@pytest.mark.parametrize("lifted", [0, 10**9])
def test_a_method_that_lifts_the_limit_is_refused_all_the_same(lifted, bench):
    def greedy(model, experience, trial):
        trial.meter.limit = lifted
        trial.fit(model, experience, learning_rate=0.01)

    with pytest.raises((BudgetExceeded, ProtocolError)):
        bench.run(greedy)


def test_a_reference_has_no_cap(bench, counts):
    assert limit(bench, method="joint") == 0
    assert limit(bench, method="naive", role="reference") == 0
    outcome = bench.run(load("joint", epochs=12), method="joint")
    assert outcome.meter.passes > fine_tuning(counts, 5)


# --------------------------------------------------------------------------------------- what is given to fit


def test_fit_takes_the_recipes_optimiser_unless_told_otherwise(bench, monkeypatch):
    made = []
    honest = continual.optimizer
    monkeypatch.setattr(continual, "optimizer", lambda *given: made.append((given[0], *given[2:])) or honest(*given))

    def learn(model, experience, trial):
        trial.fit(model, experience, learning_rate=0.01)
        trial.fit(model, experience, learning_rate=0.02, rule="adam", weight_decay=0.5)
        trial.fit(model, experience, learning_rate=0.03, weight_decay=0.0)

    recipe = msgspec.structs.replace(bench.task.base, momentum=0.5, weight_decay=0.25)
    bench.run(at(1, lambda model: None), task=msgspec.structs.replace(bench.task, base=recipe))
    bench.run(
        lambda model, experience, trial: learn(model, experience, trial) if experience.number == 1 else None,
        task=msgspec.structs.replace(bench.task, base=recipe),
    )
    assert made == [("sgd", 0.01, 0.5, 0.25), ("adam", 0.02, 0.5, 0.5), ("sgd", 0.03, 0.5, 0.0)]


def test_frozen_weights_stay_and_a_clipped_gradient_is_short(bench):
    """With clipping at c, plain SGD moves the weights by c times its rate at most."""
    moved = []

    def learn(model, experience, trial):
        if experience.number == 1:
            model[2].requires_grad_(False)
            before = {name: value.clone() for name, value in model.named_parameters()}
            one_step = continual.Experience(1, experience.classes, experience.train, experience.batches, 1)
            trial.fit(model, one_step, learning_rate=0.5, weight_decay=0.0)
            after = dict(model.named_parameters())
            assert all(torch.equal(before[name], after[name]) for name in ("2.weight", "2.bias"))
            moved.append(torch.cat([(after[n] - before[n]).flatten() for n in ("4.weight", "4.bias")]).norm().item())
            model.requires_grad_(True)

    bench.run(learn)
    recipe = msgspec.structs.replace(bench.task.base, clip=1e-3)
    bench.run(learn, task=msgspec.structs.replace(bench.task, base=recipe))
    assert moved[0] > 0.05 and moved[1] == pytest.approx(0.5e-3, rel=1e-3)


# ------------------------------------------------------------------------------------------------ the criterion


def masked(z, y, groups):
    """Mean cross-entropy over the outputs of each label's own group, in numpy."""
    losses = []
    for row, label in zip(z.astype(np.float64), y, strict=True):
        own = next(group for group in groups if label in group)
        losses.append(np.log(np.exp(row[list(own)]).sum()) - row[label])
    return np.mean(losses)


def criterion_of(bench, softmax):
    found = []
    stream = msgspec.structs.replace(bench.task.stream, softmax=softmax)
    bench.run(
        lambda model, experience, trial: found.append(trial.criterion) or None,
        task=msgspec.structs.replace(bench.task, stream=stream),
    )
    return found[0]


@pytest.mark.parametrize("softmax", ["all", "task"])
def test_the_loss_is_over_all_outputs_or_over_those_of_the_labels_own_task(softmax, bench):
    criterion: Criterion = criterion_of(bench, softmax)
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50, 10)) * 5, rng.integers(0, 6, 50)
    groups = CLASSES if softmax == "task" else [tuple(range(10))]
    inputs = torch.tensor(z, requires_grad=True)
    loss = criterion(inputs, torch.tensor(y))
    assert loss.item() == pytest.approx(masked(z, y, groups), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, inputs)
    for row in range(5):
        for column in range(10):
            step = np.zeros_like(z)
            step[row, column] = 1e-5
            wanted = (masked(z + step, y, groups) - masked(z - step, y, groups)) / 2e-5
            assert gradient[row, column].item() == pytest.approx(wanted, abs=1e-8)


def test_the_first_network_is_trained_with_the_tasks_own_loss(bench):
    """Over two outputs instead of ten it is another network, whose other outputs have not moved."""
    weights = {}
    for softmax in ("all", "task"):
        stream = msgspec.structs.replace(bench.task.stream, softmax=softmax)

        def look(model, experience, trial, softmax=softmax):
            if experience.number == 0:
                weights[softmax] = {name: value.detach().clone() for name, value in model.named_parameters()}
                weights["initial"] = trial.first.initial

        bench.run(look, task=msgspec.structs.replace(bench.task, stream=stream))
    initial = weights["initial"]["4.weight"]
    assert torch.equal(weights["task"]["4.weight"][2:], initial[2:])
    assert not torch.equal(weights["all"]["4.weight"][2:], initial[2:])


# ------------------------------------------------------------------------- the test split is the harness's


@pytest.mark.parametrize("copied", [False, True])
def test_a_network_never_gets_to_see_the_test_inputs(copied, bench, counts):
    """Neither the given one within a task nor the returned one after it: a hook hears of training examples alone."""
    heard = []

    def listen(model, experience, trial):
        network = copy.deepcopy(model) if copied else model
        if copied or experience.number == 0:
            network.register_forward_pre_hook(lambda module, inputs: heard.append(len(inputs[0])))
        trial.fit(network, experience, learning_rate=0.01)
        return network

    bench.run(listen)
    assert heard == [16] * sum(2 * (n // 16) for n in counts[1:])


def test_a_network_is_scored_by_the_weights_that_it_shows(bench):
    class Hidden(nn.Sequential):
        def forward(self, x):
            return self.__dict__["kept"](x)

    def smuggle(model, experience, trial):
        network = Hidden(*copy.deepcopy(model))
        network.__dict__["kept"] = lambda x: torch.eye(10)[torch.full((len(x),), experience.classes[0])]
        return network

    assert bench.run(smuggle).metrics == bench.run(idle).metrics


# ----------------------------------------------------------------------------------------------- bad streams


def test_a_class_that_the_data_does_not_have(tmp_path, cache_dir):
    bench = Bench(
        tmp_path,
        cache_dir,
        model='{ name = "mlp", inputs = [1, 8, 8], hidden = [20], outputs = 13 }',
        stream='{ classes = [[0, 1], [2, 12], [4, 11]], score = ["class"] }',
    )
    with pytest.raises(UserError, match=r"^task 'stream', field 'stream.classes': the data has no class 12$"):
        bench.run(idle)


def test_a_task_of_less_than_a_batch(bench):
    task = msgspec.structs.replace(bench.task, budget=Budget(epochs=2, batch_size=250))
    with pytest.raises(
        UserError, match=r"^task 'stream', field 'budget.batch_size': a batch is 250, but task 1 .* has 232 "
    ):
        bench.run(idle, task=task)


def test_a_validation_part_that_lacks_a_task(bench):
    task = msgspec.structs.replace(bench.task, validation=2)
    with pytest.raises(UserError, match=r"^task 'stream', field 'validation': holds no example of task \d"):
        bench.run(idle, task=task, split="validation")
