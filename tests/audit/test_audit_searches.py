"""The attacks of an audit against closed forms, and the gate that no answer outside the ball passes."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_lab import Two, images
from torch import nn

from fipbench import attacks
from fipbench.attacks import MeanSoftmax
from fipbench.audit import searches
from fipbench.audit.searches import contained
from fipbench.errors import ProtocolError


@pytest.mark.parametrize("loss", [searches.cross_entropy, searches.margin])
@pytest.mark.parametrize("epsilon", [0.03, 0.1])
def test_ascent_finds_the_corner_of_a_linear_network(loss, epsilon):
    """REACH > 2 radii are walked: from any start the corner is reached, and it is the best there is."""
    network, x = Two(), images()
    y = network(x).argmax(1)
    truth = network.stands(x, y, epsilon)
    assert 3 < int(truth.sum()) < 57
    found = searches.ascend(MeanSoftmax([network]), x, y, epsilon, loss=loss, steps=5, seed=1)
    assert torch.equal(attacks.correct(network, found, y), truth)
    assert torch.allclose(found[truth], network.corner(x, y, epsilon)[truth], atol=1e-6)


def test_ascent_answers_with_what_fools_not_with_the_largest_loss():
    """A model of one pixel v: it is fooled for v < 0.5 only, where the loss is smaller than at v = 1."""

    class Bump(nn.Module):
        def forward(self, x):
            v = x[:, 0, 0, 0].double()
            fooled = v < 0.5
            wrong = torch.where(fooled, 1.0 + 0.0 * v, -1.0 + 0.0 * v)
            return torch.stack([torch.zeros_like(v), wrong], 1)

    def rising(outputs, labels):
        return rising.inputs[:, 0, 0, 0].double()

    x = torch.full((1, 1, 1, 1), 0.5)

    class Listening(Bump):
        def forward(self, x):
            rising.inputs = x
            return super().forward(x)

    starts = 0
    for seed in range(6):
        answer = searches.ascend(
            Listening(), x, torch.zeros(1, dtype=torch.long), 0.4, loss=rising, steps=10, seed=seed
        )
        first = x + 0.4 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 1)
        if float(first) < 0.5:  # it starts where the model is fooled and climbs out of there
            starts += 1
            assert float(answer) < 0.5
        else:
            assert float(answer) == pytest.approx(0.9)
    assert 0 < starts < 6


def test_margin_and_mean_logits_by_hand():
    outputs = torch.tensor([[4.0, 1.0, 3.0], [0.0, 2.0, -1.0]])
    assert searches.margin(outputs, torch.tensor([0, 2])).tolist() == [-1.0, 3.0]
    a, b = Two(seed=0), Two(seed=1)
    mean = searches.MeanLogits([a, b])(images(4))
    assert mean.dtype == torch.float64 and torch.allclose(mean, ((a(images(4)) + b(images(4))) / 2).double())


class Corner(nn.Module):
    """Right (class 0) while the last pixel is dark; it has no gradient."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        lit = (x[:, :, -1, -1].mean(1) > 0.55).float() * 2 - 1
        return torch.stack([-lit, lit, *[torch.full_like(lit, -9.0)] * 3], 1)


def test_square_reaches_the_last_pixel_which_the_librarys_own_does_with_its_first_stripes_only():
    x, y = torch.full((64, 1, 12, 12), 0.5), torch.zeros(64, dtype=torch.long)
    found = searches.square(Corner(), x, y, 0.1, guesses=300, seed=3)
    assert float((found - x).abs().max()) <= 0.1 + 1e-6
    assert not attacks.correct(Corner(), found, y).any()
    with attacks.seeded(3, x.device):
        parts = attacks.autoattack_parts(Corner(), x, 0.1, seed=3, steps=1, guesses=300)
        own = parts["square"](x, y)
    # Stripes are of either sign with probability one half; no window of these many gets to the last row.
    assert 12 < int(attacks.correct(Corner(), own, y).sum()) < 52


def test_noise_keeps_the_first_draw_that_fools():
    x, y = torch.full((200, 1, 2, 2), 0.5), torch.zeros(200, dtype=torch.long)
    one, many = (searches.noise(Corner(), x, y, 0.1, draws=n, seed=5) for n in (1, 30))
    # Uniform: the last pixel exceeds 0.55 in a quarter of the draws; corners: in half of them.
    assert int((~attacks.correct(Corner(), one, y)).sum()) == pytest.approx(50, abs=25)
    assert int((~attacks.correct(Corner(), many, y)).sum()) > 195
    fell = ~attacks.correct(Corner(), one, y)
    assert torch.equal(one[fell], many[fell])
    corners = (many - x).abs().flatten(1)
    assert (corners[~fell] > 0.0999).all(1).any() and float(corners.max()) <= 0.1 + 1e-6


def test_the_gate_cuts_rounding_and_lets_the_ball_pass():
    x = images(3)
    moved = (x + 0.1 + 5e-7).clamp(0, 1)
    passed = contained(x, moved, 0.1)
    assert float((passed - x).abs().max()) <= 0.1 + 6e-8 and torch.allclose(passed, moved, atol=1e-6)
    assert torch.equal(contained(x, x.double(), 0.1), x)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda x: x + 0.11, "left the ball: a pixel moved by 0.11 where 0.1 is allowed"),
        (lambda x: torch.where(x > 0.95, x + 0.06, x), r"left \[0, 1\]: a pixel is 1.0"),
        (lambda x: torch.where(x < 0.05, x - 0.06, x), r"left \[0, 1\]: a pixel is -0.0"),
        (lambda x: x * torch.tensor(float("nan")), "not finite"),
        (lambda x: x[:2], "expected images of shape"),
        (lambda x: (x * 255).to(torch.uint8), "torch.uint8 of shape"),
        (lambda x: None, "NoneType"),
        (lambda x: np.asarray(x), "ndarray"),
    ],
)
def test_an_answer_outside_is_refused(answer, why):
    x = images(40)
    with pytest.raises(ProtocolError, match=why):
        contained(x, answer(x), 0.1)


DOCS = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text("utf-8")


def test_the_page_has_the_sizes_that_are_used():
    for name, size in searches.SIZES.items():
        [line] = re.findall(rf"^\| {name} \| (.*) \|$", DOCS, flags=re.M)
        assert [int(cell) for cell in line.split(" | ")] == list(asdict(size).values())
    # The standard AutoAttack, in full.
    hard = searches.SIZES["hard"]
    assert (hard.apgd_steps, hard.fab_steps, hard.guesses) == (attacks.AUTO_STEPS, attacks.AUTO_STEPS, 5000)


def test_the_pages_attack_works_as_it_stands():
    [code] = re.findall(r"```python\n(.*?)```", DOCS, flags=re.S)
    space: dict = {}
    exec(code, space)
    network, x = Two(), images()
    y = network(x).argmax(1)
    found = contained(x, space["attack"](MeanSoftmax([network]), x, y, 0.1, torch.Generator()), 0.1)
    assert torch.equal(attacks.correct(network, found, y), network.stands(x, y, 0.1))
