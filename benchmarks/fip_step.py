"""What FIP-Sparse adds to forward and backward, on a network of 11 million weights, against doing it in NumPy.

The alternative restates how the authors' public code goes about it: weights and gradients appended to one long
array tensor by tensor, the threshold from a full sort, the step taken on that array and written back.

python -m benchmarks.fip_step [--json]
"""

import time

import numpy as np
import torch
from torch import nn

from benchmarks.timing import interleaved, main
from fipbench import pruning
from fipbench.fip import distance
from fipbench.fip.sparse import _Walker

SPARSITY, STRENGTH, LENGTH = 0.9, 0.1, 0.01


class Block(nn.Module):
    """Two 3 x 3 convolutions and a way past them."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.past = nn.Identity()
        if stride > 1 or before != after:
            self.past = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        return torch.relu(self.body(x) + self.past(x))


def resnet18():
    """ResNet18 as used on CIFAR (He et al., 2016; a 3 x 3 stem and no pooling): 11.2 million parameters."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def flat(tensors):
    """All values in one array, appended tensor by tensor."""
    values = np.array([], dtype=np.float32)
    for tensor in tensors:
        values = np.append(values, tensor.detach().numpy())
    return values


def numpy_step(weights, gradients):
    """One step of fixed length down distance and attraction, by one long array; prunable weights only."""
    w, g = flat(weights), flat(gradients)
    w_p = w.copy()
    w_p[np.argsort(np.abs(w))[: pruning.zeros_at(SPARSITY, len(w))]] = 0.0
    direction = g + STRENGTH * (w - w_p)
    w = w - LENGTH * direction / np.linalg.norm(direction)
    at = 0
    for weight in weights:
        weight.data = torch.from_numpy(w[at : at + weight.numel()].reshape(weight.shape))
        at += weight.numel()


def measure(rounds):
    model = resnet18()
    batch = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted = torch.randn(8, 10, generator=torch.Generator().manual_seed(2))
    weights = list(pruning.prunable(model).values())
    for parameter in set(model.parameters()) - set(weights):
        parameter.requires_grad_(False)  # the public code ranks and moves these too; left out on both sides
    walker = _Walker(model, "unit", LENGTH)
    start = time.process_time()
    walker.backward(distance.bhattacharyya(model(batch), wanted))
    passes = time.process_time() - start
    twins = [w.detach().clone() for w in weights]
    gradients = [w.grad.clone() for w in weights]

    def ours():
        walker.attract(pruning.magnitude_masks(walker.weights, SPARSITY), "squared", STRENGTH)
        walker.step()

    def theirs():
        numpy_step(twins, gradients)

    ours()
    theirs()
    off = max(float((a.detach() - b).abs().max()) for a, b in zip(weights, twins, strict=True))
    assert off < 1e-6, f"the two steps differ by {off}"
    a, b, ratio = interleaved(ours, theirs, rounds)
    return {
        "FIP, s a step": a,
        "NumPy, s a step": b,
        "ratio": ratio,
        "forward and backward, s": passes,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


if __name__ == "__main__":
    title = "what FIP adds to forward and backward of ResNet18 (11 M weights), against NumPy"
    raise SystemExit(main(title, measure, "FIP, s a step", 0.2, rounds=5))
