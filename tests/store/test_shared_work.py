"""Work that is done once: by whom, when it is believed, and what becomes of it when its file is damaged."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from fipbench.cache import cache_dir as named_cache
from fipbench.cache import once, results_dir, tensor_digest, writable, write_atomic
from fipbench.errors import UserError


def building(log, value=1.0):
    def build():
        log.append(value)
        time.sleep(0.05)
        return {"x": torch.full((3,), value)}, {"steps": 7}

    return build


def test_all_wait_for_the_first(tmp_path):
    log, found = [], []
    threads = [
        threading.Thread(target=lambda n=n: found.append(once(tmp_path, "key", building(log, float(n)))))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log) == 1
    assert all(tensors["x"].tolist() == [log[0]] * 3 and facts["steps"] == 7 for tensors, facts in found)


def test_what_is_kept_is_what_was_built(tmp_path):
    log = []
    built, facts = once(tmp_path, "key", building(log))
    kept, again = once(tmp_path, "key", building(log))
    assert len(log) == 1 and again == facts
    assert tensor_digest(kept) == tensor_digest(built)
    once(tmp_path, "other key", building(log))
    assert len(log) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "of another kind"])
def test_a_damaged_file_is_built_again(damage, tmp_path):
    log = []
    once(tmp_path, "key", building(log))
    file = tmp_path / "key.safetensors"
    content = file.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    file.write_bytes({"cut": content[:-5], "flipped": flipped, "emptied": b"", "of another kind": b"{}" * 50}[damage])
    tensors, _ = once(tmp_path, "key", building(log))
    assert len(log) == 2 and tensors["x"].tolist() == [1.0] * 3
    assert file.read_bytes() == content


def test_a_builder_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        once(tmp_path, "key", fail)
    log = []
    once(tmp_path, "key", building(log))
    assert len(log) == 1


def test_the_digest_is_of_names_types_shapes_and_bytes():
    one = {"x": torch.arange(6.0)}
    others = [
        {"y": torch.arange(6.0)},
        {"x": torch.arange(6.0).double()},
        {"x": torch.arange(6.0).reshape(2, 3)},
        {"x": torch.arange(6.0).flip(0)},
        {"x": torch.arange(6.0), "y": torch.zeros(0)},
    ]
    assert len({tensor_digest(tensors) for tensors in [one, *others]}) == 6
    assert tensor_digest({"x": torch.arange(12.0)[::2] / 2}) == tensor_digest(one)
    assert tensor_digest({"a": one["x"], "b": one["x"]}) == tensor_digest({"b": one["x"], "a": one["x"]})


def test_folders_go_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FIPBENCH_CACHE", "~/c")
    monkeypatch.setenv("FIPBENCH_RESULTS", str(tmp_path / "r"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named_cache() == tmp_path / "c"
    assert results_dir() == tmp_path / "r"
    monkeypatch.delenv("FIPBENCH_CACHE")
    monkeypatch.delenv("FIPBENCH_RESULTS")
    assert tmp_path in named_cache().parents and tmp_path in results_dir().parents
    assert named_cache() != results_dir()


def test_a_folder_is_proved_writable(tmp_path):
    assert writable(tmp_path / "a" / "b", "remedy").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*cannot write here.*; name another"):
        writable(tmp_path / "file", "name another")


def test_a_changed_fact_is_not_believed(tmp_path):
    # The facts hold what the base network cost, which counts against every method's budget.
    def build():
        return {"x": torch.arange(3.0)}, {"forward": 480000}

    once(tmp_path, "key", build)
    path = tmp_path / "key.safetensors"
    path.write_bytes(path.read_bytes().replace(b"480000", b"580000"))
    built = []
    _, facts = once(tmp_path, "key", lambda: built.append(True) or build())
    assert built and facts == {"forward": 480000}


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
    write_atomic(tmp_path / "ours", b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode
