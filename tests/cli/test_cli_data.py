"""`fipbench data`: what is said, and the exit codes."""

from __future__ import annotations

import re

import pytest
import tiny_mirror
from tiny_mirror import lay_out, lay_out_weights, pretrained_task, task, tree
from workbench import write_tiny

NO_DIGEST = f'official = {{ train = "{"0" * 64}", test = "{"1" * 64}" }}'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Empty mirrors, a cache of its own, and a hub that does not answer."""
    import datasets

    for name, folder in (("FIPBENCH_DATA", "data"), ("FIPBENCH_MODELS", "models"), ("FIPBENCH_CACHE", "cache")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    real = datasets.load_dataset

    def load(path, *more, **given):
        if path == "parquet":
            return real(path, *more, **given)
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def known(call, file):
    """The digests of the pictures that `data verify` shows, and of a task that has them in full."""
    from fipbench import plan, registry

    _, found = plan.contents(registry.read_task(str(file)), file.parent / "elsewhere", allow_unknown=True)
    return f'official = {{ train = "{found["train"]}", test = "{found["test"]}" }}'


def test_list_says_where_how_large_under_which_licence_and_which_variant(call, here):
    lay_out(here / "data")
    file = task(here, known(call, task(here)))
    said = call("data", "list", file, pretrained_task(here))
    assert said.code == 0 and said.err == ""
    first, second, third = re.split(r"\n(?=\S)", said.out.rstrip())[:3]
    assert first.splitlines()[0] == "someone/tiny/plain"
    assert f"mirror {here / 'data' / 'someone' / 'tiny' / 'plain'}, " in first and "6 + 3 examples" in first
    assert "licence: not stated" in first and "variant official: train " in first and "not looked at yet" in first
    assert first.splitlines()[-1] == "    for tiny"
    assert second.startswith("star-reviews (embedded)\n    part of the installation, 4,000 + 800 examples")
    assert "licence: MIT (made by fipbench)" in second
    assert third.startswith("somebody/tiny-bert (weights)\n    missing") and third.endswith("for pretrained")
    assert said.out.endswith("3 needed, 1 missing; `fipbench data fetch` gets them\n")
    assert call("data", "verify", file).code == 0
    assert "(this one is here)" in call("data", "list", file).out
    assert "none of these" not in call("data", "list", file).out
    call("data", "verify", task(here, NO_DIGEST))
    assert "what is here is none of these" in call("data", "list", task(here, NO_DIGEST)).out


def test_list_of_everything_and_of_a_suite(call, here):
    everything = call("data", "list").out
    assert "ylecun/mnist/mnist\n    missing" in everything and "digits (embedded)" in everything
    assert "uoft-cs/cifar10/plain_text\n    missing, 143.6 MB, 50,000 + 10,000 examples" in everything
    quick = call("data", "list", "--suite", "quick").out
    assert "mnist" not in quick and quick.endswith("3 needed, 0 missing\n")


def test_what_no_hub_has_is_said_to_need_a_mirror(call, here, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **b: pytest.fail("the hub was asked"))
    only = write_tiny(here, "only", data=tiny_mirror.source(repo="a/b").replace("{", "{ local = true,", 1))
    said = "no hub has a/b/plain, a mirror has to bring it"
    assert call("data", "list", only).out.endswith(f"1 needed, 1 missing; {said}\n")
    both = write_tiny(here, "both", data=tiny_mirror.source(repo="a/c"))
    assert call("data", "list", only, both).out.endswith(
        f"2 needed, 2 missing; `fipbench data fetch` gets them; {said}\n"
    )
    for words in (("fetch",), ("export", here / "out")):
        answer = call("data", *words, only)
        assert answer.code == 2 and "a mirror" in answer.out + answer.error and "fetch` gets" not in answer.error
    assert "no hub has it, a mirror has to bring it" in call("data", "verify", only).out
    run = call("run", only, "--results", here / "results")
    assert run.error == (
        f"a/b: no hub has it, a mirror alone; lay out a/b/plain in FIPBENCH_DATA={here / 'data'}, which lacks it"
    )


def test_fetch_without_network_and_mirror_names_both_ways(call, here, monkeypatch):
    import huggingface_hub

    def unreachable(*args, **given):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.delenv("FIPBENCH_DATA")
    answer = call("data", "fetch", task(here))
    assert answer.error == (
        "1 of 1 could not be fetched: someone/tiny: cannot be loaded (no network); connect to the hub, or set "
        "FIPBENCH_DATA to a folder laid out like it"
    )
    answer = call("data", "fetch", pretrained_task(here))
    assert "connect to the hub, or set FIPBENCH_MODELS to a folder that holds somebody/tiny-bert/" in answer.error
    assert answer.error.startswith("1 of 2 could not be fetched")
    both = call("data", "fetch", task(here), pretrained_task(here))
    assert "someone/tiny: cannot be loaded" in both.error and both.error.endswith("; nor somebody/tiny-bert (weights)")
    assert "part of the installation" in both.out


def test_fetch_says_what_is_there_already(call, here):
    lay_out(here / "data")
    lay_out_weights(here / "models")
    said = call("data", "fetch", task(here), pretrained_task(here))
    assert said.code == 0 and said.out.count("already there (mirror ") == 2 and not said.err


def test_fetch_takes_no_guess(call, here):
    assert "name tasks or a --suite" in call("data", "fetch").error


def test_verify_by_exit_code(call, here):
    assert "nothing could be checked" in call("data", "verify", task(here)).error
    lay_out(here / "data")
    assert "nothing could be checked" in call("data", "verify", task(here)).error
    digits = write_tiny(here, "digits-alone")
    known_, differs = known(call, task(here)), task(here, NO_DIGEST)
    answer = call("data", "verify", differs, digits)
    assert answer.code == 1 and answer.err == ""
    assert re.search(r"^differs +someone/tiny/plain .*none of the known variants \(official\)", answer.out, re.M)
    assert answer.out.endswith("1 known, 1 differs, 0 cannot\n")
    good = call("data", "verify", task(here, known_), digits)
    assert good.code == 0 and good.out.endswith("2 known, 0 differs, 0 cannot\n")


def test_export_says_what_to_set(call, here):
    lay_out(here / "data")
    lay_out_weights(here / "models")
    out = here / "out"
    said = call("data", "export", out, task(here), pretrained_task(here))
    assert said.code == 0 and not said.err
    assert said.out.endswith(f"FIPBENCH_DATA={out}\nFIPBENCH_MODELS={out / 'models'}\n")
    assert re.search(r"^written +someone/tiny/plain +3 of 3 files, .*; licence: not stated$", said.out, re.M)
    whole = tree(out)
    assert len(whole) == 7 and not [path for path in whole if path.endswith((".bin", ".tmp"))]


def test_export_names_what_differs_and_what_is_missing(call, here):
    folder = lay_out(here / "data")
    other = here / "out" / "someone" / "tiny" / "plain" / "train-00000-of-00001.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    answer = call("data", "export", here / "out", task(here))
    assert answer.error.startswith(f"1 of 1 not laid out: {other}: is there and differs from {folder}/train-")
    assert other.read_bytes() == b"mine"
    missing = write_tiny(here, "missing", data=tiny_mirror.source(repo="a/b"))
    answer = call("data", "export", here / "new", missing, task(here))
    assert answer.error == f"{here / 'new'}: lacks a/b/plain; `fipbench data fetch` gets them, then export again"
    assert f"FIPBENCH_DATA={here / 'new'}" in answer.out and tree(here / "new") == tree(here / "data")
    # Of everything there is, what is here is taken.
    everything = call("data", "export", here / "all")
    assert everything.code == 0 and re.search(r"^missing +ylecun/mnist/mnist ", everything.out, re.M)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data"], ("missing command", "fipbench data --help")),
        (["data", "get"], ("no such command 'get'", "fipbench data --help")),
        (["data", "export"], ("missing argument", "DIR")),
        (["data", "list", "nowhere"], ("unknown task 'nowhere'",)),
        (["data", "list", "--suite", "quik"], ("unknown suite 'quik'", "did you mean quick")),
        (["data", "export", "/dev/null/x"], ("/dev/null/x", "cannot write here", "another folder")),
    ],
)
def test_a_wrong_call(words, said, call):
    error = call(*words).error
    assert all(part in error for part in said), error


def test_a_mirror_that_is_no_folder(call, here, monkeypatch):
    monkeypatch.setenv("FIPBENCH_DATA", str(here / "nowhere"))
    for words in (["list"], ["verify"], ["export", here / "out"]):
        assert f"FIPBENCH_DATA={here / 'nowhere'} is no folder" in call("data", *words, task(here)).error
