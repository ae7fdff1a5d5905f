"""Grow an atlas of networks along CL and Co paths, ask it with both data sets, and draw it.

    python examples/grow_atlas.py FOLDER --workers 2

The networks are those of a task of the composition track, by default 24 of `reviews-composition`: the base network
knows the first data set, CL learns the second in five stretches, Co makes 10 to 60 % of the weights zero, one network
from the last; then Co walks on from the last network of CL, and CL from each of Co's. With `--every` each operation
starts from every network of the other's path and both paths are walked whole, so that T stretches and S sparsities
give 1 + T + S + 2 T S networks: 305 of ten and fourteen, about as many as the paper's, with

    python examples/grow_atlas.py FOLDER --task bert-yelp-imdb-composition --every --steps 125 --learning-rate 2e-5 \\
        --stretches 10 --sparsities 0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5,0.55,0.6,0.65,0.7

It goes on where it was stopped. How the paper chose its 300 is not said.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fipbench import cache, data, models, plan, registry
from fipbench.fip import atlas
from fipbench.fip.atlas import Shoot, pictures
from fipbench.fip.compose import CL, Co, Source, State
from fipbench.spec import Job, Method
from fipbench.tracks.common import base_network
from fipbench.tracks.composition import data_of

BATCH = 32
OLD, NEW = "data set 1", "data set 2"


def main() -> None:
    """The command."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--workers", type=int, default=1, help="processes")
    asked.add_argument("--task", default="reviews-composition", help="a task of the composition track")
    asked.add_argument("--stretches", type=int, default=5, help="networks on a path of CL")
    asked.add_argument("--steps", type=int, default=12, help="of a stretch; a Co takes 4/3 as many")
    asked.add_argument("--learning-rate", type=float, default=1e-3)
    asked.add_argument("--sparsities", type=_numbers, default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), help="0.1,0.2,...")
    asked.add_argument("--every", action="store_true", help="start from every network of the other operation's path")
    asked.add_argument("--items", type=int, default=0, help="test examples to ask with (0: all)")
    given = asked.parse_args()
    torch.set_num_threads(1)
    began, spent = time.monotonic(), time.process_time()
    task, job = described(given.task)
    sources, _ = data_of(task, job, cache.cache_dir())
    base = base_network(task, job, sources[0][0], cache.cache_dir(), part="first data set").network
    atlas.create(given.folder, base, about={"task": task.name, "base": "trained on the first data set"})
    run = partial(_grow, given)
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
    for name, (_, scoring) in zip((OLD, NEW), sources, strict=True):
        asking = scoring.only(torch.arange(given.items or len(scoring.labels)))
        answers[name] = atlas.query(found, base, _batches(asking, 200))
        best = answers[name][0]
        print(f"{name}: {best.name} has the lowest perplexity, {best.perplexity:.3f}")
    draw(given.folder, found, answers)
    print(f"{time.process_time() - spent:.0f} s of this process; pictures in {given.folder}")


def described(name: str) -> tuple[Any, Job]:
    """The task, and a job of it that decides the seeds."""
    task = registry.read_task(name)
    variant, digests = data.identify_all(task.sources, cache.cache_dir())
    method = Method(name="none", track=task.track, target="none:none", version="1", defaults={})
    row = plan.Row(label="none", method=method, params={}, settings="default")
    return task, plan.make_job(task, row, 0, task.suites[0], "cpu", variant, digests)


def shoots(given: argparse.Namespace, task: Any, job: Job, base: Any) -> list[Shoot]:
    """The members beside the base, parents first."""
    (before, _), (after, _) = data_of(task, job, cache.cache_dir())[0]
    kept = torch.randperm(len(before.labels), generator=torch.Generator().manual_seed(1))[: task.memory]
    sources = {OLD: Source(_batches(before), before.inputs[kept]), NEW: Source(_batches(after))}
    rate = given.learning_rate
    learning = CL(NEW, steps=given.steps, learning_rate=rate, rule="adamw", clip=1.0)
    options = {"strength": 0.1, "settle": 0.4, "ramp": 0.5}
    found: list[Shoot] = []

    def learned(group: str, start: str, first: int = 1) -> list[str]:
        """A path of CL: each time a stretch further from its start, the outputs that are kept being the start's."""
        path = [start]
        for number in range(first, given.stretches + 1):
            walk = replace(learning, steps=given.steps * number)
            name = f"{group}/{number}" if first == 1 else group
            make = partial(_from, given.folder, start, walk, (OLD,), sources, base)
            found.append(Shoot(name, path[-1], f"CL, stretch {number}", make))
            path.append(name)
        return path[1:]

    def cut(group: str, start: str, knows: tuple[str, ...]) -> list[str]:
        """A path of Co, each network from the last."""
        path = [start]
        for sparsity in given.sparsities:
            walk = Co(sparsity, round(given.steps * 4 / 3), rate, options)
            make = partial(_apply, walk, knows, sources)
            found.append(Shoot(f"{group}/{sparsity:g}", path[-1], f"Co {sparsity:g}", make))
            path.append(f"{group}/{sparsity:g}")
        return path[1:]

    on_cl = learned("cl", "base")
    for start in on_cl if given.every else on_cl[-1:]:
        cut("cl-co" + start.removeprefix("cl") * given.every, start, (OLD, NEW))
    for start in cut("co", "base", (OLD,)):
        if given.every:
            learned("co-cl" + start.removeprefix("co"), start)
        else:
            learned("co-cl" + start.removeprefix("co"), start, first=given.stretches)
    return found


def _apply(operation: Any, knows: tuple[str, ...], sources: dict[str, Source], network: Any) -> Any:
    return operation(State(network, knows), sources).network


def _from(
    folder: Path, start: str, operation: Any, knows: tuple[str, ...], sources: dict[str, Source], like: Any, _: Any
) -> Any:
    """The operation on a member that is not the parent."""
    return _apply(operation, knows, sources, atlas.load(folder, start, copy.deepcopy(like)))


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


def _grow(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    task, job = described(given.task)
    base, network = (models.build(task.model, 0) for _ in range(2))
    atlas.grow(given.folder, shoots(given, task, job, base), network, tick=print)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _batches(examples: Any, size: int = BATCH) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in an order of their own."""
    order = torch.randperm(len(examples.labels), generator=torch.Generator().manual_seed(0))
    return [(examples.inputs[rows], examples.labels[rows]) for rows in order.split(size)]


if __name__ == "__main__":
    main()
