"""The attacks of an audit: gradient ascent on several losses, AutoAttack's four, transfer, noise, a method's own.

All answer for inputs in [0, 1] and the L-infinity ball. Whether an answer lies in the ball is not believed but checked,
in `contained`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import attacks
from fipbench.attacks import MeanSoftmax
from fipbench.errors import ProtocolError

# What rounding in float32 may add to a distance, or to a pixel.
ROUNDING = 1e-6
# Of PGD: so many radii are walked in all its steps together, so that any point of the ball can be reached (Madry et
# al., 2018).
REACH = 2.5

Loss = Callable[[Tensor, Tensor], Tensor]
# (inputs, labels, epsilon, seed) -> adversarial inputs
Find = Callable[[Tensor, Tensor, float, int], Tensor]


@dataclass(frozen=True)
class Search:
    """An attack by its name: `kind` is one of `fipbench.spec.audits.KINDS`; it is made `restarts` times, with a seed of
    its own each time."""

    name: str
    kind: str
    find: Find
    restarts: int = 1


@dataclass(frozen=True)
class Strength:
    """The sizes of an audit: random starts and steps of PGD, steps of APGD and of FAB, guesses of Square, draws of
    noise."""

    restarts: int
    steps: int
    apgd_steps: int
    fab_steps: int
    guesses: int
    draws: int


# `hard` has AutoAttack's four attacks at the lengths of its paper.
SIZES = {
    "default": Strength(restarts=3, steps=40, apgd_steps=30, fab_steps=10, guesses=400, draws=20),
    "hard": Strength(restarts=10, steps=100, apgd_steps=100, fab_steps=100, guesses=5000, draws=200),
}


class MeanLogits(nn.Module):
    """The mean of several networks' outputs, shape (n, classes), in double precision: not the vote, but a way to it
    that a network which is sure of itself does not close, since no softmax is in between."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([member(inputs).double() for member in self.members]).mean(0)


