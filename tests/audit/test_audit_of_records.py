"""`fipbench audit`: a record's network is made again, and what is found is kept, shown, and said of what cannot be."""

from __future__ import annotations

import base64
import shutil
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from workbench import example_record

from fipbench import audit_store, registry, store
from fipbench.audit import own
from fipbench.errors import UserError
from fipbench.spec import Failure, digest, id_of, sealed
from fipbench.spec.audits import Audit
from fipbench.spec.audits import sealed as sealed_audit
from fipbench.tracks import robustness

OWN = """
def attack(vote, inputs, labels, epsilon, generator):
    '''White noise.'''
    return (inputs + epsilon * (2 * (inputs > 0.5) - 1)).clamp(0, 1)
"""


@pytest.fixture
def held(votes, results):
    """The tiny records in this test's own results folder, by label and seed."""
    shutil.copytree(votes, results, ignore=shutil.ignore_patterns(".locks", "logs", "audits"))
    found, problems = store.read(results)
    assert not problems
    return {f"{record.job.label}{record.job.seed}": record for record in found}


def altered(record, job=None, **fields):
    """Another record that is whole in itself."""
    moved = msgspec.structs.replace(record.job, **job) if job else record.job
    return sealed(msgspec.structs.replace(record, job=moved, id=id_of(moved), **fields))


def bits(items):
    return np.unpackbits(np.frombuffer(base64.b64decode(items.bits), np.uint8), count=items.count).astype(bool)


@pytest.mark.usefixtures("small")
def test_an_audit_of_a_record_is_kept_beside_it_and_can_be_verified(held, results, call):
    record = held["fge0"]
    said = call("audit", record.id)
    assert said.code == 0 and said.err == "", said
    audit = audit_store.parse((results / "audits" / f"{record.id}.json").read_bytes(), record.id)
    assert [radius.epsilon for radius in audit.radii] == [0.02, 0.05] and audit.attacked == 60
    for radius in audit.radii:
        was, now = bits(record.items[f"robust@{radius.epsilon:g}"]), bits(radius.standing)
        assert (radius.recorded, radius.found) == (pytest.approx(was.mean()), pytest.approx(now.mean()))
        assert not (now & ~was).any(), "what has fallen stays fallen"
        by = sum(one.first for one in audit.tried if one.epsilon == radius.epsilon and one.epsilon == 0.02)
        assert radius.epsilon != 0.02 or by == int(was.sum() - now.sum())
        assert f"ε {radius.epsilon:g}: {100 * was.mean():.2f} % recorded, {100 * now.mean():.2f} % found" in said.out
    names = {one.attack for one in audit.tried}
    assert {"transfer from member 0", "transfer from member 1", "transfer from another network"} <= names
    assert {"APGD-CE", "APGD-T", "FAB-T", "Square", "noise", "PGD, margin of the mean logits"} <= names
    assert set(audit.beyond) == {"0.1", "1"} and audit.items_digest == digest(record.items)
    assert not list((results / "audits").glob(".*")) and store.read(results)[1] == []
    assert call("audit", record.id).out == f"{record.id}: audited already (default); --force audits it again\n"
    again = call("audit", record.id, "--verify")
    assert (again.code, again.out) == (0, f"equal    {record.id}\n")
    other = sealed_audit(msgspec.structs.replace(audit, beyond={**audit.beyond, "1": 0.9}))
    audit_store.write(results / "audits", other)
    again = call("audit", record.id, "--verify")
    assert (again.code, again.out) == (1, f"differs  {record.id}\n")
    assert audit_store.at(results / "audits")[0] == [other], "to verify stores nothing"


@pytest.mark.usefixtures("small")
def test_a_network_that_does_not_come_out_again_is_not_audited(held, results, call):
    record = held["single0"]
    items = dict(record.items)
    wrong = base64.b64encode(bytes(b ^ 128 * (n == 0) for n, b in enumerate(base64.b64decode(items["clean"].bits))))
    items["clean"] = msgspec.structs.replace(items["clean"], bits=wrong.decode())
    store.write(results, altered(record, items=items))
    said = call("audit", record.id)
    assert said.code == 1 and said.err == ""
    assert said.out.startswith(f"differs  {record.id}: the network made again is not that of the record: clean is 0.")
    assert not list((results / "audits").iterdir())


