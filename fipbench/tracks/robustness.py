"""The robustness track: how well does a vote of several networks stand up to an attack?

A method gets the shared base network N1, training data and a budget, and gives as many networks as the task has
members, as a list or one by one. The harness copies their weights into networks of its own, lets them vote by the
mean of their softmax outputs, and attacks that vote. A method sees no attack and no test item.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fipbench import attacks, lipschitz, metrics, models
from fipbench.errors import BudgetExceeded, ProtocolError
from fipbench.spec import Job, Recipe, RobustnessTask
from fipbench.tracks.common import Outcome, base_network, batches, generator_for, only_split, seed_for
from fipbench.tracks.partial import Counted, Partial, offers_state, restore, state_of, under
from fipbench.training import Batch, Examples, Meter, cross_entropy, decay, fit, optimizer, predict

# Test items on which diversity is measured, as many as in the paper.
DIVERSITY_ITEMS = 1000
# Test items on which the lower bound of the Lipschitz constant is sought.
LIPSCHITZ_ITEMS = 200


@dataclass(frozen=True)
class Trial:
    """What a method is given beside the base network.

    Attributes:
        train: the training examples; nothing here leads to any other.
        batches: a stream without end over them, the same for every method of (task, seed).
        batch_size: of that stream.
        members: how many networks are due.
        recipe: how the base network was trained.
        generator: for a method's own random choices.
        meter: counts what is spent and stops the method at the limit.
        fresh: `fresh(k)` is the k-th untrained network, k from 0: other initial weights than the base network had,
            the same for every method of (task, seed).
        finished: how many members an earlier process of the same job yielded; they are not due again. Above zero only
            for a method that can go on (`fipbench.tracks.partial`).
    """

    train: Examples
    batches: Counted
    batch_size: int
    members: int
    recipe: Recipe
    generator: torch.Generator
    meter: Meter
    fresh: Callable[[int], nn.Module]
    finished: int = 0

    @property
    def steps(self) -> int:
        """Training steps of one network with `batch_size` that the budget still allows."""
        return self.meter.steps(self.batch_size)

    def outputs(self, model: nn.Module) -> Tensor:
        """Outputs of `model` for all training examples, shape (n, outputs); costs n forward passes."""
        return predict(model, self.train)

    def fit(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        rule: str = "sgd",
        loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
        schedule: Callable[[int], float] | None = None,
        after_step: Callable[[int], Any] | None = None,
    ) -> nn.Module:
        """Train `model` in place on `batches`; `schedule(step)`, from 0, is a factor of the learning rate."""
        chosen = optimizer(rule, model.parameters(), learning_rate, self.recipe.momentum, self.recipe.weight_decay)
        falling = decay(chosen, self.recipe.decay or (), steps)
        factors = falling if schedule is None else torch.optim.lr_scheduler.LambdaLR(chosen, schedule)
        return fit(
            model,
            self.batches,
            steps=steps,
            optimizer=chosen,
            loss=loss,
            schedule=factors,
            after_step=after_step,
            clip=self.recipe.clip or 0.0,
        )


# `members(model, trial)`, giving networks; it may offer its state.
MakeMembers = Any


@dataclass(frozen=True)
class Voters:
    """What a method made of a job: its members as networks of the harness's own, and what they are scored with.

    Attributes:
        surrogate: the network from which attacks are transferred.
        scoring: the test items.
        outcome: what is known before they are scored.
        unfinished: the job's kept work, to be dropped once it is done.
    """

    members: list[nn.Module]
    surrogate: nn.Module
    scoring: Examples
    outcome: Outcome
    unfinished: Partial


def run(task: RobustnessTask, job: Job, method: MakeMembers, cache: Path, tick: Callable[[str, float], Any]) -> Outcome:
    """Let a method make members from the base network of (task, seed), and attack their vote.

    Raises:
        ProtocolError: the method broke the contract.
        BudgetExceeded: it used more than the task allows.
    """
    made = voters(task, job, method, cache, tick)
    _score(task, job, made.members, made.surrogate, made.scoring, made.outcome, tick)
    made.unfinished.drop()
    return made.outcome


def voters(
    task: RobustnessTask, job: Job, method: MakeMembers, cache: Path, tick: Callable[[str, float], Any]
) -> Voters:
    """Let a method make members from the base network of (task, seed); errors as of `run`."""
    split = only_split(task, job, cache)
    train = split.train
    tick("base network", 0.0)
    base = base_network(task, job, train, cache)
    limit = 2 * task.budget.epochs * len(train.labels)
    meter = Meter(limit, (base.forward_examples, base.backward_examples))
    trial = Trial(
        train=train,
        batches=Counted(batches(task, train, task.budget.batch_size, generator_for(job, "batches"))),
        batch_size=task.budget.batch_size,
        members=task.members,
        recipe=task.base,
        generator=generator_for(job, "choices"),
        meter=meter,
        fresh=_fresh(task, job, meter),
    )
    meter.tick = lambda share: tick("method", share)
    unfinished = Partial(job, cache)
    members = _made(method, base.network, trial, unfinished, least=1 if job.role == "reference" else task.members)
    if meter.passes > limit or meter.limit != limit:
        raise BudgetExceeded(f"more than the task's {limit} passes (examples forward plus backward)")
    # Made by the harness for all methods: it is nobody's cost.
    surrogate = base_network(task, job, train, cache, purpose="surrogate")
    outcome = Outcome(
        meter=meter,
        base_wall_s=base.wall_s,
        base_wait_s=base.wait_s + surrogate.wait_s,
        earlier_s=unfinished.earlier_s,
        parameters_stored=sum(p.numel() for member in members for p in member.parameters()),
        provenance={"base": base.digest, "surrogate": surrogate.digest, "train_examples": len(train.labels)},
    )
    if split.dropped:
        outcome.notes.append(f"{split.dropped} training examples dropped because they stand in the test split")
    if meter.passes < 0.99 * limit:
        outcome.notes.append(f"stopped at {meter.passes / limit:.0%} of the budget")
    return Voters(members, surrogate.network, split.scoring, outcome, unfinished)


def attacked(task: RobustnessTask, scoring: Examples) -> tuple[Tensor, Tensor]:
    """Inputs in [0, 1] and labels of the test items that are attacked."""
    batch = scoring.batch(_attacked(task, len(scoring.labels)).to(scoring.labels.device))
    return batch.inputs, batch.labels


def _fresh(task: RobustnessTask, job: Job, meter: Meter) -> Callable[[int], nn.Module]:
    seeds = [seed_for(job, f"member {k} weights") for k in range(task.members)]
    model, device = task.model, job.device

    def fresh(k: int) -> nn.Module:
        if not 0 <= k < len(seeds):
            raise IndexError(f"there are fresh networks 0 to {len(seeds) - 1}, not {k}")
        return meter.attach(models.build(model, seeds[k]).to(device))

    return fresh


def _made(method: MakeMembers, base: nn.Module, trial: Trial, unfinished: Partial, least: int) -> list[nn.Module]:
    """Networks of the harness's own with the weights of those that the method gives, be it in this process or in an
    earlier one. Once all are there, any job goes on from them."""
    members: list[nn.Module] = []
    device = str(trial.train.labels.device)
    if kept := unfinished.load():
        tensors, facts = kept
        members = [_own(base, under(tensors, f"member {k}", device), k) for k in range(facts["members"])]
        restore(trial, tensors, facts)
        trial.batches.skip_to(facts["batches"])
        if facts["complete"]:
            return members
        method.load_state_dict(under(tensors, "method", device))
        trial = replace(trial, finished=len(members))

    def save(complete: bool) -> None:
        groups = {f"member {k}": _weights(member) for k, member in enumerate(members)}
        state = {} if complete else method.state_dict()
        tensors, facts = state_of(trial, method=state, **groups)
        facts |= {"members": len(members), "batches": trial.batches.taken, "complete": complete}
        unfinished.save(tensors, facts)

    for network in _networks(method(trial.meter.attach(copy.deepcopy(base)), trial)):
        if len(members) == trial.members:
            raise ProtocolError(f"gave more networks than the {trial.members} that were due")
        members.append(_own(base, _weights(network), len(members)))
        if offers_state(method) and len(members) < trial.members:
            save(complete=False)
    if len(members) < least:
        raise ProtocolError(f"gave {len(members)} networks where {trial.members} were due")
    for a, b in combinations(range(len(members)), 2):
        pairs = zip(members[a].parameters(), members[b].parameters(), strict=True)
        if all(torch.equal(x, y) for x, y in pairs):
            raise ProtocolError(f"networks {a} and {b} are the same; {trial.members} different ones are due")
    save(complete=True)
    return members


def _networks(found: Any) -> Iterator[nn.Module]:
    if not isinstance(found, list | tuple | Iterator):
        raise ProtocolError(f"expected networks, got {type(found).__name__}")
    for one in found:
        if not isinstance(one, nn.Module):
            raise ProtocolError(f"expected networks, got {type(one).__name__} among them")
        yield one


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Parameters, and what batch norm and the like keep besides."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _own(base: nn.Module, weights: dict[str, Tensor], number: int) -> nn.Module:
    """A network like the base network with other weights, which must be those of such a network in name and shape,
    and finite."""
    member = copy.deepcopy(base).eval().requires_grad_(False)
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in _weights(member).items()}:
        raise ProtocolError(f"network {number} has other parameters than the base network")
    if bad := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise ProtocolError(f"network {number} has weights that are not finite ({bad[0]})")
    member.load_state_dict(weights)
    return member


def _score(
    task: RobustnessTask,
    job: Job,
    members: list[nn.Module],
    surrogate: nn.Module,
    scoring: Examples,
    outcome: Outcome,
    tick: Callable[[str, float], Any],
) -> None:
    """Metrics, curves and items of the vote."""
    everything = scoring.batch(torch.arange(len(scoring.labels), device=scoring.labels.device))
    vote = attacks.MeanSoftmax(members).eval().requires_grad_(False)
    if not all(bool(predict(member, scoring).isfinite().all()) for member in members):
        raise ProtocolError("the networks' outputs are not finite")
    clean = attacks.correct(vote, everything.inputs, everything.labels)
    single = [metrics.accuracy(predict(member, scoring), scoring.labels) for member in members]
    index = _attacked(task, len(clean)).to(clean.device)
    inputs, labels = everything.inputs[index], everything.labels[index]
    surrogate = surrogate.eval().requires_grad_(False)
    seed = seed_for(job, "attacks")
    tick("attacks", 0.0)
    correct = attacks.white_box(vote, inputs, labels, task.attack, seed, lambda share: tick("attacks", share))
    correct["transfer"] = attacks.transfer(surrogate, vote, inputs, labels, task.attack, seed)
    outcome.metrics |= {
        "clean": float(clean.double().mean()),
        "clean_member_mean": sum(single) / len(single),
        "items_attacked": float(len(index)),
    }
    outcome.items["clean"] = metrics.packed(clean)
    if task.attack.autoattack:
        beside = _attacked(task, len(clean), task.attack.autoattack).to(clean.device)
        correct["autoattack"] = attacks.under_autoattack(
            vote, everything.inputs[beside], everything.labels[beside], task.attack, seed
        )
        outcome.metrics["items_autoattacked"] = float(len(beside))
    radii = [0.0, *task.attack.epsilons]
    for name in correct:
        values = [float(row.double().mean()) for row in correct[name]]
        outcome.curves[name] = {"epsilon": radii, "value": values}
        outcome.metrics |= {f"{name}@{e:g}": value for e, value in zip(radii[1:], values[1:], strict=True)}
    for epsilon, row in zip(task.attack.epsilons, correct["robust"][1:], strict=True):
        outcome.items[f"robust@{epsilon:g}"] = metrics.packed(row)
    _score_diversity(members, surrogate, inputs, labels, outcome)
    _score_lipschitz(members, inputs, outcome)


def _score_diversity(
    members: list[nn.Module], surrogate: nn.Module, inputs: Tensor, labels: Tensor, outcome: Outcome
) -> None:
    """Representation diversity by layer, and coherence with the surrogate, on the attacked items."""
    by_layer = metrics.representation_diversity(members, inputs[:DIVERSITY_ITEMS])
    values = [float(one.mean()) for one in by_layer.values()]
    outcome.curves["diversity"] = {"layer": [float(i) for i in range(1, len(values) + 1)], "value": values}
    outcome.metrics["diversity"] = sum(values) / len(values)
    gradients = [attacks.input_gradients(member, inputs, labels) for member in members]
    towards = attacks.input_gradients(surrogate, inputs, labels)
    outcome.metrics["coherence"] = float(metrics.coherence(gradients, towards).mean())


def _score_lipschitz(members: list[nn.Module], inputs: Tensor, outcome: Outcome) -> None:
    """Bounds of the Lipschitz constant of a member's logits, mean over the members; the upper one where it is known."""
    lower = [lipschitz.lower(member, inputs[:LIPSCHITZ_ITEMS]) for member in members]
    outcome.metrics["lipschitz_lower"] = sum(lower) / len(lower)
    try:
        upper = [math.prod(lipschitz.upper(member, tuple(inputs.shape[1:])).values()) for member in members]
    except ValueError as error:
        outcome.notes.append(f"no upper bound of the Lipschitz constant: {error}")
        return
    outcome.metrics["lipschitz_upper"] = sum(upper) / len(upper)


def _attacked(task: RobustnessTask, n: int, most: int | None = None) -> Tensor:
    """Which of n test items are attacked: the first so many of a drawing that is the task's, whatever the seed."""
    seed = int.from_bytes(hashlib.sha256(f"{task.name}/attacked".encode()).digest()[:7], "big")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: task.attack.items or n][:most].sort().values
