"""A task on several data sets: whose content is checked, how they are called, and how labels are counted on."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from streams import Bench, write_stream

from fipbench import api, data, plan, registry
from fipbench.errors import UserError
from fipbench.spec import id_of
from fipbench.tracks import continual
from fipbench.tracks.parts import joined, stream_of
from fipbench.training import Examples

TWICE = {
    "data": '["digits", "digits"]',
    "model": '{ name = "mlp", inputs = [1, 8, 8], hidden = [20], outputs = 20, mean = 0.305, std = 0.376 }',
    "stream": '{ classes = [[0, 1, 9], [10, 11], [18, 19]], score = ["class", "task"] }',
}
DIGITS = registry.read_task("digits-sparsity").data
PINNED = DIGITS.variants["sklearn"]


def variant(label, train=PINNED.train, test=PINNED.test):
    """The digits again, as a table in a task, known under another label or another content."""
    known = f'{{ {label} = {{ train = "{train}", test = "{test}" }} }}'
    return f'{{ embedded = "digits", variants = {known} }}'


@pytest.fixture(scope="module")
def bench(tmp_path_factory, cache_dir):
    return Bench(tmp_path_factory.mktemp("bench"), cache_dir, **TWICE)


def idle(model, experience, trial):
    """Learns nothing."""


# ----------------------------------------------------------------------------------------- digests and variants


def test_every_source_has_its_digests_in_the_job(bench):
    assert bench.digests == {
        "train-1": PINNED.train,
        "test-1": PINNED.test,
        "train-2": PINNED.train,
        "test-2": PINNED.test,
    }
    assert bench.job().data == bench.digests
    assert data.identify_all([DIGITS], bench.cache) == ("sklearn", {"train": PINNED.train, "test": PINNED.test})
    assert [data.key_of("test", 1, 2), data.key_of("test", 0, 1)] == ["test-2", "test"]


def test_the_variants_are_joined_each_named_once(bench, tmp_path):
    assert bench.variant == "sklearn"
    sources = {"data": f'["digits", {variant("mine")}]'}
    task = registry.read_task(str(write_stream(tmp_path, **{**TWICE, **sources})))
    assert data.identify_all(task.sources, bench.cache)[0] == "sklearn+mine"
    assert data.identify_all(task.sources[::-1], bench.cache)[0] == "mine+sklearn"


@pytest.mark.parametrize("order", [0, 1])
def test_unknown_content_of_any_source_is_refused(order, tmp_path, call, cache_dir):
    sources = ['"digits"', variant("mine", train="0" * 64)]
    file = write_stream(tmp_path, **{**TWICE, "data": f"[{', '.join(sources[:: 1 - 2 * order])}]"})
    error = call("run", file, "--methods", "naive", "--seeds", "1").error
    assert "digits (embedded): content has digests" in error and "none of the task's variants (mine)" in error
    assert "--allow-unknown-data" in error
    task = registry.read_task(str(file))
    label, digests = data.identify_all(task.sources, cache_dir, allow_unknown=True)
    assert label == ("sklearn+unknown", "unknown+sklearn")[order]
    assert set(digests.values()) == {PINNED.train, PINNED.test}


def test_a_dry_run_takes_what_is_not_there_for_what_the_task_declares(tmp_path, monkeypatch):
    monkeypatch.delenv("FIPBENCH_DATA", raising=False)
    absent = '{ repo = "nobody/nothing", variants = { first = { train = "11", test = "22" } } }'
    file = write_stream(tmp_path, **{**TWICE, "data": f'["digits", {absent}]'})
    asked = api.request(str(file), methods=["naive"], seeds=1, dry_run=True)
    (ticket,) = plan.tickets(msgspec.structs.replace(asked, cache=tmp_path / "cache"))
    assert ticket.job.data_variant == "sklearn+first"
    assert ticket.job.data == {"train-1": PINNED.train, "test-1": PINNED.test, "train-2": "11", "test-2": "22"}


def test_a_source_that_changed_since_the_plan_is_refused(bench):
    job = msgspec.structs.replace(bench.job(), data={**bench.digests, "test-2": "0" * 64})
    with pytest.raises(UserError, match=r"digits \(embedded\), test: digest .* is not the expected 000000000000"):
        continual.run(bench.task, job, idle, bench.cache, lambda text, share: None)
    assert id_of(job) != id_of(bench.job())


# ------------------------------------------------------------------------------------------------------ labels


def test_labels_are_counted_on(bench):
    parts, dropped = stream_of(bench.task, bench.job(), bench.cache)
    assert dropped == 0
    for split in ("train", "test"):
        whole = data.load(DIGITS, split, bench.cache, getattr(PINNED, split))
        y = whole.labels.numpy()
        for part, own in zip(parts, ((0, 1, 9), (10, 11), (18, 19)), strict=True):
            found: Examples = part.train if split == "train" else part.scoring
            rows = np.isin(y, [label % 10 for label in own])
            assert np.array_equal(found.inputs.numpy(), whole.inputs.numpy()[rows])
            assert found.labels.tolist() == (y[rows] + (10 if own[0] >= 10 else 0)).tolist()


def test_counting_on_goes_by_the_classes_and_not_by_what_a_split_happens_to_hold(bench):
    """A few held-out examples need not show the last class of the first data set."""
    for held in (25, 40, 300):
        task = msgspec.structs.replace(
            bench.task,
            validation=held,
            stream=msgspec.structs.replace(bench.task.stream, classes=(tuple(range(10)), tuple(range(10, 20)))),
        )
        parts, _ = stream_of(task, bench.job(split="validation"), bench.cache)
        first, second = (part.scoring for part in parts)
        # The same digits twice, the held-out drawn alike: the labels differ by ten, one by one.
        assert len(first.labels) == len(second.labels) == held
        assert (second.labels - first.labels).tolist() == [10] * held
    few = Examples(torch.zeros(2, 3), torch.tensor([0, 1]))
    together = joined([few, few, few], [5, 2, 4])
    assert together.labels.tolist() == [0, 1, 5, 6, 7, 8]


def test_sources_of_different_shapes_are_refused():
    wide, narrow = (Examples(torch.zeros(2, 1, n, n), torch.tensor([0, 1])) for n in (28, 8))
    with pytest.raises(UserError, match=r"field 'data': inputs of different shapes \(\(1, 8, 8\), \(1, 28, 28\)\)"):
        joined([wide, narrow], [2, 2])


def test_a_stream_over_two_sources_runs(bench):
    record = bench.record(bench.job("naive"))
    assert record.status == "ok", record.error
    counts = {name: items.count for name, items in record.items.items()}
    y = data.load(DIGITS, "test", bench.cache, PINNED.test).labels.numpy()
    assert counts["class/2"] == np.isin(y, (0, 1)).sum() and counts["class/3"] == np.isin(y, (8, 9)).sum()


def test_repeats_are_dropped_source_by_source(bench, monkeypatch):
    """The second set holds its own test inputs among its training examples; the first is not touched."""
    honest = data.load
    calls = []

    def planted(source, split, cache, expected):
        found = honest(source, split, cache, expected)
        calls.append(split)
        if calls == ["train", "test", "train"]:
            test = honest(source, "test", cache, PINNED.test)
            found = Examples(torch.cat([test.inputs[:7], found.inputs]), torch.cat([test.labels[:7], found.labels]))
        return found

    monkeypatch.setattr(data, "load", planted)
    outcome = bench.run(idle)
    assert calls == ["train", "test"] * 2
    assert "7 training examples dropped because they stand in the test split" in outcome.notes
