"""Records that were read share what they have in common, and are what was written all the same."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from synthetic import continual, continual_small

from fipbench import collecting, store
from fipbench.errors import UserError


def test_what_is_equal_is_one_object_and_what_is_not_stays_its_own(tmp_path):
    alike = continual_small()
    other = continual("si", 0, 0.9, protocol_changes={"title": "another"})
    for one in (*alike, other):
        store.write(tmp_path, one)
    read, problems = store.read(tmp_path)
    assert not problems and sorted(read, key=lambda r: r.id) == sorted((*alike, other), key=lambda r: r.id)
    first, second, *_ = (one for one in read if one.job.method == "naive")
    assert first.protocol is second.protocol
    assert first.provenance["train_examples"] is second.provenance["train_examples"]
    assert first.metrics is not second.metrics
    [apart] = [one for one in read if one.job.method == "si"]
    assert apart.protocol["title"] == "another" != first.protocol["title"]


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_collected_afterwards_as_before(on, tmp_path):
    (gc.enable if on else gc.disable)()
    try:
        store.read(tmp_path)
        assert gc.isenabled() is on
        with pytest.raises(UserError):
            store.read(tmp_path / "nothing")
        assert gc.isenabled() is on
    finally:
        gc.enable()


def test_what_was_there_is_set_aside_and_collected_again_afterwards():
    often, frozen = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(UserError), collecting.aside():
        assert gc.get_threshold()[0] > often[0] and gc.get_freeze_count() > frozen and gc.isenabled()
        raise UserError("stop")
    assert gc.get_threshold() == often and gc.get_freeze_count() == 0


def test_a_whole_number_is_not_taken_for_a_fraction(tmp_path):
    whole, fraction = (continual("naive", n, 0.5, protocol_changes={"epochs": [1, 1.0][n]}) for n in range(2))
    for one in (whole, fraction):
        store.write(tmp_path, one)
    assert [store.encode(one) for one in store.read(tmp_path)[0]] == [store.encode(whole), store.encode(fraction)]
