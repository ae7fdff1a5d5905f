"""Records out of order: a damaged or altered one is refused with its reason, whatever was done to it; `make fuzz`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ordeal import INPUTS
from workbench import example_record

from fipbench import store
from fipbench.spec import Failure, Record, id_of

REAL = Path(__file__).resolve().parents[2] / "leaderboards" / "digits-sparsity.jsonl"
ERROR = Failure(type="ValueError", message="why", where=("a.py:1 in b",))
LINES = [
    store.encode(example_record()),
    store.encode(example_record(1, status="failed", metrics={}, curves={}, items={}, error=ERROR)),
    *REAL.read_bytes().splitlines()[:2],
]
ORIGINALS = [store.parse(line) for line in LINES]
FRAGMENTS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\",
    b"\\u0000",
    b"null",
    b"1e999",
    b"-0.0",
    b"NaN",
    b"\x00",
    b"\xff",
]
FRAGMENTS += [
    b"0" * 50,
    b"[" * 3000,
    "é".encode(),
    b'"status":"ok",',
    b'"digest":"",',
    b"../",
    b"true",
    b"1e-400",
    b"\x00",
]


def refused(content: bytes, name: str = "") -> bool:
    """Whether it is refused, with a reason; what is taken must say just what one of the originals says."""
    try:
        found = store.parse(content, name)
    except ValueError as error:
        assert str(error)
        return True
    assert found in ORIGINALS and store.encode(found) in LINES
    return False


def mutated(draw: random.Random, line: bytes) -> bytes:
    """The line after one to four random alterations."""
    content = bytearray(line)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at, to = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        to = min(to, at + draw.choice([1, 2, 8, 64, 100_000]))
        other = draw.choice(LINES)
        start = draw.randrange(len(other))
        piece = other[start : start + draw.choice([1, 4, 40, 4000])]
        match draw.randrange(7):
            case 0:
                if at < len(content):
                    content[at] ^= draw.randrange(1, 256)
            case 1:
                del content[at:to]
            case 2:
                content[at:at] = draw.choice(FRAGMENTS)
            case 3:
                content[at:to] = draw.choice(FRAGMENTS)
            case 4:
                content[at:at] = content[at:to]
            case 5:
                content[at : at + len(piece)] = piece
            case 6:
                if at < len(content):
                    content[at] = draw.choice(b"0123456789")
        if not content:
            break
    return bytes(content)


def test_bytes_at_random():
    draw = random.Random(1)
    taken = sum(not refused(mutated(draw, draw.choice(LINES))) for _ in range(INPUTS * 4))
    assert taken < INPUTS  # mostly a digit that was put in the place of the same digit


def places(value, path=()):
    """Paths to everything in nested JSON."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


PLAIN = [json.loads(line) for line in LINES]
PLACES = [(n, path) for n, plain in enumerate(PLAIN) for path in places(plain) if path]
LEAF = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
OTHER = st.recursive(
    LEAF, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3), max_leaves=5
)
thorough = settings(max_examples=INPUTS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@thorough
@given(st.lists(st.tuples(st.sampled_from(PLACES), OTHER, st.booleans()), min_size=1, max_size=3))
def test_fields_at_random(edits):
    """Fields that are replaced, dropped or added, anywhere in the JSON of a real record."""
    number = edits[0][0][0]
    changed = json.loads(LINES[number])
    for (_, path), value, drop in edits:
        below = changed
        try:
            for key in path[:-1]:
                below = below[key]
            if drop:
                del below[path[-1]]
            else:
                below[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier edit has taken that place away
    refused(json.dumps(changed).encode("utf-8", "surrogatepass"))


@thorough
@given(st.sampled_from(PLACES), OTHER)
def test_a_field_that_is_not_known_is_refused(place, value):
    number, path = place
    changed = json.loads(LINES[number])
    below = changed
    for key in path:
        below = below[key]
    if isinstance(below, dict):
        below["more"] = value
        assert refused(json.dumps(changed).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_record_under_the_name_of_each_other(number):
    for other, record in enumerate(ORIGINALS):
        assert refused(LINES[number], record.id) == (other != number)


def test_a_store_of_damaged_files(tmp_path):
    """Whatever lies in a results folder: what is whole is read, all else is named with its reason."""
    draw = random.Random(2)
    for number in range(40):
        line = mutated(draw, draw.choice(LINES))
        (tmp_path / f"x{number}.{draw.choice(['json', 'jsonl'])}").write_bytes(line)
    for record in ORIGINALS:
        store.write(tmp_path, record)
    found, problems = store.read(tmp_path)
    assert all(record in ORIGINALS for record in found) and {r.id for r in found} == {r.id for r in ORIGINALS}
    assert all(problem.reason for problem in problems) and len(problems) > 20


def test_a_digest_that_was_made_to_match_is_no_signature():
    """Who alters a record and its digest is believed: the digest finds damage, and nothing else."""
    lie = msgspec.structs.replace(ORIGINALS[0], metrics={"area": 1.0}, digest="")
    import hashlib

    content = msgspec.json.encode(lie, order="deterministic")
    lie = msgspec.structs.replace(lie, digest=hashlib.sha256(content).hexdigest())
    assert store.parse(store.encode(lie)) == lie and lie.id == id_of(lie.job)


def test_what_a_record_says_of_itself_is_checked_even_so():
    """With a digest to match: its identity, status and schema."""
    from fipbench.spec import sealed

    for fields in ({"id": "../../x"}, {"id": "tiny--a--s0--0"}, {"status": "done"}, {"schema": "fipbench.record/2"}):
        lie: Record = sealed(msgspec.structs.replace(ORIGINALS[0], **fields))
        assert refused(store.encode(lie))
    for name in ("../x", "/etc/x", "x/../../y", "", "a b", "ä", "x\n"):
        job = msgspec.structs.replace(ORIGINALS[0].job, task=name)
        lie = sealed(msgspec.structs.replace(ORIGINALS[0], job=job, id=id_of(job)))
        assert refused(store.encode(lie)), name
