"""`fit` against Avalanche's own training loop on an MLP: an epoch of the same data in batches of one size.

Avalanche's plain strategy (`Naive`) as a user calls it, its own data loader included, without an evaluator. The order
of the examples is each one's own. Images stand in memory as bytes on both sides and become floats when asked for; the
details say what it is where Avalanche is handed floats that were made before.

python -m benchmarks.avalanche_loop [--json]
"""

import copy
import warnings

import torch

from benchmarks.timing import Finding, interleaved, main
from fipbench import models
from fipbench.compat import import_torchvision
from fipbench.spec import Model
from fipbench.training import Examples, Meter, fit, stream

LENET = Model(name="mlp", inputs=(1, 28, 28), hidden=(300, 100), outputs=10, mean=0.1307, std=0.3081)
BATCH, STEPS = 128, 100


class Images(torch.utils.data.Dataset):
    """Images as floats, one by one, as torchvision's data sets give them, but without decoding them."""

    def __init__(self, data, made_before=False):
        self.images, self.targets = data.inputs.float().div_(255) if made_before else data.inputs, data.labels.tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        image = self.images[index]
        return image if image.is_floating_point() else image.float().div_(255), self.targets[index]


def measure(rounds):
    """`fit` against Avalanche's own loop."""
    import_torchvision()
    from avalanche.benchmarks import nc_benchmark
    from avalanche.training import Naive

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH * STEPS, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = Examples(images, torch.randint(0, 10, (len(images),), generator=generator))
    start = models.build(LENET, 0)
    tasks = []
    for made_before in (False, True):
        images = Images(data, made_before)
        tasks += nc_benchmark(images, images, 1, False, shuffle=False).train_stream
    done = []

    def ours():
        meter = Meter(limit=10**12)
        meter.tick = lambda share: None
        model = meter.attach(copy.deepcopy(start))
        rule = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        fit(model, stream(data, BATCH, torch.Generator().manual_seed(1)), steps=STEPS, optimizer=rule)
        done.append(meter.forward // BATCH)

    def theirs(task=tasks[0]):
        model = copy.deepcopy(start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strategy = Naive(
                model=model,
                optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
                criterion=torch.nn.CrossEntropyLoss(),
                train_mb_size=BATCH,
                train_epochs=1,
                evaluator=None,
            )
        strategy.train(task)
        done.append(strategy.clock.train_iterations)

    found = interleaved(ours, theirs, rounds)
    floats = interleaved(ours, lambda: theirs(tasks[1]), rounds)
    assert set(done) == {STEPS}, done
    yield Finding(
        what="`fit` with the meter, LeNet-300-100, batches of 128",
        against="Avalanche's own loop",
        **found.times_as_fast(),
        least=1.8,
        details={
            "fit, s a step": min(found.ours) / STEPS,
            "Avalanche, s a step": min(found.theirs) / STEPS,
            "times as fast where it is handed floats": floats.times_as_fast()["value"],
        },
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=7))
