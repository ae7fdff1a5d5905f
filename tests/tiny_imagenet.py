"""A mirror with pictures like ImageNet's: of many sizes, grey, CMYK, some PNG; and a task that streams them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from workbench import write_tiny

REPO, CONFIG = "someone/tiny-imagenet", "default"
RESIZE, CROP = 20, 16
ROWS = {"train": 40, "validation": 18}
# (format, mode) and (width, height), by row; 6 and 7 have no common divisor, so that all pairs occur.
KINDS = [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA")]
SIZES = [(40, 60), (61, 40), (32, 32), (20, 91), (47, 33), (16, 16), (9, 14)]


def encoded(split: str, row: int) -> bytes:
    """A picture's file: a few soft blots of colour."""
    kind, mode = KINDS[row % len(KINDS)]
    size = SIZES[row % len(SIZES)]
    blots = np.random.default_rng([len(split), row]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(blots).resize(size, Image.Resampling.BILINEAR).convert(mode)
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def label(row: int) -> int:
    return row * 7 % 10


def lay_out(root: Path, files: dict[str, list[Any]] | None = None, parts: int = 2) -> Path:
    """The splits, in `parts` files each; `files`: pictures in place of a split's own. Returns the folder."""
    import datasets

    folder = root / REPO / CONFIG
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    for split, count in ROWS.items():
        pictures = (files or {}).get(split) or [encoded(split, row) for row in range(count)]
        rows = [{"bytes": content, "path": None} for content in pictures]
        size = -(-len(rows) // parts)
        for part in range(parts):
            here = range(part * size, min((part + 1) * size, len(rows)))
            columns = {"image": [rows[row] for row in here], "label": [label(row) for row in here]}
            table = datasets.Dataset.from_dict(columns, features=features)
            table.to_parquet(folder / f"{split}-{part:05d}-of-{parts:05d}.parquet")
    return folder


def source(streamed: bool = True, more: str = "") -> str:
    """The data of a task as TOML."""
    cut = f", streamed = {{ resize = {RESIZE}, crop = {CROP} }}" if streamed else ""
    where = f'repo = "{REPO}", config = "{CONFIG}", revision = "{"1" * 40}", test = "validation"'
    return f"{{ {where}{cut}{more}, variants = {{}} }}"


def task(folder: Path, name: str = "streamed", streamed: bool = True, more: str = "", **fields: str) -> Path:
    """A sparsity task on the pictures."""
    given = {
        "data": source(streamed, more),
        "model": f'{{ name = "cnn", inputs = [3, {CROP}, {CROP}], channels = [4], hidden = [8], outputs = 10 }}',
        "base": "{ epochs = 1, batch_size = 8, learning_rate = 0.05, snapshots = [0] }",
        "budget": "{ epochs = 4, batch_size = 8 }",
        "validation": "8",
    }
    return write_tiny(folder, name, **{**given, **fields})
