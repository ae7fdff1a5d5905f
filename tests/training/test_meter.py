"""The meter against counts by hand."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from fipbench.errors import BudgetExceeded
from fipbench.training import Examples, Meter, fit, predict, stream


def metered(limit=0, spent=(0, 0), model=None):
    meter = Meter(limit, spent)
    torch.manual_seed(0)
    return meter, meter.attach(model or nn.Linear(3, 2))


def counts(meter):
    return meter.forward, meter.backward


def test_examples_forward_and_backward():
    meter, model = metered()
    model(torch.ones(5, 3)).sum().backward()
    assert counts(meter) == (5, 5) and meter.passes == 10
    model(torch.ones(4, 3))
    assert counts(meter) == (9, 5), "a forward pass without a backward one"
    with torch.no_grad():
        model(torch.ones(7, 3))
    assert counts(meter) == (16, 5)


def test_a_part_of_a_batch_backward_is_a_whole_pass_and_two_are_two():
    meter, model = metered()
    out = model(torch.ones(5, 3))
    out[0].sum().backward(retain_graph=True)
    assert counts(meter) == (5, 5)
    out.sum().backward()
    assert counts(meter) == (5, 10)


def test_gradients_of_the_inputs_are_counted_too():
    meter, model = metered()
    x = torch.ones(6, 3, requires_grad=True)
    torch.autograd.grad(model.requires_grad_(False)(x).sum(), x)
    assert counts(meter) == (6, 6)


def test_copies_and_copies_of_copies_share_the_meter():
    meter, model = metered()
    copies = [copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model)), copy.copy(model)]
    for network in copies:
        network(torch.ones(2, 3)).sum().backward()
    assert counts(meter) == (6, 6)
    assert copy.deepcopy(meter) is meter


def test_a_part_of_a_network_is_metered_where_it_is_attached():
    meter, model = metered(model=nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    model(torch.ones(2, 3))
    assert counts(meter) == (2, 0), "its parts are not counted again"


def test_paused_counts_nothing_and_nests():
    meter, model = metered()
    with meter.paused():
        model(torch.ones(5, 3)).sum().backward()
        with meter.paused():
            model(torch.ones(5, 3))
        model(torch.ones(5, 3))
    assert counts(meter) == (0, 0)
    with pytest.raises(KeyError), meter.paused():
        raise KeyError
    model(torch.ones(1, 3))
    assert counts(meter) == (1, 0)


def test_fit_and_predict_by_hand():
    meter, model = metered()
    data = Examples(torch.randn(50, 3), torch.zeros(50, dtype=torch.int64))
    batches = stream(data, 8, torch.Generator().manual_seed(0))
    fit(model, batches, steps=11, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert counts(meter) == (88, 88)
    predict(model, data, batch_size=7)
    assert counts(meter) == (138, 88)


class Answers(nn.Module):
    """Returns as the models of transformers do: keyword inputs, a dictionary, the loss before the logits."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind

    def forward(self, input_ids=None, labels=None):
        logits = self.layer(input_ids)
        loss = nn.functional.cross_entropy(logits, labels) if labels is not None else None
        if self.kind == "tuple":
            return (loss, logits)
        return OrderedDict(loss=loss, logits=logits) if loss is not None else OrderedDict(logits=logits)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
@pytest.mark.parametrize("keyword", [True, False])
def test_answers_as_those_of_transformers(kind, keyword):
    x, y = torch.ones(5, 3), torch.zeros(5, dtype=torch.int64)

    def call(model, labels=None):
        out = model(input_ids=x, labels=labels) if keyword else model(x, labels)
        return tuple(out.values()) if kind == "dict" else out

    meter, model = metered(model=Answers(kind))
    call(model)[-1].sum().backward()
    assert counts(meter) == (5, 5)
    with torch.no_grad():
        call(model)
    assert counts(meter) == (10, 5)
    call(model, y)[0].backward()
    assert counts(meter) == (15, 10), "a loss is one number, but of five examples"
    call(model, y)[1].sum().backward()
    assert counts(meter) == (20, 15), "backward from the logits, where a loss stands first"
    loss, logits = call(model, y)
    (loss + logits.sum()).backward()
    assert counts(meter) == (25, 20), "through both is one pass"


def test_without_a_tensor_given_what_comes_out_tells_the_batch():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, texts):
            logits = self.layer(torch.ones(len(texts), 3))
            return {"loss": logits.sum(), "logits": logits}

    meter, model = metered(model=Reads())
    model(["one", "two", "three"])["loss"].backward()
    assert counts(meter) == (3, 3)


def test_the_limit_is_what_may_be_spent_and_not_one_more():
    meter, model = metered(limit=20)
    model(torch.ones(5, 3)).sum().backward()
    model(torch.ones(5, 3)).sum().backward()
    assert meter.passes == 20
    with pytest.raises(BudgetExceeded, match="20 passes"):
        model(torch.ones(1, 3))


def test_the_limit_stops_a_backward_pass_too():
    meter, model = metered(limit=19)
    model(torch.ones(5, 3)).sum().backward()
    out = model(torch.ones(5, 3))
    with pytest.raises(BudgetExceeded):
        out.sum().backward()
    assert meter.passes == 20


def test_what_was_spent_before_counts():
    meter, model = metered(limit=20, spent=(8, 8))
    assert meter.passes == 16
    model(torch.ones(4, 3))
    with pytest.raises(BudgetExceeded):
        model(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("limit", "spent", "batch", "steps"),
    [(100, (0, 0), 5, 10), (100, (0, 0), 6, 8), (100, (30, 20), 5, 5), (100, (60, 60), 5, 0), (9, (0, 0), 5, 0)],
)
def test_steps_that_the_limit_still_allows(limit, spent, batch, steps):
    meter, model = metered(limit, spent)
    assert meter.steps(batch) == steps
    if steps:
        for _ in range(steps):
            model(torch.ones(batch, 3)).sum().backward()
        assert meter.steps(batch) == 0


def test_as_many_steps_of_fit_as_the_limit_allows_are_no_breach():
    meter, model = metered(limit=100)
    data = Examples(torch.randn(50, 3), torch.zeros(50, dtype=torch.int64))
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = stream(data, 8, torch.Generator().manual_seed(0))
    fit(model, batches, steps=meter.steps(8), optimizer=rule)
    assert meter.passes == 96
    with pytest.raises(BudgetExceeded):
        fit(model, batches, steps=1, optimizer=rule)


def test_a_meter_changes_no_number():
    plain, (_, model) = nn.Linear(3, 2), metered()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(5, 3)
    for network in (plain, model):
        network(x).square().sum().backward()
    assert torch.equal(plain.weight.grad, model.weight.grad)


def test_tick_tells_the_share_of_the_limit():
    meter, model = metered(limit=40)
    shares = []
    meter.tick = shares.append
    model(torch.ones(10, 3))
    assert shares == [0.25]
    model(torch.ones(10, 3))
    assert shares == [0.25], "not more than four times a second"
