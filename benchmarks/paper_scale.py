"""A few real steps of every task of the suite `paper`, at its true architecture, on random weights and inputs.

`python -m benchmarks.paper_scale [TASK...]`: for each task, in a process of its own, two steps of plain training, then
two of FIP (or a walk to one sparsity, a kick and a pull, or two steps of Geo on two examples), on one thread. It says
what the architecture costs, that it trains and that memory is enough; it says nothing about any published number. What
is found of a task is kept in `paper_scale.json` beside this file, as long as the task stays what it is; without names
only the others are run.
"""

from __future__ import annotations

import copy
import json
import math
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS = 2
RECORDS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "paper-scale.md"
# Examples a step, for networks of more and of fewer weights than this.
LARGE, FEW, MANY = 50_000_000, 2, 16


def network_of(task: Any) -> Any:
    """The task's network with random weights."""
    from fipbench.estimate.counts import untrained

    return untrained(task.model)


def batches_of(task: Any, size: int) -> Any:
    """Random batches without end: images in [0, 1] or full texts of random tokens, and labels.

    Images of a task that streams them are JPEGs of 500 by 375, decoded and cut as the task says.
    """
    import torch

    from fipbench.models.masked import ASKED
    from fipbench.training import Batch

    draws = torch.Generator().manual_seed(0)
    texts = any(source.is_text for source in task.sources)
    while True:
        if texts:
            inputs = torch.randint(1000, 30_000, (size, *task.model.inputs), generator=draws)
        elif task.sources[0].streamed:
            inputs = torch.stack([noise(task.sources[0].streamed, draws) for _ in range(size)])
        else:
            inputs = torch.rand((size, *task.model.inputs), generator=draws)
        if task.model.name == "masked-lm":
            inputs[:, 1] = ASKED
        yield Batch(inputs, torch.randint(task.model.outputs, (size,), generator=draws), torch.arange(size))


def noise(cut: Any, draws: Any) -> Any:
    """A JPEG of noise, decoded and cut as a streamed image: float32 in [0, 1], shape (3, crop, crop)."""
    import io

    import torch
    from PIL import Image

    from fipbench.data.streamed import decoded

    pixels = torch.randint(256, (375, 500, 3), generator=draws, dtype=torch.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(content, "JPEG")
    return torch.from_numpy(decoded(content.getvalue(), cut).copy()).float() / 255


def few_steps(name: str) -> dict[str, Any]:
    """What a few steps of a task found out: losses, parameters, seconds a step, peak memory of this process."""
    import torch

    from fipbench import fip, registry
    from fipbench.fip.continual import invariance
    from fipbench.fip.geo import geo
    from fipbench.training import cross_entropy, fit, optimizer

    torch.set_num_threads(1)
    task = registry.read_task(name)
    network = network_of(task)
    parameters = sum(p.numel() for p in network.parameters())
    size = FEW if parameters > LARGE else MANY
    batches = batches_of(task, size)
    recipe = task.base
    rule = optimizer(recipe.optimizer, network.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay)
    losses: list[float] = []

    def plain(model: Any, batch: Any) -> Any:
        loss = cross_entropy(model, batch)
        losses.append(float(loss.detach()))
        return loss

    def timed(work: Any) -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) / STEPS

    def train(loss: Any) -> None:
        fit(network, batches, steps=STEPS, optimizer=rule, loss=loss, clip=recipe.clip or 0.0)

    seconds = timed(lambda: train(plain))
    kept = next(batches)
    with torch.no_grad():
        wanted = network.eval()(kept.inputs)
    measure = invariance("bhattacharyya")
    if task.track == "connectivity":
        other = copy.deepcopy(network)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(0.01 * torch.randn_like(p))
        path = timed(lambda: geo(network, other, [next(batches).inputs[:FEW]], STEPS))
    elif task.track in ("composition", "continual"):
        path = timed(lambda: train(lambda model, batch: plain(model, batch) + measure(model(kept.inputs), wanted)))
    elif task.track == "sparsity":
        del rule
        path = timed(lambda: list(fip.sparsify(network, batches, [task.sparsities[-1]], steps=STEPS, settle=0.0)))
    else:
        path = timed(lambda: fip.ensemble(network, batches, 2, steps=STEPS))
    finite = all(math.isfinite(x) for x in losses) and all(bool(p.isfinite().all()) for p in network.parameters())
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "model": task.model.name,
        "parameters": parameters,
        "batch": size,
        "finite": finite,
        "losses": losses,
        "step_s": seconds,
        "fip_step_s": path,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def made_by() -> dict[str, str]:
    """What the figures depend on beside the task."""
    from importlib.metadata import version

    return {"torch": version("torch"), "python": platform.python_version(), "machine": platform.machine()}


