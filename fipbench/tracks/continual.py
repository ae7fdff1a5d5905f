"""The continual track: does a network that learns one task after another keep what it knew?

A method gets the network that has learned the first task (shared by all methods), then one task at a time. After
each, the harness scores the network on the test items of every task of the stream: those it has learned, and those
it has not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.errors import BudgetExceeded, ProtocolError, UserError
from fipbench.spec import ContinualTask, Job, Recipe
from fipbench.tracks import avalanche
from fipbench.tracks.carried import Carried
from fipbench.tracks.common import Outcome, bag_of_words, base_batches, base_network, batches, generator_for
from fipbench.tracks.continual_scores import Scorer, told_by
from fipbench.tracks.partial import Partial, offers_state, restore, state_of, under
from fipbench.tracks.parts import Part, stream_of
from fipbench.training import Batch, Examples, Meter, decay, fit, optimizer, predict


@dataclass(frozen=True)
class Experience:
    """One task of the stream as a method gets it.

    Attributes:
        number: from 0.
        classes: its labels.
        train: its training examples; nothing here leads to any other.
        batches: a stream without end over them, the same for every method of (task, seed).
        steps: optimiser steps that are due on it; none on the first, which the network has learned already.
    """

    number: int
    classes: tuple[int, ...]
    train: Examples
    batches: Iterator[Batch]
    steps: int


@dataclass(frozen=True)
class Criterion:
    """Mean cross-entropy over all outputs, or over those that `outputs_of` (outputs, outputs) allows each label."""

    outputs_of: Tensor | None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (n, outputs), labels (n,)."""
        if self.outputs_of is not None:
            logits = logits.masked_fill(~self.outputs_of[labels], float("-inf"))
        return nn.functional.cross_entropy(logits, labels)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Of the model's outputs on a batch."""
        return self(model(batch.inputs), batch.labels)


@dataclass(frozen=True)
class First:
    """How the first task was learned: the weights before it, its batches from the beginning (to be had while it is
    the current task), and its steps."""

    initial: dict[str, Tensor]
    batches: Callable[[], Iterator[Batch]]
    steps: int


@dataclass
class Trial:
    """What a method is given beside the network and the experience.

    Attributes:
        batch_size: of every experience's batches.
        recipe: how the first task was learned.
        memory: examples a task that the method may keep; 0 is none.
        generator: for a method's own random choices.
        meter: counts what is spent and stops the method at the limit.
        first: how the first task was learned.
        criterion: `(logits, labels) -> scalar`, the cross-entropy as this task trains it.
        drawing: `(purpose) -> torch.Generator`, the same for every method of (task, seed).
        kept: what `remember` gave, by number of the task.
        tasks: of the stream, for who shares out a memory over all of them.
        carried: the optimiser's state, where the stream keeps it from task to task.
    """

    batch_size: int
    recipe: Recipe
    memory: int
    generator: torch.Generator
    meter: Meter
    first: First
    criterion: Criterion
    drawing: Callable[[str], torch.Generator]
    kept: dict[int, Examples] = field(default_factory=dict)
    tasks: int = 1
    carried: Carried | None = None
    _draws: torch.Generator | None = None

    def fit(
        self,
        model: nn.Module,
        experience: Experience,
        *,
        learning_rate: float,
        rule: str = "",
        weight_decay: float | None = None,
        loss: Callable[[nn.Module, Batch], Tensor] | None = None,
        after_step: Callable[[int], Any] | None = None,
    ) -> nn.Module:
        """Train `model` in place for the experience's steps, by the recipe's optimiser unless `rule` names another;
        the default loss is `criterion` on the batch: fine-tuning."""
        recipe = self.recipe
        chosen = self.optimizer(model, learning_rate=learning_rate, rule=rule, weight_decay=weight_decay)
        return fit(
            model,
            experience.batches,
            steps=experience.steps,
            optimizer=chosen,
            loss=loss or self.criterion.loss,
            schedule=decay(chosen, recipe.decay or (), experience.steps),
            after_step=after_step,
            clip=recipe.clip or 0.0,
        )

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, rule: str = "", weight_decay: float | None = None
    ) -> torch.optim.Optimizer:
        """The recipe's, unless `rule` names another, over the weights of `model` that are trained: a new one, or one
        that goes on from the last one's state, where the stream keeps it."""
        recipe = self.recipe
        chosen = optimizer(
            rule or recipe.optimizer,
            [p for p in model.parameters() if p.requires_grad],
            learning_rate,
            recipe.momentum,
            recipe.weight_decay if weight_decay is None else weight_decay,
        )
        if self.carried is not None:
            self.carried.into(chosen, rule or recipe.optimizer)
        return chosen

    def remember(self, experience: Experience) -> Examples:
        """`memory` training examples of this task, the classes in turn; the same for every method of (task, seed).

        Raises:
            UserError: the memory is larger than the task's data.
        """
        number, train = experience.number, experience.train
        if number not in self.kept:
            if self.memory > len(train.labels):
                raise UserError(
                    f"field 'memories': {self.memory} examples a task, but task {number + 1} of the stream has "
                    f"{len(train.labels)}; lower it"
                )
            index = _in_turn(train.labels, self.drawing(f"memory of task {number}"))[: self.memory]
            self.kept[number] = Examples(train.inputs[index].clone(), train.labels[index].clone())
        return self.kept[number]

    def draw(self, examples: Examples) -> Batch:
        """A random batch of kept examples (all of them, where they are fewer than a batch)."""
        if self._draws is None:
            self._draws = self.drawing("batches from memory")
        n = len(examples.labels)
        index = torch.randperm(n, generator=self._draws)[: self.batch_size].to(examples.labels.device)
        return examples.batch(index)

    def outputs(self, model: nn.Module, examples: Examples) -> Tensor:
        """Outputs of `model` in evaluation mode, shape (n, outputs); costs n forward passes."""
        return predict(model, examples)


