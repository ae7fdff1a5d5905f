"""`group_by_length`: the batches that every method of a task gets are of texts of like length."""

from __future__ import annotations

from itertools import islice, pairwise

import msgspec
import pytest
import torch
from msgspec import UNSET
from workbench import write_tiny

from fipbench import api, plan, registry
from fipbench.errors import UserError
from fipbench.spec import task_digest
from fipbench.tracks import common, continual, sparsity

SMALL = """\
title      = "A part of it, in batches of like length"
suites     = ["quick"]
subset     = 320
base       = { epochs = 1 }
group_by_length = true
"""


class Stop(Exception):
    """The test has seen enough."""


@pytest.fixture(params=["reviews-sparsity", "stars-to-sentiment"])
def grouped(request, tmp_path):
    """A small task and a job of it."""
    file = tmp_path / "grouped.toml"
    file.write_text(f'extends    = "{request.param}"\n{SMALL}')
    method = {"reviews-sparsity": "magnitude", "stars-to-sentiment": "naive"}[request.param]
    (ticket, *_) = plan.tickets(api.request(str(file), methods=[method], seeds=1))
    return registry.read_task(str(file)), ticket.job


def lengths(batch):
    """Ids that are no padding, which is 0, in each text."""
    return [sum(token != 0 for token in row) for row in batch.inputs.tolist()]


def wasted(batches):
    """Tokens of padding in batches that are cut to their longest text, for each token of text."""
    found = [lengths(batch) for batch in batches]
    return sum(max(one) * len(one) for one in found) / sum(map(sum, found)) - 1


def test_a_method_gets_batches_of_like_length(grouped, cache_dir):
    task, job = grouped
    seen = []

    def prune(model, sparsities, trial):
        seen.extend(islice(trial.batches, 10))
        raise Stop

    def learn(model, experience, trial):
        if experience.number == 0:
            seen.extend(islice(trial.first.batches(), 10))
        else:
            seen.extend(islice(experience.batches, 10))
            raise Stop

    run, method = (sparsity.run, prune) if task.track == "sparsity" else (continual.run, learn)
    with pytest.raises(Stop):
        run(task, job, method, cache_dir, lambda text, share: None)
    for drawn in (seen[n : n + 10] for n in range(0, len(seen), 10)):
        # All ten batches of an epoch are of one pool: only at their borders do lengths meet.
        spans = sorted((min(lengths(batch)), max(lengths(batch))) for batch in drawn)
        assert all(high <= low for (_, high), (low, _) in pairwise(spans))
        assert sorted(i for batch in drawn for i in batch.positions.tolist()) == list(range(320))
    plain = msgspec.structs.replace(task, group_by_length=UNSET)
    train = common.splits(task, job, cache_dir)[0].train
    at_random, alike = (
        wasted(islice(common.batches(one, train, 32, torch.Generator().manual_seed(0)), 10)) for one in (plain, task)
    )
    assert alike < 0.15 < at_random


def test_the_base_network_is_trained_on_them_and_is_another_one(grouped, cache_dir):
    task, job = grouped
    plain = msgspec.structs.replace(task, group_by_length=UNSET)
    train = common.splits(task, job, cache_dir)[0].train
    first, other = (common.base_network(one, job, train, cache_dir) for one in (task, plain))
    assert first.digest != other.digest and first.forward_examples == other.forward_examples
    assert task_digest(task, 1) != task_digest(plain, 1)
    drawn = list(islice(common.base_batches(task, job, train), 10))
    assert wasted(drawn) < wasted(islice(common.base_batches(plain, job, train), 10)) / 2


def test_images_have_no_length(tmp_path):
    file = write_tiny(tmp_path, more="group_by_length = true\n")
    with pytest.raises(UserError, match=r"field 'group_by_length': is of texts; leave it out$"):
        registry.read_task(str(file))
