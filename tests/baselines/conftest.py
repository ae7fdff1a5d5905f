"""A small trial on the real digits, as the sparsity track would hand it to a method."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fipbench import data, models, registry
from fipbench.spec import Model, Recipe
from fipbench.tracks.sparsity import Trial
from fipbench.training import Examples, Meter, fit, stream

# 64-300-100-10 would do; these divide by ten as it does, and are quicker.
NETWORK = Model(name="mlp", inputs=(1, 8, 8), hidden=(50, 20), outputs=10, mean=0.305, std=0.376)
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """The training split of the handwritten digits."""
    source = registry.read_task("digits-sparsity").data
    cache = tmp_path_factory.mktemp("cache")
    return data.load(source, "train", cache, data.identify(source, cache)[1]["train"])


@pytest.fixture(scope="session")
def trained(digits) -> tuple[nn.Module, dict[int, dict[str, torch.Tensor]]]:
    """A dense network and its weights after no epoch and after one."""
    network = models.build(NETWORK, 7)
    batches = stream(digits, RECIPE.batch_size, torch.Generator().manual_seed(7))
    rule = torch.optim.SGD(network.parameters(), lr=RECIPE.learning_rate, momentum=RECIPE.momentum)
    snapshots = {}
    for epoch in range(RECIPE.epochs):
        snapshots[epoch] = {name: value.clone() for name, value in network.state_dict().items()}
        fit(network, batches, steps=len(digits.labels) // RECIPE.batch_size, optimizer=rule)
    return network, {epoch: snapshots[epoch] for epoch in (0, 1)}


@pytest.fixture
def dense(trained) -> nn.Module:
    """The dense network; a test that changes it fails."""
    network = trained[0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    yield network
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.fixture
def new_trial(digits, trained) -> Callable[..., Trial]:
    """Makes trials that are alike in every batch: `new_trial(steps=60)`."""

    def make(steps: int = 60, seed: int = 3) -> Trial:
        return Trial(
            train=digits,
            batches=stream(digits, RECIPE.batch_size, torch.Generator().manual_seed(seed)),
            batch_size=RECIPE.batch_size,
            snapshots=trained[1],
            recipe=RECIPE,
            generator=torch.Generator().manual_seed(seed + 1),
            meter=Meter(2 * RECIPE.batch_size * steps),
        )

    return make


@pytest.fixture
def method() -> Callable[..., Callable]:
    """A method by its name, with parameters: `method("lth", fraction=0.2)`."""

    def load(name: str, **params):
        target = registry.find_methods("sparsity")[name]
        return registry.load_factory(target)(**params)

    return load


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def spied(monkeypatch):
    """Every call of `trial.fit`: the weights it began with, its masks and settings, and the weights after each step."""
    calls = []
    honest = Trial.fit

    def weights(model):
        return {name: value.detach().clone() for name, value in model.named_parameters()}

    def fit(self, model, *, after_step=None, **settings):
        call = {**settings, "start": weights(model), "path": [], "masks": settings.get("masks"), "model": model}
        calls.append(call)

        def after(step):
            if after_step is not None:
                after_step(step)
            call["path"].append(weights(model))

        honest(self, model, after_step=after, **settings)
        call["end"] = weights(model)
        return model

    monkeypatch.setattr(Trial, "fit", fit)
    return calls
