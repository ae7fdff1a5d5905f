"""The files of an atlas: a base network, members as what differs from it, and an index with digests.

A folder holds `base.safetensors`, `members/NAME.safetensors` and `index.json`. A member's tensors are the exclusive or
of its bits with the base's, so what is read is what was written, to the bit, exact zeros among it; a tensor that is the
base's is left out. Files are written beside their place and renamed, and entries are added under a lock that the
operating system frees with its holder: several processes may add members, and one that is killed leaves the atlas
whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SCHEMA = "fipbench.atlas/1"
BASE = "base"
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class AtlasError(ValueError):
    """An atlas or a member that is not what it should be: one line that names the file and the remedy."""


@dataclass(frozen=True)
class Member:
    """A network of the atlas.

    Attributes:
        parent: the member that it was made from; empty of the base.
        operation: how, in words.
        file: within the folder; `digest`: SHA-256 (hex) of its bytes, of which there are `size`.
    """

    parent: str
    operation: str
    file: str
    digest: str
    size: int


@dataclass(frozen=True)
class Index:
    """What an atlas holds.

    Attributes:
        tensors: name -> type and shape, of every tensor of a network's state.
        parameters: names of those that are coordinates in weight space.
        members: by name, the base first, then in the order in which they came.
        about: what the atlas is of; nothing here reads it.
    """

    folder: Path
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    parameters: tuple[str, ...]
    members: dict[str, Member] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def path_to(self, name: str) -> list[str]:
        """The members on the way from the base to one of them, both included.

        Raises:
            AtlasError: there is no such member, or no way.
        """
        way = [name]
        while way[-1] != BASE:
            if way[-1] not in self.members:
                raise AtlasError(f"{self.folder}: no member '{way[-1]}'; grow it, or name one of the index")
            way.append(self.members[way[-1]].parent)
            if len(way) > len(self.members):
                raise AtlasError(f"{self.folder / 'index.json'}: '{name}' descends from itself; grow the atlas anew")
        return way[::-1]


def create(folder: str | Path, base: nn.Module, about: Mapping[str, Any] | None = None) -> Index:
    """An atlas with this base network; if one is there with the same base, that one.

    Raises:
        AtlasError: the folder holds an atlas of another base.
    """
    place = Path(folder)
    (place / "members").mkdir(parents=True, exist_ok=True)
    state = _state(base)
    with _locked(place):
        if (place / "index.json").exists():
            found = open_atlas(place)
            known = _member_tensors(found, BASE)
            if known.keys() != state.keys() or any(not _same(known[name], state[name]) for name in state):
                raise AtlasError(f"{place}: holds an atlas of another base network; name another folder")
            return found
        file = f"{BASE}.safetensors"
        digest, size = _write(place / file, state, {"schema": SCHEMA})
        found = Index(
            folder=place,
            tensors={name: (str(value.dtype), tuple(value.shape)) for name, value in state.items()},
            parameters=tuple(name for name, _ in base.named_parameters()),
            members={BASE: Member("", "", file, digest, size)},
            about=dict(about or {}),
        )
        _write_index(found)
    return found


def add(folder: str | Path, name: str, network: nn.Module, *, parent: str = BASE, operation: str = "") -> Member:
    """Put a network into an atlas; one of that name that is there already is replaced.

    Raises:
        AtlasError: another shape than the base, weights that are not finite, an unknown parent, or a name that is none.
    """
    found = open_atlas(folder)
    stem = stem_of(name)
    if parent not in found.members:
        raise AtlasError(f"{found.folder}: no member '{parent}', the parent of '{name}'; add it first")
    state = _state(network)
    _check_like(found, state, f"member '{name}'")
    base = _member_tensors(found, BASE)
    changed = {k: _bits(v) ^ _bits(base[k]) for k, v in state.items() if not _same(v, base[k])}
    file = f"members/{stem}.safetensors"
    about = {"schema": SCHEMA, "base": found.members[BASE].digest, "name": name}
    with _locked(found.folder):
        digest, size = _write(found.folder / file, changed, about)
        member = Member(parent, operation, file, digest, size)
        latest = open_atlas(folder)
        _write_index(
            Index(latest.folder, latest.tensors, latest.parameters, {**latest.members, name: member}, latest.about)
        )
    return member


def stem_of(name: str) -> str:
    """A member's name as that of a file; no two names have one.

    Raises:
        AtlasError: a name that is none.
    """
    stem = name.replace("/", "__")
    if (
        not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.@+_/-]{0,99}", name)
        or name == BASE
        or ".." in name
        or stem.replace("__", "/") != name
    ):
        raise AtlasError(
            f"member '{name}': a name holds letters, digits and . @ + _ / - only, no '..', '__' or '_/', and is not "
            f"'{BASE}'"
        )
    return stem


def open_atlas(folder: str | Path) -> Index:
    """The index of an atlas; no network is read.

    Raises:
        AtlasError: there is none, or it is damaged.
    """
    path = Path(folder) / "index.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise AtlasError(f"{path}: schema is '{content['schema']}', expected '{SCHEMA}'; grow the atlas anew")
        tensors = {name: (str(kind), tuple(map(int, shape))) for name, (kind, shape) in content["tensors"].items()}
        members = {name: Member(**entry) for name, entry in content["members"].items()}
        found = Index(Path(folder), tensors, tuple(content["parameters"]), members, dict(content["about"]))
    except FileNotFoundError:
        raise AtlasError(f"{path}: no atlas here; `atlas.create` makes one") from None
    except AtlasError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AtlasError(f"{path}: is damaged ({type(error).__name__}); restore it, or grow the atlas anew") from None
    for name, member in members.items():
        # A file outside the folder is nobody's member.
        if Path(member.file).is_absolute() or ".." in Path(member.file).parts:
            raise AtlasError(f"{path}: member '{name}': its file lies outside the atlas; grow the atlas anew")
    return found


def load(folder: str | Path | Index, name: str, network: nn.Module) -> nn.Module:
    """Put a member's weights into `network`, tensor by tensor, so that no second network is held; returns it.

    Raises:
        AtlasError: no such member, a file that is missing, truncated or another than was added, or a network of another
            shape; `network` may then hold weights of two members.
    """
    found = folder if isinstance(folder, Index) else open_atlas(folder)
    check(found, BASE)
    return fill(found, name, network)


def fill(found: Index, name: str, network: nn.Module) -> nn.Module:
    """As `load`, of an atlas whose base is known to be whole: it is not looked at again for every member."""
    own = network.state_dict()
    _check_like(found, own, "the given network")
    check(found, name)
    with torch.no_grad():
        for key, value in tensors_of(found, name):
            own[key].copy_(value)
    return network


def check(found: Index, name: str) -> Path:
    """The member's file, proved to be the one that was added.

    Raises:
        AtlasError: as of `load`.
    """
    if name not in found.members:
        near = ", ".join(list(found.members)[:8])
        raise AtlasError(f"{found.folder}: no member '{name}'; there are: {near}")
    member = found.members[name]
    path = found.folder / member.file
    remedy = f"remove '{name}' from index.json and grow it again" if name != BASE else "grow the atlas anew"
    if not path.is_file():
        raise AtlasError(f"{path}: is missing; {remedy}")
    size = path.stat().st_size
    if size < member.size:
        raise AtlasError(f"{path}: is truncated ({size:,} of {member.size:,} bytes); {remedy}")
    if _digest(path) != member.digest:
        raise AtlasError(f"{path}: is not the file that was added (its digest differs); {remedy}")
    return path


def tensors_of(found: Index, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a member one by one, by name."""
    with reading(found, BASE) as base, reading(found, name) as own:
        changed = set(own.keys()) if name != BASE else set()
        for key in found.tensors:
            value = base.get_tensor(key)
            yield key, _joined(value, own.get_tensor(key)) if key in changed else value


