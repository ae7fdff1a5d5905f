"""Computed in parts, a network serves every method as it is: the same passes are counted, the same is measured."""

from __future__ import annotations

import pytest
from streams import TINY as STREAM
from workbench import TINY as SPARSE

from fipbench import api, plan, registry, worker

VOTE = """\
title   = "Three small networks on the digits"
track   = "robustness"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "cnn", inputs = [1, 8, 8], channels = [4, 8], hidden = [8], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 1, batch_size = 32, learning_rate = 0.05, snapshots = [0] }
budget  = { epochs = 4, batch_size = 32 }
validation = 300
headline   = "robust@0.1"
members    = 3
attack     = { epsilons = [0.1], steps = 2, restarts = 1, apgd_steps = 2, items = 50 }
"""
TASKS = {"continual": STREAM, "sparsity": SPARSE, "robustness": VOTE}


def records(folder, name, text):
    file = folder / f"{name}.toml"
    file.write_text(text)
    tickets = plan.tickets(api.request(str(file), seeds=1, results=folder / "results"))
    return {(t.job.label, t.job.params.get("memory")): worker.run(t, lambda event: None) for t in tickets}


@pytest.mark.parametrize("track", TASKS)
def test_every_method_of_a_track(track, tmp_path, cache_dir):
    """Parts of 5 of batches of 16 and 32, and of what methods put together. Rounding alone tells the runs apart."""
    text = TASKS[track]
    assert text.count('model   = { name = "') == 1
    whole = records(tmp_path, "whole", text)
    (tmp_path / "parts").mkdir()
    # Under the same name: a task's name decides its seeds.
    thrifty = records(tmp_path / "parts", "whole", text.replace("model   = { ", "model   = { microbatch = 5, "))
    assert {label for label, _ in whole} == set(registry.find_methods(track)) and whole.keys() == thrifty.keys()
    for row, a in whole.items():
        b = thrifty[row]
        assert a.status == b.status == "ok", (row, a.error, b.error)
        assert a.job.task_digest != b.job.task_digest
        for field in ("forward_examples", "backward_examples", "parameters_stored", "examples_stored"):
            assert getattr(a.cost, field) == getattr(b.cost, field), (row, field)
        assert a.metrics.keys() == b.metrics.keys()
        for name, value in a.metrics.items():
            # An attack may fool one of fifty items more or less, a boundary pass through one of hundreds.
            assert b.metrics[name] == pytest.approx(value, rel=0.02, abs=0.045 if "@0.1" in name else 0.01), (row, name)
