"""What FIP-Sparse adds to forward and backward, on a network of 11 million weights, against the public code's way.

The alternative restates how the authors' public code goes about it: weights and gradients appended to one long
array tensor by tensor, the threshold from a full sort, the step taken on that array and written back.

python -m benchmarks.sparse_step [--json]
"""

import numpy as np
import torch

from benchmarks.timing import Finding, interleaved, main
from fipbench import models, pruning, registry
from fipbench.fip import distance
from fipbench.fip.sparse import _Walker

SPARSITY, STRENGTH, LENGTH = 0.9, 0.1, 0.01


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
    """FIP-Sparse's own part of a step, against the public code's way."""
    model = models.build(registry.read_task("splitcifar100-20x5-resnet18").model, 0)
    batch = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted = torch.randn(8, 100, generator=torch.Generator().manual_seed(2))
    weights = list(pruning.prunable(model).values())
    for parameter in set(model.parameters()) - set(weights):
        parameter.requires_grad_(False)  # the public code ranks and moves these too; left out on both sides
    walker = _Walker(model, "unit", LENGTH)
    walker.backward(distance.bhattacharyya(model(batch), wanted))
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
    # NumPy sums the norm of 11 million numbers in single precision.
    assert off < 0.01 * LENGTH, f"the two steps, of length {LENGTH}, differ by {off}"
    found = interleaved(ours, theirs, rounds)
    passes = interleaved(lambda: walker.backward(distance.bhattacharyya(model(batch), wanted)), lambda: None, 2)
    yield Finding(
        what="FIP-Sparse's part of a step on ResNet18",
        against="the public code's way in NumPy",
        **found.times_as_fast(),
        least=10,
        details={
            "prunable weights": sum(w.numel() for w in weights),
            "FIP, s a step": min(found.ours),
            "NumPy, s a step": min(found.theirs),
            "forward and backward of 8 images, s": min(passes.ours),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=3))
