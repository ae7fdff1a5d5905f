"""Grow an atlas of 24 small networks along CL and Co paths, ask it with both data sets, and draw it.

    python examples/grow_atlas.py FOLDER --workers 2

The networks are those of the task `reviews-composition`: the base network knows restaurant reviews, CL learns film
reviews in five stretches, Co makes 10 to 60 % of the weights zero, one network from the last; the second operation of
each order starts from each network of the first's end or path. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fipbench import cache, data, plan, registry
from fipbench.fip import atlas
from fipbench.fip.atlas import Shoot, pictures
from fipbench.fip.compose import CL, Co, Source, State
from fipbench.spec import Job, Method
from fipbench.tracks.common import base_network
from fipbench.tracks.composition import _memory, data_of

TASK = "reviews-composition"
STRETCHES = 5
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
BATCH = 32


def main() -> None:
    """The command."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--workers", type=int, default=1)
    given = asked.parse_args()
    torch.set_num_threads(1)
    began, spent = time.monotonic(), time.process_time()
    task, job = described()
    sources, _ = data_of(task, job, cache.cache_dir())
    base = base_network(task, job, sources[0][0], cache.cache_dir(), part="first data set").network
    atlas.create(given.folder, base, about={"task": TASK, "base": "trained on restaurant reviews"})
    run = partial(_grow, given.folder)
    others = [multiprocessing.get_context("spawn").Process(target=run) for _ in range(given.workers - 1)]
    for process in others:
        process.start()
    run()
    for process in others:
        process.join()
    found = atlas.open_atlas(given.folder)
    sizes = sum(member.size for member in found.members.values())
    print(f"{len(found.members)} members, {sizes / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")
    answers = {}
    for name, (_, scoring) in zip(("restaurants", "films"), sources, strict=True):
        answers[name] = atlas.query(found, base, _batches(scoring, 200))
        best = answers[name][0]
        print(f"{name}: {best.name} has the lowest perplexity, {best.perplexity:.3f}")
    draw(given.folder, found, answers)
    print(f"{time.process_time() - spent:.0f} s of this process; pictures in {given.folder}")


def described() -> tuple[Any, Job]:
    """The task, and a job of it that decides the seeds."""
    task = registry.read_task(TASK)
    variant, digests = data.identify_all(task.sources, cache.cache_dir())
    method = Method(name="none", track=task.track, target="none:none", version="1", defaults={})
    row = plan.Row(label="none", method=method, params={}, settings="default")
    return task, plan.make_job(task, row, 0, "quick", "cpu", variant, digests)


def shoots(task: Any, job: Job, base: Any) -> list[Shoot]:
    """The 23 members beside the base, parents first."""
    (restaurants, _), (films, _) = data_of(task, job, cache.cache_dir())[0]
    memory = _memory(task, job, restaurants).examples.inputs
    sources = {"restaurants": Source(_batches(restaurants), memory), "films": Source(_batches(films))}
    whole = CL("films", steps=STRETCHES * 12, learning_rate=1e-3, rule="adamw", clip=1.0)
    options = {"strength": 0.1, "settle": 0.4, "ramp": 0.5}

    def by(operation: Any, knows: tuple[str, ...]) -> Any:
        return lambda network: operation(State(network, knows), sources).network

    found, last = [], "base"
    for number in range(1, STRETCHES + 1):
        # One path, each time a stretch further from its start: the outputs that are kept are the base's.
        learn = by(replace(whole, steps=12 * number), ("restaurants",))
        found.append(Shoot(f"cl/{number}", last, f"CL films, stretch {number}", lambda _, learn=learn: learn(base)))
        last = f"cl/{number}"
    for group, start, knows in (("cl-co", last, ("restaurants", "films")), ("co", "base", ("restaurants",))):
        before = start
        for sparsity in SPARSITIES:
            walk = Co(sparsity, 16, 1e-3, options)
            found.append(Shoot(f"{group}/{sparsity:g}", before, f"Co {sparsity:g}", by(walk, knows)))
            before = f"{group}/{sparsity:g}"
    for sparsity in SPARSITIES:
        found.append(Shoot(f"co-cl/{sparsity:g}", f"co/{sparsity:g}", "CL films", by(whole, ("restaurants",))))
    return found


def draw(folder: Path, found: atlas.Index, answers: dict[str, list[atlas.Answer]]) -> None:
    """Three pictures, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    where = atlas.plane(found)
    inverse = {name: {one.name: 1 / one.perplexity for one in ranked} for name, ranked in answers.items()}
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    pictures.paths(figure.add_subplot(), found, where)
    _save(figure, folder / "paths")
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    for n, (name, scores) in enumerate(inverse.items()):
        axes = figure.add_subplot(1, 2, n + 1)
        axes.set_title(name, loc="left", fontsize=10)
        pictures.network(axes, atlas.graph(found, scores=scores), where, "1 / perplexity")
    _save(figure, folder / "graph")
    figure = Figure(figsize=(5.0, 4.2), layout="constrained")
    labels = [f"1 / perplexity on {name}" for name in inverse]
    pictures.scatter(figure.add_subplot(), *inverse.values(), labels)
    _save(figure, folder / "queries")


def _save(figure: Any, place: Path) -> None:
    for kind in ("png", "svg"):
        figure.savefig(place.with_suffix(f".{kind}"), dpi=110)


def _grow(folder: Path) -> None:
    torch.set_num_threads(1)
    task, job = described()
    from fipbench import models

    base, network = (models.build(task.model, 0) for _ in range(2))
    atlas.grow(folder, shoots(task, job, atlas.load(folder, "base", base)), network, tick=print)


def _batches(examples: Any, size: int = BATCH) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in an order of their own."""
    order = torch.randperm(len(examples.labels), generator=torch.Generator().manual_seed(0))
    return [(examples.inputs[rows], examples.labels[rows]) for rows in order.split(size)]


if __name__ == "__main__":
    main()
