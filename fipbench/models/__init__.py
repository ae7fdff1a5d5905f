"""The architectures that tasks name."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from fipbench.errors import UserError, unknown
from fipbench.models.compute import computed_as
from fipbench.spec import Model


class Normalize(nn.Module):
    """(x - mean) / std, inside the model, so that data and attacks stay in [0, 1].

    A number each, or one for each channel of images (n, channels, h, w); neither is among the network's weights.
    """

    mean: float | Tensor
    std: float | Tensor

    def __init__(self, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            if isinstance(value, tuple):
                self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), persistent=False)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same out."""
        return (x - self.mean) / self.std


class ChannelsLast(nn.Module):
    """Images in channels-last memory, in which convolutions are faster (on a CPU by half); weights stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] in, the same values out."""
        # As contiguous(memory_format=torch.channels_last), which torch.func.vmap refuses.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def mlp(spec: Model) -> nn.Module:
    """A multilayer perceptron with ReLU: 784-300-100-10 is LeNet-300-100 (LeCun et al., 1998).

    Weights are Kaiming-normal (as in the published lottery-ticket runs), biases torch's default.
    """
    sizes = [math.prod(spec.inputs), *spec.hidden, spec.outputs]
    layers: list[nn.Module] = [nn.Flatten(), Normalize(spec.mean, spec.std)]
    for i, (a, b) in enumerate(pairwise(sizes)):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight)
        layers += [linear, nn.ReLU()] if i < len(sizes) - 2 else [linear]
    return nn.Sequential(*layers)


def cnn(spec: Model) -> nn.Module:
    """3 x 3 convolutions, each with ReLU and 2 x 2 max pooling, then dense layers with ReLU between them.

    The first convolution is padded by one, the others are not: with channels 32 and 64 and dense layers of 600 and
    120 this is the network of five layers and 1.4 million weights of the MNIST to Fashion-MNIST experiment
    (arXiv 2205.00334 v1). Initial weights are torch's default.
    """
    channels, height, width = spec.inputs
    layers: list[nn.Module] = [Normalize(spec.mean, spec.std)]
    for number, wider in enumerate(spec.channels or ()):
        padding = 1 if number == 0 else 0
        layers += [nn.Conv2d(channels, wider, 3, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width = wider, (height - 2 + 2 * padding) // 2, (width - 2 + 2 * padding) // 2
    return nn.Sequential(*layers, *_dense([channels * height * width, *spec.hidden, spec.outputs]))


def vgg(spec: Model) -> nn.Module:
    """VGG (Simonyan & Zisserman, 2015) at the size that `channels` says: a pair of padded 3 x 3 convolutions with
    ReLU and a 2 x 2 max pooling for each entry, then dense layers. No batch norm; weights are Kaiming-normal."""
    return _vgg(spec, [2] * len(spec.channels or ()))


def vgg16(spec: Model) -> nn.Module:
    """VGG16 (Simonyan & Zisserman, 2015, configuration D): as `vgg`, with 2, 2, 3, 3 and 3 convolutions for its five
    `channels`. With dense layers of 512 it is the variant for CIFAR of the published code of FGE."""
    if len(spec.channels or ()) != 5:
        raise UserError("field 'model.channels': vgg16 needs five, one for each stage")
    return _vgg(spec, [2, 2, 3, 3, 3])


def vgg11(spec: Model) -> nn.Module:
    """VGG11 (Simonyan & Zisserman, 2015, configuration A): as `vgg`, with 1, 1, 2, 2 and 2 convolutions for its five
    `channels`, of which the first is 64 filters as published."""
    if len(spec.channels or ()) != 5:
        raise UserError("field 'model.channels': vgg11 needs five, one for each stage")
    return _vgg(spec, [1, 1, 2, 2, 2])


def _vgg(spec: Model, convolutions: list[int]) -> nn.Module:
    channels, height, width = spec.inputs
    layers: list[nn.Module] = [Normalize(spec.mean, spec.std), ChannelsLast()]
    for wider, count in zip(spec.channels or (), convolutions, strict=True):
        for a, b in pairwise([channels, *[wider] * count]):
            convolution = nn.Conv2d(a, b, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels, height, width = wider, height // 2, width // 2
    return nn.Sequential(*layers, *_dense([channels * height * width, *spec.hidden, spec.outputs]))


def resnet(spec: Model) -> nn.Module:
    """A residual network of `depth` blocks for each of its `channels`; see `fipbench.models.residual`."""
    from fipbench.models.residual import residual

    if not spec.channels or not spec.depth:
        raise UserError("field 'model': resnet needs 'channels', a width for each stage, and 'depth', blocks a stage")
    layers = residual(spec.inputs[0], spec.channels, spec.depth, spec.outputs)
    return nn.Sequential(Normalize(spec.mean, spec.std), ChannelsLast(), *layers)


def preresnet(spec: Model) -> nn.Module:
    """A network of `depth` bottlenecks for each of its `channels`; see `fipbench.models.preactivation`."""
    from fipbench.models.preactivation import preactivated

    if not spec.channels or not spec.depth:
        raise UserError(
            "field 'model': preresnet needs 'channels', a width for each stage, and 'depth', blocks a stage"
        )
    layers = preactivated(spec.inputs[0], spec.channels, spec.depth, spec.outputs)
    return nn.Sequential(Normalize(spec.mean, spec.std), ChannelsLast(), *layers)


def _dense(sizes: list[int]) -> list[nn.Module]:
    """Flatten, then linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return layers[:-1]


def bert(spec: Model) -> nn.Module:
    """A small BERT; see `fipbench.models.language`."""
    from fipbench.models.language import small_bert

    return small_bert(spec)


def transformer(spec: Model) -> nn.Module:
    """A pretrained transformer that classifies texts; see `fipbench.models.pretrained`."""
    from fipbench.models.pretrained import text_classifier

    return text_classifier(spec)


def masked_lm(spec: Model) -> nn.Module:
    """A pretrained masked language model; see `fipbench.models.masked`."""
    from fipbench.models.masked import masked_language_model

    return masked_language_model(spec)


def vit(spec: Model) -> nn.Module:
    """A vision transformer; see `fipbench.models.vision`."""
    from fipbench.models.vision import vision_transformer

    return vision_transformer(spec)


def clip(spec: Model) -> nn.Module:
    """An image tower of open_clip; see `fipbench.models.vision`."""
    from fipbench.models.vision import clip_tower

    return clip_tower(spec)


ARCHITECTURES: dict[str, Callable[[Model], nn.Module]] = {
    "bert": bert,
    "clip": clip,
    "cnn": cnn,
    "masked-lm": masked_lm,
    "mlp": mlp,
    "preresnet": preresnet,
    "resnet": resnet,
    "transformer": transformer,
    "vgg": vgg,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "vit": vit,
}


def build(spec: Model, seed: int) -> nn.Module:
    """A new network with initial weights decided by `seed` alone; leaves torch's own generator as it was.

    Raises:
        UserError: no architecture of that name, or one that cannot do what the task asks.
    """
    if spec.name not in ARCHITECTURES:
        raise unknown("model", spec.name, ARCHITECTURES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ARCHITECTURES[spec.name](spec)
    return computed_as(network, spec)
