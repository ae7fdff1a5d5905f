"""Computed in parts, a network serves methods as it is: the same passes are counted, the same is measured."""

from __future__ import annotations

import pytest
from streams import TINY as STREAM
from workbench import TINY as SPARSE

from fipbench import api, plan, worker

VOTE = """\
title   = "Two small networks on the digits"
track   = "robustness"
suites  = ["quick"]
version = 1
data    = "digits"
model   = { name = "cnn", inputs = [1, 8, 8], channels = [4, 8], hidden = [8], outputs = 10, mean = 0.305, std = 0.376 }
base    = { epochs = 1, batch_size = 32, learning_rate = 0.05, snapshots = [0] }
budget  = { epochs = 3, batch_size = 32 }
validation = 300
headline   = "robust@0.1"
members    = 2
attack     = { epsilons = [0.1], steps = 2, restarts = 1, apgd_steps = 2, items = 50 }
"""
TASKS = {
    "continual": (STREAM.replace("[4, 10]", "[4]"), "ewc,gem,lwf,lora,der++,packnet,fip"),
    "sparsity": (SPARSE, "lth,gradual-distill,fip"),
    "robustness": (VOTE, "adp,fip"),
}


def records(folder, text, methods):
    folder.mkdir()
    file = folder / "one.toml"  # a task's name decides its seeds
    file.write_text(text)
    tickets = plan.tickets(api.request(str(file), methods=methods.split(","), seeds=1))
    return {ticket.job.label: worker.run(ticket, lambda event: None) for ticket in tickets}


@pytest.mark.parametrize("track", TASKS)
def test_methods_of_every_track(track, tmp_path, cache_dir):
    """Parts of 5 of batches of 16 and 32, and of what methods put together. Rounding alone tells the runs apart."""
    text, methods = TASKS[track]
    assert text.count('model   = { name = "') == 1
    whole = records(tmp_path / "whole", text, methods)
    thrifty = records(tmp_path / "parts", text.replace("model   = { ", "model   = { microbatch = 5, "), methods)
    assert set(whole) == set(thrifty) == set(methods.split(","))
    for label, a in whole.items():
        b = thrifty[label]
        assert a.status == b.status == "ok", (label, a.error, b.error)
        assert a.job.task_digest != b.job.task_digest
        for field in ("forward_examples", "backward_examples", "parameters_stored", "examples_stored"):
            assert getattr(a.cost, field) == getattr(b.cost, field), (label, field)
        assert a.metrics.keys() == b.metrics.keys()
        for name, value in a.metrics.items():
            # An attack may fool two of fifty items more or less, a boundary pass through a few of hundreds.
            few = 0.045 if "@0.1" in name else 0.01
            assert b.metrics[name] == pytest.approx(value, rel=0.1 if "walked" in name else 0.02, abs=few), (
                label,
                name,
            )
