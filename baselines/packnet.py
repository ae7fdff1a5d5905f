"""PackNet (Mallya & Lazebnik, 2018): every task gets weights of its own, which no later task moves.

After a task the smallest of the weights that it trained are set to zero, layer by layer, and those it keeps are
trained on, at a lower rate; what was freed is for the tasks to come. Biases and norms are learned with the first task.
A task has an output layer of its own and its own running statistics (in the paper those of batch norm stay the
first task's). Its answers come from the weights of the tasks up to it, so that they never change: forgetting is zero
where the task is told, and nothing is promised where it is not.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from fipbench.baselines._laws import LEARNING_RATE
from torch import nn

from fipbench.methods import Choice, continual
from fipbench.pruning import magnitude_masks, prunable

FREE = -1


@continual(search={"learning_rate": LEARNING_RATE, "prune": Choice((0.5, 0.75, 0.9))})
def packnet(*, learning_rate: float = 0.003, prune: float = 0.75, retrain: float = 0.5, cooling: float = 0.1):
    """Each task prunes what it learned and leaves the rest of the weights to later tasks; it has to be told.

    `prune`: share of a task's weights that it gives up; `retrain`: steps after that, as a share of the task's own;
    `cooling`: factor of the learning rate in them."""
    return _PackNet(learning_rate, prune, retrain, cooling)


class _PackNet:
    """`learn(model, experience, trial)`; `network_for(model, number)` is the network of one task."""

    def __init__(self, learning_rate: float, prune: float, retrain: float, cooling: float) -> None:
        self.learning_rate, self.prune, self.retrain, self.cooling = learning_rate, prune, retrain, cooling
        # By weight, the number of the task that owns it; by task, what it has for itself.
        self.owner: dict[str, torch.Tensor] = {}
        self.own: list[dict[str, torch.Tensor]] = []

    def __call__(self, model, experience, trial):
        number, steps = experience.number, experience.steps
        if number:
            self._fit(model, experience, trial, self.learning_rate, FREE)
        else:
            self.owner = {name: torch.full_like(w, FREE, dtype=torch.int16) for name, w in _shared(model).items()}
            steps = trial.first.steps
        self._share_out(model, number)
        again = replace(experience, steps=round(self.retrain * steps))
        self._fit(model, again, trial, self.cooling * self.learning_rate, number)
        self.own.append({name: value.detach().clone() for name, value in _own(model).items()})
        return model

    def network_for(self, model: nn.Module, number: int) -> nn.Module:
        """The network with which task `number` is answered: weights of the tasks up to it, and what it has for itself.

        A task that was not learned yet gets the network as it is."""
        plain = copy.deepcopy(model)
        if number < len(self.own):
            for name, weight in _shared(plain).items():
                owner = self.owner[name]
                weight.data.masked_fill_((owner == FREE) | (owner > number), 0.0)
            plain.load_state_dict(plain.state_dict() | self.own[number])
        return plain

    @torch.no_grad()
    def _share_out(self, model: nn.Module, number: int) -> None:
        """Give the task the largest of the free weights, and set the others to zero."""
        for name, weight in _shared(model).items():
            owner = self.owner[name]
            free = owner == FREE
            if not free.any():
                continue
            kept = magnitude_masks({name: weight[free]}, self.prune)[name]
            weight[free] *= kept
            owner[free] = torch.where(kept, number, FREE).to(owner)

    def _fit(self, model, experience, trial, learning_rate: float, owner: int) -> None:
        """Train the weights of `owner` and the output layer; of the first task all else that is not shared, too."""
        moving = {name: self.owner[name] == owner for name in self.owner}
        if experience.number:
            still = dict(model.named_parameters()).keys() - moving.keys() - _own(model).keys()
            moving |= {name: torch.zeros((), dtype=torch.bool) for name in still}
        held = [(w, moving[n].to(w.device), w.detach().clone()) for n, w in model.named_parameters() if n in moving]
        # Clipping sees no gradient of what is held; weight decay and a kept momentum move it, so it is put back.
        hooks = [weight.register_hook(lambda slope, mask=mask: slope * mask) for weight, mask, _ in held]

        @torch.no_grad()
        def put_back(step):
            for weight, mask, start in held:
                weight.copy_(torch.where(mask, weight, start))

        trial.fit(model, experience, learning_rate=learning_rate, after_step=put_back)
        for hook in hooks:
            hook.remove()

    def state_dict(self):
        own = {f"own/{i}/{name}": value for i, kept in enumerate(self.own) for name, value in kept.items()}
        return {f"owner/{name}": value for name, value in self.owner.items()} | own

    def load_state_dict(self, state):
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind == "owner":
                self.owner[name] = value
                continue
            number, _, name = name.partition("/")
            while len(self.own) <= int(number):
                self.own.append({})
            self.own[int(number)][name] = value


def _shared(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that tasks divide among themselves: all that can be pruned but the output layer's."""
    return dict(list(prunable(model).items())[:-1])


def _own(model: nn.Module) -> dict[str, torch.Tensor]:
    """What each task has for itself: the output layer and the buffers."""
    layer = list(prunable(model))[-1].rpartition(".")[0]
    output = {name: value for name, value in model.named_parameters() if name.startswith(f"{layer}.")}
    return output | dict(model.named_buffers())
