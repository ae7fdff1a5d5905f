"""Precision, checkpointing and parts change how a network computes, not which network it is."""

from __future__ import annotations

import copy
import weakref
from functools import partial

import msgspec
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fipbench.errors import UserError
from fipbench.models import build
from fipbench.models.compute import _called, in_parts
from fipbench.spec import Model, digest
from fipbench.training import Meter

MLP = Model(name="mlp", inputs=(1, 8, 8), hidden=(32,), outputs=10)
BERT = Model(name="bert", inputs=(12,), outputs=3, vocabulary=40, width=16, depth=2, heads=2)
VIT = Model(name="vit", inputs=(3, 8, 8), outputs=5, pixels=16, patch=4, width=24, depth=2, heads=3, mean=0.5, std=0.5)


def inputs_of(spec):
    draws = torch.Generator().manual_seed(0)
    if spec.name == "bert":
        return torch.randint(1, 40, (6, *spec.inputs), generator=draws)
    return torch.rand(6, *spec.inputs, generator=draws)


def gradients(network, x):
    nn.functional.cross_entropy(network(x), torch.arange(len(x)) % 3).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("spec", [MLP, BERT, VIT], ids=lambda spec: spec.name)
def test_bfloat16_is_near_and_is_not_float32(spec):
    plain = build(spec, 0)
    fast = build(msgspec.structs.replace(spec, precision="bfloat16"), 0)
    x = inputs_of(spec)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), fast.parameters(), strict=True))
    seen = []
    hook = next(m for m in fast.modules() if isinstance(m, nn.Linear)).register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    a, b = plain(x), fast(x)
    hook.remove()
    assert seen == [torch.bfloat16] and b.dtype == torch.float32
    assert not torch.equal(a, b)
    # Eight bits of mantissa: a relative error of 2 to the -8 a layer.
    torch.testing.assert_close(a, b, atol=0.05 * float(a.detach().abs().max()), rtol=0.05)
    g, h = gradients(plain, x), gradients(fast, x)
    assert h.dtype == torch.float32 and float(nn.functional.cosine_similarity(g, h, dim=0)) > 0.99
    assert torch.equal(copy.deepcopy(fast)(x), b)


@pytest.mark.parametrize("spec", [BERT, VIT], ids=lambda spec: spec.name)
def test_checkpointing_changes_no_bit_and_keeps_less(spec):
    plain, thrifty = build(spec, 0).train(), build(msgspec.structs.replace(spec, checkpoint=True), 0).train()
    x = inputs_of(spec)

    def kept(network):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t.numel()) or t, lambda t: t):
            network(x)
        return sum(found)

    assert kept(thrifty) < 0.6 * kept(plain)
    assert torch.equal(gradients(plain, x), gradients(thrifty, x))


def test_what_cannot_be_checkpointed_says_so():
    with pytest.raises(UserError, match=r"field 'model.checkpoint': 'mlp' cannot"):
        build(msgspec.structs.replace(MLP, checkpoint=True), 0)


def test_a_task_that_does_not_ask_is_what_it_was():
    assert digest(MLP) == digest(msgspec.structs.replace(MLP, precision=msgspec.UNSET, checkpoint=msgspec.UNSET))
    assert digest(MLP) != digest(msgspec.structs.replace(MLP, precision="bfloat16"))
    assert "precision" not in msgspec.to_builtins(MLP)


# -------------------------------------------------------------------------------------------------- in parts


def parts_of(spec, size, **more):
    return msgspec.structs.replace(spec, microbatch=size, **more)


def coupled(logits):
    """A loss that is no mean over examples: of the volume that the batch's outputs span, and of their labels."""
    volume = torch.logdet(torch.eye(len(logits), dtype=logits.dtype) + logits @ logits.T)
    return nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3) - volume


