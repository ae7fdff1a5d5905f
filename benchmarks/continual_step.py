"""A step of FIP on the continual track against what the public code for vision transformers computes in it.

Both take the same batches of new images and of remembered ones through the same ViT, and end at the same weights. Ours
runs both batches at once and computes the reference outputs of the memory once a task, which is counted here, after few
steps as well. The alternative restates the public formula: each batch by itself, and a second network, a copy of the
first, run on the memory and on the new batch in every step; of the latter nothing is used.

python -m benchmarks.continual_step [--json]
"""

import copy
import subprocess
import sys

import torch
from torch import nn

from benchmarks.timing import Finding, interleaved, main, peak
from fipbench import models
from fipbench.fip import distance
from fipbench.registry import find_methods, load_factory
from fipbench.spec import Model, Recipe
from fipbench.tracks.continual import Criterion, Experience, Trial
from fipbench.training import Examples, Meter, stream

# Four layers of ViT-Tiny (Touvron et al., 2021) on a quarter of its image: ratios do not hang on how many there are.
VIT = Model(name="vit", inputs=(3, 112, 112), outputs=50, pixels=112, patch=16, width=192, depth=4, heads=3)
# Many weights and small activations, for memory: 20 million weights, 82 MB.
WIDE = Model(name="mlp", inputs=(1, 28, 28), hidden=(4096, 4096), outputs=50)
BATCH, STEPS = 8, 8
RECIPE = Recipe(epochs=1, batch_size=BATCH, learning_rate=0.003, clip=1.0)


def images(shape, number, seed):
    """Random images with labels."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(0, 256, (number, *shape), generator=generator, dtype=torch.uint8)
    return Examples(found, torch.randint(0, 50, (number,), generator=generator))


def draws(purpose):
    """The harness gives every method of a seed the same draws; here, of each benchmark."""
    return torch.Generator().manual_seed(len(purpose))


def trial():
    """What a method of the continual track is given."""
    return Trial(
        batch_size=BATCH,
        recipe=RECIPE,
        memory=BATCH,
        generator=draws(""),
        meter=Meter(),
        first=None,
        criterion=Criterion(None),
        drawing=draws,
    )


def experience(number, train, steps):
    """A task of the stream."""
    return Experience(number, tuple(range(50)), train, stream(train, BATCH, draws("new")), steps)


def fip(model, old, new):
    """The method of the board on two tasks, the first of which the network has learned."""
    learn = load_factory(find_methods("continual")["fip"])(memory=BATCH, learning_rate=RECIPE.learning_rate)
    given = trial()
    learn(model, experience(0, old, 0), given)
    learn(model, experience(1, new, STEPS), given)


def formula(model, old, new):
    """The public formula by hand; distances averaged as the method does, so that both can be compared."""
    given = trial()
    memory = given.remember(experience(0, old, 0))
    reference = copy.deepcopy(model).eval()
    rule = torch.optim.SGD(model.parameters(), lr=RECIPE.learning_rate, momentum=RECIPE.momentum)
    batches = stream(new, BATCH, draws("new"))
    for _ in range(STEPS):
        batch, kept = next(batches), given.draw(memory)
        rule.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
        with torch.no_grad():
            wanted, _unused = reference(kept.inputs), reference(batch.inputs)
        loss = loss + distance.bhattacharyya(model(kept.inputs), wanted)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rule.step()


def plain(model, old, new):
    """Fine-tuning on batches as large as both together."""
    rule = torch.optim.SGD(model.parameters(), lr=RECIPE.learning_rate, momentum=RECIPE.momentum)
    batches = stream(new, 2 * BATCH, draws("new"))
    for _ in range(STEPS):
        batch = next(batches)
        rule.zero_grad()
        nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rule.step()


WAYS = {"fip": fip, "formula": formula, "plain": plain}


def peak_of(way):
    """Peak memory in MB of a process that trains the wide network that way."""
    found = subprocess.run([sys.executable, "-m", __spec__.name, "--peak", way], capture_output=True, check=True)
    return float(found.stdout)


def measure(rounds):
    """FIP's step on the continual track against the public formula."""
    model = models.build(VIT, 0)
    old, new = images(VIT.inputs, 4 * BATCH, 1), images(VIT.inputs, BATCH * STEPS, 2)
    ends = []
    for way in (fip, formula):
        ends.append(copy.deepcopy(model))
        way(ends[-1], old, new)
    off = max(float((a - b).detach().abs().max()) for a, b in zip(*(end.parameters() for end in ends), strict=True))
    moved = max(
        float((a - b).detach().abs().max()) for a, b in zip(ends[0].parameters(), model.parameters(), strict=True)
    )
    assert off < 1e-3 * moved, f"the two ways end {off} apart, having moved {moved}"
    found = interleaved(
        lambda: fip(copy.deepcopy(model), old, new), lambda: formula(copy.deepcopy(model), old, new), rounds
    )
    yield Finding(
        what=f"FIP's step on the continual track, ViT, {BATCH} new images and {BATCH} remembered",
        against="the public ViT script's formula",
        **found.times_as_fast(),
        least=1.25,
        details={"FIP, s a step": min(found.ours) / STEPS, "formula, s a step": min(found.theirs) / STEPS},
        note=f"The reference outputs are computed once for {STEPS} steps here, where the script's task has 240.",
    )
    weights = sum(p.numel() * p.element_size() for p in models.build(WIDE, 0).parameters()) / 1e6
    peaks = {way: peak_of(way) for way in WAYS}
    copies = (peaks["fip"] - peaks["plain"]) / weights
    yield Finding(
        what="memory of FIP on the continual track beyond fine-tuning's",
        against="one copy of the weights",
        value=copies,
        low=copies,
        high=copies,
        unit="copies",
        most=0.5,
        clock="peak memory",
        details={
            "weights, MB": weights,
            "the formula, copies": (peaks["formula"] - peaks["plain"]) / weights,
            **{f"peak of {way}, MB": value for way, value in peaks.items()},
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        torch.set_num_threads(1)
        WAYS[sys.argv[2]](
            models.build(WIDE, 0), images((1, 28, 28), 4 * BATCH, 1), images((1, 28, 28), BATCH * STEPS, 2)
        )
        print(peak())
        raise SystemExit(0)
    raise SystemExit(main(measure, rounds=5))
