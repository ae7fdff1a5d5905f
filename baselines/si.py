"""Synaptic intelligence (Zenke, Poole & Ganguli, 2017, eq. 3 to 5).

While a task is learned, each weight's share in the fall of the loss is added up: minus the gradient of the task's own
loss times the step. Divided by the squared change over the task plus a damping, it is the weight's importance, and
later tasks pay strength * importance * (w - w*)^2. As in the authors' code a negative importance counts as none.

Not avalanche-lib's plugin: on a CPU it compares weights with themselves and finds no importance at all, and
where it finds some it cuts them off at 0.001, lets them be negative and adds up the gradient of the penalty as well.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE

from fipbench.compat import import_torchvision
from fipbench.methods import LogUniform, continual


@continual(search={"learning_rate": LEARNING_RATE, "strength": LogUniform(1e-3, 1e3), "damping": LogUniform(1e-4, 1.0)})
def si(*, learning_rate: float = 0.003, strength: float = 1.0, damping: float = 0.1):
    """Synaptic intelligence: weights that did much of the learning are held in place."""
    import_torchvision()
    from avalanche.training.plugins import SupervisedPlugin

    class SI(SupervisedPlugin):
        watches_first_task = True

        def __init__(self):
            super().__init__()
            self.learning_rate = learning_rate
            self.importance, self.start, self.share, self.step = {}, {}, {}, {}

        @torch.no_grad()
        def before_training_exp(self, strategy, **kwargs):
            self.start = {name: weight.clone() for name, weight in strategy.model.named_parameters()}
            self.share = {name: torch.zeros_like(weight) for name, weight in self.start.items()}

        @torch.no_grad()
        def after_backward(self, strategy, **kwargs):
            trained = {name: weight for name, weight in strategy.model.named_parameters() if weight.grad is not None}
            self.step = {name: (weight.clone(), weight.grad.clone()) for name, weight in trained.items()}
            for name in trained.keys() & self.importance.keys():
                weight = trained[name]
                weight.grad.addcmul_(self.importance[name], weight - self.start[name], value=2 * strength)

        @torch.no_grad()
        def after_update(self, strategy, **kwargs):
            weights = dict(strategy.model.named_parameters())
            for name, (before, gradient) in self.step.items():
                self.share[name].addcmul_(gradient, weights[name] - before, value=-1)

        @torch.no_grad()
        def after_training_exp(self, strategy, **kwargs):
            for name, weight in strategy.model.named_parameters():
                new = self.share[name] / ((weight - self.start[name]).square() + damping)
                self.importance[name] = (self.importance.get(name, 0) + new).clamp_(min=0)

        def state_dict(self):
            return dict(self.importance)

        def load_state_dict(self, state):
            self.importance = dict(state)

    return SI()