@pytest.mark.parametrize("size", [1, 4, 6, 100])
@pytest.mark.parametrize("spec", [MLP, BERT, VIT], ids=lambda spec: spec.name)
def test_in_parts_outputs_and_gradients_are_the_whole_batchs(spec, size):
    plain, thrifty = (build(one, 0).double().train() for one in (spec, parts_of(spec, size)))
    assert list(plain.state_dict()) == list(thrifty.state_dict())
    found = []
    for network in (plain, thrifty):
        x = inputs_of(spec)
        x = x if spec.name == "bert" else x.double().requires_grad_()
        logits = network(x)
        coupled(logits).backward()
        found.append([logits, *(p.grad for p in network.parameters()), x.grad])
    for a, b in zip(*found, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert (a is None) == (b is None)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(inputs_of(spec).to(x.dtype)), thrifty.eval()(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_no_more_than_a_part_goes_through_at_once(training):
    network = build(parts_of(MLP, 4), 0).train(training)
    seen = []
    network[2].register_forward_hook(lambda module, args, output: seen.append(len(output)))
    with torch.set_grad_enabled(training):
        logits = network(inputs_of(MLP))
    assert seen == [4, 2]
    if training:
        logits.sum().backward()
        assert seen[2:] == [2, 4], "each part is computed again, the last one first"


def test_the_meter_counts_the_batch_once_and_follows_copies():
    meter = Meter()
    network = copy.deepcopy(meter.attach(build(parts_of(MLP, 4), 0)))
    network(inputs_of(MLP)).sum().backward()
    assert (meter.forward, meter.backward) == (6, 6)


def test_a_copy_has_weights_of_its_own():
    network, x = build(parts_of(MLP, 4, precision="bfloat16"), 0), inputs_of(MLP)
    before, twin = network(x), copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(network(x), before) and not twin(x).any()
    assert isinstance(twin, nn.Sequential) and type(twin).__name__ == "Sequential"
    twin.load_state_dict(build(MLP, 0).state_dict())
    assert torch.equal(twin(x), before)


def test_dropout_is_the_same_when_computed_again():
    """The gradient of a weight is the sum of what came through to it, which the outputs tell."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1, bias=False))
    _called(network, partial(in_parts, size=7))
    out = network(torch.ones(100, 1))
    assert 0 < int((out == 0).sum()) < 100
    out.sum().backward()
    weight = network[1].weight
    torch.testing.assert_close(weight.grad, (out / weight).sum(0, keepdim=True))


def test_all_at_once():
    """In parts of layers that are computed again, in bfloat16: near the plain network, with its names."""
    plain = build(VIT, 0).train()
    network = build(parts_of(VIT, 4, precision="bfloat16", checkpoint=True), 0).train()
    assert list(plain.state_dict()) == list(network.state_dict())
    g, h = (gradients(one, inputs_of(VIT)) for one in (plain, network))
    assert float(nn.functional.cosine_similarity(g, h, dim=0)) > 0.99 and not torch.equal(g, h)
    # Computing layers again changes nothing further.
    other = build(parts_of(VIT, 4, precision="bfloat16"), 0).train()
    assert torch.equal(gradients(other, inputs_of(VIT)), h)


def test_batch_norm_is_refused():
    resnet = Model(name="resnet", inputs=(3, 8, 8), channels=(4,), depth=1, outputs=3)
    with pytest.raises(UserError, match=r"field 'model.microbatch': 'resnet' has batch norm"):
        build(parts_of(resnet, 4), 0)


class Live(TorchDispatchMode):
    """Bytes of all tensors made inside that are there at once, at most."""

    def __init__(self):
        super().__init__()
        self.known = weakref.WeakSet()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage.nbytes())
        return found

    def gone(self, size):
        self.now -= size


def peak(spec, examples):
    network, x = build(spec, 0), torch.rand(examples, *spec.inputs)
    with Live() as live:
        network(x).sum().backward()
    return live.peak


def test_memory_is_that_of_a_part():
    """Of 1,024 examples, 16 layers of 64 keep 4 MiB; in parts of 64, a sixteenth of it. The rest is gradients."""
    deep = Model(name="mlp", inputs=(64,), hidden=(64,) * 16, outputs=10)
    whole, thrifty = peak(deep, 1024), peak(parts_of(deep, 64), 1024)
    kept = 16 * 1024 * 64 * 4
    assert whole > kept and whole - thrifty > kept * 15 / 16
    assert thrifty < whole / 4
