"""Pretrained transformers that classify texts, from the hub or a local mirror of it (`FIPBENCH_MODELS`).

A mirror is a folder laid out as the hub: `OWNER/NAME/` with `config.json`, `model.safetensors` and the files of the
tokenizer.
Weights are read from safetensors only and no code comes with them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.cache import expanded
from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.spec import Model

# Of a hub repository of transformers, and of one of open_clip.
_WEIGHTS, _TOWER_WEIGHTS = "model.safetensors", "open_clip_model.safetensors"
_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")


class TextClassifier(nn.Module):
    """Logits of a transformer that reads token ids; what is padding in the whole batch is cut off first."""

    def __init__(self, transformer: nn.Module, pad: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.pad = pad

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids, int64 (n, length), padded at the end, to logits (n, outputs); (n, 2, length) are the ids and token
        types of pairs."""
        ids, types = ids.unbind(1) if ids.ndim == 3 else (ids, None)
        mask = ids != self.pad
        longest = max(1, int(mask.sum(1).max()))
        ids, mask = ids[:, :longest], mask[:, :longest]
        more = {} if types is None else {"token_type_ids": types[:, :longest]}
        return self.transformer(input_ids=ids, attention_mask=mask, **more).logits


def text_classifier(spec: Model) -> nn.Module:
    """The pretrained network with a new classification layer, and without dropout.

    Distances between the outputs of two networks are those of the networks only if a network has one output, hence no
    dropout. Weights that the file does not hold are drawn by torch's generator.

    Raises:
        UserError: the weights are not there, are not safetensors, are of another architecture or not the expected ones.
    """
    import_torchvision()
    from transformers import AutoModelForSequenceClassification

    silence()
    folder = weights_folder(spec)
    try:
        config = config_of(spec, folder)
        config.num_labels = spec.outputs
        network = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder}: no network can be made of it ({first_line(error)})") from None
    return TextClassifier(network, int(config.pad_token_id or 0))


