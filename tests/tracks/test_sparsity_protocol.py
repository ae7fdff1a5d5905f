"""What the sparsity track lets a method do, and what it says when the method does something else."""

from __future__ import annotations

import copy
from contextlib import suppress

import pytest
import torch
from torch import nn

from fipbench import pruning
from fipbench.errors import BudgetExceeded, ProtocolError
from fipbench.spec import Record
from fipbench.training import Meter


def cut(model, level):
    return pruning.apply(copy.deepcopy(model), pruning.magnitude_masks(pruning.prunable(model), level))


def good(model, sparsities, trial):
    yield from ((level, cut(model, level)) for level in sparsities)


# -------------------------------------------------------------------------------------------- violations


def returns_nothing(model, sparsities, trial):
    return None


def yields_a_network_alone(model, sparsities, trial):
    yield cut(model, 0.5)


def yields_three(model, sparsities, trial):
    yield 0.5, cut(model, 0.5), "and this"


def yields_weights(model, sparsities, trial):
    yield 0.5, cut(model, 0.5).state_dict()


def yields_a_word(model, sparsities, trial):
    yield "half", cut(model, 0.5)


def yields_nothing(model, sparsities, trial):
    yield from ()


def stops_early(model, sparsities, trial):
    yield 0.5, cut(model, 0.5)


def goes_on(model, sparsities, trial):
    yield from good(model, sparsities, trial)
    yield 0.95, cut(model, 0.95)


def begins_at_the_end(model, sparsities, trial):
    yield from ((level, cut(model, level)) for level in reversed(sparsities))


def repeats_a_level(model, sparsities, trial):
    yield 0.5, cut(model, 0.5)
    yield 0.5, cut(model, 0.5)


def makes_up_a_level(model, sparsities, trial):
    yield 0.51, cut(model, 0.51)


def says_nan(model, sparsities, trial):
    yield float("nan"), cut(model, 0.5)


def one_zero_short(model, sparsities, trial):
    network = cut(model, 0.5)
    with torch.no_grad():
        weight = network[-1].weight.view(-1)
        weight[(weight == 0).nonzero()[0]] = 1.0
    yield 0.5, network


def one_zero_more(model, sparsities, trial):
    network = cut(model, 0.5)
    with torch.no_grad():
        weight = network[-1].weight.view(-1)
        weight[weight.nonzero()[0]] = 0.0
    yield 0.5, network


def almost_zero(model, sparsities, trial):
    network = cut(model, 0.5)
    with torch.no_grad():
        for weight in pruning.prunable(network).values():
            weight[weight == 0] = 1e-38
    yield 0.5, network


def a_smaller_network(model, sparsities, trial):
    yield 0.5, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def pruned_by_torch(model, sparsities, trial):
    """`torch.nn.utils.prune` keeps the dense weights beside a mask until `remove` is called."""
    from torch.nn.utils import prune

    network = copy.deepcopy(model)
    layers = [(module, "weight") for module in network if isinstance(module, nn.Linear)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.5)
    yield 0.5, network


def with_nan(model, sparsities, trial):
    network = cut(model, 0.5)
    with torch.no_grad():
        network[-1].weight[network[-1].weight != 0] = float("nan")
    yield 0.5, network


def with_infinity_in_a_bias(model, sparsities, trial):
    network = cut(model, 0.5)
    with torch.no_grad():
        network[-1].bias[3] = float("inf")
    yield 0.5, network


