"""Precision and checkpointing change how a network computes, not which network it is."""

from __future__ import annotations

import copy

import msgspec
import pytest
import torch
from torch import nn

from fipbench.errors import UserError
from fipbench.models import build
from fipbench.spec import Model, digest

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
