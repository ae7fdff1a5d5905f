"""The identity of a method's code: which files it is, a digest over what they say, and what they import."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from pathlib import Path

_OWN_LIBRARIES = ("fipbench.baselines", "fipbench.fip", "fipbench.pruning", "fipbench.tracks.strategies")


def code_digest(where: str) -> str:
    """Digest (12 hex digits) of a method's code: its file or module, and what that imports of its own package,
    of the baselines and of the libraries `fipbench.fip` and `fipbench.pruning`.

    The harness is covered by the tasks' and tracks' versions. Comments, docstrings and
    layout do not count, so a reworded sentence does not void a result.
    """
    total = hashlib.sha256()
    for name, path in sorted(_parts(where).items()):
        total.update(f"{name}\n".encode() + _bare(path))
    return total.hexdigest()[:12]


def _parts(where: str) -> dict[str, Path]:
    """The modules that make a method's code, and their files."""
    if where.endswith(".py"):
        return {"": Path(where), **_closure(_imports("", Path(where)), _OWN_LIBRARIES)}
    package = where.split(".")[0]
    return _closure([where], _OWN_LIBRARIES if package == "fipbench" else (package, *_OWN_LIBRARIES))


def imports_of(target: str) -> set[str]:
    """Top-level packages that a method's file, and what it imports of our libraries, import anywhere."""
    parts = _parts(target.rpartition(":")[0])
    return {name.split(".")[0] for module, path in parts.items() for name in _imports(module, path)}


def _closure(todo: list[str], roots: tuple[str, ...]) -> dict[str, Path]:
    """The modules under `roots` among `todo` and all that they import, and their files."""
    found: dict[str, Path] = {}
    while todo:
        name = todo.pop()
        if name in found or not any(name == root or name.startswith(f"{root}.") for root in roots):
            continue
        if (origin := _origin(name)) is None:
            continue
        found[name] = origin
        todo.extend(_imports(name, found[name]))
    return found


def _imports(name: str, path: Path) -> list[str]:
    """Modules that a file imports, absolute; for `from a import b` both `a` and `a.b`, one of which exists."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{parent}.{base}".rstrip(".")
            if base in _OWN_LIBRARIES:
                found += [_home(base, alias.name) for alias in node.names]
            else:
                found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _home(base: str, name: str) -> str:
    """The module of a library of ours that `from base import name` is about: the library may pass on more than before
    without voiding the results of methods that do not use it."""
    if _origin(f"{base}.{name}"):
        return f"{base}.{name}"
    origin = _origin(base)
    if origin is None or origin.name != "__init__.py":
        return base
    for node in ast.parse(origin.read_bytes()).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return node.module or base
    return base


def _origin(name: str) -> Path | None:
    """The Python file of a module, if there is one."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _bare(path: Path) -> bytes:
    """A file's code without comments, docstrings and layout."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree).encode()
