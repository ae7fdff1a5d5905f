"""Attacks on a vote of networks, in the L-infinity ball around inputs in [0, 1].

The attacks themselves are torchattacks'; its PGD (Madry et al., 2018) and its APGD (Croce & Hein, 2020) were read
against the papers, and the tests hold them to closed forms. What is added here is what is attacked (the mean of
the members' softmax), the seeds, and how several attacks make one verdict an example.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.compat import import_torchvision
from fipbench.spec import Attack

# Wrong classes that targeted APGD aims at, the likeliest first; the paper takes nine.
TARGETS = 3
# Examples attacked at a time, which bounds the memory that an attack takes.
CHUNK = 500
# Of AutoAttack: wrong classes that are aimed at, gradient steps of each attack, and guesses of the random search.
AUTO_TARGETS, AUTO_STEPS, AUTO_GUESSES = 9, 100, 5000

# (model, inputs, labels) -> adversarial inputs
Search = Callable[[nn.Module, Tensor, Tensor], Tensor]


class MeanSoftmax(nn.Module):
    """The vote of several networks: the logarithm of the mean of their softmax outputs, shape (n, classes).

    Its arg-max is the ensemble's prediction, its cross-entropy the ensemble's own, since exp of it sums to one. It is
    computed in double precision: in single precision 1 - p rounds to zero where networks are sure, and the attacker's
    gradient loses the part that points away from the label.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor) -> Tensor:
        """float64 log-probabilities, shape (n, classes)."""
        each = torch.stack([member(inputs).double().log_softmax(1) for member in self.members])
        return each.logsumexp(0) - math.log(len(self.members))


def pgd(
    model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, *, steps: int, step_size: float, seed: int
) -> Tensor:
    """Projected gradient ascent on the cross-entropy from a uniformly random start (Madry et al., 2018).

    Args:
        inputs: shape (n, channels, height, width), in [0, 1]; labels: shape (n,).
        step_size: of each step, as a fraction of `epsilon`.

    Returns:
        Adversarial inputs in [0, 1], at most `epsilon` away from `inputs` in each pixel; the last iterate.
    """
    attacks = _torchattacks()
    attack = attacks.PGD(model, eps=epsilon, alpha=step_size * epsilon, steps=steps, random_start=True)
    with seeded(seed, inputs.device):
        return attack(inputs, labels)