def test_a_method_that_fails_now_is_told_and_not_audited(held, results, call, monkeypatch):
    def fails(*arguments):
        raise ArithmeticError("no members today")

    monkeypatch.setattr(robustness, "voters", fails)
    identity = held["single0"].id
    said = call("audit", identity)
    assert (said.code, said.err) == (1, "")
    why = "its method fails here: ArithmeticError: no members today; nothing was audited"
    assert said.out == f"differs  {identity}: {why}\n"


@pytest.mark.usefixtures("small")
def test_an_own_attack_is_tried_and_a_weaker_audit_does_not_replace_one_with_it(held, results, call, tmp_path):
    record = held["single0"]
    (tmp_path / "mine.py").write_text(OWN)
    assert call("audit", record.id, "--attack", tmp_path / "mine.py").code == 0
    [audit] = audit_store.at(results / "audits")[0]
    assert audit.own[0].startswith("mine.py:attack+") and len(audit.own) == 1
    [first, *_] = [one for one in audit.tried if one.kind == "own"]
    assert first.attack == f"own: {audit.own[0]}" and not first.refused and first.given > 30
    assert call("audit", record.id).out.endswith("audited already (default); --force audits it again\n")
    refused = call("audit", record.id, "--hard").error
    assert refused.startswith(
        f"{record.id}: is audited in {results / 'audits'} with strength default and attack mine.py"
    )
    refused = call("audit", record.id, "--verify").error
    assert refused == f"{record.id}: its audit cannot be made again: its attack {audit.own[0]} is not here (--attack)"
    assert call("audit", record.id, "--verify", "--attack", tmp_path / "mine.py").out.startswith("equal")
    assert call("audit", record.id, "--hard", "--force").code == 0
    [audit] = audit_store.at(results / "audits")[0]
    assert (audit.strength, audit.own) == ("hard", ())
    assert "audited already (hard)" in call("audit", record.id).out


@pytest.mark.usefixtures("small")
def test_a_file_of_records_into_a_file_of_audits(held, results, call, tmp_path):
    file, out = tmp_path / "votes.jsonl", tmp_path / "kept" / "votes.audits.jsonl"
    file.write_bytes(b"".join(store.encode(record) + b"\n" for record in held.values()))
    assert call("audit", file, "--seeds", 1, "--methods", "single", "--out", out).code == 0
    before = out.read_bytes()
    said = call("audit", file, "--seeds", 1, "--out", out)
    assert said.code == 0 and f"{held['single0'].id}: audited already" in said.out
    lines = out.read_bytes().splitlines(keepends=True)
    assert [audit_store.parse(line).id for line in lines] == sorted([held["fge0"].id, held["single0"].id])
    assert before in lines
    shutil.copy(file, out.parent / "votes.jsonl")
    found, problems = audit_store.read(out.parent)
    assert set(found) == {held["fge0"].id, held["single0"].id} and not problems
    assert audit_store.read(out.parent / "votes.jsonl")[0] == found
    assert len(store.read(out.parent)[0]) == 3, "audits are no damaged records"
    out.write_bytes(before + b"{}\n")
    error = call("audit", file, "--seeds", 1, "--out", out).error
    assert error.startswith(f"{out}:2: not an audit") and out.read_bytes() == before + b"{}\n"


def test_of_two_audits_of_a_record_the_harder_counts_and_of_another_network_none(held, tmp_path):
    record = held["single0"]

    def audit(**fields):
        given = {"id": record.id, "task": "t", "method": "m", "seed": 0, "items_digest": digest(record.items),
                 "settings": {}, "attacked": 1, "radii": (), "beyond": {}, "flat": {}, "tried": ()}  # fmt: skip
        return sealed_audit(Audit(**{**given, **fields}))

    weak, hard = audit(strength="default"), audit(strength="hard")
    audit_store.write(tmp_path / "audits", hard)
    audit_store.write(tmp_path / "votes.audits.jsonl", weak)
    found, _ = audit_store.read(tmp_path)
    assert found == {record.id: hard}
    assert audit_store.matching(found, [record]) == {record.id: hard}
    other = altered(record, items={**record.items, "clean": record.items["robust@0.02"]})
    assert audit_store.matching(found, [other]) == {} == audit_store.matching(found, [held["fge0"]])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b'{"schema": "fipbench.record/1"}'],
)
def test_what_is_no_audit_is_said_to_be_none(content):
    with pytest.raises(ValueError, match="not an audit"):
        audit_store.parse(content)


