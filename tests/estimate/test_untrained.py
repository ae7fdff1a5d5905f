"""Estimates for pretrained networks whose files are not at hand, and for networks that are computed in parts."""

from __future__ import annotations

import json

import msgspec
import pytest
import torch
from torch import nn

from fipbench import plan, registry, stock
from fipbench.estimate import total
from fipbench.estimate.calibrate import Calibration, Question, answer, calibrate
from fipbench.estimate.counts import count, untrained
from fipbench.estimate.rehearsal import rehearse, smaller
from fipbench.spec import Model

BERT, MINILM = "google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"
TINY = {
    "model_type": "bert",
    "vocab_size": 120,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}
VIT = Model(name="vit", inputs=(3, 32, 32), outputs=5, pixels=224, patch=16, width=768, depth=12, heads=12, mean=0.5)
CLIP = Model(name="clip", inputs=(3, 32, 32), outputs=5, tower="ViT-H-14", weights="nobody/tower")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No mirror, nothing downloaded before, and no hub."""
    import huggingface_hub

    monkeypatch.delenv("FIPBENCH_MODELS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)


def text(weights, **fields):
    return Model(**{"name": "transformer", "weights": weights, "inputs": (12,), "outputs": 2, **fields})


def on_paper(vocabulary, width, layers, inner, positions=512, types=2):
    """Parameters of a BERT with its pooler (Devlin et al., 2019)."""
    layer = 4 * (width + 1) * width + (width + 1) * inner + (inner + 1) * width + 4 * width
    return (vocabulary + positions + types + 2) * width + layers * layer + (width + 1) * width


@pytest.mark.parametrize(
    ("weights", "sizes", "published"),
    [(BERT, (30522, 768, 12, 3072), 109_482_240), (MINILM, (30522, 384, 6, 1536), 22_713_216)],
)
def test_named_networks_have_their_published_sizes(weights, sizes, published):
    """As the hub counts the tensors of the files; the classification layer is ours."""
    assert on_paper(*sizes) == published
    assert count(text(weights)).parameters == published + 2 * (sizes[1] + 1)


def test_every_text_network_of_a_task_is_described():
    models = [registry.read_task(name).model for name in registry.task_files()]
    named = {model.weights for model in models if model.name == "transformer"}
    assert named == {BERT, MINILM} and all(stock.sizes_of(weights) for weights in named)


def test_an_estimate_needs_no_file(call, monkeypatch):
    said = call("estimate", "bert-rte-sparsity", "--seeds", 1, "--methods", "gradual", "--no-calibrate")
    assert said.code == 0 and "109 M parameters" in said.out, said


def test_the_files_at_hand_are_believed_first(tmp_path, monkeypatch):
    folder = tmp_path / BERT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**TINY, "type_vocab_size": 2}))
    monkeypatch.setenv("FIPBENCH_MODELS", str(tmp_path))
    assert count(text(BERT)).parameters == on_paper(120, 8, 1, 16, positions=12) + 2 * 9


def test_a_network_that_nobody_describes_is_asked_of_the_hub(call, tiny):
    file = tiny(model='{ name = "transformer", weights = "nobody/known", inputs = [8], outputs = 2 }')
    assert "nobody/known: its weights cannot be had" in call("estimate", file, "--no-calibrate").error


def test_random_weights_are_timed(monkeypatch):
    """The network that is timed is the task's architecture, ready to learn, without dropout."""
    monkeypatch.setattr(stock, "sizes_of", lambda weights: TINY)
    network = untrained(text("nobody/known", microbatch=2)).train()
    ids = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0]])
    assert network(ids).shape == (3, 2) and torch.equal(network(ids), network(ids))
    lone = network(ids[1:2, :1])
    torch.testing.assert_close(network(ids)[1:2], lone)
    task = msgspec.structs.replace(registry.read_task("bert-rte-sparsity"), model=text("nobody/known"))
    question = Question(msgspec.to_builtins(task), (100,), (), 1e6, True, ())
    assert answer(question).step_s > 0 < answer(question).forward_s
    assert answer(msgspec.structs.replace(question, timed=False)).step_s == 0