def apgd(model: nn.Module, inputs: Tensor, labels: Tensor, epsilon: float, *, steps: int, seed: int) -> Tensor:
    """Projected gradient ascent that finds its own step size (Croce & Hein, 2020), twice, as in their AutoAttack.

    First on the cross-entropy; then, on what that leaves, on the targeted difference-of-logits ratio, once for each
    of the likeliest wrong classes. The ratio does not change when outputs are scaled, so a network that is merely
    sure of itself gains nothing by it. Arguments and result as of `pgd`.

    Raises:
        ValueError: `model` has fewer than four outputs, which the ratio needs.
    """
    with torch.no_grad():
        classes = model(inputs[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"targeted APGD needs four classes or more, the model has {classes}")
    attacks = _torchattacks()
    # Their own seeds would be set on everybody's generator.
    first = attacks.APGD(model, eps=epsilon, steps=steps, seed=seed % 2**32, loss="ce")
    # The library aims at one class fewer than it is told there are.
    then = attacks.APGDT(model, eps=epsilon, steps=steps, seed=seed % 2**32, n_classes=min(TARGETS, classes - 1) + 1)
    with seeded(seed, inputs.device):
        adversarial = first(inputs, labels)
        left = correct(model, adversarial, labels).nonzero().squeeze(1)
        if len(left):
            adversarial[left] = then(inputs[left], labels[left])
    return adversarial


def autoattack(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    seed: int,
    steps: int = AUTO_STEPS,
    guesses: int = AUTO_GUESSES,
) -> Tensor:
    """AutoAttack in its standard version (Croce & Hein, 2020), each attack on what those before it left.

    APGD on the cross-entropy, APGD on the targeted difference-of-logits ratio, FAB towards each of up to nine wrong
    classes, and Square, a random search that takes no gradient. Not torchattacks' class of this name, whose first
    three attacks take ten steps where the paper's take a hundred. Arguments, result and errors as of `apgd`.
    """
    adversarial = inputs.clone()
    with seeded(seed, inputs.device):
        for attack in autoattack_parts(model, inputs, epsilon, seed=seed, steps=steps, guesses=guesses).values():
            left = correct(model, adversarial, labels).nonzero().squeeze(1)
            if len(left):
                adversarial[left] = attack(inputs[left], labels[left]).detach()
    return adversarial


def autoattack_parts(
    model: nn.Module, inputs: Tensor, epsilon: float, *, seed: int, steps: int, guesses: int
) -> dict[str, Any]:
    """torchattacks' four attacks of AutoAttack by their names in the paper: `(inputs, labels) -> adversarial inputs`.

    They draw from torch's own generator: call them inside `seeded`. Arguments and errors as of `autoattack`.
    """
    with torch.no_grad():
        classes = model(inputs[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"AutoAttack needs four classes or more, the model has {classes}")
    library = _torchattacks()
    aims = min(AUTO_TARGETS, classes - 1) + 1  # the library aims at one class fewer than it is told there are
    known: dict[str, Any] = {"eps": epsilon, "seed": seed % 2**32}
    return {
        "apgd-ce": library.APGD(model, steps=steps, loss="ce", **known),
        "apgd-t": library.APGDT(model, steps=steps, n_classes=aims, **known),
        "fab-t": library.FAB(_Single(model), steps=steps, multi_targeted=True, n_classes=aims, **known),
        "square": library.Square(model, n_queries=guesses, **known),
    }


class _Single(nn.Module):
    """A model with float32 outputs, as FAB's arithmetic needs; the gradients inside stay what they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs).float()


def under_autoattack(model: nn.Module, inputs: Tensor, labels: Tensor, attack: Attack, seed: int) -> Tensor:
    """Correctness of `model` under `autoattack`, which is spared what it has fooled at a smaller radius.

    Returns:
        Boolean, shape (1 + epsilons, n): row 0 for the clean inputs, the others for increasing radii.
    """
    rows = [correct(model, inputs, labels)]
    for number, epsilon in enumerate(attack.epsilons):
        search = partial(autoattack, epsilon=epsilon, seed=derived(seed, "autoattack", number))
        held = rows[-1].clone()
        left = held.nonzero().squeeze(1)
        if len(left):
            adversarial = in_chunks(search, model, inputs[left], labels[left])
            held[left] = correct(model, adversarial, labels[left])
        rows.append(held)
    return torch.stack(rows)


def transfer(
    surrogate: nn.Module, model: nn.Module, inputs: Tensor, labels: Tensor, attack: Attack, seed: int
) -> Tensor:
    """Correctness of `model` on inputs made by PGD against `surrogate`, which it has not seen.

    Returns:
        Boolean, shape (1 + epsilons, n): row 0 for the clean inputs, the others for increasing radii.
    """
    rows = [correct(model, inputs, labels)]
    for number, epsilon in enumerate(attack.epsilons):
        kind = _pgd_of(attack, epsilon, derived(seed, "transfer", number))
        rows.append(correct(model, in_chunks(kind, surrogate, inputs, labels), labels))
    return torch.stack(rows)


def white_box(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    attack: Attack,
    seed: int,
    tick: Callable[[float], Any] = lambda share: None,
) -> dict[str, Tensor]:
    """Correctness of `model` under attacks that know it: `pgd`, `apgd`, and `robust`, the worst case of both.

    An attack is spared what it has fooled before, with another start or at a smaller radius, since that adversarial
    input lies in the larger ball, too. So an example counts as correct under `pgd` only if no restart at no radius up
    to this one fools the model, and no row can exceed the row before it.

    Args:
        tick: called with the share of the work that is done.

    Returns:
        For each name a boolean tensor of shape (1 + epsilons, n): row 0 for the clean inputs.
    """
    clean = correct(model, inputs, labels)
    found = {"pgd": [clean], "apgd": [clean]}
    for number, epsilon in enumerate(attack.epsilons):
        searches: list[tuple[str, Search]] = [
            ("pgd", _pgd_of(attack, epsilon, derived(seed, "pgd", number, restart)))
            for restart in range(attack.restarts)
        ]
        searches.append(("apgd", _apgd_of(attack, epsilon, derived(seed, "apgd", number))))
        held = {name: rows[-1].clone() for name, rows in found.items()}
        for done, (name, search) in enumerate(searches):
            tick((number + done / len(searches)) / len(attack.epsilons))
            left = held[name].nonzero().squeeze(1)
            if len(left):
                adversarial = in_chunks(search, model, inputs[left], labels[left])
                held[name][left] = correct(model, adversarial, labels[left])
        for name, rows in found.items():
            rows.append(held[name])
    stacked = {name: torch.stack(rows) for name, rows in found.items()}
    return stacked | {"robust": stacked["pgd"] & stacked["apgd"]}


@torch.no_grad()
def correct(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest output is the label's, shape (n,); an output that is no number is never correct."""
    parts = []
    for start in range(0, len(labels), CHUNK):
        outputs = model(inputs[start : start + CHUNK])
        hit = outputs.argmax(1) == labels[start : start + CHUNK]
        parts.append(hit & outputs.isfinite().all(1))
    return torch.cat(parts)


def input_gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each example's cross-entropy at its input, shape of `inputs`."""
    parts = []
    for start in range(0, len(labels), CHUNK):
        x = inputs[start : start + CHUNK].clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(x).double(), labels[start : start + CHUNK], reduction="sum")
        parts.append(torch.autograd.grad(loss, x)[0])
    return torch.cat(parts)


def _pgd_of(attack: Attack, epsilon: float, seed: int) -> Search:
    steps, step_size = attack.steps, attack.step_size
    return lambda model, inputs, labels: pgd(
        model, inputs, labels, epsilon, steps=steps, step_size=step_size, seed=seed
    )


def _apgd_of(attack: Attack, epsilon: float, seed: int) -> Search:
    return lambda model, inputs, labels: apgd(model, inputs, labels, epsilon, steps=attack.apgd_steps, seed=seed)


def in_chunks(search: Search, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """What a search answers for so many examples at a time that memory is bounded."""
    bounds = range(0, len(labels), CHUNK)
    return torch.cat([search(model, inputs[i : i + CHUNK], labels[i : i + CHUNK]) for i in bounds])


def derived(seed: int, *purpose: object) -> int:
    """A seed of 56 bits from another and what it is for."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own generators seeded for the block and as they were after it: torchattacks draws from no other."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _torchattacks() -> Any:
    import_torchvision()
    import torchattacks

    return torchattacks
