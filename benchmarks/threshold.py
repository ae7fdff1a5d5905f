"""The threshold over 86 million weights against a step of ViT-B at batch 32.

The step is forward and backward of 32 images of 224 by 224, in eight parts of 4 whose gradients are summed, as the
option `microbatch` has it: the same arithmetic in less memory, without the optimiser's own work.

python -m benchmarks.threshold [--json]
"""

import time

import torch

from benchmarks.timing import Finding, interleaved, main, spread
from fipbench import pruning, registry
from fipbench.estimate.counts import untrained

PARTS, IMAGES = 8, 4


def measure(rounds):
    """The threshold over 86 million weights as a share of a ViT-B step."""
    model = untrained(registry.read_task("deit-imagenet-sparsity").model)
    weights = pruning.prunable(model)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(IMAGES, 3, 224, 224, generator=generator)
    labels = torch.randint(0, 1000, (IMAGES,), generator=generator)

    def part():
        torch.nn.functional.cross_entropy(model(images), labels).backward()

    def ranked():
        return pruning.magnitude_masks(weights, 0.9)

    assert sum(int(mask.count_nonzero()) for mask in ranked().values()) == sum(
        w.numel() for w in weights.values()
    ) - pruning.zeros_at(0.9, sum(w.numel() for w in weights.values()))
    # A round of the two is one threshold and one part of a step: the step is eight such.
    found = interleaved(ranked, part, rounds)
    shares = [100 * a / (PARTS * b) for a, b in zip(found.ours, found.theirs, strict=True)]
    yield Finding(
        what="the threshold over the weights of ViT-B",
        against="its step at batch 32",
        **spread(shares),
        unit="% of the step",
        most=5,
        details={
            "weights": sum(w.numel() for w in weights.values()),
            "threshold, s": min(found.ours),
            "step of 32 images, s": PARTS * min(found.theirs),
            "by a full sort, s": _sorted_seconds(weights),
        },
    )


def _sorted_seconds(weights):
    """Seconds that sorting all magnitudes takes, once."""
    start = time.process_time()
    torch.cat([w.detach().flatten() for w in weights.values()]).abs_().sort()
    return time.process_time() - start


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=2))