# ----------------------------------------------------------------------------------------------- losses


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of each example, shape (n,)."""
    return nn.functional.cross_entropy(outputs.double(), labels, reduction="none")


def margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """The largest wrong output less the label's, shape (n,): above zero where the model is fooled (Carlini and Wagner,
    2017, f6 without its bound). A constant factor on the outputs does not change its direction."""
    right = outputs.gather(1, labels[:, None]).squeeze(1)
    return outputs.scatter(1, labels[:, None], -math.inf).amax(1) - right


def gradients(model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """The gradient of each example's loss at its input, shape of `inputs`."""

    def some(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        x = inputs.clone().requires_grad_()
        return torch.autograd.grad(loss(model(x), labels).sum(), x)[0]

    return attacks.in_chunks(some, model, inputs, labels)


# ---------------------------------------------------------------------------------------------- attacks


def ascend(
    model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, *, loss: Loss, steps: int, seed: int
) -> Tensor:
    """Projected gradient ascent with steps of the gradient's sign from a uniformly random start (Madry et al., 2018).

    Unlike the paper's it answers with the best point it met, not with the last: one that fools `model` before all
    others, then the one with the largest loss.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = (inputs - epsilon).clamp(min=0), (inputs + epsilon).clamp(max=1)
    start = torch.rand(inputs.shape, generator=generator).to(inputs)
    x = (inputs + epsilon * (2 * start - 1)).clamp(low, high)
    best = x.clone()
    found = torch.full((len(labels), 2), -math.inf, dtype=torch.float64, device=inputs.device)
    for step in range(steps + 1):
        x.requires_grad_()
        outputs = model(x)
        losses = loss(outputs, labels)
        with torch.no_grad():
            now = torch.stack([(outputs.argmax(1) != labels).double(), losses.double()], 1)
            better = (now[:, 0] > found[:, 0]) | ((now[:, 0] == found[:, 0]) & (now[:, 1] > found[:, 1]))
            found[better], best[better] = now[better], x.detach()[better]
        if step == steps:
            break
        slope = torch.autograd.grad(losses.sum(), x)[0]
        x = (x.detach() + REACH * epsilon / steps * slope.sign()).clamp(low, high)
    return best


class _Cropped(nn.Module):
    """A model of images with one more row and column, which it does not see."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs[..., :-1, :-1])


def square(model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, *, guesses: int, seed: int) -> Tensor:
    """Square (Andriushchenko et al., 2020), a random search that asks for outputs only; torchattacks' own.

    Where it puts a window it draws by truncation, as the authors' code does, so that no small window reaches the last
    row or column. One more of each, which the model does not see, makes up for that.
    """
    padded = nn.functional.pad(inputs, (0, 1, 0, 1))
    parts = attacks.autoattack_parts(_Cropped(model), padded, epsilon, seed=seed, steps=1, guesses=guesses)
    with attacks.seeded(seed, inputs.device):
        return parts["square"](padded, labels)[..., :-1, :-1].contiguous()


@torch.no_grad()
def noise(model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, *, draws: int, seed: int) -> Tensor:
    """The first of so many random points of the ball that fools the model, else the last: by turns uniform in it, and
    one of its corners."""
    generator = torch.Generator().manual_seed(seed)
    answer = inputs.clone()
    stands = torch.ones(len(labels), dtype=torch.bool, device=inputs.device)
    for draw in range(draws):
        moved = 2 * torch.rand(inputs.shape, generator=generator).to(inputs) - 1
        x = (inputs + epsilon * (moved if draw % 2 == 0 else moved.sign())).clamp(0, 1)
        answer[stands] = x[stands]
        left = stands.nonzero().squeeze(1)
        if not len(left):
            break
        stands[left] = model(x[left]).argmax(1) == labels[left]
    return answer


def of(vote: MeanSoftmax, surrogate: nn.Module, size: Strength) -> list[Search]:
    """The attacks of an audit of that size in their order, without a method's own."""
    members = list(vote.members)
    logits = MeanLogits(members).eval().requires_grad_(False)

    def ascent(model: nn.Module, loss: Loss) -> Find:
        return lambda inputs, labels, epsilon, seed: ascend(
            model, inputs, labels, epsilon, loss=loss, steps=size.steps, seed=seed
        )

    def part(name: str, steps: int) -> Find:
        def find(inputs: Tensor, labels: Tensor, epsilon: float, seed: int) -> Tensor:
            parts = attacks.autoattack_parts(vote, inputs, epsilon, seed=seed, steps=steps, guesses=1)
            with attacks.seeded(seed, inputs.device):
                return parts[name](inputs, labels).detach()

        return find

    return [
        Search("PGD, cross-entropy", "gradient", ascent(vote, cross_entropy), size.restarts),
        Search("PGD, margin", "gradient", ascent(vote, margin), size.restarts),
        Search("PGD, cross-entropy of the mean logits", "gradient", ascent(logits, cross_entropy)),
        Search("PGD, margin of the mean logits", "gradient", ascent(logits, margin)),
        Search("APGD-CE", "gradient", part("apgd-ce", size.apgd_steps)),
        Search("APGD-T", "gradient", part("apgd-t", size.apgd_steps)),
        Search("FAB-T", "gradient", part("fab-t", size.fab_steps)),
        *(
            Search(f"transfer from member {k}", "transfer", ascent(member, cross_entropy))
            for k, member in enumerate(members)
            if len(members) > 1
        ),
        Search("transfer from another network", "transfer", ascent(surrogate, cross_entropy)),
        Search("noise", "noise", lambda x, y, e, seed: noise(vote, x, y, e, draws=size.draws, seed=seed)),
        Search("Square", "query", lambda x, y, e, seed: square(vote, x, y, e, guesses=size.guesses, seed=seed)),
    ]


# -------------------------------------------------------------------------------------------- the ball


def contained(inputs: Tensor, answer: Any, epsilon: float) -> Tensor:
    """An attack's answer, cut to the ball by what rounding may have added.

    Raises:
        ProtocolError: it is no answer: not as many images, not finite, outside the ball or outside [0, 1].
    """
    if not isinstance(answer, Tensor) or answer.shape != inputs.shape or not answer.is_floating_point():
        raise ProtocolError(f"expected images of shape {tuple(inputs.shape)}, got {_said(answer)}")
    answer = answer.detach().to(inputs)
    if not bool(answer.isfinite().all()):
        raise ProtocolError("gave pixels that are not finite")
    if not len(inputs):
        return answer
    if (far := float((answer - inputs).abs().max())) > epsilon + ROUNDING:
        raise ProtocolError(f"left the ball: a pixel moved by {far:.4g} where {epsilon:g} is allowed")
    low, high = float(answer.min()), float(answer.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ProtocolError(f"left [0, 1]: a pixel is {low if low < -ROUNDING else high:.4g}")
    return answer.clamp(inputs - epsilon, inputs + epsilon).clamp(0, 1)


def _said(answer: Any) -> str:
    return f"{answer.dtype} of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
