"""What FIP-CF keeps: how far outputs have moved, against formulas in numpy; the published readings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fipbench import fip


@pytest.fixture(scope="module")
def outputs():
    """Outputs and reference outputs, (7, 5)."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(7, 5)) * 2, rng.normal(size=(7, 5)) * 2


def softmax(z):
    e = np.exp(z)
    return e / e.sum(1, keepdims=True)


def each(z, reference, distance, epsilon=0.0):
    """One number an example."""
    q, p = softmax(z), softmax(reference)
    if distance == "bhattacharyya":
        return -np.log(np.sqrt(p * q + epsilon).sum(1))
    if distance == "kl":
        return (p * np.log(p / q)).sum(1)
    if distance == "jensen_shannon":
        m = (p + q) / 2
        return 0.5 * (p * np.log(p / m)).sum(1) + 0.5 * (q * np.log(q / m)).sum(1)
    squared = ((z - reference) ** 2).sum(1)
    return squared if distance == "squared_euclidean" else np.sqrt(squared)


DISTANCES = ("bhattacharyya", "kl", "jensen_shannon", "squared_euclidean", "euclidean")


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_mean_or_the_sum_of_the_named_distance(distance, outputs):
    z, reference = map(torch.tensor, outputs)
    wanted = each(*outputs, distance)
    assert fip.invariance(distance)(z, reference).item() == pytest.approx(wanted.mean(), rel=1e-9)
    assert fip.invariance(distance, reduction="mean")(z, reference).item() == pytest.approx(wanted.mean(), rel=1e-9)
    assert fip.invariance(distance, reduction="sum")(z, reference).item() == pytest.approx(wanted.sum(), rel=1e-9)


def test_the_default_is_the_mean_bhattacharyya_distance(outputs):
    z, reference = map(torch.tensor, outputs)
    assert fip.invariance()(z, reference).item() == pytest.approx(each(*outputs, "bhattacharyya").mean(), rel=1e-9)


def test_epsilon_is_under_the_root(outputs):
    z, reference = map(torch.tensor, outputs)
    wanted = each(*outputs, "bhattacharyya", 0.01).sum()
    got = fip.invariance(reduction="sum", epsilon=0.01)(z, reference).item()
    assert got == pytest.approx(wanted, rel=1e-9) and abs(wanted - each(*outputs, "bhattacharyya").sum()) > 0.1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"distance": "hellinger"}, "distance must be one of bhattacharyya, euclidean, .* got 'hellinger'"),
        ({"reduction": "none"}, "reduction must be mean or sum, got 'none'"),
        ({"reduction": "max"}, "reduction must be mean or sum, got 'max'"),
        ({"distance": "kl", "epsilon": 1e-10}, "epsilon belongs to the Bhattacharyya distance, not to kl"),
    ],
)
def test_what_it_is_not_made_for(given, words):
    with pytest.raises(ValueError, match=words):
        fip.invariance(**given)


@pytest.mark.parametrize("preset", fip.CONTINUAL_PRESETS)
def test_a_preset_is_something_that_can_be_minimised(preset, outputs):
    """Towards the reference the distance falls; its gradient is the finite difference."""
    settings = fip.CONTINUAL_PRESETS[preset]
    options = {name: settings[name] for name in ("reduction", "epsilon") if name in settings}
    moved = fip.invariance(settings["distance"], **options)
    z, reference = torch.tensor(outputs[0], requires_grad=True), torch.tensor(outputs[1])
    loss = moved(z, reference)
    loss.backward()
    assert moved(0.5 * (z.detach() + reference), reference) < loss
    step = torch.zeros_like(reference)
    step[2, 3] = 1e-6
    with torch.no_grad():
        wanted = (moved(z + step, reference) - moved(z - step, reference)).item() / 2e-6
    assert z.grad[2, 3].item() == pytest.approx(wanted, rel=1e-5)


def test_the_library_loads_without_avalanche_and_hands_out_the_plugin_when_asked():
    code = (
        "import sys, fipbench.fip as f; heavy = {'avalanche', 'torchvision', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert 'FIPPlugin' in f.__all__\n"
        "try: f.nothing\nexcept AttributeError as e: assert 'nothing' in str(e)\nelse: sys.exit('no error')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
