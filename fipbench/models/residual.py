"""Residual networks for small images (He, Zhang, Ren & Sun, "Deep residual learning for image recognition", 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a shortcut: the input itself, or where its shape changes a 1 x 1
    convolution of it with batch norm."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wider, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wider)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wider:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, wider, h / stride, w / stride)."""
        inside = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inside + self.shortcut(x))


def residual(inputs: int, widths: Sequence[int], blocks: int, outputs: int) -> list[nn.Module]:
    """Layers of a residual network: a 3 x 3 stem, `blocks` blocks a width (each width but the first begins with a
    stride of two), global average pooling, a dense layer.

    Widths 16, 32, 64 with 3 blocks are ResNet-20; 64, 128, 256, 512 with 2 are ResNet-18 as used on CIFAR, and 20, 40,
    80, 160 the slim one of GEM (Lopez-Paz & Ranzato, 2017). Convolutions are Kaiming-normal.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, widths[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    channels = widths[0]
    for stage, wider in enumerate(widths):
        for number in range(blocks):
            layers.append(Block(channels, wider, stride=2 if stage and not number else 1))
            channels = wider
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]
    for convolution in (m for layer in layers for m in layer.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return layers
