"""The store: written whole or not at all, and nothing is believed that was not written so."""

from __future__ import annotations

import json
import os
import threading

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workbench import example_job, example_record

from fipbench import cache, load_records, store
from fipbench.errors import UserError
from fipbench.spec import Cost, Failure, Items, equal, record_digest, sealed

RECORD = example_record()
LINE = store.encode(RECORD)
PLAIN = json.loads(LINE)

quick = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def refused(content, name=""):
    """Whether `content` is refused as it should be; anything but a refusal or the record itself is an error."""
    try:
        found = store.parse(content, name)
    except ValueError:
        return True
    assert found == RECORD
    return False


ODD = {
    "suites": 5,
    "data": ["digits"],
    "model": {"hidden": 5},
    "base": {"weight_decay": "none"},
    "budget": {"epochs": "many"},
    "stream": {"score": "class"},
    "attack": {"epsilons": 0.1},
    "sparsities": ["x"],
    "memories": 10,
    "repeat": [0.5],
}


@pytest.mark.parametrize("field", ODD)
def test_a_protocol_that_no_board_could_be_made_of_is_refused(field):
    """A record from elsewhere with a digest of its own: it is told of by its file, and the others have their boards."""
    odd = sealed(msgspec.structs.replace(RECORD, protocol={**RECORD.protocol, field: ODD[field]}))
    with pytest.raises(ValueError, match=rf"its protocol is none of a task \(.*\$\.{field}"):
        store.parse(store.encode(odd))


def test_what_was_written_is_read(tmp_path):
    path = store.write(tmp_path, RECORD)
    assert path == tmp_path / f"{RECORD.id}.json"
    assert path.read_bytes() == LINE + b"\n"
    assert store.get(tmp_path, RECORD.id) == RECORD
    assert store.parse(LINE, RECORD.id) == RECORD
    assert store.read(tmp_path) == ([RECORD], [])
    assert store.get(tmp_path, "another") is None


# ----------------------------------------------------------------------------------------------- reading


@quick
@given(st.binary(max_size=200))
def test_noise_is_no_record(noise):
    assert refused(noise)


JSON = st.none() | st.booleans() | st.floats() | st.text(max_size=5)


@settings(quick, max_examples=50)
@given(st.recursive(JSON, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)))
def test_other_json_is_no_record(value):
    assert refused(json.dumps(value).encode())


@quick
@given(st.integers(0, len(LINE) - 1), st.integers(1, 255))
def test_a_byte_that_changed_is_noticed(position, flip):
    damaged = bytearray(LINE)
    damaged[position] ^= flip
    refused(bytes(damaged))  # or the same record in other words, which `refused` checks


@quick
@given(st.integers(0, len(LINE) - 1), st.integers(1, 100))
def test_a_piece_that_is_missing_is_noticed(start, length):
    assert refused(LINE[:start])
    refused(LINE[:start] + LINE[start + length :])  # or a default, which `refused` checks