def test_an_altered_audit_is_refused(held, tmp_path):
    audit = sealed_audit(
        Audit(id="a", task="t", method="m", seed=0, items_digest="", strength="hard", settings={}, attacked=1,
              radii=(), beyond={"1": 0.25}, flat={}, tried=())
    )  # fmt: skip
    text = audit_store.encode(audit)
    assert audit_store.parse(text, "a") == audit
    for wrong, why in ((text.replace(b"0.25", b"0.24"), "digest"), (text.replace(b'"hard"', b'"soft"'), "'soft'")):
        with pytest.raises(ValueError, match=why):
            audit_store.parse(wrong)
    with pytest.raises(ValueError, match="not of that of its file's name"):
        audit_store.parse(text, "b")


# ----------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_one_line(held, results, call, tmp_path):
    record = held["fge0"]
    sparse = example_record()
    failed = altered(record, job={"seed": 7}, status="failed", error=Failure(type="OSError", message="no room"))
    gone = altered(record, job={"method": "was-here", "label": "was-here"})
    older = altered(record, job={"method_version": "1+000000000000"})
    for one in (sparse, failed, gone, older):
        store.write(results, one)
    assert call("audit", sparse.id).error == (
        f"{sparse.id}: is of track sparsity; an audit attacks records of track robustness"
    )
    assert call("audit", failed.id).error == f"{failed.id}: failed (no room); there is no number to audit"
    assert "there is no robustness method 'was-here'; name its file with --plugin" in call("audit", gone.id).error
    assert "the code of method 'fge' has changed since (1+000000000000, " in call("audit", older.id).error
    unknown = call("audit", record.id[:-1] + "g").error
    assert unknown.startswith(f"unknown record '{record.id[:-1]}g' in {results}: did you mean {record.id}")
    assert call("audit", tmp_path / "no.jsonl").error == f"{tmp_path / 'no.jsonl'}: no such file"
    assert "is a folder; name records in it" in call("audit", results).error
    assert "--out" in call("audit", record.id, "--out", tmp_path / "x.jsonl").error
    assert "--seeds" in call("audit", record.id, "--seeds", 0).error
    assert call("audit", held["fge1"].id, "--seeds", 1).error == "--seeds 1: none of the records given has such a seed"
    assert "unknown method 'adp' among the records given" in call("audit", record.id, "--methods", "adp").error
    assert "there is no audit of it in" in call("audit", record.id, "--verify").error
    file = results / f"{record.id}.json"
    file.write_bytes(file.read_bytes().replace(b'"clean"', b'"clear"', 1))
    assert "content does not match its digest" in call("audit", record.id).error
    assert "content does not match its digest" in call("audit", file).error
    assert not list(results.glob("audits/*"))


@pytest.mark.parametrize(
    ("source", "why"),
    [("import nothing_of_that_name", "does not import"), ("x = 1", "expected a function attack(vote, inputs")],
)
def test_a_file_without_an_attack_is_told(held, call, tmp_path, source, why):
    (tmp_path / "bad.py").write_text(source)
    registry._plugin_module.cache_clear()
    error = call("audit", held["fge0"].id, "--attack", tmp_path / "bad.py").error
    assert str(tmp_path / "bad.py") in error and why in error


def test_an_installed_attack_is_found_by_the_methods_name(monkeypatch):
    """An entry point of the group, as the metadata of a distribution give it; a library's function stands in."""

    def listed(group, name):
        assert group == "fipbench.attacks"
        return [SimpleNamespace(name="fge", value=value) for value in values if name == "fge"]

    monkeypatch.setattr(own, "entry_points", listed)
    values = ["fipbench.attacks:pgd", "fipbench.attacks:pgd"]
    from fipbench import attacks

    assert list(own.named("fge", []).values()) == [attacks.pgd] and own.named("single", []) == {}
    [name] = own.named("fge", [])
    assert name.startswith("fipbench.attacks:pgd+") and len(name.rpartition("+")[2]) == 12
    for value, why in (("no_such_module:f", "does not import"), ("fipbench.attacks:CHUNK", "expected a function")):
        values[:] = [value]
        with pytest.raises(UserError, match=why):
            own.named("fge", [])
