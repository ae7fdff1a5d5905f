"""`fit()` with the meter attached against a loop written by hand: the same network, batches and optimiser.

python -m benchmarks.fit_overhead [--json]
"""

import copy

import torch

from benchmarks.timing import interleaved, main
from fipbench import models
from fipbench.spec import Model
from fipbench.training import Examples, Meter, fit, stream

LENET = Model(name="mlp", inputs=(1, 28, 28), hidden=(300, 100), outputs=10, mean=0.1307, std=0.3081)
BATCH, STEPS = 128, 100


def by_hand(model, data, seed):
    """One epoch as anyone would write it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    model.train()
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        loss = torch.nn.functional.cross_entropy(model(data.inputs[rows].float().div_(255)), data.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def by_fit(model, data, seed):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fit(model, stream(data, BATCH, torch.Generator().manual_seed(seed)), steps=STEPS, optimizer=optimizer)


def measure(rounds):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH * STEPS, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = Examples(images, torch.randint(0, 10, (len(images),), generator=generator))
    plain = models.build(LENET, 0)
    meter = Meter(limit=10**12)
    meter.tick = lambda share: None
    metered = meter.attach(copy.deepcopy(plain))
    ours, theirs, ratio = interleaved(lambda: by_fit(metered, data, 1), lambda: by_hand(plain, data, 1), rounds)
    for a, b in zip(metered.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b), "the two loops did not train alike"
    assert meter.forward == meter.backward == (rounds + 1) * len(images)
    return {"ratio": ratio, "fit, s a step": ours / STEPS, "by hand, s a step": theirs / STEPS}


if __name__ == "__main__":
    title = "fit() with the meter against a loop by hand, MLP 784-300-100-10, batches of 128"
    raise SystemExit(main(title, measure, "ratio", 1.10, rounds=21))
