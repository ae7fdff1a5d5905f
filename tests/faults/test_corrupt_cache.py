"""A damaged cache is found by its digests and made again, whatever is damaged: no number comes from it."""

from __future__ import annotations

import random

from ordeal import assert_same, whole


def test_damage_anywhere_in_the_cache(nursery, tiny, tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "results"
    words = ["run", tiny(), "--methods", "magnitude", "--seeds", 2, "--workers", 1, "--results", results]
    assert nursery.start(tmp_path, *words).wait() == 0
    wanted = whole(results)
    files = sorted(path for path in cache.rglob("*") if path.suffix in (".safetensors", ".json"))
    kinds = [(path.parent.name, path.suffix) for path in files]
    assert sorted(kinds) == [("data", ".json"), *[("data", ".safetensors")] * 2, *[("shared", ".safetensors")] * 2]
    before = {path: path.read_bytes() for path in files}
    draw = random.Random(7)
    for path in files:
        content = bytearray(before[path])
        for position in [draw.randrange(len(content)), len(content) - 1]:
            content[position] ^= draw.randrange(1, 256)
        path.write_bytes(content)
    run = nursery.start(tmp_path, *words, "--force")
    assert run.wait() == 0, run.said
    assert_same(whole(results), wanted)
    for path in files:
        if path.parent.name == "data":
            assert path.read_bytes() == before[path]
        else:  # but for the time that its training took
            assert path.read_bytes() != before[path] and len(path.read_bytes()) > 0.9 * len(before[path])


def test_a_base_network_of_another_seed_in_its_place(nursery, tiny, tmp_path):
    """A file that is whole, but was kept under another name."""
    cache, results = tmp_path / "cache", tmp_path / "results"
    words = ["run", tiny(), "--methods", "dense", "--seeds", 2, "--workers", 1, "--results", results]
    assert nursery.start(tmp_path, *words).wait() == 0
    wanted = whole(results)
    one, two = sorted((cache / "shared").glob("*.safetensors"))
    one.write_bytes(two.read_bytes())
    assert nursery.start(tmp_path, *words, "--force").wait() == 0
    assert_same(whole(results), wanted)
    assert one.read_bytes() != two.read_bytes()
