"""FIP-Sparse: exact counts, what stays as it was, and whether it does what it is for."""

import copy

import pytest
import torch
from sparse_walks import LEVELS, QUICK, assert_equal_results, batches, cnn, mlp, normal, results, same, state, watched
from torch import nn

from fipbench import fip, pruning
from fipbench.compat import import_torchvision

# --- counts


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("start", ["previous", "dense"])
@pytest.mark.parametrize(("ramp", "settle"), [(0.0, 0.0), (0.5, 0.5), (0.3, 0.2), (0.0, 1.0)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "unit"])
def test_counts_are_exact_at_every_level(scope, start, ramp, settle, optimizer):
    model = mlp()
    total = 7 * 13 + 13 * 9 + 9 * 3
    found = fip.sparsify(
        model, batches(8, 7), LEVELS, scope=scope, start=start, ramp=ramp, settle=settle, optimizer=optimizer, **QUICK
    )
    levels = []
    for level, network in found:
        levels.append(level)
        assert pruning.zeros(network) == (pruning.zeros_at(level, total), total)
        assert all(p.isfinite().all() for p in network.parameters())
        biases = [p for name, p in network.named_parameters() if "bias" in name]
        assert not any((b == 0).any() for b in biases)
    assert levels == LEVELS


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_convolutional_network_with_batch_norm(training, scope):
    model = cnn().train(training)
    for level, network in fip.sparsify(model, batches(6, 1, 8, 8), LEVELS, scope=scope, **QUICK):
        assert pruning.zeros(network) == (pruning.zeros_at(level, 125), 125)
        assert all(m.training == training for m in network.modules())
        moved = not torch.equal(network[1].running_mean, model[1].running_mean)
        assert moved == training
        assert not (network[1].weight == 0).any()


def test_a_transformer_of_torch():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(20, 8), layer, nn.Flatten(), nn.Linear(5 * 8, 3))
    texts = [torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    total = 4 * 8 * 8 + 2 * 8 * 12 + 40 * 3
    for level, network in fip.sparsify(model, texts, LEVELS, **QUICK):
        assert pruning.zeros(network) == (pruning.zeros_at(level, total), total)
        assert not (network[0].weight == 0).any()
        assert not torch.equal(network[0].weight, model[0].weight)


def test_a_transformer_by_forward():
    import_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        num_labels=3,
    )
    model = BertForSequenceClassification(config).eval()
    before = state(model)
    generator = torch.Generator().manual_seed(1)
    texts = [{"input_ids": torch.randint(0, 40, (4, 9), generator=generator)} for _ in range(3)]
    total = 4 * 16 * 16 + 2 * 16 * 24 + 16 * 16 + 16 * 3
    walk = fip.sparsify(model, texts, [0.5, 0.9], forward=lambda network, b: network(**b).logits, **QUICK)
    for level, network in walk:
        assert pruning.zeros(network) == (pruning.zeros_at(level, total), total)
        assert not (network.bert.embeddings.word_embeddings.weight[1:] == 0).any()
        assert network(**texts[0]).logits.isfinite().all()
    assert same(state(model), before)


# --- what stays as it was


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("start", ["previous", "dense"])
def test_the_input_model_is_untouched(training, start):
    model = cnn().train(training)
    model[5].bias.requires_grad_(False)
    model[1].eval()
    calls = []
    model.register_forward_hook(lambda module, args, output: calls.append(module))
    before = state(model)
    modes = [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    for _, network in fip.sparsify(model, batches(6, 1, 8, 8), LEVELS, start=start, **QUICK):
        assert network is not model
        assert not {id(p) for p in network.parameters()} & {id(p) for p in model.parameters()}
    assert same(state(model), before)
    assert [m.training for m in model.modules()] == modes
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(p.grad is None for p in model.parameters())
    assert not model[5].bias.requires_grad and model[5].weight.requires_grad
    assert model not in calls


def test_a_network_yielded_is_the_callers_own():
    expected = results(mlp(), batches(8, 7), LEVELS, **QUICK)
    got = []
    for level, network in fip.sparsify(mlp(), batches(8, 7), LEVELS, **QUICK):
        got.append((level, state(network)))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(7.0)
    assert_equal_results(got, expected)


def test_deterministic_and_no_random_number_is_drawn():
    torch.manual_seed(1)
    first = results(mlp(), batches(8, 7), LEVELS, **QUICK)
    torch.manual_seed(2)
    model = mlp()
    at = torch.get_rng_state()
    assert_equal_results(results(model, batches(8, 7), LEVELS, **QUICK), first)
    assert torch.equal(torch.get_rng_state(), at)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "unit"])
def test_frozen_parameters_stand_still_all_the_way(optimizer):
    model, x = mlp(), normal(8, 7)
    model[0].weight.requires_grad_(False)
    seen, _ = watched(model, inputs=x, wanted=model(x).detach(), steps=8, optimizer=optimizer)
    assert all(torch.equal(point["0.weight"], model[0].weight) for point in seen)
    assert not torch.equal(seen[-1]["2.weight"], model[2].weight)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "unit"])
def test_frozen_parameters_do_not_move(optimizer):
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    for _, network in fip.sparsify(model, batches(8, 7), LEVELS, optimizer=optimizer, **QUICK):
        assert torch.equal(network[2].bias, model[2].bias)
        # Counted among the prunable, so the projection may zero them; nothing else may.
        kept = network[0].weight != 0
        assert torch.equal(network[0].weight[kept], model[0].weight[kept])
        assert not torch.equal(network[4].bias, model[4].bias)
        assert [p.requires_grad for p in network.parameters()] == [p.requires_grad for p in model.parameters()]


# --- does it do what it is for?


def test_outputs_stay_closer_than_by_pruning_in_one_shot():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images / 16).float()
    y = torch.from_numpy(labels)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(400):
        rows = torch.arange(step * 50, step * 50 + 50) % 1200
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    model.eval()
    unseen = x[1200:]
    wanted = model(unseen).detach()

    def off(network):
        return float(fip.distance.bhattacharyya(network(unseen).detach(), wanted))

    data = list(x[:1200].split(50))
    for level, network in fip.sparsify(model, data, [0.7, 0.9], steps=120):
        for scope in ("global", "layer"):
            masks = pruning.magnitude_masks(pruning.prunable(model), level, scope=scope)
            one_shot = pruning.apply(copy.deepcopy(model), masks)
            assert off(network) < 0.25 * off(one_shot), (level, scope)
        agree = (network(unseen).argmax(1) == wanted.argmax(1)).float().mean()
        assert agree > 0.85, level
