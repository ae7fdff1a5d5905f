"""Work that does not go through the model: what the meter sees of it, and how it is told."""

import pytest
import torch
from torch import nn

from fipbench.errors import BudgetExceeded
from fipbench.fip import metric
from fipbench.fip.metric.gram import jacobian
from fipbench.training import Meter


def metered(limit=0):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    meter = Meter(limit)
    meter.attach(model)
    return model, meter


def test_what_is_spent_is_counted_and_stops_at_the_limit():
    model, meter = metered(100)
    model(torch.zeros(10, 4)).sum().backward()
    meter.spend(30, 50)
    assert (meter.forward, meter.backward, meter.passes) == (40, 60, 100)
    with pytest.raises(BudgetExceeded, match="more than the task's 100 passes"):
        meter.spend(0, 1)


def test_what_is_told_counts_while_calls_do_not():
    model, meter = metered()
    with meter.paused():
        model(torch.zeros(10, 4)).sum().backward()
        meter.spend(3, 4)
    assert (meter.forward, meter.backward) == (3, 4)


def test_what_hooks_see_of_functional_transforms():
    """Why a method must say what it computes with torch.func: the copies count, but only what one call shows."""
    model, meter = metered()
    g = metric.metric_of(model, torch.rand(5, 4))

    def seen(work):
        before = meter.forward, meter.backward
        work()
        return meter.forward - before[0], meter.backward - before[1]

    assert seen(lambda: g.pull(torch.ones(15))) == (5, 5)
    assert seen(lambda: g.push(torch.ones(g.size))) == (5, 0)  # the values, not their change
    assert seen(lambda: jacobian(g)) == (1, 1)  # 15 rows under vmap, seen as one


def test_one_backward_pass_for_each_output_is_counted_each_time():
    model, meter = metered()
    outputs = model(torch.rand(5, 4))
    for k in range(3):
        torch.autograd.grad(outputs[:, k].sum(), list(model.parameters()), retain_graph=True)
    assert (meter.forward, meter.backward) == (5, 15)