VIOLATIONS = [
    (returns_nothing, r"expected an iterator of \(sparsity, model\), got NoneType"),
    (yields_a_network_alone, r"expected a tuple \(sparsity, model\), got Sequential"),
    (yields_three, r"expected a tuple \(sparsity, model\), got tuple"),
    (yields_weights, r"expected a tuple \(sparsity, model\), got tuple"),
    (yields_a_word, "expected a number as sparsity, got str"),
    (yields_nothing, "yielded 0 of 2 sparsities, then stopped"),
    (stops_early, "yielded 1 of 2 sparsities, then stopped"),
    (goes_on, r"yielded sparsity 0\.95 where nothing more was due"),
    (begins_at_the_end, r"yielded sparsity 0\.9 where 0\.5 was due"),
    (repeats_a_level, r"yielded sparsity 0\.5 where 0\.9 was due"),
    (makes_up_a_level, r"yielded sparsity 0\.51 where 0\.5 was due"),
    (says_nan, r"yielded sparsity nan where 0\.5 was due"),
    (one_zero_short, r"the network at sparsity 0\.5 has 789 zeros among 1580, not 790"),
    (one_zero_more, r"the network at sparsity 0\.5 has 791 zeros among 1580, not 790"),
    (almost_zero, r"the network at sparsity 0\.5 has 0 zeros among 1580, not 790"),
    (a_smaller_network, r"the network at sparsity 0\.5 has other parameters than the dense one"),
    (pruned_by_torch, r"the network at sparsity 0\.5 has other parameters than the dense one"),
    (with_nan, r"the network at sparsity 0\.5 has weights that are not finite \(6\.weight\)"),
    (with_infinity_in_a_bias, r"the network at sparsity 0\.5 has weights that are not finite \(6\.bias\)"),
]


