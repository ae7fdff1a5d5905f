"""Folders of the user's machine, and work that is done once and kept by content (safetensors and JSON only)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fipbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def cache_dir() -> Path:
    """`FIPBENCH_CACHE`, or the platform's own cache folder."""
    if named := os.environ.get("FIPBENCH_CACHE"):
        return expanded(named).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("fipbench", appauthor=False)


def results_dir() -> Path:
    """Where records go unless the user says otherwise: `FIPBENCH_RESULTS`, or the platform's data folder."""
    if named := os.environ.get("FIPBENCH_RESULTS"):
        return expanded(named).absolute()
    from platformdirs import user_data_path

    return user_data_path("fipbench", appauthor=False) / "results"


def expanded(named: str | Path) -> Path:
    """A place that a person named, with their home for `~`.

    Raises:
        UserError: it is in the home of somebody who is not there.
    """
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise UserError(f"{named}: there is no home of that name; write the folder out") from None


def writable(folder: Path, remedy: str) -> Path:
    """Make `folder` and prove that a file can be written in it.

    Raises:
        UserError: it cannot be made or written, or its name is no text; says why and names `remedy`.
    """
    try:
        os.fsdecode(folder).encode()
    except UnicodeEncodeError:  # jobs are told of it in JSON
        raise UserError(f"{folder}: its name is not UTF-8; {remedy}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise UserError(f"{folder}: cannot write here ({error.strerror or error}); {remedy}") from None
    return folder


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content, the new one, or none, whatever happens meanwhile.

    Raises:
        OSError: it cannot be written, with its name; what was there is there still.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it takes that name when it is whole, and is gone if anything was raised.

    Raises:
        OSError: as of `write_atomic`.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    """This process's umask, which can be read only by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def once(
    folder: Path, key: str, build: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts kept under `key`; built by the first who asks, while all others wait for it.

    The lock is the operating system's, so one held by a process that died is free. A kept file whose content
    does not match its own digest, or that was kept under another key, is built again.
    """
    from filelock import FileLock
    from safetensors import SafetensorError

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.safetensors"

    def kept() -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = read_kept(path)
        if facts.pop("key", key) != key:
            raise ValueError(f"{path}: was kept under another key")
        return tensors, facts

    try:
        return kept()
    except (OSError, ValueError, SafetensorError):
        pass
    with FileLock(folder / f"{key}.lock"):
        try:
            return kept()
        except (OSError, ValueError, SafetensorError):
            tensors, facts = build()
            write_kept(path, tensors, {**facts, "key": key})
            return tensors, facts


def tensor_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of tensors."""
    import hashlib

    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(_bytes_type()).numpy().data)
    return total.hexdigest()


def _bytes_type() -> Any:
    import torch

    return torch.uint8


def read_kept(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts that `write_kept` put there.

    Raises:
        OSError, safetensors.SafetensorError, ValueError: no such file, none of its kind, or damaged.
    """
    from safetensors import safe_open

    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get("facts", "null"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if not isinstance(facts, dict) or facts.pop("digest", None) != _digest(tensors, facts):
        raise ValueError(f"{path}: content does not match its digest")
    return tensors, facts


def _digest(tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """SHA-256 (hex) of tensors and facts together."""
    import hashlib

    return hashlib.sha256(f"{tensor_digest(tensors)}\n{json.dumps(facts, sort_keys=True)}".encode()).hexdigest()


def write_kept(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Put tensors and facts (JSON) into one file, atomically, with a digest over both."""
    from safetensors.torch import save

    kept = {**facts, "digest": _digest(tensors, facts)}
    write_atomic(path, save(tensors, metadata={"facts": json.dumps(kept)}))