def test_a_file_in_the_users_folder_stands_in_for_no_library(tiny, tmp_path, monkeypatch):
    """The process that calibrates is started where the user is."""
    (tmp_path / "psutil.py").write_text("raise RuntimeError('not the library')")
    task = registry.read_task(str(tiny()))
    monkeypatch.chdir(tmp_path)
    nothing = Question(msgspec.to_builtins(task), (1200,), (), step_flops=1.0, timed=False, preload=())
    assert calibrate(nothing).resident_bytes > 10**7


@pytest.mark.parametrize(
    ("device", "width", "timed"), [("cpu", 16, True), ("h100-80", 16, False), ("cpu", 400_000, False)]
)
def test_what_would_take_long_or_is_known_is_not_timed(device, width, timed, tiny, cache_dir, monkeypatch):
    """400,000 by 400,000 weights: an example takes about a tera-FLOP. Not all of them are there."""
    asked = []

    def calibrate(question):
        asked.append(question.timed)
        return Calibration(step_s=7.0 * question.timed, forward_s=0.0, resident_bytes=0, spent=(None,))

    monkeypatch.setattr(total, "calibrate", calibrate)
    monkeypatch.setattr(total.fits, "problem", lambda *_: "")
    task = registry.read_task(
        str(tiny(model=f'{{ name = "mlp", inputs = [1, 8, 8], hidden = [{width}, {width}], outputs = 10 }}'))
    )
    found = total.estimate(task, plan.task_rows(task, ["gradual"]), seeds=1, cache=cache_dir, device=device)
    assert asked == [timed] and found.calibrated == timed
    assert (found.base_s == pytest.approx(7.0 * 1184 / 32)) == timed


@pytest.mark.parametrize("spec", [VIT, CLIP], ids=["vit", "clip"])
def test_large_image_networks_are_rehearsed_small(spec):
    few = smaller(spec)
    network = untrained(few)
    assert sum(p.numel() for p in network.parameters()) < 10_000
    assert network(torch.rand(3, *spec.inputs)).shape == (3, spec.outputs)


@pytest.mark.parametrize("name", ["splitcifar100-5x10-vitb", "splitcifar100-2x10-vith"])
def test_methods_are_rehearsed_on_them(name):
    """Fine-tuning of two tasks of 1,024 images; the first is the base network's."""
    task = registry.read_task(name)
    task = msgspec.structs.replace(task, stream=msgspec.structs.replace(task.stream, classes=task.stream.classes[:2]))
    (row,) = plan.task_rows(task, ["naive"])
    factory = registry.load_factory(row.method.target)
    spent = rehearse(task, lambda: factory(**row.params), 0, "method", (1024,) * 2, smaller(task.model), float("inf"))
    due = task.budget.epochs * (1024 // task.budget.batch_size * task.budget.batch_size)
    assert (spent.forward, spent.backward) == (due, due)


def test_in_parts_the_forward_pass_is_paid_twice_and_memory_is_a_parts(tiny, cache_dir):
    fields = 'name = "mlp", inputs = [1, 8, 8], hidden = [256, 256], outputs = 10'
    whole, thrifty = (
        registry.read_task(str(tiny(name, model=f"{{ {fields}{more} }}")))
        for name, more in (("whole", ""), ("parts", ", microbatch = 4"))
    )
    a, b = count(whole.model), count(thrifty.model)
    assert msgspec.structs.replace(b, backward_flops=a.backward_flops) == a
    assert b.backward_flops == a.backward_flops + a.forward_flops
    estimates = [
        total.estimate(task, plan.task_rows(task, ["gradual"]), seeds=1, cache=cache_dir, calibrated=False)
        for task in (whole, thrifty)
    ]
    saved = estimates[0].lines[0].memory_bytes - estimates[1].lines[0].memory_bytes
    # 597 digits are scored at a time (three times the widest layer), or 32 trained on; in parts 4, gradients twice.
    kept, widest = 4 * (64 + 256 + 256), 4 * 256
    assert saved == max(32 * kept, 3 * 597 * widest) - max(4 * kept + 4 * a.parameters, 3 * 4 * widest)
    assert isinstance(untrained(thrifty.model), nn.Sequential)
