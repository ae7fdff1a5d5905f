"""A mirror of the hub with a few pictures or texts, and of the models with a few weights; for tests of both."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from workbench import write_tiny

REPO, CONFIG = "someone/tiny", "plain"
WEIGHTS = "somebody/tiny-bert"
LABELS = {"train": [3, 1, 4, 1, 5, 9], "test": [2, 6, 5]}


def pictures(split: str, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> np.ndarray:
    """The pictures of a split, uint8."""
    generator = np.random.default_rng([seed, len(split)])
    return generator.integers(0, 256, (len(LABELS[split]), *shape), dtype=np.uint8)


def png(array: np.ndarray) -> dict[str, Any]:
    """A picture as a hub's Parquet file holds it."""
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def write(folder: Path, split: str, name: str = "{}-00000-of-00001.parquet", **columns: list[Any]) -> Path:
    """One Parquet file with these columns."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name.format(split)
    pd.DataFrame(columns).to_parquet(file)
    return file


def lay_out(root: Path, seed: int = 0) -> Path:
    """Pictures in both splits, and a card; returns the folder of the configuration."""
    folder = root / REPO / CONFIG
    for split, labels in LABELS.items():
        write(folder, split, image=[png(p) for p in pictures(split, seed=seed)], label=labels)
    (root / REPO / "README.md").write_text("---\nconfigs:\n- config_name: plain\n---\n")
    return folder


def lay_out_weights(root: Path, name: str = WEIGHTS, value: float = 1.0) -> Path:
    """Two numbers as safetensors, a configuration and the files of a tokenizer; and a pickle, which nobody may take."""
    import torch
    from safetensors.torch import save_file

    folder = root / name
    folder.mkdir(parents=True)
    save_file({"weight": torch.tensor([value, 2.0])}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def lay_out_bert(root: Path, name: str, words: list[str], kind: str = "BertModel", **sizes: Any) -> Path:
    """A BERT of 2 layers as transformers saves one, its weights drawn, and a tokenizer of these words; returns `root`.

    `kind`: its class, with or without a head. `sizes`: more of its configuration.
    """
    import torch

    from fipbench.compat import import_torchvision

    import_torchvision()
    import transformers

    folder = root / name
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        **sizes,
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    return root


def source(variants: str = "", **fields: str) -> str:
    """The data of a task as TOML; `variants` as `label = { train = ..., test = ... }`."""
    given = {"repo": REPO, "config": CONFIG, "revision": "1" * 40, **fields}
    said = ", ".join(f'{key} = "{value}"' for key, value in given.items() if value)
    return f"{{ {said}, variants = {{ {variants} }} }}"


def task(folder: Path, variants: str = "", name: str = "tiny", **fields: str) -> Path:
    """A task on the mirror's pictures."""
    return write_tiny(folder, name, data=source(variants), **fields)


def pretrained_task(folder: Path, name: str = "pretrained", more: str = "") -> Path:
    """A task whose model starts from the mirror's weights."""
    model = f'{{ name = "transformer", weights = "{WEIGHTS}", inputs = [8], outputs = 5, truncate = true{more} }}'
    return write_tiny(folder, name, data='"star-reviews"', model=model)


def real(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror of real data, where it is; skips the test where it does not hold this folder."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("FIPBENCH_DATA") or beside)
    if not (root / folder).is_dir():
        pytest.skip(f"no {folder} in {root}; set FIPBENCH_DATA to a mirror that holds it")
    monkeypatch.setenv("FIPBENCH_DATA", str(root))


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}
