"""Images that are too many for memory: each is read from disk, checked and decoded when a batch asks for it.

The hub's library lays a data set out in uncompressed Arrow files. Where in them each image stands is looked up once, a
few bytes an image; then images are read like any part of a file. (Pages of a memory map that were touched count as the
process's memory until the system takes them back, which may be as much as the machine has.)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fipbench.errors import UserError
from fipbench.spec import Streamed

# What ImageNet has. Some of Pillow's other formats start programs.
FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True)
class Places:
    """Where encoded images stand on disk: of each its file's number, first byte there and length, shape (n,)."""

    files: tuple[str, ...]
    file: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.file)

    def read(self, row: int) -> bytes:
        """The bytes of one image, as they are encoded.

        Raises:
            OSError: the file cannot be read.
        """
        with open(self.files[self.file[row]], "rb") as file:
            file.seek(int(self.start[row]))
            return file.read(int(self.length[row]))


def places(table: Any, column: str) -> Places:
    """Where the images of a table's column stand; reads none of them.

    Args:
        table: a `datasets.Dataset` that lies on disk as a whole.

    Raises:
        ValueError: it does not, or the column holds no encoded images; says which row, where one can be named.
    """
    files = tuple(entry["filename"] for entry in table.cache_files)
    parts = [(number, *part) for number, name in enumerate(files) for part in _parts(name, column)]
    if sum(len(start) for _, start, _ in parts) != len(table):
        raise ValueError("the hub's library does not keep it on disk")
    lengths = np.concatenate([length for *_, length in parts])
    if (absent := np.flatnonzero(lengths <= 0)).size:
        raise ValueError(f"row {absent[0]} has no encoded image")
    return Places(
        files,
        np.concatenate([np.full(len(start), number, np.int32) for number, start, _ in parts]),
        np.concatenate([start for _, start, _ in parts]),
        lengths,
    )


def _parts(name: str, column: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First bytes and lengths of the images in an Arrow file, batch by batch; a length of 0 where there is none."""
    import pyarrow

    with pyarrow.memory_map(name) as file:
        whole = file.read_buffer()
        for batch in pyarrow.ipc.open_stream(whole):
            if not batch.num_rows:
                continue
            found = batch.column(column)
            if pyarrow.types.is_struct(found.type) and found.type.get_field_index("bytes") >= 0:
                found = found.field("bytes")
            if not pyarrow.types.is_binary(found.type):
                raise ValueError(f"holds {str(found.type)[:60]}")
            _, offsets, content = found.buffers()
            ends = np.frombuffer(offsets, np.int32)[found.offset : found.offset + len(found) + 1].astype(np.int64)
            first = content.address - whole.address if content is not None else 0
            if not 0 <= first + ends[0] <= first + ends[-1] <= len(whole):
                raise ValueError("the hub's library keeps it compressed")
            yield first + ends[:-1], np.diff(ends)


def digests(table: Any, column: str) -> Tensor:
    """SHA-256 of each image as it is encoded, uint8 (n, 32); holds one image at a time. Errors as of `places`.

    Raises:
        OSError: a file cannot be read.
    """
    found = places(table, column)
    sums = np.empty((len(found), 32), np.uint8)
    for row in range(len(found)):
        sums[row] = np.frombuffer(hashlib.sha256(found.read(row)).digest(), np.uint8)
    return torch.from_numpy(sums)


def decoded(content: bytes, how: Streamed) -> np.ndarray:
    """An encoded image as uint8 (3, crop, crop): RGB, the shorter side brought to `resize` by bicubic interpolation,
    then the middle.

    Sizes are rounded as by torchvision's `Resize` and `CenterCrop`, with which ImageNet's accuracies are published, and
    like there a camera's note on which side is up is not followed.

    Raises:
        OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError: it is no JPEG or PNG, damaged, or huge.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        image = opened.convert("RGB")
    short = min(image.size)
    width, height = (how.resize if side == short else int(how.resize * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - how.crop) / 2), round((height - how.crop) / 2)
    return np.asarray(image.crop((left, top, left + how.crop, top + how.crop))).transpose(2, 0, 1)


class EncodedImages:
    """Stands in `Examples` for a uint8 tensor of images (n, 3, crop, crop) that no memory would hold.

    An index tensor gives the images at these rows, decoded then and there by as many threads as torch has; nothing of
    them is kept here. `only` and `to` read nothing.
    """

    dtype = torch.uint8

    def __init__(
        self, kept: Places, sums: Tensor, how: Streamed, where: str, rows: Tensor | None = None, device: str = "cpu"
    ) -> None:
        self.kept, self.sums, self.how, self.where = kept, sums, how, where
        self.rows = torch.arange(len(kept)) if rows is None else rows
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """Of the tensor that this stands for."""
        return torch.Size((len(self), 3, self.how.crop, self.how.crop))

    @property
    def digests(self) -> Tensor:
        """SHA-256 of each image as it is encoded, uint8 (n, 32)."""
        return self.sums[self.rows]

    def __getitem__(self, index: Tensor) -> Tensor:
        """The images at these positions, uint8 (len(index), 3, crop, crop), on the device.

        Raises:
            UserError: an image is gone, is not what it was when the job was planned, or cannot be decoded.
        """
        rows = self.rows[index.cpu()].tolist()
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def read(position: int) -> None:
            images[position] = self._image(rows[position])

        if (threads := torch.get_num_threads()) > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(read, range(len(rows))))
        else:
            for position in range(len(rows)):
                read(position)
        return torch.from_numpy(images).to(self.device)

    def only(self, index: Tensor) -> EncodedImages:
        """Those at these positions, still encoded."""
        return EncodedImages(self.kept, self.sums, self.how, self.where, self.rows[index.cpu()], str(self.device))

    def to(self, device: str) -> EncodedImages:
        """The same, to be decoded onto another device."""
        return EncodedImages(self.kept, self.sums, self.how, self.where, self.rows, device)

    def _image(self, row: int) -> np.ndarray:
        from PIL import Image

        try:
            content = self.kept.read(row)
            if hashlib.sha256(content).digest() != self.sums[row].numpy().tobytes():
                raise UserError(
                    f"{self.where}: row {row} is not what it was when it was digested; remove "
                    f"{Path(self.kept.files[self.kept.file[row]]).parent} and run again"
                )
            return decoded(content, self.how)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise UserError(f"{self.where}: the image of row {row} cannot be read ({said})") from None
