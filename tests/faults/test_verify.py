"""`fipbench verify`: a stored number is computed again from its record alone, and compared field by field."""

from __future__ import annotations

import json

import msgspec
import pytest
from ordeal import whole
from workbench import example_record, write_tiny

from fipbench import store, verify
from fipbench.errors import UserError
from fipbench.spec import Failure, Items, equal, id_of, sealed

PLUGIN = """
from fipbench.methods import sparsity

@sparsity()
def broken(*, power: int = 1):
    def prune(model, sparsities, trial):
        raise ArithmeticError(f"to the power {{power}} of {change}")
        yield
    return prune
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, nursery):
    """A store of six records: two of a method that fails, which a plugin brings."""
    folder = tmp_path_factory.mktemp("made")
    plugin = folder / "broken.py"
    plugin.write_text(PLUGIN.format(change=1))
    words = ["run", write_tiny(folder), "--plugin", plugin, "--methods", "magnitude,random,broken", "--seeds", 2]
    run = nursery.start(folder, *words, "--results", folder / "results")
    assert run.wait() == 1, run.said
    return folder, plugin, {f"{r.job.label}{r.job.seed}": r for r in whole(folder / "results")}


def changed(record, **fields):
    """The record, with other content and a digest to match: what no check of integrity finds."""
    return sealed(msgspec.structs.replace(record, **fields))


def of_another_job(record, **fields):
    job = msgspec.structs.replace(record.job, **fields)
    return changed(record, job=job, id=id_of(job))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def test_all_are_equal(made, nursery):
    folder, plugin, _ = made
    before = files(folder / "results")
    (folder / "tiny.toml").rename(folder / "elsewhere.toml")  # a record holds all that its job needs
    run = nursery.start(folder, "verify", folder / "results", "--sample", 10, "--plugin", plugin, "--workers", 2)
    assert run.wait() == 0, run.said
    (folder / "elsewhere.toml").rename(folder / "tiny.toml")
    lines = run.said.splitlines()
    assert sorted(line.split()[1] for line in lines if line.startswith("equal ")) == sorted(
        name.removesuffix(".json") for name in before
    )
    assert lines[-1] == "6 records: 6 equal, 0 differ, 0 cannot be run here, 0 not drawn; 0 damaged"
    assert files(folder / "results") == before


def test_what_differs_is_named(made, nursery, tmp_path):
    good, twisted, bits = (made[2][name] for name in ("magnitude0", "magnitude1", "random0"))
    metrics = {**twisted.metrics, "area": 0.123}
    wrong = changed(twisted, metrics=metrics, cost=msgspec.structs.replace(twisted.cost, wall_s=1e6))
    name, items = next(iter(bits.items.items()))
    first = "A" if items.bits[0] != "A" else "/"
    flipped = changed(bits, items={**bits.items, name: Items(count=items.count, bits=first + items.bits[1:])})
    file = tmp_path / "records.jsonl"
    file.write_bytes(b"\n".join(store.encode(record) for record in (good, wrong, flipped)) + b"\n{}\n")
    run = nursery.start(made[0], "verify", file, "--workers", 2)
    assert run.wait() == 1, run.said
    lines = run.said.splitlines()
    assert f"equal    {good.id}" in lines
    place = lines.index(f"differs  {wrong.id}")
    assert lines[place + 1] == f"  metrics.area: stored 0.123, now {json.dumps(twisted.metrics['area'])}"
    assert not lines[place + 2].startswith("  ")
    place = lines.index(f"differs  {flipped.id}")
    assert lines[place + 1].startswith(f"  items.{name}.bits: ")
    assert lines[place + 1].endswith("items were right in one and wrong in the other")
    assert f"damaged  {file}:4: not a record" in run.said
    assert lines[-1] == "3 records: 1 equal, 2 differ, 0 cannot be run here, 0 not drawn; 1 damaged"


def test_what_cannot_be_run_is_said_and_not_run_with_something_else(made, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    of = made[2]
    altered = tmp_path / "broken.py"
    altered.write_text(PLUGIN.format(change=2))
    record, killed = of["magnitude0"], Failure(type="RuntimeError", message="the job's process was ended by SIGKILL")
    other = {**record.job.data, "test": "0" * 64}
    reasons = [
        (of["broken0"], "there is no sparsity method 'broken'; name its file with --plugin"),
        (of_another_job(record, method_version="9+000000000000"), "code of method 'magnitude' has changed"),
        (of_another_job(record, task_digest="0" * 12), "protocol of task 'tiny'"),
        (of_another_job(record, device="cuda"), "it is of device 'cuda', which torch does not find here"),
        (of_another_job(record, data=other), "the data here is not that of the record (test "),
        (of_another_job(record, track="alchemy"), "no track 'alchemy'"),
        (changed(record, protocol={"title": "of another time"}), "schema of tasks has changed"),
        (changed(record, status="failed", metrics={}, error=killed), "ended from outside"),
    ]
    for one, reason in reasons:
        [check] = verify.verify([one])
        assert check.verdict == "cannot" and reason in check.reason, check.reason
    [check] = verify.verify([of["broken0"]], plugins=[str(altered)])
    assert check.verdict == "cannot" and "code of method 'broken' has changed" in check.reason


def test_data_that_is_not_there(made):
    record = made[2]["magnitude0"]
    data = {**record.protocol["data"], "repo": "nobody/nothing", "revision": "main"}
    del data["embedded"]
    protocol = {**record.protocol, "data": data}
    from fipbench.spec import SparsityTask, task_digest
    from fipbench.tracks import PROTOCOL_VERSIONS

    digest = task_digest(msgspec.convert(protocol, SparsityTask), PROTOCOL_VERSIONS["sparsity"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIPBENCH_DATA", "/nowhere")
        [check] = verify.verify([changed(of_another_job(record, task_digest=digest), protocol=protocol)])
    assert check.verdict == "cannot" and "FIPBENCH_DATA=/nowhere is no folder" in check.reason


def test_nothing_that_could_be_checked(made, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_bytes(store.encode(made[2]["broken0"]))
    answer = call("verify", "one.json")
    assert answer.code == 2 and "error: one.json: no record could be checked" in answer.err
    assert "cannot   tiny--broken--s0" in answer.out
    (tmp_path / "two.json").write_bytes(store.encode(made[2]["random0"]).replace(b'"area":0.', b'"area":1.'))
    answer = call("verify", "two.json")
    assert answer.code == 2 and "no valid records" in answer.err and "does not match its digest" in answer.out
    for words, part in {
        "nowhere": "no such results folder or file",
        "one.json --sample 0": "--sample: expected a positive number",
        "one.json --workers 0": "--workers: expected a positive number",
        "one.json --timeout 0": "--timeout: expected a positive number",
        "one.json --plugin nowhere.py": "no such plugin file",
    }.items():
        assert part in call("verify", *words.split()).err, words


def test_the_sample_is_drawn_by_its_seed_among_what_can_be_run(made, monkeypatch):
    asked = []

    def execute(tickets, workers, watch, timeout):
        asked.append([id_of(ticket.job) for ticket in tickets])
        return iter(())

    monkeypatch.setattr(verify.local, "execute", execute)
    records = list(made[2].values())
    for seed in (0, 0, *range(1, 60)):
        checks = verify.verify(records, sample=2, seed=seed)
        assert [check.record.job.method for check in checks] == ["broken", "broken"]
    assert asked[0] == asked[1] and all(len(names) == 2 and "broken" not in "".join(names) for names in asked)
    assert len({tuple(names) for names in asked}) == 6  # of four things, two can be drawn in six ways
    verify.verify(records, sample=10)
    assert len(asked[-1]) == 4


RECORD = example_record()
CHANGES = [
    {"cost": msgspec.structs.replace(RECORD.cost, wall_s=9.0, peak_memory_bytes=1)},
    {"provenance": {}},
    {"cost": msgspec.structs.replace(RECORD.cost, forward_examples=1)},
    {"metrics": {"area": 0.5}},
    {"metrics": {}},
    {"metrics": {**RECORD.metrics, "area": -0.0}},
    {"curves": {"accuracy": {"sparsity": [0.5, 0.9], "value": [0.75]}}},
    {"curves": {}},
    {"curves": {"accuracy": {}}},
    {"items": {}},
    {"notes": ()},
    {"notes": ("another",)},
    {"status": "failed"},
    {"protocol": {"name": "tiny"}},
    {"job": msgspec.structs.replace(RECORD.job, label="another")},
    {"error": Failure(type="ValueError", message="why", where=("a:1 in b",))},
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_no_difference_means_equal_and_equal_means_no_difference(number):
    other = changed(RECORD, **CHANGES[number])
    found = verify.differences(RECORD, other)
    assert (not found) == equal(RECORD, other) == (number < 2)
    assert sorted(d.field for d in verify.differences(other, RECORD)) == sorted(d.field for d in found)


def test_differences_are_shown_short():
    metrics = {f"m{n}": float(n) for n in range(9)}
    check = verify._compared(changed(RECORD, metrics=metrics), changed(RECORD, metrics={k: 0.5 for k in metrics}))
    shown = verify.lines(check, most=3)
    assert len(shown) == 5 and shown[1] == "  metrics.m0: stored 0.0, now 0.5" and shown[-1] == "  and 6 more"
    long = changed(RECORD, notes=("x" * 500,))
    assert len(verify.lines(verify._compared(RECORD, long))[1]) < 150
    with pytest.raises(UserError, match="--timeout"):
        verify.verify([RECORD], timeout=-1)
