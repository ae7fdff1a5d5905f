"""Running text without labels, and a split that is trained on in place of another."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import tiny_mirror
from tiny_mirror import write

from fipbench import data, reading, registry, stock
from fipbench.errors import UserError
from fipbench.estimate.work import sizes_of
from fipbench.spec import About, Data, Model

LINES = {"train": [" = Title = ", "", "it rains"], "validation": ["the sun"], "test": ["wet", "dry"]}
TEXT = Data(
    repo=tiny_mirror.REPO, config=tiny_mirror.CONFIG, revision="1" * 40, input="text", kind="corpus", variants={}
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(tmp_path / "mirror"))
    found = tmp_path / "mirror" / tiny_mirror.REPO / tiny_mirror.CONFIG
    for split, lines in LINES.items():
        write(found, split, text=lines)
    return found


def lines_of(source, split, cache):
    _, digests = data.identify(source, cache, allow_unknown=True)
    return data.load_texts(source, split, cache, digests[split])


def test_every_line_is_kept_and_none_has_a_label(folder, tmp_path):
    lines, labels = lines_of(TEXT, "train", tmp_path / "cache")
    assert lines == LINES["train"] and labels.tolist() == [0, 0, 0]


def test_another_split_is_trained_on_and_not_mixed_up_with_it(folder, tmp_path):
    cache = tmp_path / "cache"
    other = msgspec.structs.replace(TEXT, train="validation")
    assert lines_of(TEXT, "train", cache)[0] == LINES["train"]
    assert lines_of(other, "train", cache)[0] == LINES["validation"]
    assert lines_of(other, "test", cache)[0] == LINES["test"]
    (folder / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"holds no validation-\*\.parquet"):
        data.identify(other, tmp_path / "fresh", allow_unknown=True)


def test_a_column_that_is_not_there(folder, tmp_path):
    with pytest.raises(UserError, match=r"has no column 'line' \(field 'data\.input'\); there are: text"):
        data.identify(msgspec.structs.replace(TEXT, input="line"), tmp_path / "cache", allow_unknown=True)


# ------------------------------------------------------------------------------------------------ WikiText-2

DEV = Path(__file__).parents[2] / "tasks" / "data" / "wikitext-2-dev.toml"


def test_the_mirrors_text_has_the_words_of_the_release(tmp_path, monkeypatch):
    """Merity et al. (2016), table 1: 217,646 and 245,569 words in validation and test split, ends of lines counted."""
    tiny_mirror.real("Salesforce/wikitext/wikitext-2-v1", monkeypatch)
    dev = reading.convert({key: value for key, value in reading.read_toml(DEV).items() if key != "about"}, Data, DEV)
    variant, _ = data.identify(dev, tmp_path)
    assert variant == "mirror-dev"
    counted = {}
    for split in data.SPLITS:
        lines, _ = lines_of(dev, split, tmp_path)
        counted[split] = sum(len(line.split()) + 1 for line in lines)
    assert counted == {"train": 217_646, "test": 245_569} == stock.about(dev).words


def test_the_release_is_described_apart_from_what_stands_in_for_it():
    [source] = registry.read_task("bert-wikitext-sparsity").sources
    assert (source.repo, source.config) == ("Salesforce/wikitext", "wikitext-2-v1") and not source.train
    assert not source.variants  # nobody has seen its training split here
    assert stock.about(source).words == {"train": 2_088_628, "test": 245_569}
    dev = msgspec.structs.replace(source, train="validation")
    assert stock.about(dev).words["train"] == 217_646


def test_a_corpus_has_windows(tmp_path):
    """By BERT's own tokenizer the validation split has 1,785 windows of 128 tokens, and the test split 2,013."""
    task = registry.read_task("bert-wikitext-sparsity")
    dev = msgspec.structs.replace(task, data=msgspec.structs.replace(task.data, train="validation"))
    [size] = sizes_of(dev, tmp_path)
    assert size.train == pytest.approx(1785, rel=0.02) and size.test == pytest.approx(2013, rel=0.02)
    half = msgspec.structs.replace(dev, model=Model(name="masked-lm", inputs=(65,), outputs=30522))
    assert sizes_of(half, tmp_path)[0].train == pytest.approx(2 * 1785, rel=0.02)
    unsaid = msgspec.structs.replace(task.data, repo="someone/text", about=About())
    assert sizes_of(msgspec.structs.replace(task, data=unsaid), tmp_path) is None
