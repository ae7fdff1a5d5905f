"""Which weights may be pruned, and that pruning makes exact zeros of them and of nothing else."""

import torch
from torch import nn

from fipbench import pruning


def names(model):
    return sorted(pruning.prunable(model))


def test_weight_matrices_and_kernels_and_nothing_else():
    model = nn.Sequential(
        nn.Embedding(10, 4),
        nn.Linear(4, 3),
        nn.Conv1d(2, 2, 3),
        nn.Conv2d(2, 2, 3),
        nn.ConvTranspose2d(2, 2, 3),
        nn.BatchNorm2d(2),
        nn.LayerNorm((2, 3)),
        nn.GroupNorm(1, 2),
        nn.RMSNorm((2, 3)),
        nn.EmbeddingBag(3, 2),
        nn.PReLU(4),
    )
    assert names(model) == ["1.weight", "2.weight", "3.weight", "4.weight"]


def test_values_are_the_models_own_parameters():
    model = nn.Linear(3, 2)
    assert pruning.prunable(model)["weight"] is model.weight
    assert names(nn.ModuleDict({"a": nn.Linear(2, 2)})) == ["a.weight"]


def test_a_tied_weight_counts_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert names(model) == ["0.weight"]
    assert pruning.zeros(model) == (0, 9)


def test_an_embedding_tied_to_the_output_layer_is_still_an_embedding():
    class Tied(nn.Module):
        def __init__(self, embedding_first):
            super().__init__()
            if embedding_first:
                self.words = nn.Embedding(6, 4)
            self.hidden = nn.Linear(4, 4)
            self.output = nn.Linear(4, 6)
            if embedding_first:
                self.output.weight = self.words.weight
            else:
                self.words = nn.Embedding(6, 4)
                self.words.weight = self.output.weight

    for first in (True, False):
        assert names(Tied(first)) == ["hidden.weight"]


def test_attention_gives_its_projections_and_no_biases():
    together = nn.MultiheadAttention(8, 2, add_bias_kv=True)
    assert names(together) == ["in_proj_weight", "out_proj.weight"]
    apart = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert names(apart) == ["k_proj_weight", "out_proj.weight", "q_proj_weight", "v_proj_weight"]


def test_recurrent_weights_are_prunable():
    assert names(nn.LSTM(3, 4)) == ["weight_hh_l0", "weight_ih_l0"]


def test_apply_zeroes_what_is_masked_out_in_place_and_nothing_else():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = pruning.magnitude_masks(pruning.prunable(model), 0.7)
    assert pruning.apply(model, masks) is model
    for name, value in model.state_dict().items():
        expected = torch.where(masks[name], before[name], 0.0) if name in masks else before[name]
        assert torch.equal(value, expected)
    assert pruning.zeros(model) == (35, 50)
    assert all(p.requires_grad for p in model.parameters())


def test_apply_makes_positive_zeros_of_infinities_too():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(torch.tensor([[float("inf"), -1.0]]))
    pruning.apply(model, {"weight": torch.zeros(1, 2, dtype=torch.bool)})
    assert torch.equal(model.weight.data, torch.zeros(1, 2))
    assert not torch.signbit(model.weight).any()


def test_apply_of_some_masks_leaves_the_rest():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    pruning.apply(model, {"1.weight": torch.zeros(2, 2, dtype=torch.bool)})
    assert pruning.zeros(model) == (4, 8)
    assert int((model[0].weight == 0).sum()) == 0


def test_tokens_and_positions_that_a_module_holds_itself_are_embeddings():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("cls_token", "mask_token", "position_embeddings", "pos_embed"):  # of transformers and timm
                self.register_parameter(name, nn.Parameter(torch.zeros(1, 5, 4)))
            for name in ("class_embedding", "positional_embedding"):  # of open_clip
                self.register_parameter(name, nn.Parameter(torch.zeros(5, 4)))
            self.patch_embeddings = nn.Conv2d(3, 4, 2)
            self.proj = nn.Parameter(torch.zeros(4, 4))

    assert names(Patches()) == ["patch_embeddings.weight", "proj"]


def test_a_vision_transformers_weights_are_its_matrices():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=4, patch_size=2
    )
    model = ViTModel(config, add_pooling_layer=False)
    # The patches' kernel, four matrices of attention and two of the feed-forward part.
    assert pruning.zeros(model)[1] == 8 * 3 * 2 * 2 + 4 * 8 * 8 + 2 * 8 * 16
