"""`estimate`: what a run would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fipbench.cli.options import Methods, Plugins, Seeds, Settings, Suite, Tasks, names
from fipbench.errors import UserError

if TYPE_CHECKING:
    from fipbench.estimate.total import Estimate, Line


def estimate(
    tasks: Tasks,
    suite: Suite = None,
    methods: Methods = "",
    seeds: Seeds = None,
    settings: Settings = None,
    plugin: Plugins = None,
    device: Annotated[str, typer.Option(help="cpu (this machine) | a100-80 | h100-80 | h200-141 | rtx4090.")] = "cpu",
    calibrated: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Time a few steps here, and rehearse each method.")
    ] = True,
) -> None:
    """Say what a run would take: FLOPs, memory, disk, hours."""
    from fipbench import cache, plan
    from fipbench.estimate import devices
    from fipbench.estimate.total import estimate as asked

    plan.positive("--seeds", seeds)
    devices.device_named(device)
    folder = cache.writable(cache.cache_dir(), "name another with FIPBENCH_CACHE")
    wanted, overrides = names(methods), plan.parse_settings(settings or [])
    chosen = plan.chosen_tasks(tasks, suite)
    plugins = [str(p) for p in plugin or []]
    rows = {task.name: plan.task_rows(task, wanted, overrides, plugins) for task in chosen}
    plan.check_used(wanted, overrides, rows, chosen, plugins)
    found, unknown = [], 0
    for task in chosen:
        count = seeds or plan.SEEDS[suite or task.suites[0]]
        try:
            one = asked(task, rows[task.name], seeds=count, cache=folder, device=device, calibrated=calibrated)
        except UserError as error:
            if len(chosen) == 1:
                raise
            unknown += 1
            print(f"\n{task.name}: no estimate: {error}")
            continue
        found.append(one)
        print("\n".join(_told(one)), flush=True)
    _say_total(found, unknown)


def _told(one: Estimate) -> list[str]:
    counts = one.counts
    how = "timed here" if one.calibrated and one.device == "cpu" else "stated rate, assumed utilisation"
    example = f"a text of {one.tokens} tokens, as they are on average," if one.tokens else "an example"
    lines = [
        f"\n{one.task}: {one.seeds} seeds on {one.device} ({how})",
        f"  network   {_short(counts.parameters)} parameters; {example} takes {_short(counts.forward_flops)} FLOPs "
        f"forward, {_short(counts.backward_flops)} backward",
        f"  disk      data {_bytes(one.data_bytes)}, cache {_bytes(one.cache_bytes)}, "
        f"records {_bytes(one.records_bytes)}",
        f"  budget    {_short(one.work.cap)} passes a job at most, forward and backward together",
    ]
    if one.unfit:
        lines.append(f"  DOES NOT FIT: {one.unfit}")
    head = f"  {'method':24} {'forward':>9} {'backward':>9} {'FLOPs':>9} {'memory':>9} {'a job':>9} {'all seeds':>10}"
    lines += [head + "  examples"] + [_row(line, one.seeds) for line in one.lines]
    lines.append(f"  all {len(one.lines) * one.seeds} jobs, one after the other: {_time(one.seconds)}")
    return lines


def _row(line: Line, seeds: int) -> str:
    label = line.label if line.memory is None else f"{line.label} ({line.memory})"
    return (
        f"  {label:24} {_short(line.forward_examples):>9} {_short(line.backward_examples):>9} {_short(line.flops):>9} "
        f"{_bytes(line.memory_bytes):>9} {_time(line.seconds):>9} {_time(seeds * line.seconds):>10}  {line.known}"
    )


def _say_total(found: list[Estimate], unknown: int) -> None:
    lines = [(one, line) for one in found for line in one.lines]
    flops = sum(one.seeds * line.flops for one, line in lines)
    disk = sum(one.data_bytes + one.cache_bytes + one.records_bytes for one in found)
    jobs = sum(one.seeds * len(one.lines) for one in found)
    print(
        f"\n{jobs} jobs: {_short(flops)} FLOPs, {_bytes(disk)} of disk, {_time(sum(one.seconds for one in found))} one "
        "after the other; nothing was run"
    )
    if any(line.known == "cap" for _, line in lines):
        print("examples 'cap': the most that the budget allows, methods may spend less")
    if unknown:
        print(f"{unknown} tasks are not in it")


def _short(number: float) -> str:
    """Three digits and a prefix: 1.48 M."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g}"


def _bytes(number: float) -> str:
    return f"{_short(number)}B" if number >= 1000 else f"{number:.0f} B"


def _time(seconds: float) -> str:
    """In the unit that a person would use; hours from one hour on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"
