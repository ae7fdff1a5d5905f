"""The composition track: do learning (CL) and making sparse (Co) lead to one network in both orders?

A method is asked for one operation at a time: to learn the second data set, or to bring a network to a sparsity. It is
given the network, the data in hand (those to be learned, or those learned last), a memory of the data that are past,
and a budget. The harness chains the operations in both orders, measures every network, and goes through both orders
once more with other data orders, which is the noise that a difference of the orders must exceed. What each operation
draws comes from its place alone, so all are independent of each other, and of what a method did before.

`cl-co` is CL first, then Co; `co-cl` the other way round: as one reads, not as functions compose.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fipbench import pruning
from fipbench.errors import BudgetExceeded, ProtocolError, UserError
from fipbench.spec import CompositionTask, Job, Recipe
from fipbench.tracks.common import (
    Base,
    Outcome,
    bag_of_words,
    base_network,
    batches,
    generator_for,
    seed_for,
    splits,
)
from fipbench.tracks.composition_plan import BASE, Step, passes_of, steps_of
from fipbench.tracks.composition_scores import Scorer, Weights, weights_of
from fipbench.tracks.continual import _in_turn
from fipbench.tracks.partial import Partial, under
from fipbench.training import Batch, Examples, Meter, cross_entropy, decay, fit, optimizer, predict


@dataclass
class Memory:
    """Examples of a data set that is past, and whether a method asked for them."""

    examples: Examples
    used: bool = False

    def recalled(self) -> Examples:
        """The examples; they are counted as stored from now on."""
        self.used = True
        return self.examples


@dataclass(frozen=True)
class Operation:
    """What is due.

    Attributes:
        kind: `cl`: learn `train`; `co`: bring the network to `sparsity`.
        sparsity: of the network that is due after a `co`; the one that the network has, at a `cl`.
        train: the training examples in hand: those to be learned, or those that were learned last.
        batches: a stream without end over them, the same for every method of (task, seed).
    """

    kind: str
    sparsity: float
    train: Examples
    batches: Iterator[Batch]
    _memory: Memory | None

    @property
    def memory(self) -> Examples | None:
        """Examples that are kept of the data set that is past, None while there is none; who asks has stored them."""
        return None if self._memory is None else self._memory.recalled()


@dataclass(frozen=True)
class Trial:
    """What a method is given beside the network and the operation.

    Attributes:
        batch_size: of the operation's batches.
        recipe: how the base network was trained.
        generator: for a method's own random choices; another for each operation.
        meter: counts what the operation spends and stops it at its limit.
    """

    batch_size: int
    recipe: Recipe
    generator: torch.Generator
    meter: Meter

    def steps(self, passes: int, after: int = 0) -> int:
        """How many steps of so many passes (examples forward plus examples backward) the operation's budget allows,
        `after` other passes that are still to come."""
        return max(0, self.meter.limit - self.meter.passes - after) // passes

    def draw(self, examples: Examples) -> Batch:
        """A random batch of kept examples (all of them, where they are fewer than a batch)."""
        n = len(examples.labels)
        index = torch.randperm(n, generator=self.generator)[: self.batch_size].to(examples.labels.device)
        return examples.batch(index)

    def outputs(self, model: nn.Module, examples: Examples) -> Tensor:
        """Outputs of `model` in evaluation mode, shape (n, outputs); costs n forward passes."""
        return predict(model, examples)

    def fit(
        self,
        model: nn.Module,
        operation: Operation,
        *,
        steps: int,
        learning_rate: float,
        loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
        masks: pruning.Masks | None = None,
        after_step: Callable[[int], Any] | None = None,
    ) -> nn.Module:
        """Train `model` in place by the recipe's optimiser; weights outside `masks` are zero after every step."""
        if masks:
            pruning.apply(model, masks)

        def after(step: int) -> None:
            if masks:
                pruning.apply(model, masks)
            if after_step is not None:
                after_step(step)

        recipe = self.recipe
        chosen = optimizer(recipe.optimizer, model.parameters(), learning_rate, recipe.momentum, recipe.weight_decay)
        falling = decay(chosen, recipe.decay or (), steps)
        return fit(
            model,
            operation.batches,
            steps=steps,
            optimizer=chosen,
            loss=loss,
            schedule=falling,
            after_step=after,
            clip=recipe.clip or 0.0,
        )


