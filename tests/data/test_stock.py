"""What tasks need and what is there: data sets and weights, found without decoding; fetched; checked by digest."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import tiny_mirror
from safetensors import safe_open
from tiny_mirror import LABELS, lay_out, lay_out_weights, pictures, png, pretrained_task, task, tree, write
from workbench import write_tiny

from fipbench import data, plan, registry, stock
from fipbench.errors import UserError
from fipbench.spec import Data, task_digest

KNOWN = "official"


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """Mirrors of both kinds that are there and empty, and a hub that does not answer."""
    import huggingface_hub

    for name, folder in (("FIPBENCH_DATA", "data"), ("FIPBENCH_MODELS", "models")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """A hub that has the pictures, and counts how often it was asked."""
    import datasets

    real, asked = datasets.load_dataset, []

    def load(path, *more, split, **given):
        if path == "parquet":
            return real(path, *more, split=split, **given)
        asked.append((path, *more, given["revision"], split))
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
        columns = {"image": [png(p) for p in pictures(split)], "label": LABELS[split]}
        return datasets.Dataset.from_dict(columns, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def entries(*files):
    return stock.needed([registry.read_task(str(file)) for file in files], [file.parent for file in files])


def digests_of(folder, cache):
    """The digests of the tiny pictures: `key = { train, test }` as a task writes them."""
    source = Data(repo=tiny_mirror.REPO, config=tiny_mirror.CONFIG, revision="1" * 40, variants={})
    found = data.identify(source, cache, allow_unknown=True)[1]
    return f'{KNOWN} = {{ train = "{found["train"]}", test = "{found["test"]}" }}'


# ------------------------------------------------------------------------------------------------ needed


def test_each_thing_is_needed_once_with_all_tasks_that_do(mirrors):
    files = [task(mirrors, name="one"), task(mirrors, name="two", validation="200"), pretrained_task(mirrors)]
    found = entries(*files)
    assert [(entry.name, entry.tasks) for entry in found] == [
        ("someone/tiny/plain", ("one", "two")),
        ("star-reviews (embedded)", ("pretrained",)),
        ("somebody/tiny-bert (weights)", ("pretrained",)),
    ]
    assert list(found[1].variants) == ["synthetic"] and found[2].variants == {}


def test_other_columns_of_a_repository_are_another_need(mirrors):
    other = write_tiny(mirrors, "other", data=tiny_mirror.source(label="coarse"))
    assert len(entries(task(mirrors), other)) == 2


def test_every_installed_data_set_says_its_licence_or_that_none_is_stated():
    found = stock.needed([registry.read_task(name) for name in registry.task_files()])
    assert {"ylecun/mnist/mnist", "uoft-cs/cifar10/plain_text", "digits (embedded)"} <= {entry.name for entry in found}
    licences = {entry.name: entry.about.licence for entry in found}
    assert licences["ylecun/mnist/mnist"] == "MIT" and licences["uoft-cs/cifar10/plain_text"] == "not stated"


def test_a_description_beside_the_task_is_taken_and_checked(mirrors):
    (mirrors / "data" / "mine.toml").write_text(
        f'repo = "{tiny_mirror.REPO}"\nconfig = "plain"\nvariants = {{}}\n[about]\nlicence = "CC0-1.0"\nbytes = 7\n'
    )
    (mirrors / "weights").mkdir()
    (mirrors / "weights" / "mine.toml").write_text(f'repo = "{tiny_mirror.WEIGHTS}"\nlicence = "Apache-2.0"\n')
    file = write_tiny(mirrors, "mine", data='"mine"')
    found = entries(file, pretrained_task(mirrors))
    assert [entry.about.licence for entry in found] == ["CC0-1.0", "MIT", "Apache-2.0"]
    assert found[0].about.bytes == 7
    (mirrors / "weights" / "mine.toml").write_text('repo = "x/y"\nlicense = "MIT"\n')
    with pytest.raises(UserError, match=r"weights/mine\.toml: .*unknown field `license`"):
        entries(file)


def test_a_licence_is_no_part_of_a_tasks_identity_nor_of_its_records(mirrors):
    about = 'about = { licence = "MIT", examples = { train = 3 } }, variants'
    plain = registry.read_task(str(task(mirrors)))
    said = registry.read_task(str(write_tiny(mirrors, "tiny", data=tiny_mirror.source().replace("variants", about))))
    assert said.data.about.licence == "MIT" and task_digest(said, 1) == task_digest(plain, 1)
    assert entries(mirrors / "tiny.toml")[0].about.licence == "MIT"
    assert "about" not in msgspec.to_builtins(registry.read_task("split-mnist-5"))["data"]


# ------------------------------------------------------------------------------------------------- state


def test_what_is_in_a_mirror_is_counted_and_nothing_decoded(mirrors, monkeypatch):
    folder = lay_out(mirrors / "data")
    monkeypatch.setattr(data, "_decoded", lambda *_: pytest.fail("decoded"))
    (entry,) = entries(task(mirrors))
    found = stock.state(entry, mirrors / "cache")
    size = sum(len(content) for path, content in tree(folder).items() if path.endswith(".parquet"))
    assert (found.place, found.folder, found.bytes, found.variant) == ("mirror", folder, size, "")
    assert found.examples == {"train": 6, "test": 3} and not found.problem
    assert not (mirrors / "cache").exists()


def test_the_variant_is_known_once_it_was_looked_at(mirrors):
    folder = lay_out(mirrors / "data")
    (entry,) = entries(task(mirrors, digests_of(folder, mirrors / "cache")))
    assert stock.state(entry, mirrors / "cache").variant == KNOWN
    assert stock.state(entry, mirrors / "elsewhere").variant == ""
    (other,) = entries(task(mirrors, f'other = {{ train = "{"0" * 64}", test = "{"1" * 64}" }}'))
    assert stock.state(other, mirrors / "cache").variant == data.UNKNOWN


def test_what_is_missing_or_incomplete_is_seen(mirrors):
    (entry,) = entries(task(mirrors))
    assert stock.state(entry, mirrors / "cache") == stock.State("missing")
    folder = lay_out(mirrors / "data")
    (folder / "test-00000-of-00001.parquet").unlink()
    found = stock.state(entry, mirrors / "cache")
    assert found.problem == f"{folder}: holds no test-*.parquet" and found.examples == {"train": 6}
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert "train-00000-of-00001.parquet: no Parquet file" in stock.state(entry, mirrors / "cache").problem


def test_weights_are_seen_with_their_files(mirrors):
    *_, entry = entries(pretrained_task(mirrors))
    assert stock.state(entry, mirrors) == stock.State("missing")
    folder = lay_out_weights(mirrors / "models")
    found = stock.state(entry, mirrors)
    read = [content for path, content in tree(folder).items() if not path.endswith(".bin")]
    assert (found.place, found.bytes, found.problem) == ("mirror", sum(map(len, read)), "")
    (folder / "config.json").unlink()
    assert stock.state(entry, mirrors).problem == f"{folder}: holds no config.json; copy it from the hub"


def test_weights_that_were_downloaded_are_seen_at_their_revision(mirrors, monkeypatch):
    import huggingface_hub

    folder = lay_out_weights(mirrors / "hub")
    asked = []

    def find(repo, file, revision):
        asked.append((repo, file, revision))
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", find)
    *_, entry = entries(pretrained_task(mirrors, more=f', revision = "{"2" * 40}"'))
    assert stock.state(entry, mirrors).place == "cache"
    assert asked == [(tiny_mirror.WEIGHTS, "model.safetensors", "2" * 40)]


# ------------------------------------------------------------------------------------------------- fetch


def test_what_is_in_a_mirror_is_already_there(mirrors, hub):
    folder = lay_out(mirrors / "data")
    lay_out_weights(mirrors / "models")
    said = [stock.fetch(entry, mirrors / "cache") for entry in entries(task(mirrors), pretrained_task(mirrors))]
    assert said[0] == f"already there (mirror {folder})" and not hub
    assert said[1] == "already there (part of the installation)"
    assert said[2].startswith("already there (mirror ")


def test_the_hub_is_asked_once_at_the_pinned_revision(mirrors, hub):
    lay_out(mirrors / "data")
    variant = digests_of(mirrors, mirrors / "cache")
    (mirrors / "data").rename(mirrors / "away")
    (mirrors / "data").mkdir()
    (entry,) = entries(task(mirrors, variant))
    assert stock.fetch(entry, mirrors / "cache") == f"fetched into {mirrors / 'cache'}, variant {KNOWN}"
    assert hub == [(tiny_mirror.REPO, tiny_mirror.CONFIG, "1" * 40, split) for split in data.SPLITS]
    found = stock.state(entry, mirrors / "cache")
    assert (found.place, found.variant, found.examples) == ("cache", KNOWN, {"train": 6, "test": 3})
    for split in data.SPLITS:
        with safe_open(data.kept_file(entry.source, split, mirrors / "cache"), framework="np") as kept:
            assert kept.get_tensor("labels").tolist() == LABELS[split]
    assert stock.fetch(entry, mirrors / "cache") == "already there (cache)" and len(hub) == 2
    # A job plans and loads with it, and asks nobody.
    assert plan.contents(registry.read_task(str(mirrors / "tiny.toml")), mirrors / "cache")[0] == KNOWN
    assert len(hub) == 2


def test_another_release_on_the_hub_is_refused(mirrors, hub):
    (entry,) = entries(task(mirrors, f'old = {{ train = "{"0" * 64}", test = "{"1" * 64}" }}'))
    with pytest.raises(UserError, match=r"someone/tiny: content has digests .* none of the task's variants \(old\)"):
        stock.fetch(entry, mirrors / "cache")


# ------------------------------------------------------------------------------------------------ verify


def test_known_data_are_decoded_again(mirrors):
    folder = lay_out(mirrors / "data")
    (entry,) = entries(task(mirrors, digests_of(folder, mirrors / "cache")))
    check = stock.verify(entry, mirrors / "cache")
    assert check.verdict == "known" and check.text.startswith(f"variant {KNOWN}: train ")
    # The same size and the same time of change: whoever believes those sees the old content.
    file = folder / "test-00000-of-00001.parquet"
    before = file.stat()
    write(folder, "test", image=[png(p) for p in pictures("test")], label=[2, 6, 4])
    import os

    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert data.identify(entry.source, mirrors / "cache")[0] == KNOWN
    check = stock.verify(entry, mirrors / "cache")
    assert check.verdict == "differs" and f"none of the known variants ({KNOWN})" in check.text
    assert not list((mirrors / "cache").glob("examined-*"))


def test_data_that_cannot_be_checked(mirrors):
    (entry,) = entries(task(mirrors))
    assert stock.verify(entry, mirrors / "cache") == stock.Check("cannot", "missing; `fipbench data fetch` gets it")
    folder = lay_out(mirrors / "data")
    check = stock.verify(entry, mirrors / "cache")
    assert check.verdict == "cannot" and check.text.startswith("no digest is pinned: train ")
    write(folder, "train", image=[1], label=[1])
    check = stock.verify(entry, mirrors / "cache")
    assert check.verdict == "differs" and "column 'image' (field 'data.input')" in check.text


def test_embedded_data_are_what_their_tasks_know(mirrors):
    (entry,) = entries(write_tiny(mirrors))
    assert stock.verify(entry, mirrors / "cache").text.startswith("variant sklearn: train 612e198285a4")


def test_weights_are_checked_against_the_pinned_digest(mirrors):
    file = lay_out_weights(mirrors / "models") / "model.safetensors"
    sha = hashlib.sha256(file.read_bytes()).hexdigest()

    def check(more=""):
        *_, entry = entries(pretrained_task(mirrors, more=more))
        return stock.verify(entry, mirrors / "cache")

    assert check(f', sha256 = "{sha}"') == stock.Check("known", f"variant pinned: weights {sha[:12]}")
    assert check() == stock.Check("cannot", f"no digest is pinned: weights {sha[:12]}")
    other = check(f', sha256 = "{"0" * 64}"')
    assert other.verdict == "differs" and f"weights {sha[:12]} is none of the known" in other.text
    file.write_bytes(b"no safetensors at all")
    damaged = check(f', sha256 = "{sha}"')
    assert damaged.verdict == "differs" and damaged.text.startswith(f"{file}: no safetensors (")
    file.unlink()
    assert check().text == f"{file.parent}: holds no model.safetensors; copy it from the hub"