Learn = Callable[[nn.Module, Experience, Trial], nn.Module | None]


def run(task: ContinualTask, job: Job, method: Any, cache: Path, tick: Callable[[str, float], Any]) -> Outcome:
    """Let a method learn the stream of (task, seed), and measure the network after every task.

    Raises:
        ProtocolError: the method broke the contract.
        BudgetExceeded: it used more than the task allows.
    """
    parts, dropped = stream_of(task, job, cache)
    criterion = Criterion(_outputs_of(task, job))
    tick("base network", 0.0)
    first = parts[0].train
    kept = task.stream.optimizer == "kept"
    base = base_network(
        task, job, first, cache, loss=criterion.loss, part=["first task", task.stream], keep_optimizer=kept
    )
    limit = _limit(task, job, parts)
    meter = Meter(limit, (base.forward_examples, base.backward_examples))
    trial = Trial(
        batch_size=task.budget.batch_size,
        recipe=task.base,
        memory=int(job.params.get("memory", 0)),
        generator=generator_for(job, "choices"),
        meter=meter,
        first=First(
            initial=base.snapshots[0],
            batches=partial(base_batches, task, job, first),
            steps=task.base.epochs * (len(first.labels) // task.base.batch_size),
        ),
        criterion=criterion,
        drawing=partial(generator_for, job),
        tasks=len(parts),
        carried=Carried(task.base.optimizer, base.optimizer) if kept else None,
    )
    outcome = Outcome(
        meter=meter,
        base_wall_s=base.wall_s,
        base_wait_s=base.wait_s,
        provenance={"base": base.digest, "train_examples": [len(part.train.labels) for part in parts]},
    )
    if dropped:
        outcome.notes.append(f"{dropped} training examples dropped because they stand in the test split")
    scorer = Scorer(task, job, [part.scoring for part in parts], base, cache)
    learn = _learner(method)
    model = meter.attach(copy.deepcopy(base.network))
    meter.tick = lambda share: tick("method", share)
    unfinished = Partial(job, cache) if offers_state(method) else None
    done = _go_on(unfinished, task, job, parts, model, method, trial, scorer) if unfinished else 0
    for number, part in enumerate(parts[done:], start=done):
        experience = _experience(task, job, number, part)
        with scorer.watching(number, experience.steps, model, learn, meter):
            returned = learn(model, experience, trial)
        network = model if returned is None else returned
        if not isinstance(network, nn.Module):
            raise ProtocolError(f"expected a network or None after task {number + 1}, got {type(network).__name__}")
        with meter.paused():
            scorer.after(number, network, told_by(learn, model))
        # From now on the first task's data are past, as every other task's will be.
        trial.first = replace(trial.first, batches=_past)
        if unfinished and number + 1 < len(parts):
            unfinished.save(*_state(number + 1, model, method, trial, scorer))
    if meter.limit != limit or (limit and meter.passes > limit):
        raise BudgetExceeded(f"more than the task's {limit} passes (examples forward plus backward)")
    scorer.report(outcome)
    stored = sum(len(examples.labels) for examples in trial.kept.values())
    outcome.examples_stored = max(stored, trial.memory * len(parts))
    if job.role == "reference":
        outcome.metrics |= bag_of_words(task, job, cache)
    if unfinished:
        outcome.earlier_s = unfinished.earlier_s
        unfinished.drop()
    return outcome


def _state(
    done: int, model: nn.Module, method: Any, trial: Trial, scorer: Scorer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the job holds after `done` tasks."""
    last, measured = scorer.state()
    tensors, facts = state_of(trial, model=model.state_dict(), method=method.state_dict(), last=last)
    if trial._draws is not None:
        tensors["draws/state"] = trial._draws.get_state()
    if trial.carried is not None:
        tensors |= {f"optimizer/{name}": value for name, value in trial.carried.state().items()}
        facts["rule"] = trial.carried.rule
    return tensors, {**facts, "done": done, "kept": sorted(trial.kept), "measured": measured}


def _go_on(
    unfinished: Partial,
    task: ContinualTask,
    job: Job,
    parts: list[Part],
    model: nn.Module,
    method: Any,
    trial: Trial,
    scorer: Scorer,
) -> int:
    """Put all back to where an earlier process left it; returns how many tasks it had finished."""
    found = unfinished.load()
    if found is None:
        return 0
    tensors, facts = found

    model.load_state_dict(under(tensors, "model", job.device))
    method.load_state_dict(under(tensors, "method", job.device))
    scorer.go_on(under(tensors, "last", job.device), facts["measured"])
    for number in facts["kept"]:
        trial.remember(_experience(task, job, number, parts[number]))
    trial.first = replace(trial.first, batches=_past)
    if "draws/state" in tensors:
        trial._draws = trial.drawing("batches from memory")
        trial._draws.set_state(tensors["draws/state"])
    if trial.carried is not None:
        trial.carried = Carried(facts["rule"], under(tensors, "optimizer"))
    restore(trial, tensors, facts)
    return int(facts["done"])


def _in_turn(labels: Tensor, generator: torch.Generator) -> Tensor:
    """All positions in an order in which the classes take turns, each class's examples drawn at random.

    A smaller memory is the beginning of a larger one."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    shuffled = labels[order]
    turn = torch.zeros_like(shuffled)
    for label in shuffled.unique():
        own = shuffled == label
        turn[own] = torch.arange(int(own.sum()), device=labels.device)
    return order[torch.argsort(turn, stable=True)]


def _outputs_of(task: ContinualTask, job: Job) -> Tensor | None:
    """For each label, which outputs the loss is over: those of its own task, where the stream says so."""
    if task.stream.softmax == "all":
        return None
    found = torch.zeros(task.model.outputs, task.model.outputs, dtype=torch.bool)
    for classes in task.stream.classes:
        for label in classes:
            found[label, list(classes)] = True
    return found.to(job.device)


def _limit(task: ContinualTask, job: Job, parts: list[Part]) -> int:
    """The cap in passes: `factor` times those of fine-tuning; a reference has none."""
    if job.role == "reference":
        return 0
    epochs = [task.base.epochs] + [task.budget.epochs] * (len(parts) - 1)
    plain = sum(2 * e * len(part.train.labels) for e, part in zip(epochs, parts, strict=True))
    return int(plain * (task.budget.factor or 1))


def _past() -> Iterator[Batch]:
    raise ProtocolError("the first task's batches are to be had while it is learned only")


def _experience(task: ContinualTask, job: Job, number: int, part: Part) -> Experience:
    size = task.budget.batch_size
    drawn = batches(task, part.train, size, generator_for(job, f"batches of task {number}"))
    steps = task.budget.epochs * (len(part.train.labels) // size) if number else 0
    return Experience(number, part.classes, part.train, drawn, steps)


def _learner(method: Any) -> Learn:
    """The method itself, or Avalanche's plugin in Avalanche's own loop."""
    if avalanche.is_plugin(method):
        return avalanche.learner(method)
    if not callable(method):
        raise ProtocolError(f"expected learn(model, experience, trial) or an Avalanche plugin, got {method!r:.60}")
    return method
