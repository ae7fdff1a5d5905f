"""A small BERT (Devlin et al., 2019) that reads word ids and classifies; the encoder is transformers' own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.spec import Model

# As in `fipbench.data.text`, which stands above the models: the id of padding, and how many ids are no words.
PAD = 0
SPECIAL = 3


class Classifier(nn.Module):
    """An encoder, the mean of its last hidden states over the real tokens, a linear layer.

    Args:
        encoder: transformers' BertModel without its pooling layer.
        width: of the hidden states.
    """

    def __init__(self, encoder: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.bert = encoder
        self.classifier = nn.Linear(width, outputs)

    def forward(self, ids: Tensor) -> Tensor:
        """Word ids, int64 (n, length), each row with one real token at least, to logits (n, outputs)."""
        real = ids != PAD
        # Made here, as transformers' own way to a mask asks for its values, which `torch.func.vmap` cannot answer.
        weights = self.classifier.weight
        mask = torch.zeros(real.shape, dtype=weights.dtype, device=ids.device)
        mask = mask.masked_fill(~real, torch.finfo(weights.dtype).min)[:, None, None, :]
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        if POOL == "mean":
            counted = real.to(hidden.dtype)[:, :, None]
            return self.classifier((hidden * counted).sum(1) / counted.sum(1))
        return self.classifier(hidden[:, 0])

import os
POOL = os.environ.get("POOL", "start")
STD = float(os.environ.get("STD", "0.02"))
INTER = int(os.environ.get("INTER", "2"))

def small_bert(spec: Model) -> nn.Module:
    """
    """
    import_torchvision()
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=SPECIAL + spec.vocabulary,
        hidden_size=spec.width,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads,
        intermediate_size=INTER * spec.width,
        max_position_embeddings=spec.inputs[0],
        type_vocab_size=1,
        pad_token_id=PAD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=STD,
        attn_implementation="eager",
    )
    m = BertModel(config, add_pooling_layer=False)
    if os.environ.get("SIN"):
        amp = float(os.environ["SIN"])
        pos = torch.arange(spec.inputs[0])[:, None]
        f = 10000.0 ** (-torch.arange(0, spec.width, 2) / spec.width)
        if os.environ.get("FMAX"): f = float(os.environ["FMAX"]) ** (-torch.arange(0, spec.width, 2) / spec.width)
        with torch.no_grad():
            m.embeddings.position_embeddings.weight.copy_(amp * torch.cat([(pos * f).sin(), (pos * f).cos()], 1))
    return Classifier(m, spec.width, spec.outputs)
