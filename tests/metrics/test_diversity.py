"""Representation diversity and coherence against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fipbench import metrics


def network(seed, last=3):
    draw = torch.Generator().manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, last)
    )
    for p in made.parameters():
        nn.init.normal_(p, generator=draw)
    return made


def norms_by_numpy(made, x):
    """|| h ||_2 before and after ReLU of each layer: convolution by its definition, no hooks."""
    w, b = made[0].weight.detach().double().numpy(), made[0].bias.detach().double().numpy()
    images = x.double().numpy()[:, 0]
    n, size = len(images), images.shape[1] - 1
    h = np.zeros((n, 2, size, size))
    for c in range(2):
        for i in range(size):
            for j in range(size):
                h[:, c, i, j] = (images[:, i : i + 2, j : j + 2] * w[c, 0]).sum((1, 2)) + b[c]
    pre, post = [h.reshape(n, -1)], [np.maximum(h, 0).reshape(n, -1)]
    h = np.maximum(h, 0).max((2, 3))
    for layer in (made[4], made[6]):
        h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        pre.append(h)
        post.append(np.maximum(h, 0) if layer is made[4] else h)
        h = np.maximum(h, 0)
    return [np.linalg.norm(v, axis=1) for v in pre], [np.linalg.norm(v, axis=1) for v in post]


@pytest.fixture
def inputs():
    return torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("point", ["pre", "post"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_diversity_is_the_deviation_of_the_norms(point, ddof, inputs):
    members = [network(seed) for seed in range(3)]
    found = metrics.representation_diversity(members, inputs, point=point, ddof=ddof)
    assert list(found) == ["0", "4", "6"]
    norms = [norms_by_numpy(member, inputs)[0 if point == "pre" else 1] for member in members]
    for place, value in enumerate(found.values()):
        wanted = np.std([one[place] for one in norms], axis=0, ddof=ddof)
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4)
    assert not torch.allclose(found["0"], metrics.representation_diversity(members, inputs, ddof=1 - ddof)["0"])


def test_by_default_it_is_after_relu_and_divided_by_the_members(inputs):
    members = [network(seed) for seed in range(3)]
    plain = metrics.representation_diversity(members, inputs)
    stated = metrics.representation_diversity(members, inputs, point="post", ddof=0)
    assert all(torch.equal(plain[layer], stated[layer]) for layer in plain)


def test_copies_have_no_diversity_and_nothing_is_left_behind(inputs):
    member = network(0)
    found = metrics.representation_diversity([member, member], inputs)
    assert all(float(value.abs().max()) == 0 for value in found.values())
    assert float(metrics.representation_diversity([member], inputs)["4"].max()) == 0
    assert not any(module._forward_hooks for module in member.modules())


@pytest.mark.parametrize(
    ("members", "options", "words"),
    [
        ([network(0)], {"ddof": 1}, "needs more than 1 members, got 1"),
        ([], {}, "needs more than 0 members"),
        ([network(0)], {"point": "middle"}, "unknown variant 'middle': expected post or pre"),
        ([network(0), nn.Sequential(nn.Flatten(), nn.Linear(16, 3))], {}, "the same convolutions"),
        ([nn.Flatten()], {}, "at least one"),
    ],
)
def test_what_has_no_diversity_says_why(members, options, words, inputs):
    with pytest.raises(ValueError, match=words):
        metrics.representation_diversity(members, inputs, **options)


# --------------------------------------------------------------------------------------------- coherence


def cosines(a, b):
    a, b = (v.flatten(1).double().numpy() for v in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_coherence_with_a_surrogate_is_the_largest_cosine():
    draw = torch.Generator().manual_seed(0)
    gradients = [torch.randn(7, 1, 3, 3, generator=draw) for _ in range(4)]
    surrogate = torch.randn(7, 1, 3, 3, generator=draw)
    found = metrics.coherence(gradients, surrogate)
    wanted = np.max([cosines(gradient, surrogate) for gradient in gradients], axis=0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    assert found.shape == (7,)


def test_coherence_without_one_is_over_all_pairs():
    draw = torch.Generator().manual_seed(0)
    gradients = [torch.randn(7, 5, generator=draw) for _ in range(3)]
    wanted = np.max([cosines(gradients[i], gradients[j]) for i, j in ((0, 1), (0, 2), (1, 2))], axis=0)
    np.testing.assert_allclose(metrics.coherence(gradients).numpy(), wanted, rtol=1e-12)


def test_worked_examples():
    east, north, west = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 0.0]])
    assert float(metrics.coherence([east], east)) == 1
    assert float(metrics.coherence([west], east)) == -1
    assert float(metrics.coherence([west, north], east)) == 0
    assert float(metrics.coherence([east, torch.tensor([[1.0, 1.0]])], north)) == pytest.approx(0.5**0.5)


def test_tiny_gradients_have_a_direction_and_zero_ones_have_none():
    tiny = torch.tensor([[3e-38, 4e-38], [0.0, 0.0]])
    found = metrics.coherence([tiny], torch.tensor([[3.0, 4.0], [3.0, 4.0]]))
    assert found.tolist() == pytest.approx([1.0, 0.0], abs=1e-5)


@pytest.mark.parametrize(("gradients", "surrogate"), [([], torch.ones(1, 2)), ([torch.ones(1, 2)], None)])
def test_too_few_gradients_are_refused(gradients, surrogate):
    with pytest.raises(ValueError, match="needs one member and a surrogate or two members"):
        metrics.coherence(gradients, surrogate)


def test_packed_bits_are_the_items_in_order():
    import base64

    found = metrics.packed(torch.tensor([True, False, False, True, True, True, True, True, False, True]))
    assert found.count == 10 and base64.b64decode(found.bits) == bytes([0b10011111, 0b01000000])
