"""A pretrained masked language model (BERT) that is asked for one word at a time, and running text as it reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.models.pretrained import config_of, first_line, silence, tokenizer_of, weights_folder
from fipbench.spec import Model

# Stands in place of the one masked token of a window that is asked for.
ASKED = -1
# The share of a window's tokens that is masked (Devlin et al., 2019; Nature Machine Intelligence 6, 2024, methods).
MASKED = 0.15
# How WikiText writes a word that is not among its own.
UNKNOWN = "<unk>"


class MaskedLanguageModel(nn.Module):
    """Logits of a masked language model at the one position that is asked for; those of all others are not made."""

    def __init__(self, transformer: Any, mask: int) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.mask = mask

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids, int64 (n, length), none of them padding and one of each row `ASKED`, to logits (n, vocabulary)."""
        asked = ids == ASKED
        hidden = self.transformer.bert(input_ids=ids.masked_fill(asked, self.mask)).last_hidden_state
        # A sum of one term. To pick a row instead would need a backward pass that not every device does in one order.
        return self.transformer.cls((hidden * asked[..., None]).sum(1))


def masked_language_model(spec: Model) -> nn.Module:
    """The pretrained network with its own head, whose last matrix is that of the word embeddings, and without dropout.

    Raises:
        UserError: the weights are not there, are not safetensors, are of another architecture, lack the head or have
            another vocabulary, or are not the expected ones.
    """
    import_torchvision()
    from transformers import BertForMaskedLM

    silence()
    folder = weights_folder(spec)
    tokenizer = tokenizer_of(spec, "mask")
    try:
        config = config_of(spec, folder)
        if config.model_type != "bert":
            raise UserError(f"field 'model.weights': masked-lm is a BERT, {spec.weights} is {config.model_type}")
        if config.vocab_size != spec.outputs:
            raise UserError(
                f"field 'model.outputs': {spec.weights} has a vocabulary of {config.vocab_size}, got {spec.outputs}"
            )
        load: Any = BertForMaskedLM.from_pretrained
        network, found = load(
            folder, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder}: no network can be made of it ({first_line(error)})") from None
    if lacking := sorted(found["missing_keys"]):
        raise UserError(f"{folder}: its weights are not those of a masked language model (no {lacking[0]})")
    return MaskedLanguageModel(network, int(tokenizer.mask_token_id))


def windows(spec: Model, lines: Sequence[str], *, where: str) -> tuple[Tensor, Tensor]:
    """Running text, cut into windows of the network's length, each with some tokens masked and one of them asked for.

    The lines follow one upon another; a window is its start token, as many tokens of text as there is room for, and its
    end token. What is left over at the end is dropped, so all windows are of one length. In each, 15 % of the tokens
    are masked and one of those is asked for, so that the mean loss over windows is in expectation the mean over all
    masked tokens: one target a window costs more than all at once would, and is no other quantity. (It is not the
    pseudo-perplexity of Salazar et al., 2020, who mask one token at a time.) Words that the corpus or the tokenizer
    does not know are neither masked nor asked for. The draw depends on the text alone: it is the same for all seeds
    and methods.

    Returns:
        Token ids with `ASKED` at the position asked for, int64 (n, length), and the tokens that were there, int64 (n,).

    Raises:
        UserError: no tokenizer, one without the special tokens, or less text than a window.
    """
    tokenizer = tokenizer_of(spec, "cls", "sep", "mask", "unk")
    plain = [line.replace(UNKNOWN, tokenizer.unk_token) for line in lines]
    found = tokenizer(plain, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    text = torch.tensor([token for ids in found["input_ids"] for token in ids], dtype=torch.int64)
    length = spec.inputs[0] - 2
    if length < 1 or len(text) < length:
        raise UserError(f"{where}: {len(text)} tokens make no window of {spec.inputs[0]} (field 'model.inputs')")
    rows = text[: len(text) // length * length].view(-1, length)
    count = max(1, round(MASKED * length))
    content = hashlib.sha256(rows.numpy().tobytes()).digest()
    noise = torch.rand(
        rows.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(int.from_bytes(content[:7], "big"))
    )
    noise[torch.isin(rows, torch.tensor(sorted(tokenizer.all_special_ids)))] = 2.0
    enough = (noise < 1).sum(1) >= count
    rows, order = rows[enough], noise[enough].argsort(1)
    if not len(rows):
        raise UserError(f"{where}: no window has {count} words that {spec.weights} knows; name another corpus or model")
    asked = order[:, :1]
    labels = rows.gather(1, asked).squeeze(1)
    rows = rows.scatter(1, order[:, :count], int(tokenizer.mask_token_id)).scatter(1, asked, ASKED)
    ends = [torch.full((len(rows), 1), int(token)) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
    return torch.cat([ends[0], rows, ends[1]], dim=1), labels
