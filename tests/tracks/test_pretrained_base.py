"""A base network of no epochs: the pretrained one as it is, its head included, or nothing."""

from __future__ import annotations

import pytest
import torch
from workbench import write_tiny

from fipbench import models, plan, registry, worker
from fipbench.compat import import_torchvision
from fipbench.errors import UserError
from fipbench.spec import Ticket

TINY = "inputs = [1, 8, 8], pixels = 8, patch = 4, width = 12, depth = 1, heads = 2"
WEIGHTS = "someone/tiny-vit"
BASE = "{ epochs = 0, batch_size = 32, learning_rate = 0.01, snapshots = [0] }"


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A small ViT that knows ten classes, in a mirror of models."""
    import_torchvision()
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(7)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        num_channels=1,
    )
    config.num_labels = 10
    network = ViTForImageClassification(config)
    network.save_pretrained(tmp_path / "models" / WEIGHTS)
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path / "models"))
    return network


def pretrained(folder, outputs=10, **fields):
    model = f'{{ name = "vit", {TINY}, outputs = {outputs}, weights = "{WEIGHTS}" }}'
    return write_tiny(folder, "pretrained", **{"model": model, "base": BASE, **fields})


def run(file, cache, label):
    task = registry.read_task(str(file))
    variant, digests = plan.contents(task, cache)
    (row,) = plan.task_rows(task, [label])
    job = plan.make_job(task, row, 0, "quick", "cpu", variant, digests)
    import msgspec

    ticket = Ticket(
        job=job,
        task=msgspec.to_builtins(task),
        target=row.method.target,
        results=str(cache / "results"),
        cache=str(cache),
        provenance={},
    )
    return worker.run(ticket, lambda event: None)


def test_the_dense_network_is_the_file_and_costs_nothing(theirs, tmp_path):
    from fipbench.data import load
    from fipbench.training import predict

    file = pretrained(tmp_path)
    record = run(file, tmp_path / "cache", "dense")
    assert record.status == "ok", record.error
    task = registry.read_task(str(file))
    test = load(task.data, "test", tmp_path / "cache", record.job.data["test"])
    network = models.build(task.model, 3)
    for name, value in theirs.state_dict().items():
        assert torch.equal(network.network.state_dict()[name], value), name
    with torch.no_grad():
        logits = theirs.eval()(test.inputs.float() / 255).logits
    assert torch.equal(predict(network, test).argmax(1), logits.argmax(1))
    assert record.metrics["dense_accuracy"] == pytest.approx(float((logits.argmax(1) == test.labels).double().mean()))
    assert record.cost.backward_examples == 0 and record.metrics["weights_walked"] == 0


@pytest.mark.parametrize("label", ["lth", "magnitude", "fip"])
def test_methods_start_from_it(theirs, tmp_path, label):
    """The lottery ticket rewinds to it, too."""
    record = run(pretrained(tmp_path), tmp_path / "cache", label)
    assert record.status == "ok", record.error
    dense = run(pretrained(tmp_path), tmp_path / "cache", "dense")
    assert record.metrics["dense_accuracy"] == dense.metrics["dense_accuracy"]


def test_a_head_that_would_be_random_is_refused(theirs, tmp_path):
    model = f'{{ name = "vit", {TINY}, outputs = 11, weights = "{WEIGHTS}" }}'
    record = run(pretrained(tmp_path, model=model), tmp_path / "cache", "magnitude")
    assert record.status == "failed"
    assert "field 'base.epochs': 0 keeps the pretrained network as it is" in record.error.message
    assert f"{WEIGHTS} has no network.classifier.weight of this size" in record.error.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": '{ name = "mlp", inputs = [1, 8, 8], hidden = [16], outputs = 10 }'}, "base.epochs"),
        ({"base": BASE.replace("= 0,", "= -1,")}, "base.epochs"),
    ],
)
def test_a_network_that_nobody_trained_is_refused(tmp_path, fields, field):
    with pytest.raises(UserError, match=f"field '{field}'.*>= "):
        registry.read_task(str(pretrained(tmp_path, **fields)))
