"""`fit()` with the meter attached against a loop written by hand: the same network, batches and optimiser.

python -m benchmarks.harness [--json]
"""

import copy
from functools import partial

import torch

from benchmarks.timing import Finding, interleaved, main
from fipbench import models, registry
from fipbench.spec import Model
from fipbench.training import Examples, Meter, fit, stream

LENET = Model(name="mlp", inputs=(1, 28, 28), hidden=(300, 100), outputs=10, mean=0.1307, std=0.3081)
# Name, task whose network it is, images a step, steps, the target, and how many times the rounds.
CASES = (
    ("ResNet-20, batches of 64", "resnet20-cifar10-sparsity", 64, 3, 1.05, 1),
    ("ResNet18, batches of 16", "splitcifar100-20x5-resnet18", 16, 2, 1.05, 1),
    ("LeNet-300-100, batches of 128", "", 128, 100, 1.10, 3),
)


def by_hand(model, data, size):
    """One epoch as anyone would write it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(1))
    model.train()
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        loss = torch.nn.functional.cross_entropy(model(data.inputs[rows].float().div_(255)), data.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def by_fit(model, data, size):
    """One epoch through the suite's loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = stream(data, size, torch.Generator().manual_seed(1))
    fit(model, batches, steps=len(data.labels) // size, optimizer=optimizer)


def measure(rounds):
    """The harness against a hand-written training loop."""
    for name, task, size, steps, most, times in CASES:
        network = registry.read_task(task).model if task else LENET
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (size * steps, *network.inputs), generator=generator, dtype=torch.uint8)
        data = Examples(images, torch.randint(0, network.outputs, (len(images),), generator=generator))
        plain = models.build(network, 0)
        meter = Meter(limit=10**12)
        meter.tick = lambda share: None
        metered = meter.attach(copy.deepcopy(plain))
        some = rounds * times
        found = interleaved(partial(by_fit, metered, data, size), partial(by_hand, plain, data, size), some)
        for a, b in zip(metered.parameters(), plain.parameters(), strict=True):
            assert torch.equal(a, b), "the two loops did not train alike"
        assert meter.forward == meter.backward == (some + 1) * len(images)
        yield Finding(
            what=f"`fit` with the meter, {name}",
            against="a training loop written by hand",
            **found.ratio(),
            most=most,
            details={"fit, s a step": min(found.ours) / steps, "by hand, s a step": min(found.theirs) / steps},
        )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=5))
