"""A small BERT (Devlin et al., 2019) that reads word ids and classifies; the encoder is transformers' own."""

from __future__ import annotations

from typing import Any

import torch
from msgspec import UNSET, UnsetType
from torch import Tensor, nn

from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.spec import Model

# As in `fipbench.data.text`, which stands above the models: the id of padding, and how many ids are no words.
PAD = 0
SPECIAL = 3


class Classifier(nn.Module):
    """An encoder, and a linear layer on its last hidden state at the first token, the start of the text."""

    def __init__(self, bert: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.bert = bert
        self.classifier = nn.Linear(width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids, int64 (n, length), padded at the end, to logits (n, outputs); padding does not count."""
        weight = self.classifier.weight
        # A mask that is added to the scores. One of zeros and ones would be looked into, which vmap does not allow.
        scores = torch.zeros(ids.shape, dtype=weight.dtype, device=ids.device)
        mask = scores.masked_fill(ids == PAD, torch.finfo(weight.dtype).min)[:, None, None, :]
        return self.classifier(self.bert(ids, attention_mask=mask).last_hidden_state[:, 0])


def small_bert(spec: Model) -> nn.Module:
    """BERT of `spec.depth` layers, `spec.width` wide with `spec.heads` heads, feed-forward layers twice as wide.

    There is no dropout: distances between the outputs of two networks, on which functionally invariant paths go, are
    those of the networks only if a network has one output. Initial weights are BERT's, normal with deviation 0.02,
    but for the positions: they start as sinusoids (Vaswani et al., 2017, section 3.5), with which networks this small
    learn word order sooner and, what matters more, from every seed.

    Raises:
        UserError: a field of the model is missing, or the heads do not divide the width.
    """
    vocabulary, width = _given("vocabulary", spec.vocabulary), _given("width", spec.width)
    depth, heads = _given("depth", spec.depth), _given("heads", spec.heads)
    if len(spec.inputs) != 1:
        raise UserError(f"field 'model.inputs': bert reads [length], a number of tokens, got {list(spec.inputs)}")
    if width % heads or width % 2:
        raise UserError(f"field 'model.width': expected a multiple of 'model.heads' ({heads}) and of 2, got {width}")
    import_torchvision()
    from transformers import BertConfig, BertModel

    # Sums in a fixed order, and derivatives of every order and kind; at this size no slower than the fused one.
    attention: dict[str, Any] = {"attn_implementation": "eager"}
    config = BertConfig(
        vocab_size=SPECIAL + vocabulary,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=spec.inputs[0],
        type_vocab_size=1,
        pad_token_id=PAD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **attention,
    )
    bert = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        bert.embeddings.position_embeddings.weight.copy_(0.05 * _sinusoids(spec.inputs[0], width))
    return Classifier(bert, width, spec.outputs)


def _given(field: str, value: int | UnsetType) -> int:
    if value is UNSET:
        raise UserError(f"field 'model.{field}': bert needs it; set it")
    return value


def _sinusoids(length: int, width: int) -> Tensor:
    """Sines, then cosines, of each position at wavelengths from 2 pi to 10,000 times that, shape (length, width)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
