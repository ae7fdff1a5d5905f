"""Elastic weight consolidation (Kirkpatrick et al., 2017, eq. 3), with the per-example empirical Fisher information.

The loss on a task gains strength / 2 * F * (w - w*)^2, summed over weights and earlier tasks, where w* are the weights
after that task. F is the mean over `samples` of its training examples, drawn at random, of the squared gradient of one
example's loss with its true label.

Not avalanche-lib's plugin: that squares the gradients of mini-batches, so that F depends on their size, leaves out the
half, and goes through every earlier task in each step.
"""

import torch
from fipbench.baselines._laws import LEARNING_RATE
from torch import nn

from fipbench.compat import import_torchvision
from fipbench.methods import LogUniform, continual


@continual(search={"learning_rate": LEARNING_RATE, "strength": LogUniform(1.0, 1e6)})
def ewc(*, learning_rate: float = 0.003, strength: float = 1000.0, samples: int = 1000):
    """Elastic weight consolidation; Fisher information of single examples with their true labels.

    `samples` of each task's examples are taken for it; 0 is all.
    """
    import_torchvision()
    from avalanche.training.plugins import SupervisedPlugin

    class EWC(SupervisedPlugin):
        def __init__(self):
            super().__init__()
            self.learning_rate = learning_rate
            self.fisher, self.anchor = {}, {}

        @torch.no_grad()
        def after_backward(self, strategy, **kwargs):
            for name, weight in strategy.model.named_parameters():
                if name in self.fisher and weight.grad is not None:
                    weight.grad.addcmul_(self.fisher[name], weight - self.anchor[name], value=strength)

        def after_training_exp(self, strategy, **kwargs):
            examples, generator = strategy.given.train, strategy.trial.generator
            if samples:
                index = torch.randperm(len(examples.labels), generator=generator)[:samples].to(examples.labels.device)
                examples = type(examples)(examples.inputs[index], examples.labels[index])
            found = fisher(strategy.model, examples, strategy.trial.criterion)
            for name, weight in strategy.model.named_parameters():
                self.add(name, found[name], weight.detach().clone())

        def add(self, name, new, weight):
            """Quadratics around several points add up to one around their weighted mean, and a constant."""
            total = self.fisher.get(name, torch.zeros_like(new)) + new
            anchor = self.anchor.get(name, weight)
            self.anchor[name] = torch.where(total > 0, anchor + new / total * (weight - anchor), weight)
            self.fisher[name] = total

        def state_dict(self):
            return {f"{kind}/{k}": v for kind in ("fisher", "anchor") for k, v in getattr(self, kind).items()}

        def load_state_dict(self, state):
            for key, value in state.items():
                kind, _, name = key.partition("/")
                getattr(self, kind)[name] = value

    return EWC()


def fisher(model, examples, criterion, batch_size=64):
    """Mean squared gradient of one example's loss with its own label, by name of the parameter.

    `batch_size` is a matter of speed alone. Costs as many passes forward and backward as there are examples.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    squares = _by_layer if all(map(_is_dense, layers)) else _by_example
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    n = len(examples.labels)
    index = torch.arange(n, device=examples.labels.device)
    for part in index.split(batch_size):
        squares(model, examples.batch(part), criterion, total)
    for module, mode in modes.items():
        module.training = mode
    return {name: value / n for name, value in total.items()}


def _by_example(model, batch, criterion, total):
    """Adds the batch's squared gradients to `total`, one example after the other: for any model."""
    for i in range(len(batch.labels)):
        loss = criterion(model(batch.inputs[i : i + 1]), batch.labels[i : i + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for value, gradient in zip(total.values(), gradients, strict=True):
            if gradient is not None:
                value.addcmul_(gradient, gradient)


def _is_dense(layer):
    """Whether `_by_layer` knows the layer; a convolution is a dense layer of each patch."""
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    return isinstance(layer, nn.Linear) or (plain and not isinstance(layer.padding, str))


def _by_layer(model, batch, criterion, total):
    """The same for all examples at once, from what goes into each layer and the gradient of what comes out of it."""
    calls = []

    def tap(layer, inputs, output):
        # Zeros of its own, as what follows may write into the output.
        added = torch.zeros_like(output, requires_grad=True)
        calls.append((layer, inputs[0].detach(), added))
        return output + added

    layers = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    hooks = [layer.register_forward_hook(tap) for layer in layers]
    # The sum of the examples' losses: each row of the gradients is of one example.
    loss = len(batch.labels) * criterion(model(batch.inputs), batch.labels)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, [added for _, _, added in calls])
    for (layer, inputs, _), gradient in zip(calls, gradients, strict=True):
        weight, bias = (f"{layers[layer]}.{kind}".removeprefix(".") for kind in ("weight", "bias"))
        of_weight, of_bias = _squares(layer, inputs, gradient)
        total[weight] += of_weight.view_as(layer.weight)
        if layer.bias is not None:
            total[bias] += of_bias


def _squares(layer, inputs, gradient):
    """Squared gradients of a layer's weights (features out, features in) and biases, summed over examples."""
    if isinstance(layer, nn.Conv2d):
        inputs = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT
        gradient = gradient.flatten(2).mT
    if inputs.ndim == 2:
        # An example's gradient is an outer product, whose square is that of the squares.
        return gradient.square().T @ inputs.square(), gradient.square().sum(0)
    # Of several places, an example's gradient is the sum.
    inputs, gradient = inputs.flatten(1, -2), gradient.flatten(1, -2)
    return (gradient.mT @ inputs).square().sum(0), gradient.sum(1).square().sum(0)
