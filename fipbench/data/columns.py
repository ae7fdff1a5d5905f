"""The columns of a table of the hub as tensors: images and texts decoded, streamed images digested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fipbench.errors import UserError
from fipbench.spec import Data

if TYPE_CHECKING:
    from torch import Tensor

    from fipbench.data.text import Text


def from_table(data: Data, table: Any, where: str) -> dict[str, Tensor]:
    """The examples in the task's columns of a table, decoded; shapes as of `Examples`, or packed texts. Streamed
    images are not decoded but digested: `encoded`, uint8 (n, 32).

    Raises:
        UserError: a column is not there, or does not hold what it should; says which field of the task names it.
    """
    remedy = f"lay it out as the hub repository {data.repo}, or name another column in the task"
    inputs = ["input", "second"] if data.second else ["input"]
    for field in inputs if data.is_corpus else [*inputs, "label"]:
        if (column := getattr(data, field)) not in table.column_names:
            raise UserError(
                f"{where}: has no column '{column}' (field 'data.{field}'); there are: "
                f"{', '.join(table.column_names)}; {remedy}"
            )
    if not len(table):
        raise UserError(f"{where}: holds no examples; copy it again from where it came")
    field = "label"
    try:
        labels = _labels(data, table)
        if min(labels) < 0:
            raise UserError(f"{where}: its labels are hidden; name a split that has them in field 'data.test'")
        field = "input"
        if data.streamed:
            from fipbench.data.streamed import digests

            return {"encoded": digests(table, data.input), "labels": _tensor(labels)}
        if not data.is_text:
            return _images(table, data.input, labels)
        columns = []
        for field in inputs:
            columns.append(_strings(table[getattr(data, field)][:]))
    except UserError:
        raise
    except Exception as error:
        images = "encoded images" if data.streamed else "images of one shape"
        whole = f"numbers from 0 to {data.scale}" if data.scale else "whole numbers"
        what = whole if field == "label" else "texts" if data.is_text else images
        raise UserError(
            f"{where}: column '{getattr(data, field)}' (field 'data.{field}'): expected {what} ({reason(error)}); "
            f"{remedy}"
        ) from None
    from fipbench.data.text import packed

    texts: list[Text] = list(zip(*columns, strict=True)) if data.second else columns[0]
    return packed(texts, labels)


def _labels(data: Data, table: Any) -> Sequence[float]:
    """Classes, values on a scale, or zeros of what has no labels."""
    if data.is_corpus:
        return [0] * len(table)
    values = table[data.label][:]
    return _real(values, data.scale) if data.scale else _whole(values)


def _real(values: Sequence[Any], top: int) -> list[float]:
    for row, value in enumerate(values):
        if not isinstance(value, int | float) or not math.isfinite(value) or value > top:
            raise ValueError(f"row {row} has {str(value)[:40]!r}")
    return [float(value) for value in values]


def _whole(values: Sequence[Any]) -> list[int]:
    for row, value in enumerate(values):
        if not isinstance(value, int):
            raise ValueError(f"row {row} has {str(value)[:40]!r}")
    return list(values)


def _strings(values: Sequence[Any]) -> list[Any]:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"row {row} has {str(value)[:40]!r}")
    return list(values)


def _tensor(labels: Sequence[float]) -> Tensor:
    import torch

    return torch.tensor(labels, dtype=torch.int64)


def _images(table: Any, column: str, labels: Sequence[float]) -> dict[str, Tensor]:
    import datasets
    import numpy as np
    import torch

    images = [_pixels(row) for row in table.cast_column(column, datasets.Image())[column]]
    inputs = np.ascontiguousarray(np.stack(images))
    return {"inputs": torch.from_numpy(inputs), "labels": _tensor(labels)}


# Of Pillow's modes those whose pixels are one byte a channel.
_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


def _pixels(image: Any) -> Any:
    """An image as uint8 (channels, height, width).

    Raises:
        ValueError: its pixels are no bytes of light: numbers of colours in a palette, single bits, or more than a byte.
    """
    import numpy as np

    if (mode := getattr(image, "mode", "L")) not in _MODES:
        raise ValueError(f"an image of Pillow's mode {mode}; convert it to L or RGB")
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def reason(error: BaseException) -> str:
    """An exception as a short line."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
