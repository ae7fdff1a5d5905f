"""Residual networks whose batch norm and ReLU come before each convolution (He, Zhang, Ren & Sun, "Identity mappings in
deep residual networks", 2016), of bottleneck blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

# How many times wider a block's outputs are than its 3 x 3 convolution.
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, each after batch norm and ReLU, and a shortcut: the input itself, or where
    its shape changes a 1 x 1 convolution of it. Nothing comes after the sum."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wider = EXPANSION * width
        self.inside = nn.Sequential(
            *_after_norm(channels, nn.Conv2d(channels, width, 1, bias=False)),
            *_after_norm(width, nn.Conv2d(width, width, 3, stride, 1, bias=False)),
            *_after_norm(width, nn.Conv2d(width, wider, 1, bias=False)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wider:
            self.shortcut = nn.Conv2d(channels, wider, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 4 width, h / stride, w / stride)."""
        return self.inside(x) + self.shortcut(x)


def preactivated(inputs: int, widths: Sequence[int], blocks: int, outputs: int) -> list[nn.Module]:
    """Layers of the network: a 3 x 3 stem of widths[0] channels, `blocks` bottlenecks a width (each width but the first
    begins with a stride of two), batch norm, ReLU, global average pooling, a dense layer.

    Widths 16, 32, 64 with 18 blocks are ResNet-164 with its 1.7 million weights. Convolutions are Kaiming-normal.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1, bias=False)]
    channels = widths[0]
    for stage, width in enumerate(widths):
        for number in range(blocks):
            layers.append(Bottleneck(channels, width, stride=2 if stage and not number else 1))
            channels = EXPANSION * width
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]
    for convolution in (m for layer in layers for m in layer.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return layers


def _after_norm(channels: int, convolution: nn.Module) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(), convolution]
