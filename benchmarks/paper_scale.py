"""A few real steps of every task of the suite `paper`, at its true architecture, on random weights and inputs.

`python -m benchmarks.paper_scale [TASK...] [--out FILE.md]`: for each task, in a process of its own, two steps of
plain training, then two of FIP (or a walk to one sparsity, or a kick and a pull), on one thread. It says what the
architecture costs, that it trains and that memory is enough; it says nothing about any published number.
"""

from __future__ import annotations

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
    if task.track == "continual":
        path = timed(lambda: train(lambda model, batch: plain(model, batch) + measure(model(kept.inputs), wanted)))
    elif task.track == "sparsity":
        del rule
        path = timed(lambda: list(fip.sparsify(network, batches, [task.sparsities[-1]], steps=STEPS, settle=0.0)))
    else:
        path = timed(lambda: fip.ensemble(network, batches, 2, steps=STEPS))
    finite = all(math.isfinite(x) for x in losses) and all(bool(p.isfinite().all()) for p in network.parameters())
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "task": name,
        "model": task.model.name,
        "parameters": parameters,
        "batch": size,
        "finite": finite,
        "losses": losses,
        "step_s": seconds,
        "fip_step_s": path,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def table(found: list[dict[str, Any]]) -> str:
    """The page of results, in Markdown."""
    from importlib.metadata import version

    from tabulate import tabulate

    rows = [
        (
            one["task"],
            one["model"],
            f"{one['parameters'] / 1e6:.1f}",
            one["batch"],
            f"{one['step_s']:.1f}",
            f"{one['fip_step_s']:.1f}",
            f"{one['peak_bytes'] / 2**30:.1f}",
            "yes" if one["finite"] else "NO",
        )
        for one in found
    ]
    head = ("task", "network", "weights, 10^6", "examples a step", "s a step", "s a FIP step", "peak, GiB", "finite")
    made = f"torch {version('torch')}, Python {platform.python_version()}, one thread of a CPU ({platform.machine()})"
    return (
        "# A few steps at paper scale\n\n"
        "Written by `python -m benchmarks.paper_scale`; do not edit, run it again.\n\n"
        f"{STEPS} steps of plain training and {STEPS} of FIP of every task of the suite `paper`, at its true\n"
        "architecture, with random weights on random inputs: it trains, and what it takes. No number here is about a\n"
        f"published result. {made}; other work was going on beside.\n\n"
        f"{tabulate(rows, head, tablefmt='github', disable_numparse=True)}\n"
    )


def main(words: list[str]) -> int:
    """All tasks of the suite or those named; returns the exit code."""
    if words[:1] == ["--one"]:
        print(json.dumps(few_steps(words[1])))
        return 0
    from fipbench import registry

    out = Path(words.pop(words.index("--out") + 1)) if "--out" in words else None
    named = [word for word in words if not word.startswith("--")]
    names = named or [name for name in registry.task_files() if "paper" in registry.read_task(name).suites]
    found = []
    for name in names:
        done = subprocess.run([sys.executable, "-m", "benchmarks.paper_scale", "--one", name], capture_output=True)
        if done.returncode:
            print(f"{name}: {done.stderr.decode().strip().splitlines()[-1:]}", file=sys.stderr)
            return 1
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), file=sys.stderr)
    text = table(found)
    if out:
        out.write_text(text, "utf-8")
    else:
        print(text)
    return int(not all(one["finite"] for one in found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
