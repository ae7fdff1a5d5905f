"""Task and tuned files out of order: a user's mistake is said in one line, never a traceback; `make fuzz`."""

from __future__ import annotations

import copy
import math
import random
import tomllib
from pathlib import Path

import msgspec
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ordeal import INPUTS

from fipbench import registry
from fipbench.errors import UserError
from fipbench.spec import Task, canonical, task_digest

TASKS = {path.stem: path.read_bytes() for path in registry.task_files().values()}
TUNED = {
    path.stem: path.read_bytes()
    for path in sorted(next(iter(registry.task_files().values())).parent.glob("tuned/*.toml"))
}
FRAGMENTS = [b"=", b"[", b"]", b"{", b"}", b'"', b"'''", b"#", b"\n", b"\\u0000", b"nan", b"inf", b"1e999", b"-1", b"0"]
FRAGMENTS += [
    b"\x00",
    b"\xff",
    b"true",
    b"[[data]]\n",
    b"name = 'x'\n",
    b"99999999999999999999",
    b"[" * 2000,
    b"../",
    b".",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place for task files, with the tuned files beside."""
    place = tmp_path_factory.mktemp("tasks")
    (place / "tuned").mkdir()
    for name, content in TUNED.items():
        (place / "tuned" / f"{name}.toml").write_bytes(content)
    return place


def read(file: Path) -> Task | None:
    """The task, or None where the file is refused as a user's mistake should be; fails on anything else."""
    try:
        task = registry.read_task(str(file))
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)
        return None
    sound(task)
    return task


def sound(task: Task) -> None:
    """What is taken is what its type says, and nothing that a record could not give back."""
    content = msgspec.to_builtins(task)
    assert msgspec.convert(content, type(task)) == task
    assert msgspec.json.decode(msgspec.json.encode(task), type=type(task)) == task
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, dict | list | tuple):
            stack += list(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, float):
            assert math.isfinite(value)


def mutated(draw: random.Random, text: bytes, others: list[bytes]) -> bytes:
    """The text after one to three random alterations, of bytes or of lines."""
    content = bytearray(text)
    for _ in range(draw.choice([1, 1, 2, 3])):
        at, to = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        to = min(to, at + draw.choice([1, 3, 20, 200]))
        lines = content.splitlines(keepends=True)
        match draw.randrange(6):
            case 0:
                content[at:to] = bytes(draw.randrange(256) for _ in range(draw.randrange(3)))
            case 1:
                content[at:at] = draw.choice(FRAGMENTS)
            case 2:
                content[at:to] = draw.choice(FRAGMENTS)
            case 3:
                del content[at:to]
            case 4:
                if lines:
                    lines[draw.randrange(len(lines))] = draw.choice(draw.choice(others).splitlines(keepends=True))
                content = bytearray(b"".join(lines))
            case 5:
                if lines:
                    del lines[draw.randrange(len(lines))]
                content = bytearray(b"".join(lines))
        if not content:
            break
    return bytes(content)


def test_tasks_at_random(folder):
    draw, file = random.Random(3), folder / "some-task.toml"
    others, taken = list(TASKS.values()), 0
    for _ in range(INPUTS):
        file.write_bytes(mutated(draw, draw.choice(others), others))
        taken += read(file) is not None
    assert taken < 0.9 * INPUTS


def test_tuned_files_at_random(folder):
    draw, others = random.Random(4), list(TUNED.values())
    name = next(name for name in TASKS if f"tuned/{name}.toml".encode() in TASKS[name])
    file, tuned = folder / f"{name}.toml", folder / "tuned" / f"{name}.toml"
    file.write_bytes(TASKS[name])
    assert read(file) is not None
    for _ in range(INPUTS):
        tuned.write_bytes(mutated(draw, TUNED[name], others))
        read(file)
    tuned.write_bytes(TUNED[name])
    assert read(file) is not None


PLAIN = {name: tomllib.loads(content.decode()) for name, content in TASKS.items()}


def places(value, path=()):
    """Paths to everything in nested tables and arrays."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


DECISIVE = ("version", "model", "base", "budget", "sparsities", "stream", "members", "attack")
PLACES = [(name, path) for name, plain in PLAIN.items() for path in places(plain) if path]
NAMES = st.sampled_from(["data", "repo", "tuned", "methods", "stream", "extends", "../x", "x\n", "use", "memories"])
LEAF = st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text(max_size=8) | NAMES
OTHER = st.recursive(
    LEAF, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5) | NAMES, x, max_size=3), max_leaves=5
)


@settings(max_examples=INPUTS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), OTHER)
def test_values_at_random(folder, place, value):
    """A value of any kind in the place of any other: refused, or another task with another digest."""
    name, path = place
    content = copy.deepcopy(PLAIN[name])
    below = content
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = value
    file = folder / "some-task.toml"
    try:
        file.write_bytes(tomli_w.dumps(content).encode())
    except (UnicodeEncodeError, ValueError, TypeError):
        return  # not a thing that TOML can say
    task = read(file)
    if task is not None and path[0] in (
        "version",
        "model",
        "base",
        "budget",
        "sparsities",
        "stream",
        "members",
        "attack",
    ):
        file.write_bytes(TASKS[name])
        original = read(file)
        same = len({canonical(getattr(one, path[0])) for one in (original, task)}) == 1
        assert (task_digest(task, 1) == task_digest(original, 1)) == same