def places(value, path=()):
    """Paths to everything in nested JSON."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


OTHER = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})


@quick
@given(st.sampled_from([path for path in places(PLAIN) if path]), OTHER)
def test_a_field_that_changed_is_noticed(path, value):
    changed = json.loads(LINE)
    below = changed
    for key in path[:-1]:
        below = below[key]
    before, below[path[-1]] = below[path[-1]], value
    assert refused(json.dumps(changed).encode()) or value == before


@quick
@given(st.sampled_from([path for path in places(PLAIN) if path]))
def test_a_field_that_is_missing_is_noticed(path):
    changed = json.loads(LINE)
    below = changed
    for key in path[:-1]:
        below = below[key]
    del below[path[-1]]
    refused(json.dumps(changed).encode())  # or a default, which `refused` checks


def test_every_reason_is_said(tmp_path):
    def reason(content, name=""):
        with pytest.raises(ValueError) as caught:
            store.parse(content, name)
        return str(caught.value)

    def other(**fields):
        return store.encode(sealed(msgspec.structs.replace(RECORD, **fields)))

    assert "not a record" in reason(LINE[:-1])
    assert "not a record" in reason(b"\xff")
    assert "not a record" in reason(b"[" * 100_000)
    assert "not a record" in reason(LINE.replace(b'"protocol":{', b'"protocol":{"deep":' + b"[" * 100_000))
    assert "not a record" in reason(b'{"more": 1, ' + LINE[1:])
    assert "schema is 'somebody.else/1'" in reason(other(schema="somebody.else/1"))
    assert "digest" in reason(LINE.replace(b'"area":0.5', b'"area":0.6'))
    assert "identity" in reason(other(id="mine"))
    assert "identity" in reason(other(job=example_job(seed=1)))
    assert "identity" in reason(LINE, "under-another-name")
    assert "status is 'fine'" in reason(other(status="fine"))


def test_a_folder_with_all_kinds_of_files(tmp_path):
    records = [example_record(seed) for seed in range(4)]
    for record in records[:2]:
        store.write(tmp_path, record)
    (tmp_path / "more.jsonl").write_bytes(store.encode(records[2]) + b"\n\n" + LINE[:50] + b"\n")
    (tmp_path / "notes.txt").write_text("not meant to be one")
    (tmp_path / ".half.tmp").write_bytes(LINE[:50])
    (tmp_path / "set-aside").mkdir()
    (tmp_path / "set-aside" / "old.json").write_bytes(LINE[:50])
    (tmp_path / "broken.json").write_bytes(LINE[:50])
    (tmp_path / f"{records[3].id}.json").write_bytes(store.encode(records[0]))
    found, problems = store.read(tmp_path)
    assert sorted(r.job.seed for r in found) == [0, 1, 2]
    assert sorted(p.path.name for p in problems) == sorted(["broken.json", f"{records[3].id}.json", "more.jsonl:3"])


def test_lines_of_one_file(tmp_path):
    file = tmp_path / "records.jsonl"
    records = [example_record(seed) for seed in range(3)]
    file.write_bytes(b"\n".join(map(store.encode, records)))
    assert store.read(file) == (records, [])
    file.write_bytes(file.read_bytes()[:-1])
    found, (problem,) = store.read(file)
    assert found == records[:2]
    assert problem.path.name == "records.jsonl:3" and "not a record" in problem.reason


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="no such results folder"):
        store.read(tmp_path / "nowhere")


def test_records_as_a_table(tmp_path):
    store.write(tmp_path, RECORD)
    failed = example_record(1, status="failed", metrics={}, error=Failure(type="ValueError", message="why"))
    store.write(tmp_path, failed)
    (tmp_path / "broken.json").write_bytes(LINE[:50])
    table = load_records(tmp_path).set_index("seed")
    assert len(table) == 2
    assert table.loc[0, "status"] == "ok" and table.loc[1, "error"] == "why"
    assert table.loc[0, "metric.area"] == 0.5 and table["metric.area"].isna()[1]
    assert table.loc[0, "param.learning_rate"] == 0.1
    assert table.loc[0, "cost.forward_examples"] == 1184
    assert table.loc[0, "label"] == "magnitude"


# ---------------------------------------------------------------------------------------------- equality

SAME = {
    "wall_s": {"cost": msgspec.structs.replace(RECORD.cost, wall_s=9.0)},
    "peak memory": {"cost": msgspec.structs.replace(RECORD.cost, peak_memory_bytes=1)},
    "provenance": {"provenance": {"commit": "another", "time": "later"}},
}
UNLIKE = {
    "job": {"job": example_job(seed=3)},
    "label": {"job": example_job(label="another")},
    "protocol": {"protocol": {"name": "another"}},
    "status": {"status": "failed"},
    "error": {"error": Failure(type="ValueError", message="")},
    "metrics": {"metrics": {"area": 0.5, "dense_accuracy": 0.8750000001}},
    "curves": {"curves": {"accuracy": {"sparsity": [0.5, 0.9], "value": [0.25, 0.75]}}},
    "items": {"items": {"0.5": Items(count=8, bits="/w==")}},
    "notes": {"notes": ()},
    "forward": {"cost": msgspec.structs.replace(RECORD.cost, forward_examples=1)},
    "backward": {"cost": msgspec.structs.replace(RECORD.cost, backward_examples=1)},
    "parameters": {"cost": msgspec.structs.replace(RECORD.cost, parameters_stored=1)},
    "examples": {"cost": msgspec.structs.replace(RECORD.cost, examples_stored=1)},
}


def test_every_field_of_a_record_and_its_cost_is_judged():
    """A new field must be put on one of the two lists above."""
    assert set(type(RECORD).__struct_fields__) == {
        *("schema", "id", "job", "protocol", "status", "error", "metrics", "curves", "items", "notes"),
        *("cost", "provenance", "digest"),
    }
    assert len(Cost.__struct_fields__) == 6


@pytest.mark.parametrize("change", SAME)
def test_what_may_differ(change):
    assert equal(RECORD, example_record(**SAME[change]))


@pytest.mark.parametrize("change", UNLIKE)
def test_what_may_not(change):
    assert not equal(RECORD, example_record(**UNLIKE[change]))


def test_where_an_error_was_raised_may_differ():
    here, there = (
        example_record(status="failed", error=Failure(type="ValueError", message="why", where=(w,))) for w in "ab"
    )
    assert equal(here, there)
    assert not equal(here, example_record(status="failed", error=Failure(type="ValueError", message="how")))


def test_the_digest_covers_all_but_itself():
    assert RECORD.digest == record_digest(RECORD)
    for change in [*SAME.values(), *UNLIKE.values()]:
        assert example_record(**change).digest != RECORD.digest


# ----------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(step, tmp_path, monkeypatch):
    path = store.write(tmp_path, RECORD)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space"):
            store.write(tmp_path, example_record(notes=("newer",)))
        with pytest.raises(OSError, match="No space"):
            store.write(tmp_path, example_record(1))
    assert path.read_bytes() == LINE + b"\n"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_write_goes_to_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (done.append(name), real(*a))[1])
    store.write(tmp_path, RECORD)
    assert done == ["fsync", "replace", "fsync"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    """While one thread writes two long records in turn, every reading is the one or the other."""
    path = tmp_path / "file"
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    cache.write_atomic(path, contents[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for content in contents:
                cache.write_atomic(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(path.read_bytes() in contents for _ in range(200))
    finally:
        stop.set()
        writer.join()


def test_set_aside_overwrites_nothing(tmp_path):
    for content in ("one", "two", "three"):
        (tmp_path / "x.json").write_text(content)
        moved = store.set_aside(tmp_path, store.Problem(tmp_path / "x.json", "why"))
        assert moved.read_text() == content
    assert not (tmp_path / "x.json").exists()
    assert sorted(file.read_text() for file in (tmp_path / "set-aside").iterdir()) == ["one", "three", "two"]


def test_set_aside_by_two_runs_at_once(tmp_path):
    """The other was faster: nothing to do, and nothing wrong."""
    (tmp_path / "x.json").write_text("one")
    problem = store.Problem(tmp_path / "x.json", "why")
    first = store.set_aside(tmp_path, problem)
    assert store.set_aside(tmp_path, problem).parent == first.parent
    assert first.read_text() == "one"


def test_a_lock_is_one_jobs(tmp_path):
    from filelock import Timeout

    with store.lock(tmp_path, "a"):
        with store.lock(tmp_path, "b"):
            pass
        with pytest.raises(Timeout), store.lock(tmp_path, "a").acquire(timeout=0.05):
            pass
    with store.lock(tmp_path, "a").acquire(timeout=0.05):
        pass
