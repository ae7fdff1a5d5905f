"""LoRA: the network that is scored against W + scale * B A by hand, and what may move at all."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from streams import Bench, Watched, load, weights_of
from torch import nn

from fipbench.errors import UserError

MLP = '{ name = "mlp", inputs = [1, 8, 8], hidden = [24, 18], outputs = 10, mean = 0.305, std = 0.376 }'
CNN = '{ name = "cnn", inputs = [1, 8, 8], channels = [5, 7], hidden = [12], outputs = 10, mean = 0.305, std = 0.376 }'
LORA = {"learning_rate": 0.01, "rank": 2, "scale": 3.0}


@pytest.fixture(scope="module")
def mlp(tmp_path_factory, cache_dir):
    """Layers 2 and 4, and the output's 6."""
    return Bench(tmp_path_factory.mktemp("mlp"), cache_dir, model=MLP)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory, cache_dir):
    """Convolutions 1 and 4, a dense layer 8, and the output's 10."""
    return Bench(tmp_path_factory.mktemp("cnn"), cache_dir, model=CNN)


class Adapters(Watched):
    """A learner under observation that keeps the model as the adapters leave it after each task, too."""

    def __init__(self, learn):
        super().__init__(learn)
        self.models = []

    def __call__(self, model, experience, trial):
        returned = super().__call__(model, experience, trial)
        self.models.append(copy.deepcopy(model))
        return returned


def run(bench, **params):
    torch.manual_seed(0)  # the worker's: peft draws from everybody's generator
    watched = Adapters(load("lora", **{**LORA, **params}))
    return bench.run(watched, method="lora"), watched


def own(model):
    return {name: value.detach().double().numpy() for name, value in model.named_parameters()}


def update(a, b, scale):
    """scale * B A: a product of matrices; of kernels, A's convolution followed by B's of one pixel."""
    if a.ndim == 2:
        return scale * b @ a
    return scale * np.einsum("or,rikl->oikl", b[:, :, 0, 0], a)


def change(watched, task, layer):
    """What became of a layer's weights since the first task, as a matrix."""
    w = watched.ends[task][f"{layer}.weight"] - watched.ends[0][f"{layer}.weight"]
    return w.reshape(len(w), -1)


def rank(matrix):
    return int(np.linalg.matrix_rank(matrix, tol=1e-5))


@pytest.mark.parametrize(("which", "layers", "head"), [("mlp", ("2", "4"), "6"), ("cnn", ("1", "4", "8"), "10")])
def test_the_network_is_the_first_ones_weights_and_the_adapters_product(which, layers, head, request):
    _, watched = run(request.getfixturevalue(which))
    first = watched.ends[0]
    for task in (1, 2):
        held = own(watched.models[task])
        for layer in layers:
            a, b = (held[f"{layer}.lora_{m}.default.weight"] for m in "AB")
            wanted = first[f"{layer}.weight"] + update(a, b, 3.0)
            assert watched.ends[task][f"{layer}.weight"] == pytest.approx(wanted, rel=1e-4, abs=1e-5), layer
            assert np.abs(update(a, b, 3.0)).max() > 1e-3
        for kind in ("weight", "bias"):
            assert np.array_equal(watched.ends[task][f"{head}.{kind}"], held[f"{head}.{kind}"])


@pytest.mark.parametrize(("which", "layers", "head"), [("mlp", ("2", "4"), "6"), ("cnn", ("1", "4", "8"), "10")])
def test_only_the_adapters_and_the_output_layer_train(which, layers, head, request):
    bench, trained = request.getfixturevalue(which), {}
    torch.manual_seed(0)
    lora = load("lora", **LORA)

    def learn(model, experience, trial):
        before = own(model)
        returned = lora(model, experience, trial)
        trained[experience.number] = {n for n, p in model.named_parameters() if p.requires_grad}
        after = own(model)
        moved[experience.number] = {n for n in before.keys() & after.keys() if not np.array_equal(before[n], after[n])}
        return returned

    moved = {}
    learn.network = lora.network
    bench.run(learn, method="lora")
    adapters = {f"{layer}.lora_{m}.default.weight" for layer in layers for m in "AB"}
    heads = {f"{head}.weight", f"{head}.bias"}
    assert trained[1] == trained[2] == adapters | heads
    assert moved[0] == set() and moved[1] == heads and moved[2] == adapters | heads


def test_biases_of_adapted_layers_are_the_first_tasks(mlp):
    _, watched = run(mlp)
    for task in (1, 2):
        for name in ("2.bias", "4.bias"):
            assert np.array_equal(watched.ends[task][name], watched.ends[0][name])
        assert not np.array_equal(watched.ends[task]["6.bias"], watched.ends[0]["6.bias"])


