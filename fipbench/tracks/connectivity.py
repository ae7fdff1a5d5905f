"""The connectivity track: does a path between two trained networks stay as good as they are?

A method gets two networks that were trained alike from two seeds, their training data and a budget, and gives the
networks of a path from the first to the second, as a list or one by one. The harness joins them by straight lines,
goes on in a straight line to the second network where the path ends elsewhere, and measures at points evenly spread
along the whole: a method can neither hide a barrier between its points nor stop before it. A network that computes
the same function as the second one counts as it, whatever the order of its units.

A job that was stopped goes on after the last network that a method gave, if the method offers its state; where the
path was whole, any job goes on with measuring it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench.errors import BudgetExceeded, ProtocolError
from fipbench.spec import ConnectivityTask, Job, Recipe
from fipbench.tracks.common import Outcome, base_network, batches, generator_for, only_split
from fipbench.tracks.connectivity_scores import SAME_WEIGHTS, Course, look, score
from fipbench.tracks.partial import Counted, Partial, offers_state, restore, state_of, under
from fipbench.training import Batch, Examples, Meter, cross_entropy, decay, fit, optimizer

# A longer path is not kept for a job that may be stopped: it would be in memory twice.
KEPT_BYTES = 2**31


@dataclass(frozen=True)
class Trial:
    """What a method is given beside the two networks.

    Attributes:
        train: the training examples; nothing here leads to any other.
        batches: a stream without end over them, the same for every method of (task, seed).
        batch_size: of that stream.
        recipe: how the two networks were trained.
        generator: for a method's own random choices.
        meter: counts what is spent and stops the method at the limit.
        finished: networks that an earlier process of the job took from the method, for methods that offer their state
            (`fipbench.tracks.partial`): the others are due. Else 0.
    """

    train: Examples
    batches: Counted
    batch_size: int
    recipe: Recipe
    generator: torch.Generator
    meter: Meter
    finished: int = 0

    @property
    def steps(self) -> int:
        """Training steps of one network with `batch_size` that the budget still allows."""
        return self.meter.steps(self.batch_size)

    def fit(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        rule: str = "sgd",
        loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
    ) -> nn.Module:
        """Train `model` in place on `batches`, the learning rate falling as the networks' own did."""
        chosen = optimizer(rule, model.parameters(), learning_rate, self.recipe.momentum, self.recipe.weight_decay)
        falling = decay(chosen, self.recipe.decay or (), steps)
        clip = self.recipe.clip or 0.0
        return fit(model, self.batches, steps=steps, optimizer=chosen, loss=loss, schedule=falling, clip=clip)

    @contextmanager
    def products(self) -> Iterator[Callable[[int, int], None]]:
        """For products with the Jacobian: inside, calls of networks are not counted, because a transform of torch.func
        hides how many examples they are of; what is taken is told to `spend(forward, backward)`, which this gives."""
        with self.meter.paused():
            yield self.meter.spend


# `path(first, second, trial)`, giving networks; it may offer its state.
MakePath = Any


def run(task: ConnectivityTask, job: Job, method: MakePath, cache: Path, tick: Callable[[str, float], Any]) -> Outcome:
    """Let a method connect the two base networks of (task, seed), and measure its path.

    Raises:
        ProtocolError: the method broke the contract.
        BudgetExceeded: it used more than the task allows.
    """
    split = only_split(task, job, cache)
    train = split.train
    tick("base networks", 0.0)
    ends = [base_network(task, job, train, cache, purpose=purpose) for purpose in ("", "second")]
    limit = 2 * task.budget.epochs * len(train.labels)
    meter = Meter(limit, (sum(end.forward_examples for end in ends), sum(end.backward_examples for end in ends)))
    trial = Trial(
        train=train,
        batches=Counted(batches(task, train, task.budget.batch_size, generator_for(job, "batches"))),
        batch_size=task.budget.batch_size,
        recipe=task.base,
        generator=generator_for(job, "choices"),
        meter=meter,
    )
    meter.tick = lambda share: tick("method", share)
    given = [meter.attach(copy.deepcopy(end.network)) for end in ends]
    course = Course(ends, train, split.scoring)
    unfinished = Partial(job, cache)
    points = _made(method, given, trial, course, unfinished)
    if meter.passes > limit or meter.limit != limit:
        raise BudgetExceeded(f"more than the task's {limit} passes (examples forward plus backward)")
    outcome = Outcome(
        meter=meter,
        base_wall_s=sum(end.wall_s for end in ends),
        base_wait_s=sum(end.wait_s for end in ends),
        earlier_s=unfinished.earlier_s,
        parameters_stored=len(points) * len(points[0]),
        provenance={"base": ends[0].digest, "second": ends[1].digest, "train_examples": len(train.labels)},
    )
    if split.dropped:
        outcome.notes.append(f"{split.dropped} training examples dropped because they stand in the test split")
    if meter.passes < 0.99 * limit and job.role != "reference":
        outcome.notes.append(f"stopped at {meter.passes / limit:.0%} of the budget")
    tick("path", 0.0)
    whole = score(task, course, points, outcome, lambda share: tick("path", share))
    if task.plane and job.seed == 0:
        look(task.plane, course, whole, outcome)
    unfinished.drop()
    return outcome


def _made(
    method: MakePath, given: Sequence[nn.Module], trial: Trial, course: Course, unfinished: Partial
) -> list[Tensor]:
    """The weights of the path's networks from the first network on, those that an earlier process was given among
    them; where the last of them is the second network but for rounding, it is that."""
    points, taken = [course.first], 0
    if kept := unfinished.load():
        tensors, facts = kept
        points, taken = list(under(tensors, "point", str(course.first.device)).values()), facts["networks"]
        restore(trial, tensors, facts)
        trial.batches.skip_to(facts["batches"])
        if facts["complete"]:
            return points
        method.load_state_dict(under(tensors, "method", str(course.first.device)))
        trial = replace(trial, finished=taken)

    def save(complete: bool) -> None:
        if len(points) * points[0].nbytes > KEPT_BYTES:
            return
        state = {} if complete else method.state_dict()
        tensors, facts = state_of(trial, method=state, point={str(n): point for n, point in enumerate(points)})
        unfinished.save(tensors, {**facts, "networks": taken, "batches": trial.batches.taken, "complete": complete})

    for number, network in enumerate(_networks(method(*given, trial)), start=taken):
        point = course.point_of(network, number)
        if not torch.equal(point, points[-1]):
            points.append(point)
        taken = number + 1
        if offers_state(method):
            save(complete=False)
    if course.left(points[-1]) <= SAME_WEIGHTS:
        points[-1] = course.second
    save(complete=True)
    return points


def _networks(found: Any) -> Iterator[nn.Module]:
    if not isinstance(found, list | tuple | Iterator):
        raise ProtocolError(f"expected the networks of a path, got {type(found).__name__}")
    for one in found:
        if not isinstance(one, nn.Module):
            raise ProtocolError(f"expected networks, got {type(one).__name__} among them")
        yield one
