"""Any plugin of Avalanche (Carta et al., 2023), run in Avalanche's own training loop over the harness's batches.

A plugin may have two attributes that Avalanche does not know: `learning_rate` (otherwise the recipe's is used), and
`watches_first_task = True`, if its hooks must see the first task being learned.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fipbench import compat
from fipbench.errors import ProtocolError
from fipbench.training import Batch, Examples, optimizer

if TYPE_CHECKING:
    from fipbench.tracks.continual import Experience, Trial


def is_plugin(method: Any) -> bool:
    """Whether `method` is a plugin for Avalanche's supervised strategies; imports nothing to find out."""
    core = sys.modules.get("avalanche.core")
    return core is not None and isinstance(method, core.BaseSGDPlugin)


def learner(
    plugin: Any, build: Callable[[nn.Module, Trial], Any] | None = None
) -> Callable[[nn.Module, Experience, Trial], nn.Module]:
    """`learn(model, experience, trial)` that runs one plugin over the whole stream.

    Args:
        build: makes the strategy, of a class of `fed`, where it is not Avalanche's plain one with the plugin; `plugin`
            is then whatever has the two attributes of this module's head, or none of them.

    Hooks get Avalanche's strategy, whose experience holds the task's training data as an `AvalancheDataset` and leads
    to no stream, and beside Avalanche's own attributes `strategy.given` and `strategy.trial`, as `learn` gets them, and
    `strategy.batch`, the batch drawn last. On the first task, which has been learned already, hooks run around a
    training of no iterations; a plugin that watches it sees its training repeated, for which nothing is counted.

    Raises:
        ProtocolError: by `learn`; with the plugin watching, the first task was learned otherwise than without it.
    """
    strategies: list[Any] = []

    def learn(model: nn.Module, experience: Experience, trial: Trial) -> nn.Module:
        if not strategies:
            strategies.append(build(model, trial) if build else _strategy_of(plugin, trial, model))
        strategy = strategies[0]
        if experience.steps == 0 and getattr(plugin, "watches_first_task", False):
            return _relearn(strategy, model, experience, trial)
        rate = float(getattr(plugin, "learning_rate", trial.recipe.learning_rate))
        rule = trial.optimizer(model, learning_rate=rate)
        return _train(strategy, model, experience, trial, experience.batches, experience.steps, rule)

    return learn


def _train(
    strategy: Any,
    model: nn.Module,
    experience: Experience,
    trial: Trial,
    batches: Iterator[Batch],
    steps: int,
    rule: torch.optim.Optimizer,
) -> nn.Module:
    """One task in Avalanche's loop; returns the strategy's network."""
    was_training = model.training
    strategy.model = model
    strategy.optimizer = rule
    strategy.given, strategy.trial = experience, trial
    strategy.own_batches, strategy.steps = batches, steps
    strategy.train(_experience(experience), eval_streams=[])
    # What is left of the task's data is what the plugin kept.
    strategy.given = strategy.own_batches = strategy.batch = None
    return strategy.model.train(was_training)


def _relearn(strategy: Any, model: nn.Module, experience: Experience, trial: Trial) -> nn.Module:
    """The first task once more from its beginning, under the plugin's eyes; it must end where it did."""
    first, recipe = trial.first, trial.recipe
    learned = {name: value.clone() for name, value in model.state_dict().items()}
    # The training is the base network's own and paid for; what the plugin computes besides is not.
    trial.meter.forward -= first.steps * recipe.batch_size
    trial.meter.backward -= first.steps * recipe.batch_size
    model.load_state_dict(first.initial)
    # A new one, as when it was learned; what a stream keeps of it is known already.
    rule = optimizer(
        recipe.optimizer,
        [p for p in model.parameters() if p.requires_grad],
        recipe.learning_rate,
        recipe.momentum,
        recipe.weight_decay,
    )
    model = _train(strategy, model, experience, trial, first.batches(), first.steps, rule)
    if any(not torch.equal(value, learned[name]) for name, value in model.state_dict().items()):
        raise ProtocolError("a plugin that watches the first task changed how it is learned")
    return model


def _strategy_of(plugin: Any, trial: Trial, model: nn.Module) -> Any:
    """Avalanche's plain strategy with the plugin, silent; network and optimiser are put in for each task."""
    compat.import_torchvision()
    from avalanche.training.templates import SupervisedTemplate

    return silent(
        fed(SupervisedTemplate),
        model=nn.Identity(),
        optimizer=torch.optim.SGD([torch.zeros(1)]),
        criterion=trial.criterion,
        train_mb_size=trial.batch_size,
        device=next(model.parameters()).device,
        plugins=[plugin],
    )


def silent(kind: type, **given: Any) -> Any:
    """A strategy that neither measures nor prints."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return kind(evaluator=None, **given)


@cache
def fed(kind: Any) -> type:
    """A class of strategies of Avalanche, fed by the harness: its batches, optimiser and clipping of gradients."""

    class Fed(kind):
        def make_train_dataloader(self, **kwargs: Any) -> None:
            self.dataloader = self._given_batches()

        def _given_batches(self) -> Iterator[list[Tensor]]:
            for batch in islice(self.own_batches, self.steps):
                self.batch = batch
                yield [batch.inputs, batch.labels, torch.zeros_like(batch.labels)]

        def check_model_and_optimizer(self, **kwargs: Any) -> None:
            """The network does not grow and its optimiser is new: nothing to adapt."""

        def _before_training_exp(self, **kwargs: Any) -> None:
            super()._before_training_exp(**kwargs)
            if not isinstance(self.dataloader, Iterator):
                # A plugin put a loader of its own in place, as Avalanche's replay does: for as many steps.
                self.dataloader = islice(_endless(self.dataloader), self.steps)

        def optimizer_step(self) -> None:
            if self.trial.recipe.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.trial.recipe.clip)
            self.optimizer.step()

    return Fed


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


class _Items(torch.utils.data.Dataset):
    """A task's training examples one by one, images as floats in [0, 1], converted when asked for."""

    def __init__(self, examples: Examples) -> None:
        self.examples = Examples(examples.inputs.cpu(), examples.labels.cpu())
        self.targets = examples.labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.examples.batch(torch.tensor(index)).inputs, self.targets[index]


def _experience(experience: Experience) -> Any:
    """The task as one of Avalanche's experiences; it belongs to no stream."""
    from avalanche.benchmarks.scenarios import DatasetExperience
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset

    dataset = _make_taskaware_classification_dataset(_Items(experience.train), task_labels=0)
    found = DatasetExperience(dataset=dataset, current_experience=experience.number)
    found.classes_in_this_experience = list(experience.classes)
    found.task_label, found.task_labels = 0, [0]
    return found