@pytest.mark.parametrize("r", [1, 3])
def test_one_adapter_for_all_later_tasks_is_of_its_rank(r, mlp):
    _, watched = run(mlp, rank=r)
    for layer in ("2", "4"):
        assert [rank(change(watched, task, layer)) for task in (1, 2)] == [r, r]


def test_merging_gives_every_task_its_own_adapter(mlp):
    _, watched = run(mlp, rank=2, merge=True)
    for layer in ("2", "4"):
        assert [rank(change(watched, task, layer)) for task in (1, 2)] == [2, 4]
        step = change(watched, 2, layer) - change(watched, 1, layer)
        assert rank(step) == 2


def test_merging_goes_on_with_plain_weights(mlp):
    _, watched = run(mlp, merge=True)
    plain = {name: value.shape for name, value in watched.ends[0].items()}
    for task in (1, 2):
        held = own(watched.models[task])
        assert {name: value.shape for name, value in held.items()} == plain
        assert all(np.array_equal(held[name], watched.ends[task][name]) for name in plain)
        assert all(p.requires_grad for p in watched.models[task].parameters())
    # The third task begins where the second ended.
    assert all(np.array_equal(watched.starts[2][name], watched.ends[1][name]) for name in plain)


def test_without_merging_the_adapter_stays(mlp):
    _, watched = run(mlp)
    assert [name for name in own(watched.models[1]) if "lora" in name]
    assert watched.starts[2].keys() != watched.starts[1].keys()


def test_an_adapter_begins_by_changing_nothing(mlp):
    """B is zero at first (Hu et al., 2022, section 4.1): the course begins with the network before."""
    for merge in (False, True):
        outcome, _ = run(mlp, merge=merge)
        assert outcome.curves["course/class/2"]["task1"][0] > 0.9
        path, moved = (outcome.curves[name]["value"] for name in ("path", "weights"))
        assert path[0] >= moved[0] > 0


def test_the_scale_is_that_of_the_update(mlp):
    """Half the scale and one step: B is zero, so the update is the scale squared times what it would be."""
    moved = {}
    for scale in (1.0, 2.0):
        torch.manual_seed(0)
        lora = load("lora", learning_rate=0.01, rank=2, scale=scale)

        def learn(model, experience, trial, lora=lora, scale=scale):
            before = weights_of(model)
            if experience.number == 1:
                after = weights_of(lora(model, replace(experience, steps=1), trial))
                moved[scale] = after["2.weight"] - before["2.weight"]
            return lora.network(model)

        learn.network = lora.network
        mlp.run(learn, method="lora")
    assert moved[2.0] == pytest.approx(4 * moved[1.0], rel=1e-2, abs=1e-6)
    assert np.abs(moved[1.0]).max() > 1e-4


def test_layers_are_chosen_by_name(mlp, cnn):
    for bench, layers, rest in ((mlp, "4", ["2"]), (cnn, "1, 8", ["4"])):
        _, watched = run(bench, layers=layers)
        for name in layers.split(", "):
            assert np.abs(change(watched, 2, name)).max() > 0
        for name in rest:
            assert np.abs(change(watched, 2, name)).max() == 0


@pytest.mark.parametrize("layers", ["2, attention", "attention", "query,value", "0"])
def test_a_layer_that_is_not_there_says_which_are(layers, mlp):
    wrong = next(name.strip() for name in layers.split(",") if name.strip() != "2")
    with pytest.raises(UserError, match=rf"^lora\.layers: no layer '{wrong}'; there are 2, 4, 6$"):
        run(mlp, layers=layers)


def test_in_a_record_it_says_so_too(mlp):
    record = mlp.record(mlp.job("lora", layers="attention"))
    assert (record.status, record.error.type) == ("failed", "UserError")
    assert record.error.message == "lora.layers: no layer 'attention'; there are 2, 4, 6"


def test_layers_of_a_transformer_are_chosen_by_the_last_part_of_their_names():
    """As papers name them: the query and the value of every layer, and nothing whose name merely ends alike."""
    from peft.tuners.lora import LoraLayer

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value, self.subvalue = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            return self.subvalue(self.value(self.key(self.query(x))))

    model = nn.Sequential(Block(), Block(), nn.Linear(4, 2))
    load("lora", layers="query, value")._adapt(model)
    adapted = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert adapted == {"0.query", "0.value", "1.query", "1.value"}