def config_of(spec: Model, folder: Path) -> Any:
    """The network's configuration, without dropout.

    Raises:
        UserError: it reads fewer tokens than the task asks for.
        Exception: whatever the library raises where there is none.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
        if getattr(config, name, None):
            setattr(config, name, 0.0)
    if getattr(config, "max_position_embeddings", spec.inputs[0]) < spec.inputs[0]:
        raise UserError(
            f"field 'model.inputs': {spec.weights} reads at most {config.max_position_embeddings} tokens, got "
            f"{spec.inputs[0]}"
        )
    return config


def token_ids(spec: Model, texts: Sequence[str | tuple[str, str]], *, where: str) -> Tensor:
    """Ids as the network's own tokenizer gives them, shape (n, length), padded at the end.

    Pairs are one sequence. If the tokenizer gives them token types, these stand behind the ids: shape (n, 2, length).
    Where a pair is cut, tokens go from the end of the longer text.

    Raises:
        UserError: no tokenizer, or a text has more tokens than the model reads and it was not said that it may be cut.
    """
    tokenizer, length = tokenizer_of(spec, "pad"), spec.inputs[0]
    found = tokenizer(list(texts), truncation=bool(spec.truncate), max_length=length)
    ids = torch.full((len(texts), length), int(tokenizer.pad_token_id))
    types = torch.zeros_like(ids)
    typed = "token_type_ids" in found and any(not isinstance(text, str) for text in texts)
    for row, tokens in enumerate(found["input_ids"]):
        if len(tokens) > length:
            raise UserError(
                f"{where}: text {row} has {len(tokens)} tokens, the model reads {length}; raise model.inputs or set "
                "model.truncate = true"
            )
        ids[row, : len(tokens)] = torch.tensor(tokens)
        if typed:
            types[row, : len(tokens)] = torch.tensor(found["token_type_ids"][row])
    return torch.stack([ids, types], dim=1) if typed else ids


def tokenizer_of(spec: Model, *tokens: str) -> Any:
    """The network's own tokenizer, which has these special tokens (`pad`, `mask`, ...).

    Raises:
        UserError: there is none, or it lacks one of them.
    """
    import_torchvision()
    from transformers import AutoTokenizer

    silence()
    folder = weights_folder(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise UserError(f"{folder}: no tokenizer can be made of it ({first_line(error)})") from None
    for token in tokens:
        if getattr(tokenizer, f"{token}_token_id") is None:
            raise UserError(f"{folder}: its tokenizer has no token for '{token}'; name another model")
    return tokenizer


def padding(spec: Model) -> int:
    """The id by which the network knows padding; errors as of `weights_folder`."""
    return int(config_of(spec, weights_folder(spec)).pad_token_id or 0)


def weights_folder(spec: Model) -> Path:
    """The folder with the network's files: the mirror's, or the hub's at the pinned revision, downloaded if needed.

    Raises:
        UserError: it cannot be had (names what gets it), holds no safetensors, or others than `model.sha256` says.
    """
    folder = _mirror(spec) or _downloaded(spec.weights or "", spec.revision or None, weights_name(spec))
    file = folder / weights_name(spec)
    if not file.is_file():
        kept = [f.name for f in sorted(folder.iterdir()) if f.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5")]
        why = f"; {kept[0]} may run code when it is read and is not taken" if kept else ""
        raise UserError(f"{folder}: holds no {file.name}{why}")
    if spec.sha256 and (found := _sha256(file)) != spec.sha256:
        raise UserError(f"{file}: digest {found[:12]} is not the expected {spec.sha256[:12]} (field 'model.sha256')")
    return folder


def weights_name(spec: Model) -> str:
    """The name of the file of weights in its hub repository."""
    return _TOWER_WEIGHTS if spec.tower else _WEIGHTS


def _mirror(spec: Model) -> Path | None:
    """The folder of the local mirror that is for these weights."""
    root = os.environ.get("FIPBENCH_MODELS")
    if not root:
        return None
    if not expanded(root).is_dir():
        raise UserError(f"FIPBENCH_MODELS={root} is no folder; name the mirror's, or unset it to use the hub")
    folder = expanded(root) / (spec.weights or "")
    return folder if folder.is_dir() else None


def place(spec: Model) -> tuple[str, Path | None]:
    """Where the weights at hand are, and their folder: `mirror`, `cache` (downloaded before) or `missing`."""
    if (folder := _mirror(spec)) is not None:
        return "mirror", folder
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(spec.weights or "", weights_name(spec), revision=spec.revision or None)
    return ("cache", Path(file).parent) if isinstance(file, str) else ("missing", None)


def files_of(spec: Model, folder: Path) -> list[Path]:
    """The files of a folder that are read: configuration, weights, tokenizer; nothing that may run code.

    Raises:
        UserError: configuration or weights are not there, or the weights are no safetensors.
    """
    from safetensors import SafetensorError, safe_open

    weights = folder / weights_name(spec)
    config = [] if spec.tower else [folder / "config.json"]
    for file in (*config, weights):
        if not file.is_file():
            raise UserError(f"{folder}: holds no {file.name}; copy it from the hub")
    try:
        with safe_open(weights, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights}: no safetensors ({error}); copy it again from the hub") from None
    tokenizer = {f for pattern in _TOKENIZER for f in folder.glob(pattern) if f.is_file()}
    return [*config, weights, *sorted(tokenizer)]


def weights_digest(spec: Model) -> str:
    """SHA-256 (hex) of the pretrained weights' file; errors as of `weights_folder`."""
    return digest_in(spec, weights_folder(spec))


def digest_in(spec: Model, folder: Path) -> str:
    """SHA-256 (hex) of the weights' file in a folder."""
    return _sha256(folder / weights_name(spec))


def tokenizer_digest(spec: Model) -> str:
    """SHA-256 (hex) over the files that make the tokenizer."""
    folder = weights_folder(spec)
    files = sorted(f for pattern in _TOKENIZER for f in folder.glob(pattern) if f.is_file())
    return hashlib.sha256("".join(f"{f.name} {_sha256(f)}\n" for f in files).encode()).hexdigest()


def _downloaded(name: str, revision: str | None, weights: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # what goes wrong is said once, below
    disable_progress_bars()
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["config.json", weights, *_TOKENIZER]))
    except Exception as error:
        raise UserError(
            f"{name}: its weights cannot be had ({first_line(error)}); connect to the hub, or set FIPBENCH_MODELS to a "
            f"folder that holds {name}/"
        ) from None


def _sha256(file: Path) -> str:
    """SHA-256 (hex) of a file; read once a process while it does not change."""
    stat = file.stat()
    return _digest_of(file, stat.st_size, stat.st_mtime_ns)


@cache
def _digest_of(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def first_line(error: Exception) -> str:
    """What a library says went wrong, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def silence() -> None:
    """What goes wrong is said once, by us."""
    import transformers

    transformers.logging.set_verbosity_error()
    hide: Any = transformers.logging.disable_progress_bar
    hide()
