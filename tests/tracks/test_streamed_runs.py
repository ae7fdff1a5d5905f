"""Whole runs on images that stay on disk, against the same pixels held in memory; and what such a task may not ask."""

from __future__ import annotations

import io
import itertools

import pytest
import tiny_imagenet
import torch
from PIL import Image
from tiny_imagenet import CROP, RESIZE, ROWS, encoded, lay_out, task
from workbench import program

from fipbench import registry, store
from fipbench.data import streamed
from fipbench.data.batches import Examples, stream
from fipbench.errors import UserError
from fipbench.spec import Streamed, task_digest
from fipbench.tracks.partial import Counted

METHODS = "dense,magnitude-finetune,fip"


def held(content):
    """The picture as it is decoded and cut, as PNG."""
    pixels = streamed.decoded(content, Streamed(resize=RESIZE, crop=CROP))
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def records(folder):
    found, problems = store.read(folder)
    assert not problems
    return {(record.job.label, record.job.seed): record for record in found}


def test_a_run_is_to_the_bit_that_of_the_same_pixels_in_memory(tmp_path, monkeypatch, call, in_process):
    """By the program itself, on two threads; one of the training pictures stands in the test split, too."""
    files = {split: [encoded(split, row) for row in range(count)] for split, count in ROWS.items()}
    files["train"][11] = files["validation"][4]
    lay_out(tmp_path / "encoded", files)
    lay_out(tmp_path / "held", {split: [held(content) for content in some] for split, some in files.items()})
    answers = {}
    for name, is_streamed in (("encoded", True), ("held", False)):
        monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / name))
        (tmp_path / f"of-{name}").mkdir()
        file = task(tmp_path / f"of-{name}", "same", streamed=is_streamed, threads="2")
        words = ["run", file, "--methods", METHODS, "--seeds", "1", "--allow-unknown-data"]
        # The program for the streamed ones; where the others run decides no bit.
        run = program if is_streamed else call
        answers[name] = run(*words, "--results", tmp_path / f"results-{name}")
        assert answers[name].code == 0, answers[name]
    ours, others = (records(tmp_path / f"results-{name}") for name in ("encoded", "held"))
    assert set(ours) == set(others) == set(itertools.product(METHODS.split(","), (0,)))
    for key, record in ours.items():
        other = others[key]
        assert record.status == "ok" and record.job.data != other.job.data
        for field in ("metrics", "curves", "items", "notes"):
            assert getattr(record, field) == getattr(other, field), (key, field)
        spent = ("forward_examples", "backward_examples", "parameters_stored", "examples_stored")
        assert [getattr(record.cost, f) for f in spent] == [getattr(other.cost, f) for f in spent]
        assert record.provenance["train_examples"] == ROWS["train"] - 1
        assert "1 training examples dropped because they stand in the test split" in record.notes


def test_a_job_that_goes_on_reads_no_picture_that_it_has_had():
    class Unread:
        def __getitem__(self, index):
            pytest.fail("read")

    train = Examples(Unread(), torch.arange(20))
    again = Counted(stream(train, 6, torch.Generator().manual_seed(1)))
    again.skip_to(7)
    expected = stream(Examples(torch.zeros(20, 1), torch.arange(20)), 6, torch.Generator().manual_seed(1))
    for _ in range(7):
        next(expected)
    assert again.taken == 7
    assert torch.equal(next(again.batches.positions), next(expected).positions)


def test_validation_and_subset_are_cut_from_streamed_examples(tmp_path, monkeypatch, lab):
    from fipbench import data, plan
    from fipbench.tracks.common import only_split

    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    lay_out(tmp_path / "mirror")
    drawn = registry.read_task(str(task(tmp_path, "drawn", subset="20")))
    variant, digests = plan.contents(drawn, tmp_path / "cache", allow_unknown=True)
    (row,) = plan.task_rows(drawn, ["magnitude"])
    for which, counts in (("validation", (20, 8)), ("test", (20, 18))):
        job = plan.make_job(drawn, row, 0, "quick", "cpu", variant, digests, which)
        split = only_split(drawn, job, tmp_path / "cache")
        train, scoring = split.train, split.scoring
        assert (len(train.labels), len(scoring.labels)) == counts
        for examples in (train, scoring):
            assert isinstance(examples.inputs, streamed.EncodedImages)
            assert len(examples.inputs) == len(examples.labels)
        # Which of the mirror's they are is told by their own digests; labels go with them.
        whole = data.load(drawn.data, "train", tmp_path / "cache", digests["train"])
        labels = dict(zip(map(bytes, whole.inputs.digests.numpy()), whole.labels.tolist(), strict=True))
        own = [labels[bytes(digest)] for digest in train.inputs.digests.numpy()]
        assert own == train.labels.tolist()


# ---------------------------------------------------------------------------------------------- bad tasks

BAD = {
    "another shape": (
        {"model": '{ name = "cnn", inputs = [3, 8, 8], channels = [4], hidden = [8], outputs = 10 }'},
        "field 'model.inputs': expected [3, 16, 16], as data.streamed cuts images",
    ),
    "cut larger than the picture": (
        {"data": tiny_imagenet.source().replace("resize = 20", "resize = 15")},
        "field 'data.streamed.crop': expected at most data.streamed.resize (15)",
    ),
    "no size": (
        {"data": tiny_imagenet.source().replace("resize = 20, ", "")},
        "field 'data.streamed': Object missing required field `resize`",
    ),
    "texts": (
        {"data": tiny_imagenet.source(more=', kind = "text"')},
        "field 'data.streamed': texts are held in memory",
    ),
    "embedded": (
        {"data": '{ embedded = "digits", streamed = { resize = 8, crop = 8 }, variants = {} }'},
        "'streamed' and a corpus are of a repository; digits is embedded",
    ),
    "another track": (
        {
            "track": '"robustness"',
            "members": "2",
            "attack": "{ epsilons = [0.1], steps = 1, restarts = 1, apgd_steps = 2 }",
            "headline": '"robust@0.1"',
            "sparsities": "",
        },
        "field 'data.streamed': a robustness task holds its images in memory",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_streamed_is_refused(what, tmp_path):
    fields, words = BAD[what]
    file = task(tmp_path, **fields)
    with pytest.raises(UserError) as caught:
        registry.read_task(str(file))
    assert str(file) in str(caught.value) and words in str(caught.value)


def test_the_cut_is_in_a_tasks_digest_and_the_gate_is_not(tmp_path):
    plain, gated = (registry.read_task(str(task(tmp_path, more=more))) for more in ("", ", gated = true"))
    assert gated.data.gated and task_digest(gated, 1) == task_digest(plain, 1)
    wider = task(tmp_path, data=tiny_imagenet.source().replace("resize = 20", "resize = 21"))
    assert task_digest(registry.read_task(str(wider)), 1) != task_digest(plain, 1)
