"""`fit` and `predict` against loops written by hand, bit for bit."""

import copy

import pytest
import torch
from torch import nn

from fipbench.training import Batch, Examples, cross_entropy, decay, fit, optimizer, predict, stream


def examples(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return Examples(inputs, torch.randint(0, 3, (n,), generator=generator))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def batches(data=None, seed=1):
    return stream(data or examples(), 8, torch.Generator().manual_seed(seed))


RULES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}
OURS = {
    "sgd": lambda p: optimizer("sgd", p, 0.05, weight_decay=1e-3),
    "adam": lambda p: optimizer("adam", p, 0.01),
    "adamw": lambda p: optimizer("adamw", p, 0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("rule", list(RULES))
def test_equals_a_loop_by_hand_bit_for_bit(rule):
    data, ours, theirs = examples(), network(), network()
    torch.manual_seed(3)
    assert fit(ours, batches(data), steps=23, optimizer=OURS[rule](ours.parameters())) is ours

    torch.manual_seed(3)
    step_rule = RULES[rule](theirs.parameters())
    order = torch.Generator().manual_seed(1)
    rows: list[int] = []
    theirs.train()
    for _ in range(23):
        if len(rows) < 8:
            rows = torch.randperm(40, generator=order).tolist()
        now, rows = rows[:8], rows[8:]
        loss = nn.functional.cross_entropy(theirs(data.inputs[now].float() / 255), data.labels[now])
        step_rule.zero_grad()
        loss.backward()
        step_rule.step()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert not torch.equal(ours[1].weight, network()[1].weight)


def test_schedule_loss_and_after_step_are_called_once_a_step():
    model = network()
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(rule, lambda step: 0.5**step)
    seen = []

    def loss(given, batch):
        assert given is model and isinstance(batch, Batch)
        return cross_entropy(given, batch)

    def after(step):
        seen.append((step, rule.param_groups[0]["lr"]))

    fit(model, batches(), steps=4, optimizer=rule, loss=loss, schedule=schedule, after_step=after)
    assert seen == [(0, 0.05), (1, 0.025), (2, 0.0125), (3, 0.00625)]


def test_after_step_sees_the_weights_stepped():
    model, last = network(), []
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, batches(), steps=3, optimizer=rule, after_step=lambda _: last.append(model[5].weight.detach().clone()))
    assert torch.equal(last[-1], model[5].weight)
    assert not torch.equal(last[0], last[1])


def test_exactly_steps_batches_are_taken():
    taken = []

    def counted():
        for batch in batches():
            taken.append(1)
            yield batch

    source, model = counted(), network()
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, source, steps=5, optimizer=rule)
    assert len(taken) == 5
    fit(model, source, steps=0, optimizer=rule)
    assert len(taken) == 5


def test_one_stream_in_two_parts_is_one_stream():
    parts, whole = network(), network()
    parts[4] = whole[4] = nn.Identity()
    for model, pieces in ((parts, (7, 6)), (whole, (13,))):
        source, rule = batches(), torch.optim.Adam(model.parameters(), lr=0.01)
        for steps in pieces:
            fit(model, source, steps=steps, optimizer=rule)
    assert all(torch.equal(a, b) for a, b in zip(parts.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_trains_in_training_mode_and_puts_the_mode_back(training):
    model, modes = network().train(training), []
    rule = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(given, batch):
        modes.append(all(m.training for m in given.modules()))
        return cross_entropy(given, batch)

    fit(model, batches(), steps=2, optimizer=rule, loss=loss)
    assert modes == [True, True]
    assert all(m.training == training for m in model.modules())


def test_cross_entropy_is_the_mean():
    model, batch = network().eval(), examples().batch(torch.arange(10))
    log_p = model(batch.inputs).log_softmax(-1)
    torch.testing.assert_close(cross_entropy(model, batch), -log_p[range(10), batch.labels].mean())


def test_optimizer_names():
    with pytest.raises(ValueError, match="sgd, adam or adamw, got 'lion'"):
        optimizer("lion", network().parameters(), 0.1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_predict_equals_a_direct_call_and_puts_the_mode_back(training, batch_size):
    data, model = examples(), network().train(training)
    before = copy.deepcopy(model.state_dict())
    outputs = predict(model, data, batch_size)
    assert all(m.training == training for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not outputs.requires_grad
    expected = copy.deepcopy(model).eval()(data.inputs.float() / 255)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)


def test_predict_puts_back_the_mode_of_every_part():
    model = network().train()
    model[2].eval()
    predict(model, examples())
    assert [m.training for m in model.children()] == [True, True, False, True, True, True]


def test_decay_is_a_tenth_after_each_fraction_of_the_steps():
    weight = nn.Parameter(torch.zeros(1))
    rule = torch.optim.SGD([weight], lr=0.5)
    schedule = decay(rule, (0.5, 0.75), 8)
    rates = []
    for _ in range(8):
        rates.append(rule.param_groups[0]["lr"])
        rule.step()
        schedule.step()
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 2 + [0.005] * 2)
    assert decay(rule, (), 8) is None
