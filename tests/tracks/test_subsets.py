"""A task may use a part of its examples: the same for every method and seed, of texts and ids alike."""

from __future__ import annotations

import msgspec
import pytest
import torch

from fipbench import data, registry
from fipbench.data import bag_of_words, text
from fipbench.errors import UserError
from fipbench.tracks import common, connectivity, robustness, sparsity


@pytest.fixture(scope="module")
def reviews(lab, tmp_path_factory):
    """The reviews' task on a part of them, and a job of it."""
    task = msgspec.structs.replace(registry.read_task("reviews-sparsity"), subset=300, test_subset=90)
    cache = tmp_path_factory.mktemp("reviews")
    _, digests = data.identify(task.data, cache)
    return task, msgspec.structs.replace(lab.job("dense"), task=task.name, data=digests), cache


def test_a_part_of_the_test_split_is_drawn_once(lab):
    task = msgspec.structs.replace(lab.task, test_subset=100)
    whole = {row.numpy().tobytes() for row in lab.split("test").inputs}

    def scored(**job):
        return common.only_split(task, lab.job(**job), lab.cache).scoring

    found = scored()
    assert len(found.labels) == 100 and {row.numpy().tobytes() for row in found.inputs} < whole
    for other in (scored(seed=3), scored(method="lth")):
        assert torch.equal(other.inputs, found.inputs) and torch.equal(other.labels, found.labels)
    by_row = {row.numpy().tobytes(): int(y) for row, y in zip(*lab.split("test"), strict=True)}
    assert all(by_row[row.numpy().tobytes()] == y for row, y in zip(found.inputs, found.labels, strict=True))
    # The first rows of the release would be a part, too, but one that nobody drew.
    assert not torch.equal(found.inputs, lab.split("test").inputs[:100])


def test_a_tuning_job_scores_on_all_validation_examples(lab):
    task = msgspec.structs.replace(lab.task, test_subset=100)
    plain, part = (common.only_split(t, lab.job(split="validation"), lab.cache).scoring for t in (lab.task, task))
    assert len(part.labels) == 300 and torch.equal(part.inputs, plain.inputs)


def test_repeats_of_the_whole_test_split_are_dropped(lab, monkeypatch):
    """Not only of its part: an example of the test split is none to train on."""
    load, test, own = data.load, lab.split("test"), len(lab.split("train").labels)

    def planted(source, split, cache, digest):
        found = load(source, split, cache, digest)
        if split == "train":
            found = type(found)(torch.cat([test.inputs, found.inputs]), torch.cat([test.labels, found.labels]))
        return found

    monkeypatch.setattr(data, "load", planted)
    task = msgspec.structs.replace(lab.task, test_subset=10)
    train, dropped = common.training_data(task, lab.job(), lab.cache)
    assert dropped == len(test.labels) and len(train.labels) == own


def test_more_than_there_are(lab):
    task = msgspec.structs.replace(lab.task, test_subset=1798)
    with pytest.raises(UserError, match=r"field 'test_subset': 1798, but there are \d+ test examples; lower it"):
        common.only_split(task, lab.job(), lab.cache)


def test_less_than_a_batch_to_learn_from(lab):
    """The base network would be as it was drawn, and the limit of a method 0, which is none."""
    fields = {"budget": msgspec.structs.replace(lab.task.budget, batch_size=1201)}
    task = msgspec.structs.replace(lab.task, **fields)
    said = r"task 'tiny', field 'budget.batch_size': a batch is 1201, but there are 1200 training examples$"
    for track in (sparsity, robustness, connectivity):
        with pytest.raises(UserError, match=said):
            track.run(task, lab.job(), None, lab.cache, lambda text, share: None)
    task = msgspec.structs.replace(lab.task, validation=1190)
    batch = task.budget.batch_size
    with pytest.raises(UserError, match=rf"a batch is {batch}, but .* 10 training examples beside the 1190 of 'valid"):
        common.only_split(task, lab.job(split="validation"), lab.cache)
    assert len(common.only_split(task, lab.job(), lab.cache).train.labels) == 1200


def test_a_class_without_an_output(lab):
    task = msgspec.structs.replace(lab.task, model=msgspec.structs.replace(lab.task.model, outputs=9))
    with pytest.raises(UserError, match=r"field 'model.outputs': the data has class 9, the network 9 outputs"):
        common.only_split(task, lab.job(), lab.cache)


def test_the_bag_of_words_reads_what_the_network_reads(reviews, monkeypatch):
    task, job, cache = reviews
    seen = []
    monkeypatch.setattr(bag_of_words, "tfidf_accuracy", lambda *given: seen.append(given) or 0.5)
    assert common.bag_of_words(task, job, cache) == {"tfidf/1": 0.5}
    [(train, labels, test, truth)] = seen
    assert (len(train), len(test)) == (300, 90)
    known = text.vocabulary(data.load_texts(task.data, "train", cache, job.data["train"])[0], task.model.vocabulary)
    [used] = common.splits(task, job, cache)
    for texts, found, examples in ((train, labels, used.train), (test, truth, used.scoring)):
        read = text.encode(texts, known, task.model.inputs[0], truncate=False, where="here")
        assert torch.equal(read, examples.inputs)
        assert found == examples.labels.tolist()
