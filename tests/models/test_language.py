"""The small BERT: what it computes, what it has, and what its user is told."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, gelu, layer_norm, softmax

from fipbench import models, pruning
from fipbench.data import text
from fipbench.errors import UserError
from fipbench.models import language
from fipbench.spec import Model

SMALL = Model(name="bert", inputs=(10,), outputs=3, vocabulary=20, width=8, depth=2, heads=2)


def changed(**fields):
    return Model(**{name: getattr(SMALL, name) for name in SMALL.__struct_fields__} | fields)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As jobs have it; for layers as small as these, more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    """With weights large enough for every part to matter."""
    found = models.build(SMALL, 0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return found


def ids(*rows, length=10):
    return torch.tensor([[text.START, *row, *[text.PAD] * (length - 1 - len(row))] for row in rows])


SOME = ids((5, 9, 4, 1), (7, 3, 8, 20, 6, 12, 11), ())


def by_hand(model, row):
    """Logits of one row without padding, from Devlin et al. and Vaswani et al., with loops over heads."""
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    table = "bert.embeddings"
    x = weights[f"{table}.word_embeddings.weight"][row] + weights[f"{table}.position_embeddings.weight"][: len(row)]
    x = norm(f"{table}.LayerNorm", x + weights[f"{table}.token_type_embeddings.weight"][0])
    for number in range(SMALL.depth):
        layer = f"bert.encoder.layer.{number}"
        q, k, v = (linear(f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value"))
        size = SMALL.width // SMALL.heads
        heads = []
        for head in range(SMALL.heads):
            of = slice(head * size, (head + 1) * size)
            heads.append(softmax(q[:, of] @ k[:, of].T / math.sqrt(size), dim=1) @ v[:, of])
        attended = linear(f"{layer}.attention.output.dense", torch.cat(heads, 1))
        x = norm(f"{layer}.attention.output.LayerNorm", attended + x)
        forward = linear(f"{layer}.output.dense", gelu(linear(f"{layer}.intermediate.dense", x)))
        x = norm(f"{layer}.output.LayerNorm", forward + x)
    return linear("classifier", x[0])


def test_logits_are_those_of_the_definition(model):
    found = model(SOME)
    assert found.shape == (3, 3)
    for row, logits in zip(SOME, found, strict=True):
        torch.testing.assert_close(logits, by_hand(model, row[row != text.PAD]))


def test_padding_does_not_change_the_logits(model):
    wide = ids((5, 9, 4, 1), (7, 3, 8))
    torch.testing.assert_close(model(wide[:, :6]), model(wide), rtol=1e-12, atol=1e-12)
    # Nor does what stands beside a text in its batch.
    torch.testing.assert_close(model(wide[:1]), model(wide)[:1], rtol=1e-12, atol=1e-12)


def test_what_padding_is_embedded_as_does_not_matter(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[text.PAD] += 10
    assert torch.equal(other(SOME), model(SOME))


def test_the_order_of_words_matters(model):
    """As it must: not bad and good, not good and bad."""
    rows = ids((5, 9, 4, 7), (5, 7, 4, 9))
    one, other = model(rows)
    assert not torch.allclose(one, other, rtol=0, atol=1e-6)
    # By their positions alone.
    blind = copy.deepcopy(model)
    with torch.no_grad():
        blind.bert.embeddings.position_embeddings.weight.zero_()
    one, other = blind(rows)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_parameters_counted_by_hand():
    model = models.build(SMALL, 0)
    width, words, length, outputs = 8, 20 + 3, 10, 3
    norm = 2 * width
    embeddings = words * width + length * width + width + norm
    attention = 4 * (width * width + width) + norm
    feed_forward = 2 * width * width + 2 * width + 2 * width * width + width + norm
    head = width * outputs + outputs
    assert sum(p.numel() for p in model.parameters()) == embeddings + 2 * (attention + feed_forward) + head
    assert embeddings + 2 * (attention + feed_forward) + head == 1515


def test_matrices_are_prunable_and_embeddings_are_not():
    found = pruning.prunable(models.build(SMALL, 0))
    parts = {
        "attention.self.query": (8, 8),
        "attention.self.key": (8, 8),
        "attention.self.value": (8, 8),
        "attention.output.dense": (8, 8),
        "intermediate.dense": (16, 8),
        "output.dense": (8, 16),
    }
    expected = {f"bert.encoder.layer.{n}.{part}.weight": shape for n in range(2) for part, shape in parts.items()}
    assert {name: tuple(p.shape) for name, p in found.items()} == expected | {"classifier.weight": (3, 8)}
    assert sum(p.numel() for p in found.values()) == 2 * (4 * 64 + 2 * 128) + 24


def test_every_parameter_takes_part():
    model = models.build(SMALL, 0)
    cross_entropy(model(ids(range(3, 12), length=10)), torch.tensor([1])).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle


def test_the_seed_decides_and_training_mode_does_not():
    first = models.build(SMALL, 7)
    torch.manual_seed(1)
    torch.rand(5)
    state = torch.get_rng_state()
    second = models.build(SMALL, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = models.build(SMALL, 8)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    # No dropout: functional distances need one output for one input.
    assert torch.equal(first.train()(SOME), second.eval()(SOME))


def test_positions_start_as_sinusoids():
    table = models.build(SMALL, 0).bert.embeddings.position_embeddings.weight.detach()
    for position in range(10):
        for pair in range(4):
            angle = position / 10_000 ** (2 * pair / 8)
            assert float(table[position, pair]) == pytest.approx(0.05 * math.sin(angle), abs=1e-7)
            assert float(table[position, 4 + pair]) == pytest.approx(0.05 * math.cos(angle), abs=1e-7)


def test_gradients_are_those_of_finite_differences(model):
    labels = torch.tensor([0, 2, 1])

    def loss(parameters):
        return cross_entropy(functional_call(model, parameters, (SOME,)), labels)

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    exact = grad(loss)(parameters)
    generator = torch.Generator().manual_seed(1)
    for name, value in parameters.items():
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if "word_embeddings" in name:
            direction[text.PAD] = 0  # torch keeps the padding's own row as it is
        up, down = ({**parameters, name: value + step * direction} for step in (1e-5, -1e-5))
        numeric = float(loss(up) - loss(down)) / 2e-5
        assert float((exact[name] * direction).sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-9), name


def test_gradients_of_each_example_and_second_derivatives(model):
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, row, label):
        return cross_entropy(functional_call(model, parameters, (row[None],)), label[None])

    labels = torch.tensor([0, 2, 1])
    each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, SOME, labels)
    for n in range(3):
        alone = grad(loss)(parameters, SOME[n], labels[n])
        for name in parameters:
            torch.testing.assert_close(each[name][n], alone[name])
    weight = model.classifier.weight
    (first,) = torch.autograd.grad(cross_entropy(model(SOME), labels), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    assert bool(second.abs().max() > 0)


def test_a_copy_is_a_network_of_its_own():
    model = models.build(SMALL, 0)
    before = model(SOME)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(SOME), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(model(SOME), before)
    other = models.build(SMALL, 1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(SOME), before)


def test_ids_are_those_of_the_texts():
    assert language.PAD == text.PAD
    assert min(text.vocabulary(["word"], 1).values()) == language.SPECIAL
    # The last of as many words as were asked for has a row, and there is none to spare.
    words = " ".join(f"w{n:02}" for n in range(SMALL.vocabulary))
    known = text.vocabulary([words], SMALL.vocabulary)
    model = models.build(SMALL, 0)
    assert model(text.encode(["w00 w19"], known, 10, truncate=False, where="here")).shape == (1, 3)
    assert model.bert.embeddings.word_embeddings.num_embeddings == max(known.values()) + 1


@pytest.mark.parametrize("field", ["vocabulary", "width", "depth", "heads"])
def test_a_field_that_is_missing_is_named(field):
    fields = {name: getattr(SMALL, name) for name in SMALL.__struct_fields__ if name != field}
    with pytest.raises(UserError, match=rf"^field 'model\.{field}': bert needs it; set it$"):
        models.build(Model(**fields), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 10, "heads": 4}, r"field 'model\.width': expected a multiple of 'model\.heads' \(4\) .*got 10"),
        ({"width": 7, "heads": 7}, r"field 'model\.width': expected a multiple .* 2, got 7"),
        ({"inputs": (1, 8, 8)}, r"field 'model\.inputs': bert reads \[length\].*got \[1, 8, 8\]"),
    ],
)
def test_a_shape_that_cannot_be(fields, message):
    with pytest.raises(UserError, match=message) as caught:
        models.build(changed(**fields), 0)
    assert "\n" not in str(caught.value)


def test_the_encoder_is_the_library_s():
    from transformers import BertModel

    model = models.build(SMALL, 0)
    assert isinstance(model.bert, BertModel) and model.bert.pooler is None
    assert model.bert.config._attn_implementation == "eager"
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