@contextmanager
def reading(found: Index, name: str) -> Iterator[Any]:
    """A member's file, open for single tensors and slices of them.

    Raises:
        AtlasError: it is no such file, or made for another base.
    """
    from safetensors import SafetensorError, safe_open

    path = found.folder / found.members[name].file
    try:
        file = safe_open(path, framework="pt")
        with file as opened:
            about = opened.metadata() or {}
            if name != BASE and about.get("base") != found.members[BASE].digest:
                raise AtlasError(
                    f"{path}: was made for another base network; remove it from index.json and grow it again"
                )
            yield opened
    except (OSError, SafetensorError) as error:
        remedy = "remove it from index.json and grow it again"
        raise AtlasError(f"{path}: cannot be read ({type(error).__name__}); {remedy}") from None


def changed_part(base: Tensor, bits: Tensor) -> Tensor:
    """A part of a member, minus the same part of the base, in double precision."""
    return _joined(base, bits).double() - base.double()


# ---------------------------------------------------------------------------------------------- plumbing


def _state(network: nn.Module) -> dict[str, Tensor]:
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise AtlasError(f"the network's {name} is not finite; leave it out of the atlas")
    return state


def _check_like(found: Index, state: Mapping[str, Tensor], what: str) -> None:
    if missing := sorted(found.tensors.keys() ^ state.keys()):
        raise AtlasError(
            f"{found.folder}: {what} and the base differ in '{missing[0]}'; give networks of one architecture"
        )
    for name, (kind, shape) in found.tensors.items():
        if (str(state[name].dtype), tuple(state[name].shape)) != (kind, shape):
            raise AtlasError(
                f"{found.folder}: {what} has '{name}' of {state[name].dtype} {tuple(state[name].shape)}, the base of "
                f"{kind} {shape}; give networks of one architecture"
            )


def _member_tensors(found: Index, name: str) -> dict[str, Tensor]:
    check(found, name)
    return dict(tensors_of(found, name))


def _bits(value: Tensor) -> Tensor:
    return value.contiguous().view(_BITS[value.element_size()])


def _joined(base: Tensor, bits: Tensor) -> Tensor:
    return (_bits(base) ^ bits).view(base.dtype)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> tuple[str, int]:
    from safetensors.torch import save

    # Tensors that share memory (tied weights) are written each by itself.
    content = save({name: value.clone() for name, value in tensors.items()}, metadata=about)
    _replace(path, content)
    return hashlib.sha256(content).hexdigest(), len(content)


def _write_index(index: Index) -> None:
    content = {
        "schema": SCHEMA,
        "tensors": index.tensors,
        "parameters": index.parameters,
        "members": {name: asdict(member) for name, member in index.members.items()},
        "about": index.about,
    }
    _replace(index.folder / "index.json", json.dumps(content, indent=1).encode())


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, whatever happens meanwhile."""
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(folder / ".lock"):
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