def page(found: dict[str, dict[str, Any]]) -> str:
    """The page of results, in Markdown, from the file of them alone."""
    from tabulate import tabulate

    rows = [
        (
            task,
            one["model"],
            f"{one['parameters'] / 1e6:.1f}",
            one["batch"],
            f"{one['step_s']:.2f}",
            f"{one['fip_step_s']:.2f}",
            f"{one['peak_bytes'] / 2**30:.1f}",
            "yes" if one["finite"] else "NO",
            f"torch {one['torch']}, Python {one['python']}, {one['machine']}",
        )
        for task, one in sorted(found.items())
    ]
    head = (
        "task", "network", "weights, 10^6", "examples a step", "s a step", "s a FIP step", "peak, GiB", "finite",
        "made by",
    )  # fmt: skip
    return (
        "# A few steps at paper scale\n\n"
        "Written by `python -m benchmarks.paper_scale` from `benchmarks/paper_scale.json`; do not edit, run it "
        "again.\n\n"
        f"{STEPS} steps of plain training and {STEPS} of FIP of every task of the suite `paper`, at its true\n"
        "architecture, with random weights on random inputs, on one thread of a CPU beside other work: it trains, and\n"
        "what it takes. No number here is about a published result.\n\n"
        f"{tabulate(rows, head, tablefmt='github', disable_numparse=True)}\n"
    )


def digest_of(task: Any) -> str:
    """Says whether a task is still the one that was executed; weights are drawn here, whichever it pins."""
    from msgspec import UNSET
    from msgspec.structs import replace

    from fipbench.spec import task_digest
    from fipbench.tracks import PROTOCOL_VERSIONS

    drawn = replace(task, model=replace(task.model, revision=UNSET, sha256=UNSET))
    return task_digest(drawn, PROTOCOL_VERSIONS[task.track])


def known() -> dict[str, dict[str, Any]]:
    """What was found of those tasks that are still what they were."""
    from fipbench import registry

    found = json.loads(RECORDS.read_text("utf-8")) if RECORDS.is_file() else {}
    files = registry.task_files()
    return {n: one for n, one in found.items() if n in files and one["digest"] == digest_of(registry.read_task(n))}


def main(words: list[str]) -> int:
    """The tasks named, else all of the suite that are not known; returns the exit code."""
    if words[:1] == ["--one"]:
        print(json.dumps(few_steps(words[1])))
        return 0
    from fipbench import registry

    found = known()
    names = words or [n for n in registry.task_files() if "paper" in registry.read_task(n).suites and n not in found]
    failed = False
    for name in names:
        done = subprocess.run([sys.executable, "-m", "benchmarks.paper_scale", "--one", name], capture_output=True)
        if done.returncode:
            print(f"{name}: {done.stderr.decode().strip().splitlines()[-1:]}", file=sys.stderr)
            failed = True
            continue
        one = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(one), file=sys.stderr)
        failed |= not one["finite"]
        found[name] = {"digest": digest_of(registry.read_task(name)), **one, **made_by()}
        RECORDS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
        PAGE.write_text(page(found), "utf-8")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
