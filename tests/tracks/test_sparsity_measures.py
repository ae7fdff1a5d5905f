"""What the sparsity track measures, against numpy, on a network pruned by hand."""

from __future__ import annotations

import base64
import copy
import itertools
import math

import msgspec
import numpy as np
import pytest
import torch

LEVELS = (0.5, 0.9, 0.98)


def prune_by_hand(model, seed):
    """Zeros anywhere, the rest moved about: nothing that a method of the suite would do."""
    rng = np.random.default_rng(seed)
    networks = {}
    for level in LEVELS:
        network = copy.deepcopy(model)
        matrices = [p for p in network.parameters() if p.ndim == 2]
        total = sum(p.numel() for p in matrices)
        gone = np.zeros(total, bool)
        gone[rng.permutation(total)[: round(level * total)]] = True
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.from_numpy(rng.normal(scale=0.02, size=tuple(p.shape)).astype(np.float32)))
            for p, part in zip(matrices, np.split(gone, np.cumsum([m.numel() for m in matrices])[:-1]), strict=True):
                p[torch.from_numpy(part.reshape(p.shape))] = 0.0
        networks[level] = network
    return networks


def three_levels(lab):
    """Between two levels a trapezoid is their mean, whatever the axis."""
    return msgspec.structs.replace(lab.task, sparsities=LEVELS)


@pytest.fixture(scope="module")
def measured(lab):
    """The outcome, and the dense and the pruned networks' weights as numpy arrays, in double precision."""
    kept = {}

    def numbers(network):
        return {n: p.detach().numpy().astype(np.float64) for n, p in network.named_parameters()}

    def by_hand(model, sparsities, trial):
        kept[0.0] = numbers(model)
        for level, network in prune_by_hand(model, 5).items():
            kept[level] = numbers(network)
            yield level, network

    return lab.run(by_hand, three_levels(lab)), kept


def outputs(weights, inputs):
    """The tiny network in numpy."""
    x = (inputs.reshape(len(inputs), -1).astype(np.float64) / 255 - 0.305) / 0.376
    for n in (2, 4):
        x = np.maximum(x @ weights[f"{n}.weight"].T + weights[f"{n}.bias"], 0)
    return x @ weights["6.weight"].T + weights["6.bias"]


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def flat(weights):
    return np.concatenate([weights[n].ravel() for n in sorted(weights)])


@pytest.fixture(scope="module")
def test_images(lab):
    test = lab.split("test")
    return test.inputs.numpy(), test.labels.numpy()


def test_accuracy_and_items(measured, test_images):
    outcome, kept = measured
    images, labels = test_images
    for level in LEVELS:
        right = outputs(kept[level], images).argmax(1) == labels
        assert outcome.metrics[f"accuracy@{level:g}"] == pytest.approx(right.mean(), abs=1e-12)
        items = outcome.items[f"{level:g}"]
        bits = np.unpackbits(np.frombuffer(base64.b64decode(items.bits), np.uint8))[: items.count]
        assert items.count == 597 and np.array_equal(bits.astype(bool), right)
    dense = (outputs(kept[0.0], images).argmax(1) == labels).mean()
    assert outcome.metrics["dense_accuracy"] == pytest.approx(dense, abs=1e-12)
    assert outcome.curves["accuracy"] == {
        "sparsity": list(LEVELS),
        "value": [outcome.metrics[f"accuracy@{s:g}"] for s in LEVELS],
    }


def test_area_is_the_trapezoid_over_the_logarithm_of_what_is_left(measured):
    outcome, _ = measured
    scores = [outcome.metrics[f"accuracy@{s:g}"] for s in LEVELS]
    x = [-math.log10(1 - s) for s in LEVELS]
    area = np.trapezoid(scores, x) / (x[-1] - x[0])
    assert outcome.metrics["area"] == pytest.approx(area)
    assert abs(area - np.trapezoid(scores, LEVELS) / (LEVELS[-1] - LEVELS[0])) > 1e-3


def test_sparsity_of_each_layer(measured):
    outcome, kept = measured
    layers = [name for name in outcome.curves if name.startswith("layer/")]
    assert layers == ["layer/2.weight", "layer/4.weight", "layer/6.weight"]
    for name in layers:
        wanted = [(kept[s][name.removeprefix("layer/")] == 0).mean() for s in LEVELS]
        assert outcome.curves[name] == {"sparsity": list(LEVELS), "value": pytest.approx(wanted)}


def test_distance_and_path_in_weights_are_relative_to_the_dense_network(measured):
    outcome, kept = measured
    points = [flat(kept[s]) for s in (0.0, *LEVELS)]
    norm = np.linalg.norm(points[0])
    straight = [np.linalg.norm(point - points[0]) / norm for point in points[1:]]
    path = np.cumsum([np.linalg.norm(b - a) / norm for a, b in itertools.pairwise(points)])
    assert outcome.curves["weights"]["value"] == pytest.approx(straight, rel=1e-6)
    assert outcome.curves["path"]["value"] == pytest.approx(path, rel=1e-6)
    assert outcome.metrics["weights_walked"] == outcome.curves["weights"]["value"][-1]


def test_outputs_are_the_mean_bhattacharyya_distance_to_the_dense_ones(measured, test_images):
    outcome, kept = measured
    q = softmax(outputs(kept[0.0], test_images[0]))
    wanted = [-np.log(np.sqrt(softmax(outputs(kept[s], test_images[0])) * q).sum(1)).mean() for s in LEVELS]
    assert outcome.curves["outputs"]["value"] == pytest.approx(wanted, rel=1e-4)
    assert outcome.metrics["outputs_walked"] == outcome.curves["outputs"]["value"][-1]
    assert min(wanted) > 1e-3


def test_what_is_stored_is_what_is_not_zero_in_the_last_network(measured):
    outcome, kept = measured
    assert outcome.parameters_stored == (flat(kept[0.98]) != 0).sum() == 32 + 40
    assert outcome.examples_stored == 0


def test_the_measures_are_not_those_of_another_network(lab, measured):
    """Mutation: one label's bias moved, one level's network swapped; the measures follow."""
    outcome, _ = measured

    def moved(model, sparsities, trial):
        for level, network in prune_by_hand(model, 5).items():
            with torch.no_grad():
                network[-1].bias[0] += 50.0
            yield level, network

    other = lab.run(moved, three_levels(lab))
    assert other.curves["layer/6.weight"] == outcome.curves["layer/6.weight"]
    for name in ("accuracy", "weights", "path", "outputs"):
        assert all(a != b for a, b in zip(other.curves[name]["value"], outcome.curves[name]["value"], strict=True))
    test = lab.split("test").labels
    assert other.metrics["accuracy@0.5"] == pytest.approx(float((test == 0).double().mean()))