@pytest.mark.parametrize(("method", "words"), VIOLATIONS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_violation_is_refused_in_words(method, words, lab):
    with pytest.raises(ProtocolError, match=f"^{words}$"):
        lab.run(method)


def test_the_contract_kept_is_an_outcome(lab):
    outcome = lab.run(good)
    assert set(outcome.items) == {"0.5", "0.9"}
    assert {"accuracy@0.5", "accuracy@0.9", "area", "dense_accuracy"} <= set(outcome.metrics)


def test_a_list_will_do(lab):
    assert lab.run(lambda *given: list(good(*given))).metrics == lab.run(good).metrics


def test_a_network_changed_after_it_was_yielded_was_scored_as_it_was(lab):
    def in_place(model, sparsities, trial):
        network = copy.deepcopy(model)
        for level in sparsities:
            yield level, pruning.apply(network, pruning.magnitude_masks(pruning.prunable(network), level))
        with torch.no_grad():
            network[-1].bias.fill_(1e6)

    assert lab.run(in_place).metrics == lab.run(good).metrics


def test_a_violation_is_a_record_that_says_so(lab, tmp_path):
    plugin = tmp_path / "stops_early.py"
    plugin.write_text(
        "from fipbench.methods import sparsity\n@sparsity()\ndef early():\n"
        "    return lambda model, sparsities, trial: iter(())\n"
    )
    found = lab.method("early", plugin)
    record: Record = lab.record(lab.job(found), found.target)
    assert record.status == "failed" and record.metrics == {} and record.items == {}
    assert (record.error.type, record.error.message) == ("ProtocolError", "yielded 0 of 2 sparsities, then stopped")


def test_a_reference_is_asked_for_the_dense_network_alone(lab):
    given = []

    def dense(model, sparsities, trial):
        given.append(sparsities)
        yield 0.0, model

    outcome = lab.run(dense, method="dense")
    assert given == [(0.0,)]
    assert outcome.metrics["accuracy@0"] == outcome.metrics["area"] == outcome.metrics["dense_accuracy"]
    assert outcome.metrics["weights_walked"] == outcome.metrics["outputs_walked"] == 0


# ------------------------------------------------------------------------------------------------ budget


def limit(lab):
    return 2 * lab.task.budget.epochs * len(lab.split("train").labels)


def base_cost(lab):
    return 2 * lab.task.base.epochs * (1200 // 32 * 32)


def test_the_budget_counts_the_base_network(lab):
    seen = {}

    def look(model, sparsities, trial):
        seen.update(limit=trial.meter.limit, spent=trial.meter.passes, steps=trial.steps)
        yield from good(model, sparsities, trial)

    outcome = lab.run(look)
    assert seen == {
        "limit": 5 * 1200 * 2,
        "spent": 2 * 2 * 37 * 32,
        "steps": (5 * 1200 * 2 - 2 * 2 * 37 * 32) // 64,
    }
    assert (outcome.meter.forward, outcome.meter.backward) == (2 * 37 * 32, 2 * 37 * 32)


def test_all_steps_that_are_left_can_be_taken_and_not_one_more(lab):
    def spend(more):
        def train(model, sparsities, trial):
            network = trial.fit(copy.deepcopy(model), steps=trial.steps + more, learning_rate=0.01)
            yield from good(network, sparsities, trial)

        return train

    outcome = lab.run(spend(0))
    assert limit(lab) - 64 < outcome.meter.passes <= limit(lab)
    assert not outcome.notes
    with pytest.raises(BudgetExceeded, match=f"more than the task's {limit(lab)} passes"):
        lab.run(spend(1))


def test_stopping_early_is_noted_with_the_share_spent(lab):
    outcome = lab.run(good)
    assert outcome.notes == [f"stopped at {base_cost(lab) / limit(lab):.0%} of the budget"]


def test_the_harness_measures_on_its_own_account(lab):
    assert lab.run(good).meter.passes == base_cost(lab)


def test_a_method_that_swallows_the_limit_is_refused_all_the_same(lab):
    def deaf(model, sparsities, trial):
        network = copy.deepcopy(model)
        for _ in range(trial.steps + 100):
            with suppress(BudgetExceeded):
                trial.fit(network, steps=1, learning_rate=0.01)
        yield from good(network, sparsities, trial)

    with pytest.raises(BudgetExceeded):
        lab.run(deaf)


def test_a_method_that_lifts_the_limit_is_refused_all_the_same(lab):
    def greedy(model, sparsities, trial):
        steps, trial.meter.limit = trial.steps, 0
        network = trial.fit(copy.deepcopy(model), steps=steps + 50, learning_rate=0.01)
        yield from good(network, sparsities, trial)

    with pytest.raises((BudgetExceeded, ProtocolError)):
        lab.run(greedy)


def test_copies_share_the_meter():
    meter = Meter(limit=100)
    model = meter.attach(nn.Linear(3, 2))
    for _ in range(3):
        model = copy.deepcopy(model)
        model(torch.zeros(10, 3)).sum().backward()
    assert (meter.forward, meter.backward) == (30, 30)


# ------------------------------------------------------------------------- the test split is the harness's


def test_a_yielded_network_never_gets_to_see_the_test_inputs(lab):
    heard = []

    def listen(model, sparsities, trial):
        for level in sparsities:
            network = cut(model, level)
            network.register_forward_pre_hook(lambda module, inputs: heard.append(len(inputs[0])))
            yield level, network

    lab.run(listen)
    assert not heard, f"the method's own hook was called with {sum(heard)} test inputs"


def test_a_network_is_scored_by_the_weights_that_were_counted(lab):
    class Hidden(nn.Sequential):
        def forward(self, x):
            return self.__dict__["kept"](x)

    def smuggle(model, sparsities, trial):
        for level in sparsities:
            network = Hidden(*cut(model, level))
            network.__dict__["kept"] = copy.deepcopy(model)
            yield level, network

    honest = lab.run(good).metrics
    with suppress(ProtocolError):
        assert lab.run(smuggle).metrics["accuracy@0.9"] == honest["accuracy@0.9"]


@pytest.mark.parametrize("draw", ["torch.rand(3).tolist()", "numpy.random.rand(3).tolist()", "random.random()"])
def test_global_generators_are_seeded_by_task_and_seed(draw, lab, tmp_path):
    """Dropout and the like draw from torch's own generator, whose default seed is one for all."""
    plugin = tmp_path / f"draws_{draw[:5].replace('.', '')}.py"
    plugin.write_text(
        "import random, numpy, torch\nfrom fipbench.methods import sparsity\n\n@sparsity()\ndef draws():\n"
        "    def prune(model, sparsities, trial):\n"
        f"        raise ArithmeticError(str({draw}))\n        yield\n    return prune\n"
    )
    found = lab.method("draws", plugin)

    def drawn(seed):
        return lab.record(lab.job(found, seed), found.target).error.message

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