Operate = Callable[[nn.Module, Operation, Trial], nn.Module]


def run(task: CompositionTask, job: Job, method: Operate, cache: Path, tick: Callable[[str, float], Any]) -> Outcome:
    """Let a method do the operations of both orders from the base network of (task, seed), and measure every network.

    Raises:
        ProtocolError: the method broke the contract.
        BudgetExceeded: it used more than the task allows.
    """
    sources, dropped = data_of(task, job, cache)
    train = [examples for examples, _ in sources]
    tick("base network", 0.0)
    base = base_network(task, job, train[0], cache, part="first data set")
    memory = _memory(task, job, train[0])
    total = Meter(0, (base.forward_examples, base.backward_examples))
    outcome = Outcome(
        meter=total,
        base_wall_s=base.wall_s,
        base_wait_s=base.wait_s,
        provenance={"base": base.digest, "train_examples": [len(part.labels) for part in train]},
    )
    if dropped:
        outcome.notes.append(f"{dropped} training examples dropped because they stand in the test split")
    scorer = Scorer(task, base.network, [scoring for _, scoring in sources])
    unfinished = Partial(job, cache)
    networks: dict[str, Weights] = {BASE: weights_of(base.network)}
    done = _go_on(unfinished, networks, scorer, total, memory, job.device)
    steps = steps_of(task)
    for number, step in enumerate(steps[done:], start=done):
        rows = [len(part.labels) for part in train]
        meter = Meter(passes_of(task, step, rows))
        meter.tick = partial(_ticking, tick, number, len(steps))
        network = _do(task, job, method, step, train[step.source], memory, _loaded(base, networks[step.start]), meter)
        total.forward, total.backward = total.forward + meter.forward, total.backward + meter.backward
        networks[step.name] = scorer(step, network)
        scorer.compare(networks)
        _forget(networks, scorer, steps[number + 1 :])
        if number + 1 < len(steps):
            unfinished.save(*_state(number + 1, networks, scorer, total, memory))
    scorer.report(outcome)
    outcome.examples_stored = len(memory.examples.labels) if memory.used else 0
    if job.role == "reference":
        outcome.metrics |= bag_of_words(task, job, cache)
    outcome.earlier_s = unfinished.earlier_s
    unfinished.drop()
    return outcome


def data_of(task: CompositionTask, job: Job, cache: Path) -> tuple[list[tuple[Examples, Examples]], int]:
    """Training and scored examples of both data sets, the labels of the second counted on from those of the first
    (words that are masked in running text are the same in both), and how many training examples were dropped.

    Raises:
        UserError: more classes than the network has outputs, inputs of different shapes, or less than a batch.
    """
    found, offset = [], 0
    read = splits(task, job, cache)
    shapes = {tuple(split.train.inputs.shape[1:]) for split in read}
    if len(shapes) > 1:
        raise UserError(f"field 'data': inputs of different shapes ({', '.join(map(str, sorted(shapes)))})")
    batch = max(task.base.batch_size, task.budget.batch_size)
    for number, (source, split) in enumerate(zip(task.sources, read, strict=True), start=1):
        if len(split.train.labels) < batch:
            raise UserError(
                f"task '{task.name}', field 'budget.batch_size': a batch is {batch}, but data set {number} has "
                f"{len(split.train.labels)} training examples"
            )
        parts = [Examples(part.inputs, part.labels + offset) for part in (split.train, split.scoring)]
        if not source.is_corpus:
            offset = int(max(part.labels.max() for part in parts)) + 1
        found.append((parts[0], parts[1]))
    if offset > task.model.outputs:
        raise UserError(
            f"task '{task.name}', field 'model.outputs': the data sets have {offset} classes together, the network "
            f"{task.model.outputs} outputs"
        )
    return found, sum(split.dropped for split in read)


