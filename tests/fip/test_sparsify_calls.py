"""How FIP-Sparse is called: batches of every kind, and calls that are mistakes."""

import copy

import pytest
import torch
from sparse_walks import LEVELS, QUICK, assert_equal_results, batches, mlp, normal, results, state
from torch import nn

from fipbench import fip

# --- batches


def test_a_list_and_a_loader_begin_anew():
    data = batches(8, 7, n=3)
    plain = results(mlp(), data, LEVELS, **QUICK)
    assert_equal_results(results(mlp(), data * 40, LEVELS, **QUICK), plain)
    loader = torch.utils.data.DataLoader(torch.cat(data), batch_size=8)
    assert_equal_results(results(mlp(), loader, LEVELS, **QUICK), plain)
    assert_equal_results(results(mlp(), iter(data * 12), LEVELS, **QUICK), plain)


@pytest.mark.parametrize("options", [{}, {"ramp": 0.5}, {"ramp": 0.3, "settle": 0.3}, {"optimizer": "sgd"}])
def test_walks_one_after_another_are_one_walk(options):
    """Of one stream, each from where the last ended: what a job that is stopped goes on with."""
    dense, known = mlp(), copy.deepcopy(mlp())
    options = {**QUICK, **options, "reference": lambda x: known(x).detach()}
    at_once = results(dense, (x for x in batches(8, 7, n=100)), LEVELS, **options)
    stream = (x for x in batches(8, 7, n=100))
    network, found, begin = dense, [], 0.0
    for level in LEVELS:
        [(_, network)] = fip.sparsify(network, stream, [level], begin=begin, **options)
        found.append((level, state(network)))
        begin = level
    assert_equal_results(found, at_once)


def test_a_stream_is_taken_no_further_than_needed():
    taken = []

    def stream():
        while True:
            taken.append(1)
            yield normal(8, 7)

    assert len(results(mlp(), stream(), LEVELS, **QUICK)) == 3
    assert len(taken) == 36


def test_an_iterator_that_ends_is_an_error():
    with pytest.raises(ValueError, match="ended before the walk did"):
        results(mlp(), iter(batches(8, 7, n=35)), LEVELS, **QUICK)


@pytest.mark.parametrize("empty", [[], iter([])])
def test_no_batches_is_an_error(empty):
    with pytest.raises(ValueError, match=r"no batches|ended before"):
        results(mlp(), empty, LEVELS, **QUICK)


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsities": [0.0, 0.5]}, "must increase between 0 and 1"),
        ({"sparsities": [0.5, 1.0]}, "must increase between 0 and 1"),
        ({"sparsities": [0.9, 0.5]}, "must increase"),
        ({"sparsities": [0.5, 0.5]}, "must increase"),
        ({"sparsities": [float("nan")]}, "must increase"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"ramp": -0.1}, "ramp and settle"),
        ({"ramp": 1.1}, "ramp and settle"),
        ({"settle": -0.1}, "ramp and settle"),
        ({"settle": 1.1}, "ramp and settle"),
        ({"ramp": 0.6, "settle": 0.6}, "sum of at most 1, got 0.6 and 0.6"),
        ({"strength": -1.0}, "strength and tolerance must not be negative"),
        ({"reduction": "none"}, "reduction must be one of mean, sum, got 'none'"),
        ({"attraction": "cubed"}, "attraction must be one of squared, norm"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, sgd, unit"),
        ({"begin": -0.1}, "begin must lie between 0 and the first sparsity, got -0.1"),
        ({"begin": 0.5}, "begin must lie between 0 and the first sparsity, got 0.5"),
        ({"start": "middle"}, "start must be one of previous, dense"),
        ({"distance": "cosine"}, "distance must be one of"),
        ({"scope": "channel"}, "scope must be"),
        ({"distance": "kl", "epsilon": 1e-10}, "epsilon belongs to the Bhattacharyya"),
        ({"project_every": 0}, "project_every must be at least 1"),
        ({"tolerance": -1.0}, "strength and tolerance must not be negative"),
        ({"learning_rate": -1.0}, "learning rate"),
    ],
)
def test_options_outside_their_range(options, message):
    options = {"sparsities": [0.5], "steps": 3} | options
    with pytest.raises(ValueError, match=message):
        list(fip.sparsify(mlp(), batches(8, 7), **options))


def test_a_network_with_nothing_to_prune_is_an_error():
    with pytest.raises(ValueError, match="no weights to prune"):
        list(fip.sparsify(nn.BatchNorm1d(7), batches(8, 7), [0.5], steps=3))
