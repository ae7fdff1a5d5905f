"""Which test items a record says were right."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from fipbench.spec import Record

if TYPE_CHECKING:
    import numpy as np


def right(record: Record, name: str) -> np.ndarray | None:
    """The items called `name`, True where right; None if the record has none or not as many as it says."""
    import numpy as np

    packed = record.items.get(name)
    if packed is None or packed.count < 1:
        return None
    try:
        content = base64.b64decode(packed.bits, validate=True)
    except binascii.Error:
        return None
    if len(content) != -(-packed.count // 8):
        return None
    return np.unpackbits(np.frombuffer(content, np.uint8), count=packed.count).astype(bool)