def _memory(task: CompositionTask, job: Job, train: Examples) -> Memory:
    """What is kept of the first data set: the classes in turn, the same for every method of (task, seed)."""
    if task.memory > len(train.labels):
        raise UserError(
            f"task '{task.name}', field 'memory': {task.memory}, but the first data set has {len(train.labels)} "
            "training examples; lower it"
        )
    index = _in_turn(train.labels, generator_for(job, "memory of task 0"))[: task.memory]
    return Memory(Examples(train.inputs[index].clone(), train.labels[index].clone()))


def _do(
    task: CompositionTask,
    job: Job,
    method: Operate,
    step: Step,
    train: Examples,
    memory: Memory,
    start: nn.Module,
    meter: Meter,
) -> nn.Module:
    """One operation: what it draws depends on its name, and on nothing that was done before."""
    limit = meter.limit
    seed = seed_for(job, f"everybody's generators in {step.name}")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    operation = Operation(
        kind=step.kind,
        sparsity=step.sparsity,
        train=train,
        batches=batches(task, train, task.budget.batch_size, generator_for(job, f"batches of {step.name}")),
        _memory=memory if step.remembers else None,
    )
    trial = Trial(
        batch_size=task.budget.batch_size,
        recipe=task.base,
        generator=generator_for(job, f"choices in {step.name}"),
        meter=meter,
    )
    network = method(meter.attach(start), operation, trial)
    if not isinstance(network, nn.Module):
        raise ProtocolError(f"expected a network after {step.name}, got {type(network).__name__}")
    if meter.passes > limit or meter.limit != limit:
        raise BudgetExceeded(f"more than the {limit} passes (examples forward plus backward) of {step.name}")
    return network


def unhooked(network: nn.Module) -> nn.Module:
    """A copy that no earlier meter counts."""
    found = copy.deepcopy(network)
    found._forward_hooks.clear()
    found._forward_hooks_with_kwargs.clear()
    return found


def _loaded(base: Base, weights: Weights) -> nn.Module:
    """A network of the method's own with these weights."""
    network = copy.deepcopy(base.network)
    network.load_state_dict(network.state_dict() | weights)
    return network


def _forget(networks: dict[str, Weights], scorer: Scorer, to_come: tuple[Step, ...]) -> None:
    """Drop what no operation starts from and no distance is still to be measured to."""
    wanted = {step.start for step in to_come} | scorer.waiting()
    for name in set(networks) - wanted - {BASE}:
        del networks[name]


def _ticking(tick: Callable[[str, float], Any], number: int, count: int, share: float) -> None:
    tick("method", (number + min(1.0, share)) / count)


def _state(
    done: int, networks: dict[str, Weights], scorer: Scorer, total: Meter, memory: Memory
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the job holds after `done` operations; the base network is known."""
    tensors = {
        f"{network}/{name}": value
        for network, weights in networks.items()
        if network != BASE
        for name, value in weights.items()
    }
    outputs, measured = scorer.state()
    tensors |= {f"outputs/{name}": value for name, value in outputs.items()}
    return tensors, {
        "done": done,
        "spent": [total.forward, total.backward],
        "held": [name for name in networks if name != BASE],
        "remembered": memory.used,
        "measured": measured,
    }


def _go_on(
    unfinished: Partial, networks: dict[str, Weights], scorer: Scorer, total: Meter, memory: Memory, device: str
) -> int:
    """Put all back to where an earlier process left it; returns how many operations it had finished."""
    found = unfinished.load()
    if found is None:
        return 0
    tensors, facts = found
    total.forward, total.backward = facts["spent"]
    networks |= {name: under(tensors, name, device) for name in facts["held"]}
    scorer.go_on(under(tensors, "outputs", device), facts["measured"])
    memory.used = facts["remembered"]
    return int(facts["done"])
