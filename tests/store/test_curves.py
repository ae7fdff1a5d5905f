"""A record's curves: checked when it is read, decoded when they are asked for."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workbench import example_record

from fipbench import store
from fipbench.errors import UserError
from fipbench.spec import equal, sealed

RECORD = example_record()
LINE = store.encode(RECORD)


def of_curves(text: str) -> bytes:
    """A record whose curves have this JSON, and its digest, as somebody else might write it."""
    blank = store.encode(msgspec.structs.replace(RECORD, curves={}, digest="")).replace(
        b'"curves":{}', b'"curves":' + text.encode()
    )
    return blank.replace(b'"digest":""', b'"digest":"' + hashlib.sha256(blank).hexdigest().encode() + b'"')


ODD_CURVES = [
    "5",
    "[]",
    '{"a":5}',
    '{"a":[1]}',
    '{"a":{"b":1}}',
    '{"a":{"b":["c"]}}',
    '{"a":{"b":[true]}}',
    '{"a":{"b":[null]}}',
    '{"a":{"b":[[1]]}}',
    '{"a":{"b":[{}]}}',
    '{"a":{"b":[1e999]}}',
    '{"a":{"b":[1,2]},"c":{"d":[-1E+400]}}',
    '{"a":{"b":{"c":[1]}}}',
]


@pytest.mark.parametrize("text", ODD_CURVES)
def test_what_is_no_curves_is_told_of_and_the_others_are_read(text, tmp_path):
    (tmp_path / "more.jsonl").write_bytes(of_curves(text) + b"\n" + LINE)
    found, (problem,) = store.read(tmp_path)
    assert found == [RECORD] and "not a record (" in problem.reason and problem.path.name == "more.jsonl:1"
    with pytest.raises(ValueError, match="not a record"):
        store.parse(of_curves(text))


EVEN_CURVES = {
    "{}": {},
    '{"a":{}}': {"a": {}},
    '{"a":{"b":[]}}': {"a": {"b": []}},
    r'{"a\"]}":{"\\":[1,-2.5,3e-7,1e-200]},"é":{"[":[0]}}': {
        'a"]}': {"\\": [1.0, -2.5, 3e-7, 1e-200]},
        "é": {"[": [0.0]},
    },
}


@pytest.mark.parametrize("text", EVEN_CURVES)
def test_curves_are_those_that_were_written(text, tmp_path):
    wanted = EVEN_CURVES[text]
    (tmp_path / "more.jsonl").write_bytes(of_curves(text))
    (found,), problems = store.read(tmp_path)
    assert not problems and found.curves == wanted and dict(found.curves) == wanted and len(found.curves) == len(wanted)
    assert list(found.curves) == list(wanted) and ("a" in found.curves) == ("a" in wanted)
    assert store.parse(of_curves(text)).curves == wanted
    assert equal(found, store.parse(of_curves(text)))


def test_a_number_of_three_hundred_digits_is_told_of_by_its_record(tmp_path):
    (tmp_path / "more.jsonl").write_bytes(of_curves('{"a":{"b":[' + "9" * 400 + "]}}"))
    (found,), _ = store.read(tmp_path)
    with pytest.raises(UserError, match=rf"record {RECORD.id}: its curves are none .*; remove it"):
        found.curves["a"]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
CURVE = st.dictionaries(st.text(max_size=4), st.lists(FINITE, max_size=4), max_size=3)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(curves=st.dictionaries(st.text(max_size=4), CURVE, max_size=3))
def test_any_curves_come_back(curves, tmp_path_factory):
    record = sealed(msgspec.structs.replace(RECORD, curves=curves))
    file = tmp_path_factory.mktemp("curves") / "more.jsonl"
    file.write_bytes(store.encode(record))
    assert store.read(file) == ([record], [])


def test_the_text_may_be_laid_out_in_any_way(tmp_path):
    shuffled = dict(reversed(json.loads(LINE).items()))
    (tmp_path / "more.json").write_text(json.dumps(shuffled, indent=1))
    (tmp_path / "more.jsonl").write_text(json.dumps(shuffled) + "\n")
    found, problems = store.read(tmp_path)
    assert found == [RECORD] and [problem.path.name for problem in problems] == ["more.json"]  # under another's name
    assert store.parse(json.dumps(shuffled, indent=1).encode()) == RECORD
    altered = json.dumps(shuffled | {"status": "failed"}).encode()
    with pytest.raises(ValueError, match="does not match its digest"):
        store.parse(altered)
